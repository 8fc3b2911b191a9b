//! Log lines that strangers can cause: one a period, with the number of those left out.

use std::sync::Mutex;
use std::time::Duration;

use super::clock::Clock;
use crate::model::Instant;

/// Lets one line a period through.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: Clock,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// One line a period.
    pub(crate) fn new(clock: Clock, period: Duration) -> Throttle {
        Throttle { clock, period, state: Mutex::default() }
    }

    /// Whether a line may be written now; if so, what to put behind it: nothing, or how many like it were left
    /// out since the last.
    pub(crate) fn pass(&self) -> Option<String> {
        self.pass_at(self.clock.instant())
    }

    fn pass_at(&self, now: Instant) -> Option<String> {
        // A panic of another holder leaves numbers behind, nothing worse.
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.last.is_some_and(|last| now - last < self.period) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(match std::mem::take(&mut state.left_out) {
            0 => String::new(),
            count => format!(" ({count} more like this since the last such line)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_period_and_the_next_says_how_many_were_left_out() {
        let throttle = Throttle::new(Clock::start(), Duration::from_secs(10));
        assert_eq!(throttle.pass_at(Instant(0)).as_deref(), Some(""));
        assert_eq!(throttle.pass_at(Instant(9_999_999)), None);
        assert_eq!(throttle.pass_at(Instant(9_999_999)), None);
        let later = throttle.pass_at(Instant(10_000_000)).unwrap();
        assert!(later.contains("2 more"), "{later}");
        assert_eq!(throttle.pass_at(Instant(20_000_000)).as_deref(), Some(""));
    }
}
