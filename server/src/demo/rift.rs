//! Two regions that cannot see each other change the same cart, the same counters and the same account:
//! what each sees, what is refused, what both see afterwards, and which conflicts they list then.
//!
//! Comes after the proof, on streams of its own. What comes out is known beforehand and is checked.

use std::time::Duration;

use anabranch_client::{
    Aggregate, AppendError, Appended, Client, Expect, Operation, Session, event,
};
use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, Endpoints};
use super::folds::{ASK_AGAIN, at_work};
use super::reading::Faults;

mod clashes;

use clashes::{Clashes, Written};

/// How long a region that is asked waits for what the other one has written, once it can.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// How long somebody insists on what cannot be done without a region that is cut off.
const INSISTS: Duration = Duration::from_secs(2);

const CART: &str = "basket-ada";
const SHOW: &str = "show-hamlet";
const ACCOUNT: &str = "account-ada";

/// What two regions that were cut off from each other did and saw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rift {
    /// The two regions.
    pub regions: [String; 2],
    /// In the order in which it happened.
    pub moments: Vec<Moment>,
}

/// What was done or seen at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// When it was.
    pub when: &'static str,
    /// What it is about, and what it came to in each of the two regions.
    pub lines: Vec<(String, [String; 2])>,
}

/// What a region shows of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    cart: Json,
    likes: Json,
    seats: Json,
    balance: Json,
}

/// One of the two regions, and somebody who works there.
struct Side {
    region: String,
    client: Client,
}

impl Side {
    fn new(endpoints: &Endpoints) -> anyhow::Result<Self> {
        let region = endpoints.region.to_string();
        let client = Client::builder().region(region.as_str(), endpoints.nodes.clone());
        let client = client.session(Session::new()).session_wait(SEEN_WITHIN);
        let client = client.timeout(SEEN_WITHIN).attempt_timeout(SEEN_WITHIN).build()?;
        Ok(Self { region, client })
    }

    /// From now on nothing is shown here without what `other` has written and seen.
    fn knows_of(&self, other: &Self) -> anyhow::Result<()> {
        self.client.session().merge(&other.client.session().token()).context("a session token")
    }

    async fn operate(&self, stream: &str, operation: Operation) -> Result<Appended, AppendError> {
        self.client.aggregate(stream).operate([operation]).await
    }

    async fn withdraw(&self, within: Duration) -> Result<Appended, AppendError> {
        let event = event("Withdrawn").payload(json!({ "amount": 30 }).to_string());
        self.client.append(ACCOUNT, event).expect(Expect::Revision(0)).timeout(within).await
    }

    /// Waits until the region's leader has given up its session with `other`.
    async fn misses(&self, other: &Self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let known = self.client.status().await?;
            let led = self.client.status_at(&known.leader_address).await?;
            let link = led.regions.iter().find(|region| region.region == other.region);
            if link.is_some_and(|region| matches!(region.link.as_str(), "down" | "relayed")) {
                return Ok(());
            }
            let (region, other) = (&self.region, &other.region);
            ensure!(Instant::now() < deadline, "{region} still sees {other}");
            sleep(ASK_AGAIN).await;
        }
    }

    async fn view(&self) -> anyhow::Result<View> {
        let (cart, show) = (self.read(CART).await?, self.read(SHOW).await?);
        let account = self.read(ACCOUNT).await?;
        Ok(View {
            cart: cart.field("items")?.clone(),
            likes: show.field("likes")?.clone(),
            seats: show.field("seats")?["rights"].clone(),
            balance: account.field("balance")?["tentative"].clone(),
        })
    }

    /// The conflicts of the cart that the region lists, with everything in them that this side has
    /// written and seen.
    async fn clashes(&self, written: &[Written]) -> anyhow::Result<Clashes> {
        let page = self.client.conflicts().stream(CART).page().await;
        let page = page.with_context(|| format!("list the conflicts in {}", self.region))?;
        ensure!(!page.more, "{} lists more conflicts than there can be", self.region);
        Ok(Clashes::of(&page.conflicts, written))
    }

    /// The aggregate, as soon as the region knows the definition.
    async fn read(&self, stream: &str) -> anyhow::Result<Aggregate> {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            match self.client.aggregate(stream).get().await {
                Err(error) if at_work(&error, deadline).await => {}
                read => {
                    return read.with_context(|| format!("read {stream} in {}", self.region));
                }
            }
        }
    }
}

/// Plays it between the first and the last region; none if there is only one.
///
/// # Errors
/// If what is to be there before the cut cannot be written, or a region cannot be read.
pub async fn play(
    cluster: &Cluster,
    endpoints: &[Endpoints],
) -> anyhow::Result<Option<(Rift, Faults)>> {
    let [first, .., last] = endpoints else { return Ok(None) };
    let far = endpoints.len() - 1;
    let sides = [Side::new(first)?, Side::new(last)?];
    let (moments, faults) = (Vec::new(), Faults::default());
    let mut scene = Scene { sides, moments, faults, carts: Vec::new() };
    scene.prepare().await?;
    scene.look("both see, before").await?;
    cluster.cut_off(far);
    let done = scene.while_cut_off().await;
    let seen = scene.look("each sees, alone").await;
    cluster.heal(far);
    done?;
    let alone = seen?;
    scene.reunite()?;
    let together = scene.look("both see, reunited").await?;
    scene.judge(&alone, &together);
    scene.list_conflicts().await?;
    let regions = scene.sides.map(|side| side.region);
    Ok(Some((Rift { regions, moments: scene.moments }, scene.faults)))
}

/// What is done in both regions at the same time.
struct Step {
    about: &'static str,
    stream: &'static str,
    says: [&'static str; 2],
    does: [Operation; 2],
    may: [bool; 2],
}

fn steps() -> [Step; 5] {
    let cart = |says, does| Step { about: "cart", stream: CART, says, does, may: [true; 2] };
    let show = |about, says, by: [i64; 2], may| {
        let does = by.map(|by| Operation::increment(about, by));
        Step { about, stream: SHOW, says, does, may }
    };
    let item = |name: &str| Operation::add("items", name);
    [
        cart(["remove bread", "add bread"], [Operation::remove("items", "bread"), item("bread")]),
        cart(["add tea", "add jam"], [item("tea"), item("jam")]),
        show("likes", ["3 more", "4 more"], [3, 4], [true; 2]),
        show("seats", ["sell 3", "sell 2"], [-3, -2], [true; 2]),
        show("seats", ["sell 1 more", "sell 1 more"], [-1, -1], [false; 2]),
    ]
}

struct Scene {
    sides: [Side; 2],
    moments: Vec<Moment>,
    faults: Faults,
    /// What was done to the cart while the regions could not see each other.
    carts: Vec<Written>,
}

impl Scene {
    /// What both regions have before they lose sight of each other.
    async fn prepare(&self) -> anyhow::Result<()> {
        let [home, away] = &self.sides;
        for definition in definitions() {
            home.client.define(definition.to_string()).await.context("define the aggregates")?;
        }
        let declaration = json!({ "category": "account", "home": home.region });
        let declared = event("HomeDeclared").payload(declaration.to_string());
        home.client.append("$class-account", declared).await.context("give accounts a home")?;
        let opened = event("Deposited").payload(json!({ "amount": 50 }).to_string());
        let opened = home.client.append(ACCOUNT, opened).expect(Expect::NoStream);
        opened.await.context("open the account")?;
        for (stream, operation) in [
            (CART, Operation::add("items", "bread")),
            (SHOW, Operation::increment("likes", 10)),
            (SHOW, Operation::increment("seats", 5)),
            (SHOW, Operation::pass("seats", 2, away.region.as_str())),
        ] {
            let operate = home.client.aggregate(stream).operate([operation]);
            operate.await.with_context(|| format!("change {stream}"))?;
        }
        away.knows_of(home)
    }

    async fn while_cut_off(&mut self) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for Step { about, stream, says, does, may } in steps() {
            let ([left, right], [one, other]) = (&self.sides, does);
            let outcomes = tokio::join!(left.operate(stream, one), right.operate(stream, other));
            let outcomes = [outcomes.0, outcomes.1];
            if stream == CART {
                let done = says.iter().zip(&outcomes).filter_map(|(says, outcome)| {
                    Some(Written { dot: outcome.as_ref().ok()?.first.clone(), says })
                });
                self.carts.extend(done);
            }
            lines.push(self.outcome(about, says, outcomes, may));
        }
        let [left, right] = &self.sides;
        // Until then, what is handed to the home is unknown instead of refused.
        right.misses(left).await?;
        let outcomes = tokio::join!(left.withdraw(SEEN_WITHIN), right.withdraw(INSISTS));
        let says = ["withdraw 30 at revision 0"; 2];
        lines.push(self.outcome("account", says, [outcomes.0, outcomes.1], [true, false]));
        self.moments.push(Moment { when: "each does, alone", lines });
        Ok(())
    }

    /// What came of asking both regions for what each `says`; it `may` be done, or it must not.
    fn outcome(
        &mut self,
        about: &str,
        says: [&str; 2],
        outcomes: [Result<Appended, AppendError>; 2],
        may: [bool; 2],
    ) -> (String, [String; 2]) {
        let told = [0, 1].map(|at| match &outcomes[at] {
            Ok(_) => format!("{}: done", says[at]),
            Err(error) => format!("{}: NOT DONE, {error}", says[at]),
        });
        for at in 0..2 {
            if outcomes[at].is_ok() != may[at] {
                let region = &self.sides[at].region;
                self.faults.add(|| format!("{region}, {about}, {}", told[at]));
            }
        }
        (about.to_owned(), told)
    }

    /// Both see what both have done.
    fn reunite(&self) -> anyhow::Result<()> {
        let [left, right] = &self.sides;
        left.knows_of(right)?;
        right.knows_of(left)
    }

    async fn look(&mut self, when: &'static str) -> anyhow::Result<[View; 2]> {
        let [left, right] = &self.sides;
        let (left, right) = tokio::join!(left.view(), right.view());
        let views = [left?, right?];
        let line = |what: &str, of: fn(&View) -> &Json| {
            (what.to_owned(), [of(&views[0]).to_string(), of(&views[1]).to_string()])
        };
        let lines = vec![
            line("cart", |view| &view.cart),
            line("likes", |view| &view.likes),
            line("seats that each may sell", |view| &view.seats),
            line("balance", |view| &view.balance),
        ];
        self.moments.push(Moment { when, lines });
        Ok(views)
    }

    /// Everything that one did to the cart is concurrent with all that the other did, and nothing else is:
    /// both list that.
    async fn list_conflicts(&mut self) -> anyhow::Result<()> {
        let ([left, right], written) = (&self.sides, &mut self.carts);
        written.sort_by_key(|event| event.dot.origin.region.as_str() != left.region);
        let (left, right) = tokio::join!(left.clashes(written), right.clashes(written));
        let wanted = Clashes::between(written);
        let told = [left?, right?].map(|clashes| (clashes == wanted, clashes.to_text(written)));
        for (side, (as_wanted, told)) in self.sides.iter().zip(&told) {
            if !as_wanted {
                let wanted = wanted.to_text(written);
                self.faults.add(|| format!("{} lists {told:?}, not {wanted:?}", side.region));
            }
        }
        let lines = vec![("conflicts of the cart".to_owned(), told.map(|(_, told)| told))];
        self.moments.push(Moment { when: "both list, reunited", lines });
        Ok(())
    }

    /// Holds what was seen against what the types promise.
    fn judge(&mut self, alone: &[View; 2], together: &[View; 2]) {
        let view = |cart: Json, likes: u64, seats: Json, balance: u64| View {
            cart,
            likes: likes.into(),
            seats,
            balance: balance.into(),
        };
        let [left, right] = self.sides.each_ref().map(|side| side.region.clone());
        let sold = |region: &str, rest: u64| json!({ region: rest });
        let wanted = [
            (&alone[0], &left, view(json!(["tea"]), 13, sold(&right, 2), 20)),
            (&alone[1], &right, view(json!(["bread", "jam"]), 14, sold(&left, 3), 50)),
            (&together[0], &left, view(json!(["bread", "jam", "tea"]), 17, json!({}), 20)),
            (&together[1], &right, view(json!(["bread", "jam", "tea"]), 17, json!({}), 20)),
        ];
        for (seen, region, wanted) in wanted {
            if *seen != wanted {
                self.faults.add(|| format!("{region} shows {seen:?}, not {wanted:?}"));
            }
        }
    }
}

fn definitions() -> [Json; 3] {
    let definition = |category: &str, fields: Json, on: Json| json!({ "category": category, "version": 1, "fields": fields, "on": on });
    [
        definition("basket", json!({ "items": "or-set" }), json!({})),
        definition("show", json!({ "likes": "pn-counter", "seats": "bounded-counter" }), json!({})),
        definition(
            "account",
            json!({ "balance": "ordered from 0" }),
            json!({
                "Deposited": ["balance += $.amount"],
                "Withdrawn": ["balance -= $.amount when balance >= $.amount"],
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_are_definitions() {
        for definition in definitions() {
            anabranch_core::aggregate::Definition::from_json(&definition).unwrap();
        }
    }
}
