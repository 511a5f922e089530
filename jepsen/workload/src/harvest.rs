//! What nodes say during the run; and after the faults: waits until the regions agree, then reads
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_client::wire::StatusResponse;
use anabranch_client::{
    Client, Context as Frontier, Filter, Order, Origin, Read, ReadError, Run, Stamp,
};
use anabranch_core::event::category;
use anabranch_core::{Incarnation, RegionName, ShardId};
use anabranch_history::defined::CATEGORIES;
use anabranch_history::evidence::{
    Blame, Listed, ListedConflict, ListedRun, Part, Print, RegionRead, Seen, Selection, Served,
    ServedAggregate,
};
use anabranch_history::ledger::Ledger;
use anabranch_history::observation::Observation;
use anyhow::Context;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::time::{Instant, sleep, timeout};

use crate::dice;
use crate::sites::{Sites, Wanted};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a node may take to tell its status.
const STATUS_WAIT: Duration = Duration::from_millis(700);
/// Streams of a region that are read by themselves in the end; beside them, half as many categories
/// and prefixes.
const STREAMS_SELECTED: usize = 8;
/// How long a node may take to compute its fingerprint.
const PRINT_WAIT: Duration = Duration::from_secs(20);

/// A node, and a client that asks it alone.
struct Node {
    name: String,
    region: String,
    number: usize,
    client: Client,
}

/// Nodes of some regions, to be asked one by one.
pub struct Nodes {
    nodes: Vec<Node>,
}

/// How a node stands, as far as agreement goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    frontier: Frontier,
    position: u64,
    global_position: u64,
}

/// What regions agree about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Events that all of them hold.
    pub events: u64,
    /// Events that are final at all of them.
    pub global: u64,
}

impl Nodes {
    /// The nodes of these regions, by their numbers.
    pub fn of(sites: &dyn Sites, regions: &[usize]) -> Self {
        let all = sites.all_nodes().into_iter().filter(|(region, _)| regions.contains(region));
        let node = |(region, number): (usize, usize)| Node {
            name: sites.node_name(region, number),
            region: sites.regions()[region].clone(),
            number,
            client: sites.node_client(region, number),
        };
        Self { nodes: all.map(node).collect() }
    }
    /// All nodes.
    pub fn all(sites: &dyn Sites) -> Self {
        Self::of(sites, &every(sites))
    }

    /// Asks every node for its status and enters what it says; `life` tells how often the node, by
    /// region and number, was started before. With `chains` also for the hash of its global order,
    /// which costs it some time. Nodes that do not answer are passed over.
    pub async fn observe(&self, ledger: &Ledger, life: impl Fn(&str, usize) -> u32, chains: bool) {
        for node in &self.nodes {
            // An answer that may be of the life before or of the one after tells nothing.
            let before = life(&node.region, node.number);
            if let Some(observation) = node.observe(ledger, before, chains).await
                && life(&node.region, node.number) == before
            {
                ledger.observe(observation);
            }
        }
    }

    /// Waits until all nodes hold the same events, and still do when they are asked again; if
    /// `all_final`, also until all of these are final at all of them.
    ///
    /// # Errors
    /// What still differs after `within`.
    pub async fn converge(&self, all_final: bool, within: Duration) -> Result<Agreed, Vec<String>> {
        let deadline = Instant::now() + within;
        let mut before = None;
        loop {
            let standings = self.standings().await;
            match agreed(&standings, all_final) {
                Some(now) if before == Some(now) => return Ok(now),
                _ if Instant::now() >= deadline => {
                    return Err(standings.iter().map(in_words).collect());
                }
                now => before = now,
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks every node how far its global order has come and whom it waits for, again and again until
    /// all say what they should while the regions `lost` are lost, or `within` has passed. Nodes that
    /// do not answer are passed over.
    pub async fn blames(
        &self,
        lost: &BTreeSet<String>,
        within: Duration,
    ) -> BTreeMap<String, Blame> {
        let deadline = Instant::now() + within;
        loop {
            let mut blames = BTreeMap::new();
            for node in &self.nodes {
                if let Some(status) = node.status().await {
                    let blame = Blame {
                        events: status.position,
                        ordered: status.global_position,
                        blocked_by: status.blocked_by.into_iter().collect(),
                    };
                    blames.insert(node.name.clone(), blame);
                }
            }
            if blames.values().all(|blame| blame.is_just(lost)) || Instant::now() >= deadline {
                return blames;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks every node for its fingerprint.
    ///
    /// # Errors
    /// If a node does not answer.
    pub async fn prints(&self) -> anyhow::Result<BTreeMap<String, Print>> {
        let mut prints = BTreeMap::new();
        for Node { name, client, .. } in &self.nodes {
            let asking = || format!("ask {name} for its fingerprint");
            let wire = timeout(PRINT_WAIT, client.fingerprint(&[])).await.with_context(asking)?;
            prints.insert(name.clone(), wire.with_context(asking)?.try_into()?);
        }
        Ok(prints)
    }

    /// Asks every node for all aggregates that definers have defined.
    ///
    /// # Errors
    /// If a node does not answer.
    pub async fn served(&self) -> anyhow::Result<Vec<Served>> {
        let mut served = Vec::new();
        for Node { name, region, client, .. } in &self.nodes {
            for category in CATEGORIES {
                let asking = || format!("ask {name} for its aggregates of {category}");
                let asked = timeout(PRINT_WAIT, aggregates(client, category));
                let aggregates = asked.await.with_context(asking)?.with_context(asking)?;
                let (node, region) = (name.clone(), region.clone());
                served.push(Served { node, region, category: category.to_owned(), aggregates });
            }
        }
        Ok(served)
    }

    /// Asks every node for all conflicts, in both orders.
    ///
    /// # Errors
    /// If a node does not answer.
    pub async fn listed(&self) -> anyhow::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for Node { name, region, client, .. } in &self.nodes {
            for order in [Order::Regional, Order::Global] {
                let asking = || format!("ask {name} for its conflicts");
                let asked = timeout(PRINT_WAIT, conflicts(client, order));
                let conflicts = asked.await.with_context(asking)?.with_context(asking)?;
                let (node, region) = (name.clone(), region.clone());
                listed.push(Listed { node, region, order, conflicts });
            }
        }
        Ok(listed)
    }

    async fn standings(&self) -> Vec<(String, Option<Standing>)> {
        let mut standings = Vec::new();
        for node in &self.nodes {
            let standing = node.status().await.and_then(|status| {
                Some(Standing {
                    frontier: status.frontier?.try_into().ok()?,
                    position: status.position,
                    global_position: status.global_position,
                })
            });
            standings.push((node.name.clone(), standing));
        }
        standings
    }
}

impl Node {
    async fn status(&self) -> Option<StatusResponse> {
        timeout(STATUS_WAIT, self.client.status()).await.ok()?.ok()
    }

    async fn observe(&self, ledger: &Ledger, life: u32, chains: bool) -> Option<Observation> {
        let status = self.status().await?;
        let watermark = status.regions.iter().map(|region| Stamp(region.watermark)).min();
        let mut observation = Observation {
            at: ledger.now(),
            region: self.region.clone(),
            node: self.number as u32,
            life,
            frontier: status.frontier?.try_into().ok()?,
            position: status.position,
            watermark,
            global_position: status.global_position,
            global_chain: None,
            blocked_by: status.blocked_by,
        };
        if chains {
            let print = timeout(STATUS_WAIT, self.client.fingerprint(&[])).await.ok()?.ok()?;
            // All of one moment, which is later than that of the status.
            observation.at = ledger.now();
            observation.frontier = print.frontier?.try_into().ok()?;
            observation.position = print.events;
            observation.global_position = print.global_position;
            observation.global_chain = Some(print.global_chain);
        }
        Some(observation)
    }
}

/// All conflicts in an order.
async fn conflicts(client: &Client, order: Order) -> anyhow::Result<Vec<ListedConflict>> {
    let run = |run: &Run| ListedRun { first: run.oldest(), last: run.last.0, events: run.events };
    let mut asking = client.conflicts().order(order).limit(1000);
    let mut all = Vec::new();
    loop {
        let page = asking.page().await?;
        all.extend(page.conflicts.into_iter().map(|found| ListedConflict {
            id: found.id.to_string(),
            position: found.position,
            events: run(&found.events),
            against: found.against.iter().map(run).collect(),
            stream: found.stream,
        }));
        if !page.more {
            return Ok(all);
        }
        asking = asking.after(page.cursor);
    }
}

/// All aggregates of a category; none if it is not defined.
async fn aggregates(
    client: &Client,
    category: &str,
) -> Result<Option<Vec<ServedAggregate>>, ReadError> {
    let mut all = client.query(category).all();
    let mut aggregates = Vec::new();
    while let Some(aggregate) = all.next().await {
        let aggregate = match aggregate {
            Err(ReadError::NoDefinition { .. }) => return Ok(None),
            aggregate => aggregate?,
        };
        let value = serde_json::Value::Object(aggregate.value).to_string();
        let (stream, version) = (aggregate.stream, aggregate.version);
        aggregates.push(ServedAggregate { stream, version, value });
    }
    Ok(Some(aggregates))
}

fn in_words((name, standing): &(String, Option<Standing>)) -> String {
    match standing {
        None => format!("{name} does not answer"),
        Some(Standing { frontier, position, global_position }) => {
            format!("{name} holds {frontier}, {position} events, {global_position} final")
        }
    }
}

fn agreed(standings: &[(String, Option<Standing>)], all_final: bool) -> Option<Agreed> {
    let first = standings.first()?.1.as_ref()?;
    let same = standings.iter().all(|(_, standing)| standing.as_ref() == Some(first));
    let finished = !all_final || first.position == first.global_position;
    let agreed = Agreed { events: first.position, global: first.global_position };
    (same && finished && agreed.events > 0).then_some(agreed)
}

/// Numbers of all regions.
fn every(sites: &dyn Sites) -> Vec<usize> {
    (0..sites.regions().len()).collect()
}

/// Waits until each of these regions has acknowledged an append that was sent at `since` or later, by
/// the ledger's clock, while writers are at work. Returns how long after `since` each of them did;
/// none for those that did not before `within` has passed.
pub async fn served(
    sites: &dyn Sites,
    regions: &[usize],
    ledger: &Ledger,
    since: Duration,
    within: Duration,
) -> BTreeMap<String, Option<Duration>> {
    loop {
        let names = regions.iter().map(|region| &sites.regions()[*region]);
        let served = names.map(|name| {
            let at = ledger.served(name, since);
            (name.clone(), at.map(|at| at.saturating_sub(since)))
        });
        let served: BTreeMap<String, Option<Duration>> = served.collect();
        if served.values().all(Option::is_some) || ledger.now() >= since + within {
            return served;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Reads these regions in both orders. `seed` draws the readers' random choices.
///
/// # Errors
/// If a region cannot be read.
pub async fn read(
    sites: &dyn Sites,
    regions: &[usize],
    seed: u64,
) -> anyhow::Result<BTreeMap<String, RegionRead>> {
    let mut reads = BTreeMap::new();
    for home in regions.iter().copied() {
        let name = &sites.regions()[home];
        let seed = seed.wrapping_add(home as u64);
        let client = sites.client(Wanted { home, roams: false, seed });
        let reading = || format!("read all events of {name}");
        let read = RegionRead {
            own: own(&client).await.with_context(reading)?,
            regional: events(whole(&client, Order::Regional)).await.with_context(reading)?,
            global: events(whole(&client, Order::Global)).await.with_context(reading)?,
        };
        reads.insert(name.clone(), read);
    }
    Ok(reads)
}

/// The origin that the region writes under.
async fn own(client: &Client) -> anyhow::Result<Option<Origin>> {
    let status = client.status().await?;
    let Ok(incarnation) = <[u8; 16]>::try_from(&status.incarnation[..]) else { return Ok(None) };
    Ok(Some(Origin {
        region: RegionName::new(&status.region)?,
        incarnation: Incarnation(u128::from_be_bytes(incarnation)),
        shard: ShardId(status.shard as u16),
    }))
}

fn whole(client: &Client, order: Order) -> Read {
    client.read_all().order(order)
}

async fn events(read: Read) -> anyhow::Result<Vec<Seen>> {
    let mut events = read.events();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event?.into());
    }
    Ok(all)
}

/// Asks each region for some parts of what it showed in these reads, each by itself. `seed` draws
/// which, in which order and direction.
///
/// # Errors
/// If a part cannot be read.
pub async fn select(
    sites: &dyn Sites,
    reads: &BTreeMap<String, RegionRead>,
    seed: u64,
) -> anyhow::Result<Vec<Selection>> {
    let mut selections = Vec::new();
    for (home, region) in sites.regions().iter().enumerate() {
        if let Some(read) = reads.get(region) {
            selections.extend(select_in(sites, home, read, seed).await?);
        }
    }
    Ok(selections)
}

async fn select_in(
    sites: &dyn Sites,
    home: usize,
    read: &RegionRead,
    seed: u64,
) -> anyhow::Result<Vec<Selection>> {
    let region = &sites.regions()[home];
    let mut random = dice::rng(seed, "selections", home, 0);
    let client = sites.client(Wanted { home, roams: false, seed: random.random() });
    let streams: BTreeSet<&str> = read.regional.iter().map(|seen| &*seen.stream).collect();
    let streams: Vec<&str> = streams.into_iter().collect();
    let mut selections = Vec::new();
    for part in parts(&mut random, &streams) {
        let order = if random.random_bool(0.7) { Order::Regional } else { Order::Global };
        let backwards = random.random_bool(0.4);
        let read = match &part {
            Part::Stream(name) => client.read_stream(name),
            Part::Category(name) => client.read_category(name),
            Part::Prefix(start) => {
                client.read_all().filter(Filter::new().stream_prefixes([start.clone()]))
            }
        };
        let read = read.order(order);
        let read = if backwards { read.backwards() } else { read };
        let reading = || format!("read {part:?} of {region} in {order:?} order");
        let shown = events(read).await.with_context(reading)?;
        let shown = shown.into_iter().map(|seen| seen.dot).collect();
        selections.push(Selection { region: region.clone(), part, order, backwards, shown });
    }
    Ok(selections)
}

/// Parts to ask for, of these streams.
fn parts(random: &mut impl Rng, streams: &[&str]) -> Vec<Part> {
    let some = |random: &mut _, count| -> Vec<&str> {
        streams.choose_multiple(random, count).copied().collect()
    };
    let whole = some(random, STREAMS_SELECTED).into_iter().map(|name| Part::Stream(name.into()));
    let mut parts: Vec<Part> = whole.collect();
    for (nth, name) in some(random, STREAMS_SELECTED / 2).into_iter().enumerate() {
        let start: String = name.chars().take(random.random_range(1..=6)).collect();
        parts.push(match nth % 2 {
            0 => Part::Category(category(name).to_owned()),
            _ => Part::Prefix(start),
        });
    }
    parts
}
