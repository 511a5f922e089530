//! The inner loops of the protocol: sequence and encode, decode and apply, merge.
//!
//! `cargo bench -p anabranch-bench --bench core`. Throughput is in events; payloads have 256 bytes.

use std::hint::black_box;
use std::time::Duration;

use anabranch_bench::sample::{self, Author};
use anabranch_core::conflict::{Recent, Run};
use anabranch_core::order::{Finality, Merge, Mergeable};
use anabranch_core::region::{Outcome, Region};
use anabranch_core::{Command, Context, Digest, Dot, Group, Seq, Stamp};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PAYLOAD: usize = 256;
const SIZES: [u64; 3] = [1, 100, 1000];

/// Decide a request, number its events, hash the group, encode the command.
fn sequence_and_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequence_and_encode");
    for events in SIZES {
        group.throughput(Throughput::Elements(events));
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            let write = |mut author: Author| author.sequence(events, PAYLOAD).encoded;
            b.iter_batched(|| Author::new("eu"), write, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What every node does with a committed entry.
fn decode_and_apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_and_apply");
    for events in SIZES {
        let count = 4096 / events + 1;
        let commands = sample::commands("eu", count, events, PAYLOAD);
        let encoded: Vec<_> = commands.iter().map(Command::encode).collect();
        group.throughput(Throughput::Elements(count * events));
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            let apply = |mut region: Region| {
                for bytes in &encoded {
                    let command = Command::decode(bytes.clone()).expect("just encoded");
                    assert_eq!(region.apply(&command), Outcome::Accepted);
                }
                region
            };
            b.iter_batched(|| sample::born("eu"), apply, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// What a follower does with each group's events of a stream: two regions write to 1,000 streams by turns,
/// and see each other's at once, or only after a thousand groups.
fn find_conflicts(c: &mut Criterion) {
    const GROUPS: u64 = 100_000;
    const STREAMS: usize = 1000;
    let origins = ["eu", "us"].map(|region| {
        sample::born(region).origin().cloned().expect("a region that is born has one")
    });
    let mut group = c.benchmark_group("find_conflicts");
    group.throughput(Throughput::Elements(GROUPS));
    for behind in [0, 1000] {
        group.bench_function(BenchmarkId::from_parameter(behind), |b| {
            b.iter(|| {
                let mut streams = vec![Recent::default(); STREAMS];
                let mut found = 0;
                for at in 0..GROUPS {
                    let (own, other) = (&origins[at as usize % 2], &origins[(at as usize + 1) % 2]);
                    let dot = Dot { origin: own.clone(), seq: Seq(at / 2 + 1) };
                    let held = Seq(at.div_ceil(2).saturating_sub(behind));
                    let context = [(other.clone(), held)].into_iter().collect();
                    let recent = &mut streams[(at / 2) as usize % STREAMS];
                    recent.prune(&context);
                    let events = Run::of(&dot, Stamp(at));
                    found += recent.feed(&events, at, &context).len();
                }
                black_box(found)
            });
        });
    }
    group.finish();
}

/// What an importer does with a group from elsewhere before anything else: chain and every event.
fn check_group(c: &mut Criterion) {
    let mut group = c.benchmark_group("check_group");
    for events in SIZES {
        let command = Author::new("us").write(events, PAYLOAD);
        let bytes = command.groups()[0].group.encoded().clone();
        group.throughput(Throughput::Elements(events));
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            b.iter(|| Group::decode(black_box(bytes.clone())).expect("just encoded"));
        });
    }
    group.finish();
}

/// A k-way merge of three origins, by the rules of the global order. Throughput is in groups.
fn merge_global_order(c: &mut Criterion) {
    const GROUPS: u64 = 10_000;
    let finality = all_is_final(GROUPS);
    let names = ["asia", "eu", "us"];
    let mut group = c.benchmark_group("merge_global_order");
    group.throughput(Throughput::Elements(GROUPS * names.len() as u64));
    group.bench_function("three_origins", |b| {
        let filled = || {
            let mut merge = Merge::after(Context::new());
            for (nth, name) in names.into_iter().enumerate() {
                let stamp = |seq| Stamp(seq * 16 + nth as u64);
                let one = |seq| Mergeable {
                    first: Seq(seq),
                    last: Seq(seq),
                    stamp: stamp(seq),
                    chain: anabranch_core::Chain::START,
                    item: (),
                };
                merge.push(&sample::origin(name), (1..=GROUPS).map(one));
            }
            merge
        };
        let drain = |mut merge: Merge<()>| {
            while let Some(next) = merge.next(&finality) {
                black_box(next.position);
            }
            assert_eq!(merge.position(), GROUPS * 3, "everything pushed is final");
        };
        b.iter_batched(filled, drain, BatchSize::LargeInput);
    });
    group.finish();
}

/// A region that holds one event of each group, and heard from all that they do too.
fn all_is_final(groups: u64) -> Finality {
    let frontier: Context =
        ["asia", "eu", "us"].map(|name| (sample::origin(name), Seq(groups))).into_iter().collect();
    let mut eu = history("eu", groups);
    let import = import_of(&eu, ["asia", "us"].map(|name| history_groups(name, groups)));
    assert_eq!(eu.apply(&import), Outcome::Accepted);
    let digests = ["asia", "us"]
        .map(|name| Digest {
            origin: sample::origin(name),
            stamp: Stamp(u64::MAX / 2),
            frontier: frontier.clone(),
        })
        .into();
    let position = eu.position();
    let heard = Command::Import { position, groups: Vec::new(), digests };
    assert_eq!(eu.apply(&heard), Outcome::Accepted);
    assert_eq!(eu.apply(&Command::Close { stamp: Stamp(u64::MAX / 2) }), Outcome::Accepted);
    Finality::of(&eu)
}

fn history(own: &str, events: u64) -> Region {
    let mut author = Author::new(own);
    author.write_and_apply(events, 0);
    author.region().clone()
}

fn history_groups(own: &str, events: u64) -> Group {
    Author::new(own).write(events, 0).groups()[0].group.clone()
}

fn import_of(region: &Region, groups: [Group; 2]) -> Command {
    let drift_max = Duration::from_millis(500);
    let mut sequencer =
        anabranch_core::sequencer::Sequencer::new(region, drift_max).expect("the region is born");
    sequencer.import(region, groups.into(), Vec::new()).command
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = sequence_and_encode, decode_and_apply, check_group, find_conflicts, merge_global_order
}
criterion_main!(benches);
