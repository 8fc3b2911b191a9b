//! The storage thread: everything that waits for the disk waits here.
//!
//! It takes all that is queued as one batch; the engine writes and syncs that once. So the longer a sync takes,
//! the more records the next one covers, and nothing need be tuned.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::clock::Clock;
use crate::model::Instant;
use crate::storage::{Command, Completion, Disk, Engine, SyncPolicy};

/// Commands in one batch at most. What waits behind a batch waits for its sync; 4096 records of the usual size
/// cost a sync hardly more than one does.
const MAX_BATCH: usize = 4096;

/// Bytes of keys and values in one batch, about: long values cost what they cost, and what waits behind them, or for a sign
/// that the disk works, need not wait for all of them.
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// Where commands are queued. Not bounded by itself: the node has a bounded number of calls, requests, hints
/// and compaction steps in flight, and each waits for its command before it asks for the next.
pub(crate) type Orders = Sender<Vec<Command>>;

/// Starts the thread. It ends once every [`Orders`] is dropped and all they held is carried out and synced, or
/// at once when nobody takes its completions any more.
pub(crate) fn start<D: Disk + Send + 'static>(
    engine: Engine<D>,
    policy: SyncPolicy,
    clock: Clock,
    completions: UnboundedSender<Vec<Completion>>,
) -> io::Result<(Orders, JoinHandle<()>)> {
    let (orders, queue) = channel();
    let thread = std::thread::Builder::new().name("storage".into()).spawn(move || {
        let interval = match policy {
            SyncPolicy::Always => None,
            SyncPolicy::Interval(interval) => Some(interval),
        };
        Storage { engine, queue, completions, clock, interval, due: None }.run();
    })?;
    Ok((orders, thread))
}

struct Storage<D> {
    engine: Engine<D>,
    queue: Receiver<Vec<Command>>,
    completions: UnboundedSender<Vec<Completion>>,
    clock: Clock,
    /// Between syncs, if not every batch is synced.
    interval: Option<Duration>,
    /// When the next such sync is due; `None`: nothing was written since the last.
    due: Option<Instant>,
}

impl<D: Disk> Storage<D> {
    fn run(mut self) {
        loop {
            let first = match self.due {
                None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self.queue.recv_timeout(due - self.clock.instant()),
            };
            let mut completions = Vec::new();
            let mut ended = false;
            match first {
                Ok(mut batch) => {
                    let bytes_of =
                        |batch: &[Command]| batch.iter().map(Command::bytes).sum::<u64>();
                    let mut bytes = bytes_of(&batch);
                    while batch.len() < MAX_BATCH
                        && bytes < MAX_BATCH_BYTES
                        && let Ok(more) = self.queue.try_recv()
                    {
                        bytes += bytes_of(&more);
                        batch.extend(more);
                    }
                    self.engine.execute(batch, &mut completions);
                    if let (Some(interval), None) = (self.interval, self.due) {
                        self.due = Some(self.clock.instant() + interval);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => ended = true,
            }
            // Also under load, when the queue never runs empty.
            if ended || self.due.is_some_and(|due| due <= self.clock.instant()) {
                self.engine.sync(&mut completions);
                self.due = None;
            }
            if !completions.is_empty() && self.completions.send(completions).is_err() && !ended {
                return;
            }
            if ended {
                return;
            }
        }
    }
}
