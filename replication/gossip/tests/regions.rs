//! Whole regions over loopback.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anabranch_core::Seq;
use anabranch_gossip::{ClockTrust, DevCa, LinkRules, LinkState};
use support::noise::noise;
use support::{Log, Plan, anywhere, eventually, origin, region, regions, socket, start};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_region_appends_the_other_gets_and_the_clocks_are_compared() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    eu.log.append(5, 2);
    eu.lead();
    us.lead();
    for _ in 0..40 {
        eu.log.append(1, 3);
        us.log.append(2, 1);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually(SOON, "both hold both", || {
        us.log.seq(&origin("eu")) == 130 && eu.log.seq(&origin("us")) == 80
    })
    .await;
    assert_eq!(us.log.groups(&origin("eu")), eu.log.groups(&origin("eu")));
    assert_eq!(eu.log.groups(&origin("us")), us.log.groups(&origin("us")));
    eventually(SOON, "eu hears that us has everything", || {
        eu.link("us").holds.seq(&origin("eu")) == Seq(130)
    })
    .await;
    let link = eu.link("us");
    assert_eq!((link.state, link.connected), (LinkState::Direct, true));
    assert!(link.rtt.is_some() && link.bytes_in > 0 && link.groups_in > 0);
    let offset = link.clock_offset_ms.unwrap();
    assert!((150..350).contains(&offset), "us is 250 ms ahead, estimated {offset}");

    eu.gossip.pull(support::SHARD, None);
    eventually(SOON, "idle", || eu.link("us").state == LinkState::Idle).await;
    us.log.append(1, 1);
    eu.log.append(1, 1);
    eventually(SOON, "a follower still serves", || us.log.seq(&origin("eu")) == 131).await;
    assert_eq!(eu.log.seq(&origin("us")), 80, "but does not pull");
    eu.lead();
    eventually(SOON, "a new leader goes on", || eu.log.seq(&origin("us")) == 81).await;
    for region in &all {
        region.gossip.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_are_told_at_once_though_the_sink_takes_nothing() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    eu.log.stalled.send_replace(true);
    us.log.append(100, 3);
    eu.lead();
    let name = region("us");
    let answers = || eu.log.clocks.lock().unwrap().get(&name).cloned().unwrap_or_default();
    // Several: the way stays open while groups wait.
    eventually(SOON, "us tells its time", || answers().len() >= 4).await;
    for answer in answers() {
        assert!(answer.round_trip < Duration::from_secs(1), "{answer:?}");
        // Its clock began when the regions did, 250 ms ahead.
        assert!(answer.unix_ms >= 1_800_000_000_250, "{answer:?}");
    }
    let told: Vec<u64> = answers().iter().map(|answer| answer.unix_ms).collect();
    assert!(told.is_sorted() && told[3] >= told[0] + 1_000, "twice a second: {told:?}");
    assert!(answers().iter().all(|answer| !answer.proven));
    *us.log.trust.lock().unwrap() = ClockTrust::Proven;
    eventually(SOON, "it is proven", || answers().last().unwrap().proven).await;
    *us.log.trust.lock().unwrap() = ClockTrust::Doubted;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = answers().len();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(answers().len(), before, "no time is told that is doubted");
    assert_eq!(eu.log.seq(&origin("us")), 0, "it took nothing");
    eu.log.stalled.send_replace(false);
    eventually(SOON, "and goes on", || eu.log.seq(&origin("us")) == 300).await;
    for region in &all {
        region.gossip.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_noticed_and_pulling_resumes_where_it_stopped() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    us.lead();
    eu.log.append(20, 2);
    eventually(SOON, "first part", || us.log.seq(&origin("eu")) == 40).await;
    eu.cut(us);
    eu.log.append(20, 2);
    let noticed = eventually(SOON, "the cut is noticed", || {
        matches!(us.link("eu").state, LinkState::Down { .. })
    })
    .await;
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    assert_eq!(us.log.seq(&origin("eu")), 40);
    let read = || eu.log.bytes_read.load(Ordering::Relaxed);
    let before = read();
    eu.heal(us);
    // The log's own assertion refuses repeats and gaps.
    eventually(SOON, "second part", || us.log.seq(&origin("eu")) == 80).await;
    let second = &eu.log.groups(&origin("eu"))[20..];
    let second: usize = second.iter().map(|group| group.encoded().len()).sum();
    assert_eq!(read() - before, second, "what us holds is not sent again");
    assert!(us.link("eu").sessions >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_arrives_in_blocks_in_order_and_whole_while_it_grows() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    eu.log.append(30_000, 3);
    us.lead();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        eu.log.append(1, 3);
    }
    eventually(Duration::from_secs(60), "all of it", || us.log.seq(&origin("eu")) == 90_060).await;
    assert_eq!(us.log.groups(&origin("eu")), eu.log.groups(&origin("eu")));
    let link = us.link("eu");
    assert!(link.blocks_in >= 8, "{} blocks", link.blocks_in);
    assert_eq!(link.sessions, 1, "no session broke on the way");
    eu.log.append(1, 1);
    eventually(SOON, "live again", || us.log.seq(&origin("eu")) == 90_061).await;
    assert_eq!(us.link("eu").blocks_in, link.blocks_in, "the tail needs no blocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_relays_while_the_direct_link_is_cut_and_only_then() {
    let all = regions(&["asia", "eu", "us"]);
    let [asia, eu, us] = &all[..] else { unreachable!() };
    all.iter().for_each(support::Region::lead);
    eu.log.append(10, 1);
    eventually(SOON, "everybody has it", || {
        us.log.seq(&origin("eu")) == 10 && asia.log.seq(&origin("eu")) == 10
    })
    .await;
    assert_eq!(us.link("eu").state, LinkState::Direct);
    eu.cut(us);
    eu.log.append(10, 1);
    us.log.append(10, 1);
    eventually(SOON, "it comes through asia", || {
        us.log.seq(&origin("eu")) == 20 && eu.log.seq(&origin("us")) == 10
    })
    .await;
    assert_eq!(us.link("eu").state, LinkState::Relayed { via: region("asia") });
    eu.heal(us);
    eventually(SOON, "direct again", || us.link("eu").state == LinkState::Direct).await;
    eu.log.append(10, 1);
    eventually(SOON, "and serving", || us.log.seq(&origin("eu")) == 30).await;
    assert_eq!(us.log.groups(&origin("eu")), eu.log.groups(&origin("eu")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_comes_back_from_a_kill_is_noticed_within_seconds() {
    let ca = DevCa::generate().unwrap();
    let (eu_rules, us_rules) = (LinkRules::new(), LinkRules::new());
    let (eu_socket, us_socket) = (socket(&eu_rules, anywhere()), socket(&us_rules, anywhere()));
    let at = |socket| quinn::AsyncUdpSocket::local_addr(socket).unwrap();
    let (eu_at, us_at) = (at(&*eu_socket), at(&*us_socket));
    let plan = |name, peer| Plan { ca: &ca, name, peers: vec![peer], clock_ahead_ms: 0 };
    let eu = start(plan("eu", ("us", us_at)), Log::new("eu"), eu_rules.clone(), eu_socket);
    let us = start(plan("us", ("eu", eu_at)), Log::new("us"), us_rules, us_socket);
    us.lead();
    eu.log.append(3, 1);
    eventually(SOON, "connected", || us.log.seq(&origin("eu")) == 3).await;
    // A killed process says nothing: its last packets are dropped.
    eu_rules.cut(us_at, anabranch_gossip::Cut::Both);
    eu.gossip.shutdown().await;
    let log = eu.log.clone();
    drop(eu);
    let rules = LinkRules::new();
    let again = loop {
        // The old socket is gone once the old endpoint's own task has ended.
        match anabranch_gossip::ShapedUdp::bind(eu_at, rules.clone()) {
            Ok(socket) => break Arc::new(socket),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    log.append(1, 1);
    let eu = start(plan("eu", ("us", us_at)), log, rules, again);
    let gap = eventually(SOON, "noticed", || us.log.seq(&origin("eu")) == 4).await;
    assert!(gap < Duration::from_secs(3), "{gap:?}");
    drop(eu);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_passed_over_for_the_next_of_its_region() {
    let ca = DevCa::generate().unwrap();
    let (eu_rules, us_rules) = (LinkRules::new(), LinkRules::new());
    let (eu_socket, us_socket) = (socket(&eu_rules, anywhere()), socket(&us_rules, anywhere()));
    // Bound, so that nobody else answers there, and never read.
    let silent = std::net::UdpSocket::bind(anywhere()).unwrap();
    let at = |socket| quinn::AsyncUdpSocket::local_addr(socket).unwrap();
    let (eu_at, us_at) = (at(&*eu_socket), at(&*us_socket));
    let plan = |name, peers| Plan { ca: &ca, name, peers, clock_ahead_ms: 0 };
    let eu = start(plan("eu", vec![("us", us_at)]), Log::new("eu"), eu_rules, eu_socket);
    let peers = vec![("eu", silent.local_addr().unwrap()), ("eu", eu_at)];
    let us = start(plan("us", peers), Log::new("us"), us_rules, us_socket);
    eu.log.append(3, 1);
    us.lead();
    // Long before the first is given up, which takes 3 s.
    let soon = Duration::from_millis(2_700);
    eventually(soon, "through the second", || us.log.seq(&origin("eu")) == 3).await;
    assert_eq!(us.link("eu").address, Some(eu_at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_another_region_is_refused_by_both_sides() {
    let ca = DevCa::generate().unwrap();
    let (eu_rules, asia_rules) = (LinkRules::new(), LinkRules::new());
    let (eu_socket, asia_socket) = (socket(&eu_rules, anywhere()), socket(&asia_rules, anywhere()));
    let at = |socket| quinn::AsyncUdpSocket::local_addr(socket).unwrap();
    let (eu_at, asia_at) = (at(&*eu_socket), at(&*asia_socket));
    let plan = |name, peer| Plan { ca: &ca, name, peers: vec![peer], clock_ahead_ms: 0 };
    // eu expects us where asia answers, and has never heard of asia.
    let eu = start(plan("eu", ("us", asia_at)), Log::new("eu"), eu_rules, eu_socket);
    let asia = start(plan("asia", ("eu", eu_at)), Log::new("asia"), asia_rules, asia_socket);
    asia.log.append(3, 1);
    eu.log.append(3, 1);
    eu.lead();
    asia.lead();
    let error = |of: &support::Region, peer: &str| match of.link(peer).state {
        LinkState::Down { last_error, .. } => last_error,
        _ => String::new(),
    };
    eventually(SOON, "eu refuses the name", || error(&eu, "us").contains("certificate")).await;
    eventually(SOON, "eu refuses to serve", || error(&asia, "eu").contains("not configured")).await;
    assert_eq!((eu.log.seq(&origin("asia")), asia.log.seq(&origin("eu"))), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_another_authority_gets_no_session() {
    let (ours, theirs) = (DevCa::generate().unwrap(), DevCa::generate().unwrap());
    let (eu_rules, us_rules) = (LinkRules::new(), LinkRules::new());
    let (eu_socket, us_socket) = (socket(&eu_rules, anywhere()), socket(&us_rules, anywhere()));
    let at = |socket| quinn::AsyncUdpSocket::local_addr(socket).unwrap();
    let (eu_at, us_at) = (at(&*eu_socket), at(&*us_socket));
    let plan = |ca, name, peer| Plan { ca, name, peers: vec![peer], clock_ahead_ms: 0 };
    let eu = start(plan(&ours, "eu", ("us", us_at)), Log::new("eu"), eu_rules, eu_socket);
    let us = start(plan(&theirs, "us", ("eu", eu_at)), Log::new("us"), us_rules, us_socket);
    eu.log.append(3, 1);
    us.lead();
    eventually(SOON, "refused", || match us.link("eu").state {
        LinkState::Down { last_error, .. } => last_error.contains("certificate"),
        _ => false,
    })
    .await;
    assert_eq!((us.link("eu").sessions, us.log.seq(&origin("eu"))), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_group_is_refused_whether_live_or_in_a_block() {
    for (groups, altered) in [(5, 1), (20_000, 15_000)] {
        let all = regions(&["eu", "us"]);
        let [eu, us] = &all[..] else { unreachable!() };
        *eu.log.alter.lock().unwrap() = Some(Seq(altered));
        eu.log.append(groups, 1);
        us.lead();
        eventually(SOON, "refused", || match us.link("eu").state {
            LinkState::Down { last_error, .. } => last_error.contains("chain hash"),
            _ => false,
        })
        .await;
        assert!(us.log.seq(&origin("eu")) < altered, "it was not offered");
        assert_eq!(us.link("eu").blocks_in > 0, groups > 5, "the way it came");
        *eu.log.alter.lock().unwrap() = None;
        let limit = Duration::from_secs(30);
        let whole = groups as u64;
        eventually(limit, "repaired", || us.log.seq(&origin("eu")) == whole).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_the_importer_holds_rests_and_is_asked_for_again() {
    let all = regions(&["asia", "eu", "us"]);
    let [asia, eu, us] = &all[..] else { unreachable!() };
    *us.log.holds.lock().unwrap() = Some(origin("eu"));
    us.lead();
    eu.log.append(5, 1);
    asia.log.append(5, 1);
    eventually(SOON, "asia goes on", || us.log.seq(&origin("asia")) == 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(us.log.seq(&origin("eu")), 0);
    assert_eq!(us.link("eu").sessions, 1, "holding an origin does not end the session");
    *us.log.holds.lock().unwrap() = None;
    eventually(SOON, "asked again", || us.log.seq(&origin("eu")) == 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_regions_see_their_distance_and_a_one_way_cut_still_counts_as_a_cut() {
    let all = regions(&["asia", "eu", "us"]);
    let [asia, eu, us] = &all[..] else { unreachable!() };
    let one_way = Duration::from_millis(40);
    eu.rules.delay(us.address, one_way);
    us.rules.delay(eu.address, one_way);
    asia.lead();
    us.lead();
    eu.log.append(20_000, 2);
    eventually(Duration::from_secs(30), "history", || us.log.seq(&origin("eu")) == 40_000).await;
    eventually(SOON, "asia too", || asia.log.seq(&origin("eu")) == 40_000).await;
    let rtt = us.link("eu").rtt.unwrap();
    assert!(rtt >= 2 * one_way, "{rtt:?}");
    // us no longer hears eu, though eu hears us.
    us.rules.cut(eu.address, anabranch_gossip::Cut::Incoming);
    eu.log.append(1, 1);
    eventually(SOON, "through asia", || us.log.seq(&origin("eu")) == 40_001).await;
    assert_eq!(us.link("eu").state, LinkState::Relayed { via: region("asia") });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_stalls_stops_the_source_and_memory_stays_bounded() {
    let all = regions(&["eu", "us"]);
    let [eu, us] = &all[..] else { unreachable!() };
    let total = 1_600;
    eu.log.append_groups(noise("eu", total, 64 * 1024));
    us.log.stalled.send_replace(true);
    us.lead();
    let read = || eu.log.bytes_read.load(Ordering::Relaxed);
    eventually(SOON, "sending", || read() > 4 << 20).await;
    // Settled: nothing moves for a while.
    let mut before = 0;
    while read() != before {
        before = read();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(read() < 40 << 20, "{} of 100 MiB under way", read() >> 20);
    us.log.stalled.send_replace(false);
    eventually(Duration::from_secs(60), "all of it", || us.log.seq(&origin("eu")) == total).await;
    assert_eq!(us.log.groups(&origin("eu")).len() as u64, total);
    assert_eq!(us.link("eu").sessions, 1, "no session broke on the way");
    assert!(us.log.offers.load(Ordering::Relaxed) > 10, "in many offers");
}
