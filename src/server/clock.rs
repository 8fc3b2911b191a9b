//! The two clocks of the machine, read at one moment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{Instant, Now};

/// Where readings of the monotonic clock count from. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that counts from now.
    // The pure part is told the time; this is the place where the driver asks for it.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// Both clocks. A wall clock before 1970 reads as 1970, which the hybrid clock copes with.
    // As above.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), wall: wall.as_micros().try_into().unwrap_or(i64::MAX) }
    }

    /// The monotonic clock alone.
    // As above.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn instant(&self) -> Instant {
        Instant(self.origin.elapsed().as_micros() as u64)
    }

    /// The same moment as a timer of the runtime understands it.
    pub(crate) fn timer(&self, at: Instant) -> tokio::time::Instant {
        // An instant of the far future would overflow the sum; a day is as good as never.
        let ahead = (at - self.instant()).min(Duration::from_secs(24 * 60 * 60));
        tokio::time::Instant::now() + ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_of_the_past_is_due_and_one_of_the_far_future_does_not_overflow() {
        let clock = Clock::start();
        assert!(clock.timer(Instant(0)) <= tokio::time::Instant::now());
        assert!(clock.timer(Instant(u64::MAX)) > tokio::time::Instant::now());
        assert!(clock.now().instant <= clock.now().instant);
    }
}
