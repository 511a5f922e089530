//! What happened in a run, line by line in simulated time: the faults, the starts and ends of nodes.
//! The same seed gives the same journal, byte for byte.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cluster::NodeAt;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, since the run began.
    pub at: Duration,
    /// What.
    pub what: String,
}

/// A node began to serve, or ceased to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Duration,
    /// Which node.
    pub node: NodeAt,
    /// Whether it serves from here on.
    pub serves: bool,
}

/// The journal of a run. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Duration,
    lines: Vec<Line>,
    changes: Vec<Change>,
    echo: bool,
}

impl Journal {
    /// An empty journal; with `echo`, lines are printed as they come.
    pub fn new(echo: bool) -> Self {
        Self(Arc::new(Mutex::new(State { echo, ..State::default() })))
    }
    /// Says what time it is now.
    pub fn tick(&self, now: Duration) {
        self.0.lock().now = now;
    }
    /// What time it is now.
    pub fn now(&self) -> Duration {
        self.0.lock().now
    }
    /// Writes a line.
    pub fn note(&self, what: impl Into<String>) {
        let mut state = self.0.lock();
        let line = Line { at: state.now, what: what.into() };
        if state.echo {
            println!("{:9.3} s  {}", line.at.as_secs_f64(), line.what);
        }
        state.lines.push(line);
    }
    /// Remembers that a node began to serve, or ceased to.
    pub fn change(&self, node: NodeAt, serves: bool) {
        let mut state = self.0.lock();
        let at = state.now;
        state.changes.push(Change { at, node, serves });
    }
    /// When nodes began and ceased to serve.
    pub fn changes(&self) -> Vec<Change> {
        self.0.lock().changes.clone()
    }
    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.0.lock().lines.clone()
    }
    /// As text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Line { at, what } in &self.0.lock().lines {
            let _ = writeln!(text, "{:9.3} s  {what}", at.as_secs_f64());
        }
        text
    }
}
