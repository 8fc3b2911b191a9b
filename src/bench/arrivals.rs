//! Calls that come whatever happens: an open loop.
//!
//! In a closed loop a slow answer keeps its client from asking, so the slow moments are asked about least (Tene's *coordinated
//! omission*). Here the moments at which calls are due are drawn before the run, as independent users would come (a Poisson
//! process), and a latency counts from the moment at which its call was due, also if no connection was free to send it then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, SemaphorePermit};

/// When each call is due, after the beginning, and how many are.
#[derive(Debug)]
pub(super) struct Arrivals {
    due_at: Arc<[Duration]>,
    /// One permit for each call that is due and that nobody has taken up yet.
    due: Arc<Semaphore>,
}

impl Arrivals {
    /// So many calls a second on average, for so long.
    pub(super) fn new(rate: f64, length: Duration, seed: u64) -> Arrivals {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut due_at, mut at) = (Vec::new(), 0.0);
        loop {
            // The distance between two is distributed exponentially; 1 - x is never 0.
            at -= (1.0 - random.random::<f64>()).ln() / rate;
            if at >= length.as_secs_f64() {
                break;
            }
            due_at.push(Duration::from_secs_f64(at));
        }
        Arrivals { due_at: due_at.into(), due: Arc::new(Semaphore::new(0)) }
    }

    /// Lets calls become due, on a thread of its own: the timers of the loop itself are too coarse. At the end each of so many
    /// clients is let go. Ends early if nobody waits any more.
    #[expect(clippy::disallowed_methods, reason = "calls are due by the machine's time")]
    pub(super) fn begin(&self, began: Instant, clients: usize) {
        let (due_at, due) = (Arc::clone(&self.due_at), Arc::downgrade(&self.due));
        std::thread::spawn(move || {
            let mut next = 0;
            while let Some(at) = due_at.get(next) {
                std::thread::sleep(at.saturating_sub(began.elapsed()));
                let now = began.elapsed();
                let count = due_at[next..].iter().take_while(|at| **at <= now).count();
                let Some(due) = due.upgrade() else { return };
                due.add_permits(count);
                next += count;
            }
            if let Some(due) = due.upgrade() {
                due.add_permits(clients);
            }
        });
    }

    /// Waits until a call is due, or there are no more.
    pub(super) async fn wait(&self) -> Option<()> {
        // It is never closed.
        self.due.acquire().await.ok().map(SemaphorePermit::forget)
    }

    /// When the call with this number, from 0 on, was due. `None`: there are no more.
    pub(super) fn due_at(&self, number: u64) -> Option<Duration> {
        self.due_at.get(number as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_at_their_rate_and_not_evenly() {
        let arrivals = Arrivals::new(1_000.0, Duration::from_secs(20), 1);
        assert!((19_000..21_000).contains(&arrivals.due_at.len()), "{}", arrivals.due_at.len());
        assert!(arrivals.due_at.is_sorted());
        let gaps = arrivals.due_at.windows(2).map(|pair| pair[1] - pair[0]);
        // Of an exponential distribution 63 % lie below the mean.
        let short = gaps.filter(|gap| *gap < Duration::from_millis(1)).count();
        assert!((0.6..0.66).contains(&(short as f64 / arrivals.due_at.len() as f64)), "{short}");
    }
}
