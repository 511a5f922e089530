//! Every kind of client at work on three regions in this process, without a fault: then every law was
//! tested and holds, and every kind of client has got something done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch_client::Client;
use anabranch_core::RegionName;
use anabranch_core::class::RELEASED;
use anabranch_history::checks;
use anabranch_history::content::Name;
use anabranch_history::evidence::{Evidence, Recovery};
use anabranch_history::ledger::Ledger;
use anabranch_history::note::{Note, Refusal};
use anabranch_history::op::{History, Op};
use anabranch_history::said::is_homed;
use anabranch_history::shape::Class;
use anabranch_server::demo::cluster::{Cluster, Endpoints, Plan as Ground};
use anabranch_server::demo::wan::Map;
use anabranch_workload::harvest::{self, Nodes};
use anabranch_workload::{Control, Plan, Reach, Sites, Wanted, Workload};
use tokio::time::sleep;

const REGIONS: [&str; 3] = ["asia", "eu", "us"];
const LOOK_EVERY: Duration = Duration::from_millis(300);
const WITHIN: Duration = Duration::from_secs(60);

struct Local {
    names: Vec<String>,
    endpoints: Vec<Endpoints>,
}

impl Sites for Local {
    fn regions(&self) -> &[String] {
        &self.names
    }
    fn nodes(&self, region: usize) -> usize {
        self.endpoints[region].nodes.len()
    }
    fn client(&self, Wanted { home, roams, seed }: Wanted) -> Client {
        let builder = Client::builder().seed(seed).region(&self.names[home], self.nodes_of(home));
        let others = (1..self.names.len()).map(|steps| self.around(home, steps));
        let others = others.filter(|_| roams);
        let builder = others.fold(builder, |builder, other| {
            builder.fallback_region(&self.names[other], self.nodes_of(other))
        });
        builder.build().unwrap()
    }
    fn node_client(&self, region: usize, node: usize) -> Client {
        let address = self.endpoints[region].nodes[node].clone();
        Client::builder().region(&self.names[region], [address]).build().unwrap()
    }
}

impl Local {
    fn nodes_of(&self, region: usize) -> Vec<String> {
        self.endpoints[region].nodes.clone()
    }
}

async fn ground(folder: &tempfile::TempDir) -> (Cluster, Local) {
    // Ports by process, apart from those of the server's tests and of the harness.
    let port = 13_000 + (std::process::id() % 10) as u16 * 300;
    let regions = REGIONS.map(|name| RegionName::new(name).unwrap()).into();
    let map = Map::of_regions(regions, None).unwrap();
    let plan = Ground { map, nodes: 1, folder: folder.path().join("nodes"), port };
    let cluster = Cluster::start(&plan).await.unwrap();
    let endpoints = cluster.endpoints();
    (cluster, Local { names: REGIONS.map(str::to_owned).into(), endpoints })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_clients_get_something_done_and_every_law_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, local) = ground(&folder).await;
    let sites: Arc<dyn Sites> = Arc::new(local);
    let began = Instant::now();
    let ledger = Arc::new(Ledger::new(Arc::new(move || began.elapsed())));
    let mut plan = Plan::busy(11, 2, Duration::from_millis(80));
    plan.reach = Reach::Large;
    plan.surge.think = Duration::from_millis(100);
    let every: Vec<usize> = (0..REGIONS.len()).collect();
    let start = |home: &usize| Workload::start(&sites, &plan, &ledger, *home);
    let mut workloads: Vec<Workload> = every.iter().map(start).collect();
    let controls: Vec<Control> = workloads.iter().map(Workload::control).collect();
    let nodes = Nodes::all(&*sites);
    controls.iter().for_each(|control| control.surge(true));
    nodes.observe(&ledger, |_, _| 0, true).await;
    // As long as it takes on a busy machine.
    while let Some(idle) = idle(&ledger.history()) {
        assert!(ledger.now() < WITHIN * 3, "{idle}");
        sleep(LOOK_EVERY).await;
    }
    controls.iter().for_each(|control| control.surge(false));

    let healed = ledger.now();
    let served = harvest::served(&*sites, &every, &ledger, healed, WITHIN).await;
    for workload in &mut workloads {
        workload.stop_writing().await;
    }
    let agreed = nodes.converge(true, WITHIN).await.unwrap();
    let mut evidence = Evidence::default();
    for workload in workloads {
        evidence.subscribed.extend(
            workload.finish_reading(agreed.events, agreed.global, vec![0, 1, 2], WITHIN).await,
        );
    }
    let agreed = Some(ledger.now() - healed);
    evidence.recovery =
        Some(Recovery { within: WITHIN, served, agreed, not_converged: Vec::new() });
    evidence.regions = harvest::read(&*sites, &every, 1).await.unwrap();
    evidence.selections = harvest::select(&*sites, &evidence.regions, 1).await.unwrap();
    evidence.served = nodes.served().await.unwrap();
    evidence.listed = nodes.listed().await.unwrap();
    evidence.prints = nodes.prints().await.unwrap();
    evidence.blames = nodes.blames(&evidence.expectations.lost, WITHIN).await;
    evidence.history = ledger.history();
    cluster.kill().await;

    for verdict in checks::all(&evidence) {
        println!("{:>8} facts: {}", verdict.facts, verdict.law);
        assert!(verdict.holds(), "{}: {} {:?}", verdict.name, verdict.facts, verdict.words);
    }
    for given in &evidence.subscribed {
        println!("{}: {} events, {} again", given.name, given.events.len(), given.forgotten.len());
        assert!(given.complete && !given.events.is_empty(), "{}", given.name);
    }
    assert!(evidence.subscribed.iter().any(|given| given.name.starts_with("slow")));
}

/// What has not happened yet: every kind of client is to be acknowledged something, and what is rare is
/// to happen, too.
fn idle(history: &History) -> Option<String> {
    let mut acknowledged: BTreeMap<Class, usize> = BTreeMap::new();
    for op in history.ops.iter().filter(|op| op.ack().is_some()) {
        let class = Class::of(Name::of(op.events[0].id).writer).unwrap();
        *acknowledged.entry(class).or_default() += 1;
    }
    let few = Class::ALL.iter().find(|class| acknowledged.get(class).is_none_or(|acks| *acks < 5));
    if let Some(class) = few {
        return Some(format!("{class:?} was acknowledged little: {acknowledged:?}"));
    }
    let acked = |holds: &dyn Fn(&Op) -> bool| {
        history.ops.iter().filter(|op| op.ack().is_some() && holds(op)).count()
    };
    let noted = |holds: &dyn Fn(&&Note) -> bool| history.notes.iter().filter(holds).count();
    let elsewhere = history.repeats.iter().filter(|repeat| {
        repeat.region != repeat.first.first.origin.region.as_str() && repeat.said_so
    });
    // Whoever releases was confirmed by all: from then on every expectation is strict.
    let says = |op: &Op, kind| op.events[0].says.as_ref().is_some_and(|said| said.kind == kind);
    let acks = history.ops.iter().filter(|op| op.ack().is_some());
    let released = acks.filter(|op| says(op, RELEASED)).map(|op| op.returned).min();
    let strict = |op: &Op| {
        let homed = is_homed(&op.events[0].stream) && !op.expects.is_empty();
        homed && released.is_some_and(|released| released < op.called)
    };
    let counts = [
        ("homed appends after a hand-over", acked(&strict)),
        (
            "spends without rights",
            noted(&|note| matches!(note, Note::Refused { by: Refusal::RightsShort { .. }, .. })),
        ),
        ("transactions that check other streams", acked(&|op| op.expects.len() > 2)),
        ("retries that may wander", acked(&|op| op.roams)),
        ("repetitions in another region", elsewhere.count()),
        ("reads with a session", history.session_reads.len() / 5),
        (
            "zombies",
            noted(&|note| matches!(note, Note::Refused { by: Refusal::Fenced { .. }, .. })),
        ),
        (
            "walks",
            noted(
                &|note| matches!(note, Note::Walked(walked) if walked.complete && !walked.shown.is_empty()),
            ),
        ),
        (
            "limits",
            noted(&|note| {
                matches!(note, Note::Refused { by: Refusal::Invalid { limit: Some(_), .. }, .. })
            }),
        ),
    ];
    let missing = counts.iter().find(|(_, count)| *count < 2);
    missing.map(|(what, count)| format!("{count} {what}: {counts:?}"))
}
