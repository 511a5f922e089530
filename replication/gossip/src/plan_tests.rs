use super::*;
use crate::session::testing::origin;
use anabranch_core::Stamp;

const RELAY: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn name(region: &str) -> RegionName {
    RegionName::new(region).unwrap()
}

/// The plan of `us`, whose peers are asia, eu and sa.
struct Case {
    plan: Plan,
    now: Instant,
    have: Context,
}

impl Case {
    fn new() -> Self {
        let now = tokio::time::Instant::now().into_std();
        let peers = ["asia", "eu", "sa"].map(name);
        let mut plan = Plan::new(now, peers, RELAY, 2 * RELAY);
        plan.own(Some(origin("us")));
        Self { plan, now, have: Context::new() }
    }
    fn up(&mut self, region: &str) -> &mut Self {
        self.plan.up(self.now, &name(region), Some(origin(region)));
        self
    }
    fn down(&mut self, region: &str) -> &mut Self {
        self.plan.down(self.now, &name(region));
        self
    }
    fn holds(&mut self, region: &str, held: &[(&str, u64)]) -> &mut Self {
        let frontier: Context = held.iter().map(|(r, seq)| (origin(r), Seq(*seq))).collect();
        let digest = Digest { origin: origin(region), stamp: Stamp(1), frontier };
        self.plan.digest(self.now, &name(region), &digest);
        self
    }
    fn arrived(&mut self, region: &str, seq: u64) -> &mut Self {
        self.have.advance(&origin(region), Seq(seq));
        self.plan.arrived(self.now, &origin(region));
        self
    }
    fn after(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }
    /// Through whom eu's origin is pulled now.
    fn eu(&mut self) -> Option<String> {
        let assignment = self.assign();
        assignment.get(&origin("eu")).map(|via| via.to_string())
    }
    fn assign(&mut self) -> Assignment {
        let have = self.have.clone();
        self.plan.assign(self.now, |origin| have.seq(origin).next())
    }
}

fn via(region: &str) -> Option<String> {
    Some(region.to_owned())
}

#[test]
fn each_region_is_pulled_from_itself_and_the_own_origin_from_nobody() {
    let mut case = Case::new();
    case.up("asia").up("eu").holds("asia", &[("asia", 3), ("us", 9), ("eu", 2)]);
    let expected = [(origin("asia"), name("asia")), (origin("eu"), name("eu"))].into();
    assert_eq!(case.assign(), expected);
}

#[test]
fn an_earlier_life_of_this_region_is_pulled_back_from_whoever_holds_it() {
    let mut case = Case::new();
    let mut reborn = origin("us");
    reborn.incarnation.0 += 1;
    case.plan.own(Some(reborn));
    case.up("asia").holds("asia", &[("us", 9)]);
    assert_eq!(case.assign().get(&origin("us")), Some(&name("asia")));
}

#[test]
fn a_cut_link_is_relayed_after_a_while_through_whom_holds_most() {
    let mut case = Case::new();
    case.up("asia").up("eu").up("sa");
    case.holds("eu", &[("eu", 5)]).arrived("eu", 5);
    assert_eq!(case.eu(), via("eu"));
    case.holds("asia", &[("eu", 5)]).holds("sa", &[("eu", 6)]);
    case.down("eu");
    assert_eq!(case.eu(), None);
    assert_eq!(case.after(RELAY - MS).eu(), None);
    assert_eq!(case.after(MS).eu(), via("sa"));
}

#[test]
fn failing_to_connect_again_and_again_does_not_put_off_the_relay() {
    let mut case = Case::new();
    case.up("asia").holds("asia", &[("eu", 5)]);
    for _ in 0..4 {
        assert_eq!(case.eu(), None);
        case.after(RELAY / 4).down("eu");
    }
    assert_eq!(case.eu(), via("asia"));
}

#[test]
fn a_relay_is_kept_while_it_serves_and_left_when_another_holds_more_and_nothing_comes() {
    let mut case = Case::new();
    case.up("asia").up("sa").holds("asia", &[("eu", 5)]).holds("sa", &[("eu", 4)]);
    assert_eq!(case.after(RELAY).eu(), via("asia"));
    case.arrived("eu", 5).holds("sa", &[("eu", 7)]);
    assert_eq!(case.eu(), via("asia"));
    case.after(RELAY - MS).arrived("eu", 6);
    assert_eq!(case.after(RELAY - MS).eu(), via("asia"), "something came in between");
    assert_eq!(case.after(MS).eu(), via("sa"));
    case.down("sa");
    assert_eq!(case.eu(), via("asia"));
}

#[test]
fn a_healed_link_is_direct_again_once_it_serves_what_the_relay_has() {
    let mut case = Case::new();
    case.up("asia").holds("asia", &[("eu", 5)]);
    assert_eq!(case.after(RELAY).eu(), via("asia"));
    case.up("eu").holds("eu", &[("eu", 3)]);
    assert_eq!(case.eu(), via("asia"), "a node of eu that is behind");
    case.holds("eu", &[("eu", 5)]);
    assert_eq!(case.eu(), via("eu"));
}

#[test]
fn a_neighbour_that_has_more_than_the_region_itself_gives_is_asked_after_a_while() {
    let mut case = Case::new();
    case.up("asia").up("eu").holds("eu", &[("eu", 5)]).arrived("eu", 5);
    case.holds("asia", &[("eu", 9)]);
    assert_eq!(case.eu(), via("eu"));
    case.after(RELAY / 2).arrived("eu", 6);
    assert_eq!(case.after(RELAY - MS).eu(), via("eu"), "it still gives something");
    assert_eq!(case.after(MS).eu(), via("asia"));
    case.arrived("eu", 9).holds("eu", &[("eu", 10)]);
    assert_eq!(case.eu(), via("eu"));
}

#[test]
fn a_region_that_comes_back_with_less_is_left_for_one_that_holds_the_rest() {
    let mut case = Case::new();
    case.up("asia").up("eu").arrived("eu", 5);
    case.holds("eu", &[("eu", 9)]).holds("asia", &[("eu", 9)]);
    assert_eq!(case.eu(), via("eu"));
    // Its disks were set back; or it began anew, and says nothing of its former life at all.
    for held in [&[("eu", 5)][..], &[]] {
        case.down("eu").up("eu").holds("eu", held);
        assert_eq!(case.after(RELAY).eu(), via("asia"));
        case.down("eu").up("eu").holds("eu", &[("eu", 9)]);
        assert_eq!(case.eu(), via("eu"), "it has all of it again");
    }
}

#[test]
fn a_region_that_claims_much_and_gives_nothing_is_not_left_for_one_that_holds_less() {
    let mut case = Case::new();
    case.up("asia").up("eu").holds("eu", &[("eu", 50)]).holds("asia", &[("eu", 9)]);
    assert_eq!(case.eu(), via("eu"));
    assert_eq!(case.after(5 * RELAY).eu(), via("eu"));
}

#[test]
fn a_held_origin_rests_and_comes_back() {
    let mut case = Case::new();
    case.up("eu");
    assert_eq!(case.eu(), via("eu"));
    case.plan.held(case.now, &origin("eu"));
    assert_eq!(case.eu(), None);
    assert_eq!(case.after(2 * RELAY - MS).eu(), None);
    assert_eq!(case.after(MS).eu(), via("eu"));
}

#[test]
fn what_a_neighbour_relays_of_others_does_not_count_as_what_it_holds() {
    let mut case = Case::new();
    case.up("asia");
    let frontier: Context = [(origin("eu"), Seq(9))].into_iter().collect();
    let relayed = Digest { origin: origin("eu"), stamp: Stamp(1), frontier };
    case.plan.digest(case.now, &name("asia"), &relayed);
    assert_eq!(case.after(2 * RELAY).eu(), None, "asia holds nothing of eu");
    assert!(case.plan.origins().contains(&origin("eu")), "but eu is known to exist");
}

#[test]
fn made_up_origins_are_not_remembered_without_end() {
    let mut case = Case::new();
    case.up("asia");
    for incarnation in 0..2 * ORIGINS_MAX as u128 {
        let mut made_up = origin("eu");
        made_up.incarnation.0 = incarnation;
        let frontier = [(made_up, Seq(1))].into_iter().collect();
        let digest = Digest { origin: origin("asia"), stamp: Stamp(1), frontier };
        case.plan.digest(case.now, &name("asia"), &digest);
    }
    assert_eq!(case.plan.origins().len(), ORIGINS_MAX + 1);
}
