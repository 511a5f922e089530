//! Asking the other side of a session for its time, in datagrams beside the streams.
//!
//! A clock that is told behind megabytes of history, or while nobody reads, is told late, and a late
//! clock looks like one that is behind. The puller asks, and sees from its own question how long the
//! answer was under way.

use std::sync::Arc;
use std::time::Duration;

use anabranch_core::RegionName;
use quinn::Connection;
use tokio::time::MissedTickBehavior;

use super::now;
use crate::frame::Beside;
use crate::traits::{ClockAnswer, ClockTrust, Sink, Source, WallClock};

/// How often a puller asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Asks until the connection ends.
pub(super) async fn ask(connection: Connection, region: RegionName, sink: Arc<dyn Sink>) {
    let began = now();
    let mut turn = tokio::time::interval(ASK_EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let datagram = tokio::select! {
            biased;
            datagram = connection.read_datagram() => datagram,
            _ = turn.tick() => {
                let asked_ms = (now() - began).as_millis() as u64;
                // Lost, or not possible on this path: then this clock is not known.
                let _ = connection.send_datagram(Beside::ClockQuestion { asked_ms }.encode());
                continue;
            }
        };
        // The session sees the loss of its connection itself.
        let Ok(datagram) = datagram else { return };
        if let Ok(Beside::ClockAnswer { asked_ms, unix_ms, proven }) = Beside::decode(datagram)
            && let Some(round_trip) = (now() - began).checked_sub(Duration::from_millis(asked_ms))
        {
            sink.hear_clock(&region, ClockAnswer { unix_ms, round_trip, proven });
        }
    }
}

/// Answers until the connection ends, but with no time that this node itself doubts.
pub(super) async fn answer(connection: Connection, clock: WallClock, source: Arc<dyn Source>) {
    while let Ok(datagram) = connection.read_datagram().await {
        let Ok(Beside::ClockQuestion { asked_ms }) = Beside::decode(datagram) else { continue };
        // The time that is told is the time that is judged: between two readings a clock can jump.
        let unix_ms = clock();
        let proven = match source.clock_trust(unix_ms) {
            ClockTrust::Proven => true,
            ClockTrust::Unproven => false,
            ClockTrust::Doubted => continue,
        };
        let answer = Beside::ClockAnswer { asked_ms, unix_ms, proven };
        let _ = connection.send_datagram(answer.encode());
    }
}
