//! Answers questions as a test says, and remembers them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anabranch_core::{RegionName, ShardId};
use anabranch_gossip::{Answer, BoxFuture, NotReady};
use bytes::Bytes;
use tokio::sync::watch;

/// What it does with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers with the question.
    Echo,
    /// Begins, and answers once it is in another mood.
    Hold,
    /// Is not ready.
    NotReady,
    /// Answers with so many bytes.
    Long(usize),
}

/// A question as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub from: RegionName,
    pub shard: ShardId,
    pub question: Bytes,
    pub within: Duration,
}

pub struct Oracle {
    pub mood: watch::Sender<Mood>,
    asked: Mutex<Vec<Asked>>,
    at_work: AtomicUsize,
}

/// Counts a question for as long as it is worked on, also if it is dropped.
struct AtWork<'a>(&'a AtomicUsize);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Oracle {
    pub fn new() -> Arc<Self> {
        let mood = watch::Sender::new(Mood::Echo);
        Arc::new(Self { mood, asked: Mutex::default(), at_work: AtomicUsize::new(0) })
    }

    /// Questions it began with.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Questions it works on now.
    pub fn at_work(&self) -> usize {
        self.at_work.load(Ordering::SeqCst)
    }
}

impl Answer for Oracle {
    fn answer<'a>(
        &'a self,
        from: &'a RegionName,
        shard: ShardId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'a, Result<Bytes, NotReady>> {
        Box::pin(async move {
            if *self.mood.borrow() == Mood::NotReady {
                return Err(NotReady);
            }
            self.at_work.fetch_add(1, Ordering::SeqCst);
            let _at_work = AtWork(&self.at_work);
            let from = from.clone();
            self.asked.lock().unwrap().push(Asked {
                from,
                shard,
                question: question.clone(),
                within,
            });
            let mut mood = self.mood.subscribe();
            match *mood.wait_for(|mood| *mood != Mood::Hold).await.unwrap() {
                Mood::Long(bytes) => Ok(vec![7; bytes].into()),
                _ => Ok(question),
            }
        })
    }
}
