//! A bank: transfers between the accounts of a region that must not make or lose money.
//!
//! An account is a stream that only its region's tellers write to, always under the revision at which
//! they know its balance. So no account is ever overdrawn, without any lock.

use std::collections::BTreeMap;

use anabranch_client::{Expect, From};
use anabranch_history::checks::atomic::GUARDED;
use anabranch_history::content::{MARK, Mark};
use anabranch_history::op::{Ack, Outcome};
use anabranch_history::shape::Class;
use rand::Rng;

use crate::home::Home;
use crate::reads;
use crate::scribe::{Scribe, Wish};

/// Accounts of a region.
const ACCOUNTS: u32 = 4;
/// Money that each account is opened with.
const OPENING: i64 = 100;

/// What a teller knows of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account {
    /// The revision that comes next.
    next: u64,
    balance: i64,
    /// Whether it may be otherwise by now.
    doubtful: bool,
}

impl Account {
    /// Takes in the event at revision `next`.
    fn book(&mut self, amount: i64) {
        self.next += 1;
        self.balance += amount;
    }
    fn expectation(&self) -> Expect {
        self.next.checked_sub(1).map_or(Expect::NoStream, Expect::Revision)
    }
}

/// Runs client `nth` of the region until it is told to stop.
pub(crate) async fn run(home: Home, nth: u32) {
    let number = Class::Teller.writer(home.number, nth);
    let client = home.client("teller", nth, false);
    let rng = home.rng("teller", nth);
    let mut scribe = Scribe::new(home, number, client, false, rng);
    let name = |account| format!("{GUARDED}-{}-{account}", scribe.home.name());
    let names: Vec<String> = (0..ACCOUNTS).map(name).collect();
    let mut books = BTreeMap::new();
    if nth == 0 {
        open(&mut scribe, &names).await;
    }
    while !scribe.home.stopped() {
        let from = scribe.rng.random_range(0..names.len());
        let to = (from + scribe.rng.random_range(1..names.len())) % names.len();
        transfer(&mut scribe, &mut books, &names[from], &names[to]).await;
        scribe.home.think(&mut scribe.rng).await;
    }
}

/// Opens all accounts in one append, once.
async fn open(scribe: &mut Scribe, names: &[String]) {
    while !scribe.home.stopped() {
        let wish = names.iter().fold(Wish::new(), |wish, name| {
            wish.money(name, OPENING, 20).expect(name, Expect::NoStream)
        });
        let (_, told) = scribe.append(wish).await;
        // A conflict tells that an earlier one of unknown outcome was written.
        if matches!(told.outcome, Outcome::Acknowledged(_) | Outcome::Conflict { .. }) {
            return;
        }
        scribe.home.think(&mut scribe.rng).await;
    }
}

async fn transfer(
    scribe: &mut Scribe,
    books: &mut BTreeMap<String, Account>,
    from: &String,
    to: &String,
) {
    for name in [from, to] {
        let known =
            books.entry(name.clone()).or_insert(Account { doubtful: true, ..Account::default() });
        if known.doubtful {
            let Some(account) = look_up(scribe, name, *known).await else { return };
            books.insert(name.clone(), account);
        }
    }
    let (payer, payee) = (books[from], books[to]);
    if payer.balance < 1 || payee.next == 0 {
        // Somebody may have paid in, or opened it.
        for name in [from, to] {
            books.insert(name.clone(), Account { doubtful: true, ..books[name] });
        }
        return;
    }
    let amount = scribe.rng.random_range(1..=payer.balance);
    let wish = Wish::new()
        .money(from, -amount, 20)
        .money(to, amount, 20)
        .expect(from, payer.expectation())
        .expect(to, payee.expectation());
    let (_, told) = scribe.append(wish).await;
    settle(books, [(from, -amount), (to, amount)], &told.outcome);
}

/// Books what was acknowledged; anything else makes both accounts doubtful.
fn settle(books: &mut BTreeMap<String, Account>, bookings: [(&String, i64); 2], outcome: &Outcome) {
    for (name, amount) in bookings {
        let account = books.get_mut(name).expect("accounts of a transfer are in the books");
        let as_expected = |ack: &Ack| ack.revisions.get(name) == Some(&account.next);
        match outcome {
            Outcome::Acknowledged(ack) if as_expected(ack) => account.book(amount),
            Outcome::Conflict { conflicts } => {
                account.doubtful = true;
                let found = conflicts.iter().find(|found| found.expectation.stream == *name);
                // A region that began anew knows less than we do.
                if found.is_some_and(|found| found.actual.map_or(0, |last| last + 1) < account.next)
                {
                    *account = Account { doubtful: true, ..Account::default() };
                }
            }
            _ => account.doubtful = true,
        }
    }
}

/// Reads on from what is known of the account; none if it cannot be read now.
async fn look_up(scribe: &Scribe, name: &str, known: Account) -> Option<Account> {
    let read = scribe.client.read_stream(name).from(From::Revision(known.next));
    let what = || format!("a read of {name}");
    let events = reads::collect(&scribe.home, scribe.number, what, read).await?;
    let mut account = Account { doubtful: false, ..known };
    for event in events {
        if event.revision != account.next {
            return Some(Account { doubtful: true, ..Account::default() });
        }
        let mark = event.metadata.get(MARK).and_then(|text| Mark::parse(text));
        account.book(mark.map_or(0, |mark| mark.amount));
    }
    Some(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_history::op::{Conflict, Expectation};

    fn books() -> BTreeMap<String, Account> {
        let account = |next, balance| Account { next, balance, doubtful: false };
        [("a".to_owned(), account(1, 100)), ("b".to_owned(), account(4, 30))].into()
    }

    fn conflict(actual: Option<u64>) -> Outcome {
        let expectation = Expectation { stream: "a".into(), expected: Expect::Revision(0) };
        Outcome::Conflict { conflicts: vec![Conflict { expectation, actual }] }
    }

    #[test]
    fn what_is_not_acknowledged_leaves_the_balance_and_makes_it_doubtful() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let unknown = Outcome::Unknown { why: "no answer".into() };
        for outcome in [unknown, conflict(Some(3))] {
            let mut books = books();
            settle(&mut books, [(&a, -40), (&b, 40)], &outcome);
            assert_eq!(books[&a], Account { next: 1, balance: 100, doubtful: true });
            assert_eq!(books[&b], Account { next: 4, balance: 30, doubtful: true });
        }
    }

    #[test]
    fn a_region_that_began_anew_is_read_from_the_start() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let mut books = books();
        settle(&mut books, [(&a, -40), (&b, 40)], &conflict(None));
        assert_eq!(books[&a], Account { next: 0, balance: 0, doubtful: true });
        assert_eq!(books[&b].next, 4);
    }

    #[test]
    fn an_account_is_expected_at_the_revision_of_its_balance() {
        let mut account = Account::default();
        assert_eq!(account.expectation(), Expect::NoStream);
        account.book(100);
        account.book(-30);
        assert_eq!((account.expectation(), account.balance), (Expect::Revision(1), 70));
    }
}
