//! Rights to a bounded counter, asked for from other regions: three regions over real QUIC.

use anabranch_core::aggregate::{Action, Operation, Operations};
use anabranch_core::event::ProducerTag;
use anabranch_core::rights::{self, Counter};
use anabranch_core::{Context, ProducerId, RegionName};
use anabranch_proto::carried::{ask_rights, read_rights_passed};
use anabranch_proto::internal::AskRights;
use anabranch_proto::v1;
use anabranch_proto::v1::aggregates_server::Aggregates;
use anabranch_proto::v1::classes_server::Classes;
use anabranch_proto::v1::refusal::{Reason, RightsShort};
use serde_json::{Value as Json, json};
use tokio::time::{Duration, Instant, sleep};
use tonic::{Code, Request, Response, Status};

use super::carried::{ASIA, EU, NAMES, US, World, region};
use super::cluster::{SHARD, SOON};
use super::{append_of, event, reason};

const REGIONS: [usize; 3] = [ASIA, EU, US];

impl World {
    /// Three regions that know what `stock-…` is.
    async fn with_stock() -> Self {
        Self::with_left("bounded-counter").await
    }

    /// The same, where `left` is of that type.
    async fn with_left(kind: &str) -> Self {
        let world = Self::start().await;
        let fields = json!({ "left": kind });
        let definition = json!({ "category": "stock", "version": 1, "fields": fields });
        let definition = definition.to_string().into();
        let define = Request::new(v1::DefineRequest { definition });
        world.regions[EU].apis[0].define(define).await.unwrap();
        for shard in world.regions.iter().flat_map(|region| &region.shards) {
            let until = Instant::now() + SOON;
            while shard.aggregates().newest("stock", until).await.unwrap().is_none() {
                assert!(Instant::now() < until, "it is known everywhere");
                sleep(Duration::from_millis(20)).await;
            }
        }
        for nth in REGIONS {
            let until = Instant::now() + SOON;
            while !world.is_connected(nth) {
                assert!(Instant::now() < until, "{} sees the others", NAMES[nth]);
                sleep(Duration::from_millis(20)).await;
            }
        }
        world
    }

    async fn change(
        &self,
        nth: usize,
        message: v1::AppendRequest,
    ) -> Result<v1::AppendResponse, Status> {
        let request = Request::new(message);
        self.regions[nth].apis[0].handle_append(request).await.map(Response::into_inner)
    }

    async fn spend(&self, nth: usize, amount: u64) -> Result<v1::AppendResponse, Status> {
        self.change(nth, of(Action::Spend(amount))).await
    }

    /// Earns in a region, and waits until all hold it.
    async fn earn(&self, nth: usize, amount: u64) {
        self.change(nth, of(Action::Earn(amount))).await.unwrap();
        self.all_equal().await;
    }

    async fn all_equal(&self) {
        let frontier = |nth: usize| -> Context {
            self.regions[nth].shards[0].state().region(|region| region.frontier().clone())
        };
        let until = Instant::now() + SOON;
        while frontier(ASIA) != frontier(EU) || frontier(EU) != frontier(US) {
            assert!(Instant::now() < until, "all hold the same");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What each region may take, by its own log.
    fn rights(&self) -> [u128; 3] {
        let counter = Counter { stream: "stock-1".into(), field: "left".into() };
        REGIONS.map(|nth| {
            let cluster = &self.regions[nth];
            let state = cluster.shards[cluster.leader()].state();
            state.region(|region| region.rights().of(&counter))
        })
    }

    /// What a region shows of the counter.
    async fn left(&self, nth: usize) -> Json {
        let get = v1::GetAggregateRequest { stream: "stock-1".into(), ..Default::default() };
        let shown = Aggregates::get(&self.regions[nth].apis[0], Request::new(get))
            .await
            .unwrap()
            .into_inner();
        serde_json::from_slice::<Json>(&shown.value).unwrap()["left"]["value"].clone()
    }
}

fn of(action: Action) -> v1::AppendRequest {
    let operations = vec![Operation { field: "left".into(), key: None, action }];
    let payload = Operations { operations, observed: None }.to_json();
    let kind = rights::EVENT_TYPE.to_owned();
    append_of(vec![v1::NewEvent { r#type: kind, payload: payload.into(), ..event("stock-1") }])
}

fn short(result: Result<v1::AppendResponse, Status>) -> RightsShort {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let Reason::RightsShort(short) = reason(&status) else { panic!("{status:?}") };
    short
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_without_rights_is_given_half_of_what_the_richest_holds_and_asks_no_more_for_a_while()
 {
    let world = World::with_stock().await;
    world.earn(EU, 10).await;
    let first = world.spend(US, 1).await.expect("eu has some");
    assert_eq!(first.first.unwrap().origin.unwrap().region, "us", "it is us that spends");
    assert_eq!(world.rights(), [0, 5, 4]);
    world.all_equal().await;
    let before = world.events(EU);
    for _ in 0..4 {
        world.spend(US, 1).await.unwrap();
    }
    world.all_equal().await;
    assert_eq!(world.events(EU) - before, 4, "eu had nothing to do with these");
    let own = v1::AppendRequest { own_rights_only: true, ..of(Action::Spend(1)) };
    let refused = short(world.change(US, own).await);
    assert_eq!((refused.wanted, refused.held, refused.asked), (1, 0, vec![]));
    world.spend(US, 3).await.expect("what is needed, if that is more");
    assert_eq!(world.rights(), [0, 2, 0]);
    world.all_equal().await;
    for nth in REGIONS {
        assert_eq!(world.left(nth).await, 2, "{}", NAMES[nth]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_regions_are_asked_and_none_if_they_could_not_help() {
    let world = World::with_stock().await;
    world.earn(EU, 3).await;
    world.earn(ASIA, 2).await;
    let events = world.events(US);
    let refused = short(world.spend(US, 6).await);
    assert_eq!((refused.held, refused.asked), (0, vec![]), "there are five in all");
    assert_eq!(world.events(US), events, "nothing moved");
    world.spend(US, 5).await.expect("three of the one, two of the other");
    assert_eq!(world.rights(), [0, 0, 0]);
    world.all_equal().await;
    assert_eq!(world.events(US), events + 3, "two passes and what they were for");
    assert_eq!(short(world.spend(US, 1).await).asked, Vec::<String>::new());
    let to: RegionName = region("asia");
    world.earn(EU, 1).await;
    let passing = of(Action::Pass { amount: 1, to });
    assert!(short(world.change(US, passing).await).asked.is_empty(), "only for spending");
    assert_eq!(world.rights(), [0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_is_refused_soon_and_told_who_did_not_answer() {
    let world = World::with_stock().await;
    world.earn(EU, 10).await;
    world.cut(ASIA, EU);
    world.cut(ASIA, US);
    // The session is there for some seconds still.
    let refused = short(world.spend(ASIA, 1).await);
    assert!(refused.asked.is_empty() || refused.asked == ["eu"], "{refused:?}");
    let until = Instant::now() + SOON;
    while !world.is_alone(ASIA) {
        assert!(Instant::now() < until, "asia is alone");
        sleep(Duration::from_millis(20)).await;
    }
    let refused = short(world.spend(ASIA, 1).await);
    assert_eq!((refused.held, refused.asked), (0, vec![]), "nobody to ask");
    world.spend(US, 1).await.expect("the others see each other");
    world.heal(ASIA, EU);
    world.heal(ASIA, US);
    let until = Instant::now() + SOON;
    while !world.is_connected(ASIA) {
        assert!(Instant::now() < until, "asia is back");
        sleep(Duration::from_millis(20)).await;
    }
    world.spend(ASIA, 1).await.expect("as before");
    world.all_equal().await;
    assert_eq!(world.left(ASIA).await, 8);
    assert_eq!(world.rights().iter().sum::<u128>(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_everywhere_at_once_is_what_there_was_and_each_request_once() {
    const THERE_ARE: u64 = 30;
    let world = World::with_stock().await;
    world.earn(EU, THERE_ARE).await;
    let spend_some = async |nth: usize| {
        let mut spent = 0;
        for sequence in 1..=15 {
            let id = ProducerId([nth as u8 + 1; 16]);
            let tag = ProducerTag { id, epoch: 1, sequence };
            let spend = v1::AppendRequest { producer: Some(tag.into()), ..of(Action::Spend(1)) };
            // As a client does that was impatient.
            let (one, other) =
                tokio::join!(world.change(nth, spend.clone()), world.change(nth, spend));
            match (one, other) {
                (Ok(one), Ok(other)) => assert_eq!(one.first, other.first, "one event"),
                (Err(one), Err(_)) => {
                    short(Err(one));
                    continue;
                }
                (Ok(_), Err(other)) | (Err(other), Ok(_)) => drop(short(Err(other))),
            }
            spent += 1;
        }
        spent
    };
    let (asia, eu, us) = tokio::join!(spend_some(ASIA), spend_some(EU), spend_some(US));
    world.all_equal().await;
    let spent = asia + eu + us;
    assert!(spent <= THERE_ARE && asia > 0 && us > 0, "{asia}, {eu}, {us}");
    for nth in REGIONS {
        assert_eq!(world.left(nth).await, THERE_ARE - spent, "{}", NAMES[nth]);
    }
    assert_eq!(world.rights().iter().sum::<u128>(), u128::from(THERE_ARE - spent));
    // Whatever is left can be had anywhere.
    for _ in spent..THERE_ARE {
        world.spend(ASIA, 1).await.expect("somebody has it");
        world.all_equal().await;
    }
    assert!(short(world.spend(ASIA, 1).await).asked.is_empty());
    assert_eq!(world.rights(), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_or_gives_where_the_definition_says_own_rights() {
    let world = World::with_left("bounded-counter, own-rights").await;
    world.earn(EU, 10).await;
    let events = world.events(EU);
    let refused = short(world.spend(US, 1).await);
    assert_eq!((refused.wanted, refused.held, refused.asked), (1, 0, vec![]));
    // As a region does that does not know it yet.
    let wanted = AskRights { stream: "stock-1".into(), field: "left".into(), wanted: 1 };
    let gossip = world.regions[US].gossip[0].borrow().clone().unwrap();
    let answer = gossip.ask(&region("eu"), SHARD, ask_rights(wanted), SOON).await;
    assert_eq!(read_rights_passed(answer.unwrap()).unwrap().unwrap().amount, 0);
    assert_eq!((world.events(EU), world.rights()), (events, [0, 10, 0]));
    let to = region("us");
    world.change(EU, of(Action::Pass { amount: 3, to })).await.expect("by hand");
    world.all_equal().await;
    world.spend(US, 3).await.expect("its own");
    assert_eq!(world.rights(), [0, 7, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stream_with_a_home_nobody_asks_for_what_cannot_be_passed() {
    let world = World::with_stock().await;
    world.earn(ASIA, 5).await;
    let (category, home) = ("stock".to_owned(), "us".to_owned());
    let declare = Request::new(v1::DeclareHomeRequest { category, home });
    world.regions[EU].apis[0].declare(declare).await.unwrap();
    world.all_equal().await;
    let events = world.events(US);
    for nth in REGIONS {
        // Carried to us, wherever it is asked for.
        let refused = short(world.spend(nth, 1).await);
        assert_eq!((refused.held, refused.asked), (0, vec![]), "{}", NAMES[nth]);
    }
    let wanted = AskRights { stream: "stock-1".into(), field: "left".into(), wanted: 1 };
    let gossip = world.regions[EU].gossip[0].borrow().clone().unwrap();
    let answer = gossip.ask(&region("asia"), SHARD, ask_rights(wanted.clone()), SOON).await;
    let passed = read_rights_passed(answer.unwrap()).unwrap().unwrap();
    assert_eq!(passed.amount, 0);
    let nothing = ask_rights(AskRights { wanted: 0, ..wanted });
    let answer = gossip.ask(&region("asia"), SHARD, nothing, SOON).await;
    let refused = read_rights_passed(answer.unwrap()).unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!((world.events(US), world.rights()), (events, [5, 0, 0]));
}
