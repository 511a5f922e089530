//! Homes, declared and handed over in three regions that see each other over real QUIC.

use anabranch_core::{RegionName, SessionToken};
use anabranch_proto::v1;
use anabranch_proto::v1::classes_server::Classes;
use anabranch_proto::v1::expectation::{Expected, NoStream};
use anabranch_proto::v1::hand_over_request::What;
use anabranch_proto::v1::refusal::Reason;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::carried::{ASIA, EU, NAMES, US, World};
use super::cluster::{Cluster, SOON};
use super::{append_of, event, reason};
use crate::api::Api;
use crate::api::forward::passed_on;

impl World {
    fn class_api(&self, nth: usize) -> &Api {
        &self.regions[nth].apis[0]
    }

    async fn declare_home(
        &self,
        nth: usize,
        category: &str,
        home: &str,
    ) -> Result<v1::ChangeHomeResponse, Status> {
        let (category, home) = (category.to_owned(), home.to_owned());
        let request = Request::new(v1::DeclareHomeRequest { category, home });
        self.class_api(nth).declare(request).await.map(Response::into_inner)
    }

    async fn hand_to(
        &self,
        nth: usize,
        what: What,
        to: &str,
        epoch: u32,
    ) -> Result<v1::ChangeHomeResponse, Status> {
        let request = v1::HandOverRequest { what: Some(what), to: to.to_owned(), epoch };
        self.class_api(nth).hand_over(Request::new(request)).await.map(Response::into_inner)
    }

    async fn end_home(
        &self,
        nth: usize,
        category: &str,
        epoch: u32,
    ) -> Result<v1::ChangeHomeResponse, Status> {
        let request = v1::EndHomeRequest { category: category.to_owned(), epoch };
        self.class_api(nth).end(Request::new(request)).await.map(Response::into_inner)
    }

    /// The region that an append to the stream was written in, which is the first one or follows another.
    async fn written_in(
        &self,
        nth: usize,
        stream: &str,
        after: Option<u64>,
    ) -> Result<String, Status> {
        let expected = match after {
            Some(revision) => Expected::Revision(revision),
            None => Expected::NoStream(NoStream {}),
        };
        let expected = Some(expected);
        let message = v1::AppendRequest {
            expectations: vec![v1::Expectation { stream: stream.to_owned(), expected }],
            ..append_of(vec![event(stream)])
        };
        let appended = self.class_api(nth).handle_append(Request::new(message)).await?;
        Ok(appended.into_inner().first.unwrap().origin.unwrap().region)
    }

    async fn class(&self, api: &Api, request: v1::GetClassRequest) -> v1::GetClassResponse {
        api.get(Request::new(request)).await.unwrap().into_inner()
    }

    /// Asks every node until one page after another names nobody that is awaited.
    async fn all_confirm(&self, request: &v1::GetClassRequest) {
        self.all_answer(request, |got| {
            got.class.as_ref().expect("it is homed").waits_for.is_empty()
        })
        .await;
    }

    /// Asks every node until none is behind: to each of them the home has ended.
    async fn all_see_the_end(&self, request: &v1::GetClassRequest) {
        self.all_answer(request, |got| got.class.is_none()).await;
    }

    async fn all_answer(
        &self,
        request: &v1::GetClassRequest,
        as_wanted: impl Fn(&v1::GetClassResponse) -> bool,
    ) {
        let until = Instant::now() + SOON;
        for api in self.regions.iter().flat_map(|region| &region.apis) {
            loop {
                let got = self.class(api, request.clone()).await;
                if as_wanted(&got) && got.behind.is_empty() {
                    break;
                }
                assert!(Instant::now() < until, "{got:?}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

fn about(category: &str, session_token: &bytes::Bytes) -> v1::GetClassRequest {
    let (category, session_token) = (category.to_owned(), session_token.clone());
    v1::GetClassRequest { category, session_token, deadline_ms: 30_000, ..Default::default() }
}

fn home(region: &str, epoch: u32) -> Option<v1::Home> {
    Some(v1::Home { region: region.to_owned(), epoch })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_confirmed_a_home_is_named_by_every_node_and_the_rest_is_confirmed_soon() {
    let world = World::start().await;
    world.cut(ASIA, EU);
    world.cut(ASIA, US);
    let declared = world.declare_home(EU, "bed", "eu").await.unwrap();
    assert_eq!((declared.home, declared.repeated), (home("eu", 1), false));
    let token = declared.session_token;
    let until = Instant::now() + SOON;
    // The home, and both nodes of us: the one that hears, and the one that has to ask it.
    for nth in [EU, US] {
        for api in &world.regions[nth].apis {
            loop {
                let got = world.class(api, about("bed", &token)).await;
                let class = got.class.unwrap();
                assert_eq!(class.home, home("eu", 1));
                assert!(got.behind.contains(&"asia".to_owned()), "{:?}", got.behind);
                if class.waits_for == ["asia"] {
                    break;
                }
                assert!(class.waits_for.contains(&"asia".to_owned()), "{:?}", class.waits_for);
                assert!(Instant::now() < until, "{} waits for others", NAMES[nth]);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
    world.heal(ASIA, EU);
    world.heal(ASIA, US);
    world.all_confirm(&about("bed", &token)).await;

    let again = world.declare_home(ASIA, "bed", "eu").await.unwrap();
    assert!(again.repeated && again.dot.is_none(), "{again:?}");
    let taken = world.declare_home(ASIA, "bed", "us").await.unwrap_err();
    assert_eq!(taken.code(), Code::FailedPrecondition, "{taken:?}");
    assert!(taken.message().contains("eu"), "{taken:?}");
    let chair = world.class(world.class_api(EU), about("chair", &bytes::Bytes::new())).await;
    assert_eq!(chair.class, None, "every region writes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_ends_wherever_it_is_asked_for_and_then_every_region_writes_by_itself() {
    let world = World::start().await;
    let declared = world.declare_home(US, "bed", "us").await.unwrap();
    world.all_confirm(&about("bed", &declared.session_token)).await;
    assert_eq!(world.written_in(EU, "bed-1", None).await.unwrap(), "us");
    let alone = What::Stream("bed-2".into());
    world.hand_to(US, alone.clone(), "asia", 0).await.unwrap();
    let apart = world.end_home(US, "bed", 0).await.unwrap_err();
    assert_eq!(apart.code(), Code::FailedPrecondition, "{apart:?}");
    assert!(apart.message().contains("bed-2 has a home of its own, asia"), "{apart:?}");
    let back = world.hand_to(US, alone, "us", 0).await.unwrap();
    world.all_confirm(&about("bed", &back.session_token)).await;
    let wrong = world.end_home(EU, "bed", 2).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition, "{wrong:?}");
    let never = world.end_home(EU, "chair", 0).await.unwrap_err();
    assert_eq!(never.code(), Code::FailedPrecondition, "{never:?}");

    let ended = world.end_home(EU, "bed", 4).await.unwrap();
    assert_eq!((ended.home, ended.repeated), (None, false));
    assert_eq!(ended.dot.unwrap().origin.unwrap().region, "us", "the home does it");
    world.all_see_the_end(&about("bed", &ended.session_token)).await;
    for nth in [ASIA, EU, US] {
        let got = world.class(world.class_api(nth), about("bed", &ended.session_token)).await;
        assert_eq!((got.class, got.streams), (None, vec![]), "{}", NAMES[nth]);
        let again = world.end_home(nth, "bed", 0).await.unwrap();
        assert!(again.repeated && again.dot.is_none(), "{again:?}");
        world.cut(nth, (nth + 1) % 3);
    }
    // Each by what it holds, while they do not see each other.
    for nth in [ASIA, EU] {
        assert_eq!(world.written_in(nth, "bed-1", Some(0)).await.unwrap(), NAMES[nth]);
        assert_eq!(world.written_in(nth, "bed-2", None).await.unwrap(), NAMES[nth]);
    }
    for nth in [ASIA, EU, US] {
        world.heal(nth, (nth + 1) % 3);
    }
    let anew = world.declare_home(ASIA, "bed", "eu").await.unwrap();
    assert_eq!((anew.home, anew.repeated), (home("eu", 5), false));
    world.all_confirm(&about("bed", &anew.session_token)).await;
    assert_eq!(world.written_in(US, "bed-1", Some(2)).await.unwrap(), "eu");
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_are_handed_over_wherever_it_is_asked_for_and_listed_page_by_page() {
    let world = World::start().await;
    for category in ["bed", "chair", "bench"] {
        let declared = world.declare_home(US, category, "us").await.unwrap();
        world.all_confirm(&about(category, &declared.session_token)).await;
    }
    let stream = |name: &str| What::Stream(name.to_owned());
    let mut token = bytes::Bytes::new();
    for name in ["bed-1", "bed-2", "bed-3"] {
        let handed = world.hand_to(EU, stream(name), "asia", 0).await.unwrap();
        assert_eq!((handed.home, handed.repeated), (home("asia", 2), false));
        let region = handed.dot.unwrap().origin.unwrap().region;
        assert_eq!(region, "us", "the home does it");
        token = handed.session_token;
    }
    world.all_confirm(&about("bed", &token)).await;
    let again = world.hand_to(EU, stream("bed-2"), "asia", 0).await.unwrap();
    assert_eq!((again.home, again.repeated), (home("asia", 2), true));
    assert!(world.hand_to(US, stream("bed-2"), "asia", 2).await.unwrap().repeated);
    let wrong = world.hand_to(US, stream("bed-2"), "eu", 7).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition, "{wrong:?}");
    let third = world.hand_to(US, stream("bed-2"), "eu", 3).await.unwrap();
    assert_eq!(third.home, home("eu", 3));
    let rest = world.hand_to(ASIA, What::Category("bed".into()), "eu", 2).await.unwrap();
    let mut seen = SessionToken::decode(third.session_token).unwrap().context;
    seen.merge(&SessionToken::decode(rest.session_token).unwrap().context);
    let token = SessionToken { context: seen }.encode();
    world.all_confirm(&about("bed", &token)).await;

    let page = |after: &str| {
        let (after, limit) = (after.to_owned(), 2);
        world.class(
            world.class_api(ASIA),
            v1::GetClassRequest { after, limit, ..about("bed", &token) },
        )
    };
    let first = page("").await;
    let told = |streams: &[v1::HomedStream]| {
        let told = streams.iter().map(|moved| {
            let home = moved.home.clone().unwrap();
            (moved.stream.clone(), home.region, home.epoch)
        });
        told.collect::<Vec<_>>()
    };
    let of = |stream: &str, home: &str, epoch| (stream.to_owned(), home.to_owned(), epoch);
    assert_eq!(first.class.unwrap().home, home("eu", 2));
    assert_eq!(told(&first.streams), [of("bed-1", "asia", 2), of("bed-2", "eu", 3)]);
    let second = page(&first.next).await;
    assert_eq!((told(&second.streams), second.next), (vec![of("bed-3", "asia", 2)], String::new()));

    let list = async |after: &str, limit: u32| {
        let after = after.to_owned();
        let request = v1::ListClassesRequest { after, limit, ..Default::default() };
        let listed = world.class_api(EU).list(Request::new(request)).await.unwrap().into_inner();
        let names = listed.categories.into_iter().map(|category| category.category);
        (names.collect::<Vec<_>>(), listed.next)
    };
    assert_eq!(list("", 2).await, (vec!["bed".into(), "bench".into()], "bench".into()));
    assert_eq!(list("bench", 2).await, (vec!["chair".into()], String::new()));
    assert_eq!(list("", 3).await.1, "", "a full page may be the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_change_is_named_before_anything_is_written() {
    let world = World::start().await;
    let category = |name: &str| What::Category(name.to_owned());
    let field = |status: Status, code: Code| {
        assert_eq!(status.code(), code, "{status:?}");
        let Reason::Invalid(invalid) = reason(&status) else { panic!("{status:?}") };
        invalid.field
    };
    use Code::{FailedPrecondition, InvalidArgument};
    let declare =
        async |name: &str, home: &str| world.declare_home(EU, name, home).await.unwrap_err();
    assert_eq!(field(declare("", "us").await, InvalidArgument), "category");
    assert_eq!(field(declare("bed-1", "us").await, InvalidArgument), "category");
    assert_eq!(field(declare("$class", "us").await, InvalidArgument), "category");
    assert_eq!(field(declare("bed", "U S").await, InvalidArgument), "home");
    assert_eq!(field(declare("bed", "mars").await, FailedPrecondition), "class");
    let hand_over = async |what, to: &str| world.hand_to(EU, what, to, 0).await.unwrap_err();
    assert_eq!(field(hand_over(category("bed"), "").await, InvalidArgument), "to");
    assert_eq!(field(hand_over(category("bed"), "us").await, FailedPrecondition), "class");
    let nothing = v1::HandOverRequest { to: "us".into(), ..Default::default() };
    let refused = world.class_api(EU).hand_over(Request::new(nothing)).await.unwrap_err();
    assert_eq!(field(refused, InvalidArgument), "what");
    let long = v1::GetClassRequest { limit: 1001, ..about("bed", &bytes::Bytes::new()) };
    let refused = world.class_api(EU).get(Request::new(long)).await.unwrap_err();
    assert_eq!(field(refused, InvalidArgument), "limit");
    assert!(RegionName::new("mars").is_ok(), "it could be a region");
    assert_eq!(world.events(EU), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_passed_on_once_to_the_leader_which_hears_the_other_regions() {
    let cluster = Cluster::start(2).await;
    let leader = cluster.leader();
    let busy = cluster.apis[leader].inner.reads.admit(usize::MAX).unwrap();
    let follower = &cluster.apis[1 - leader];
    let get = || Request::new(about("bed", &bytes::Bytes::new()));
    let list = || Request::new(v1::ListClassesRequest::default());
    for refused in [follower.get(get()).await.map(drop), follower.list(list()).await.map(drop)] {
        let refused = refused.unwrap_err();
        assert!(matches!(reason(&refused), Reason::Overload(_)), "the leader's: {refused:?}");
    }
    let within = std::time::Duration::from_secs(5);
    let passed = passed_on(get().into_inner(), within);
    assert!(follower.get(passed).await.is_ok(), "not passed on again");
    drop(busy);
    assert!(follower.get(get()).await.is_ok() && follower.list(list()).await.is_ok());
}
