//! Takes connections in.
//!
//! Where there are as many as there may be, the one that has been silent for longest since it was opened makes room for
//! the next: whoever opens connections only to hold them keeps nobody out. One that has made a call is never sent away
//! for that; if all have, the next one is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::connection::{self, Shared};
use super::throttle::Throttle;

/// Waits after a failed accept, doubled from the first to the last: out of descriptors, accept fails at once and
/// for as long as nobody closes one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// For one that was asked to leave to have left.
const LEAVING: Duration = Duration::from_millis(100);

/// What listener and connection know of each other: whether a whole message has come.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    spoken: AtomicBool,
    leave: Notify,
}

impl Voice {
    /// A whole message has come.
    pub(crate) fn speak(&self) {
        self.spoken.store(true, Ordering::Relaxed);
    }

    /// Has one?
    pub(crate) fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// Returns when the connection must make room for another.
    pub(crate) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

/// Connections in the order of their arrival, those that have ended or spoken in between.
#[derive(Debug)]
struct Places {
    permits: Arc<Semaphore>,
    most: usize,
    silent: VecDeque<Weak<Voice>>,
}

impl Places {
    fn new(most: usize) -> Places {
        Places { permits: Arc::new(Semaphore::new(most)), most, silent: VecDeque::new() }
    }

    /// A place for one more; `None`: there is none, and nobody to send away.
    async fn take(&mut self) -> Option<(OwnedSemaphorePermit, Arc<Voice>)> {
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.oldest_silent()?.leave.notify_one();
                let left = Arc::clone(&self.permits).acquire_owned();
                tokio::time::timeout(LEAVING, left).await.ok()?.ok()?
            }
        };
        let voice = Arc::new(Voice::default());
        if self.silent.len() > 2 * self.most {
            self.silent.retain(|voice| voice.upgrade().is_some_and(|voice| !voice.has_spoken()));
        }
        self.silent.push_back(Arc::downgrade(&voice));
        Some((permit, voice))
    }

    fn oldest_silent(&mut self) -> Option<Arc<Voice>> {
        while let Some(voice) = self.silent.pop_front() {
            if let Some(voice) = voice.upgrade().filter(|voice| !voice.has_spoken()) {
                return Some(voice);
            }
        }
        None
    }
}

/// Accepts until `stop` says so or the node's task is gone. Each connection task holds a clone of `alive` until
/// it ends.
pub(crate) async fn listen(
    listener: TcpListener,
    shared: Arc<Shared>,
    max_connections: usize,
    mut stop: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
    busy: Throttle,
) {
    let mut places = Places::new(max_connections);
    let mut number: u32 = 0;
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error: whoever could stop us is gone, which is as good as being told.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            // The client has gone away while it waited; the next one may be there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                if let Some(more) = busy.pass() {
                    log::warn!("no connection can be accepted: {error}; trying again{more}");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
        };
        pause = PAUSE.0;
        let Some((permit, voice)) = places.take().await else {
            if let Some(more) = busy.pass() {
                log::warn!(
                    "connection from {remote} closed: there are {max_connections} already, all in use \
                     (--max-connections){more}"
                );
            }
            continue;
        };
        number = number.wrapping_add(1);
        let (shared, alive) = (Arc::clone(&shared), alive.clone());
        tokio::spawn(async move {
            connection::serve(stream, remote, number, voice, shared).await;
            drop((permit, alive));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_been_silent_for_longest_makes_room_and_who_has_spoken_does_not() {
        let mut places = Places::new(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take().await.unwrap());
        }
        held[0].1.speak();
        // The second one leaves when it is told to.
        let (permit, voice) = held.remove(1);
        let leaver = tokio::spawn(async move {
            voice.must_leave().await;
            drop(permit);
        });
        held.push(places.take().await.unwrap());
        leaver.await.unwrap();
        held.iter().for_each(|(_, voice)| voice.speak());
        assert!(places.take().await.is_none(), "all have spoken");
        held.pop();
        assert!(places.take().await.is_some(), "one has ended");
    }
}
