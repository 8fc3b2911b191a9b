//! Time as plain numbers, given from outside.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A reading of a monotonic clock: microseconds since an origin of the driver's choosing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_micros() as u64))
    }
}

/// Zero if `earlier` is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Both clocks, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: what every wait and deadline is measured with.
    pub instant: Instant,
    /// Microseconds since 1970 by the wall clock, which may be wrong, jump, and run backwards.
    pub wall: i64,
}

/// How far ahead of every clock of the cluster a version that a *client* supplies may be: further ahead, no server can have
/// issued it. Between servers there is no such bound: a server whose own clock was reset must not refuse the world.
pub const FAR_FUTURE: Duration = Duration::from_secs(24 * 60 * 60);

/// The source of version times: never behind any version seen, never issuing a time twice, also not after a
/// restart with the wall clock set back.
///
/// It is a hybrid logical clock in one number (Kulkarni et al., 2014, without the separate counter: a
/// microsecond is the counter). Times above the *ceiling* are not issued until a greater ceiling is durable; a
/// restarted server starts above the ceiling it finds, so above everything it can have issued.
#[derive(Clone, Debug)]
pub struct HybridClock {
    last: i64,
    ceiling: i64,
    seen: i64,
}

impl HybridClock {
    /// How far above now a new ceiling is set.
    pub const AHEAD: Duration = Duration::from_secs(2);

    /// A clock that will issue nothing at or below `ceiling`, the durable one found at start, and nothing at
    /// all before [`HybridClock::raise`].
    pub fn new(ceiling: i64) -> HybridClock {
        HybridClock { last: ceiling.max(0), ceiling: ceiling.max(0), seen: 0 }
    }

    /// Takes note of a version time seen anywhere: later ticks are above it.
    pub fn absorb(&mut self, time: i64) {
        self.last = self.last.max(time);
        self.seen = self.seen.max(time);
    }

    /// The greatest time absorbed or issued. Unlike the next tick it owes nothing to the wall clock or to the ceiling found at
    /// start, so that servers that ask each other do not hurry each other on.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// The next time, above everything issued or absorbed; `None` until a greater ceiling is durable, and for
    /// ever once the numbers are used up.
    pub fn tick(&mut self, wall: i64) -> Option<i64> {
        let next = wall.max(self.last.checked_add(1)?);
        if next > self.ceiling {
            return None;
        }
        self.last = next;
        self.seen = next;
        Some(next)
    }

    /// The ceiling to make durable next, if less than half of [`HybridClock::AHEAD`] is left below the present
    /// one.
    pub fn wanted_ceiling(&self, wall: i64) -> Option<i64> {
        let ahead = Self::AHEAD.as_micros() as i64;
        let base = wall.max(self.last);
        (base.saturating_add(ahead / 2) > self.ceiling).then(|| base.saturating_add(ahead))
    }

    /// A ceiling is durable now.
    pub fn raise(&mut self, ceiling: i64) {
        self.ceiling = self.ceiling.max(ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_issued_twice_even_if_the_wall_clock_stands_still_or_runs_back() {
        let mut clock = HybridClock::new(0);
        clock.raise(10_000_000);
        let ticks: Vec<_> = [100, 100, 90, 101, 500].map(|wall| clock.tick(wall)).to_vec();
        assert_eq!(ticks, [Some(100), Some(101), Some(102), Some(103), Some(500)]);
    }

    #[test]
    fn what_was_seen_is_what_was_absorbed_or_issued_and_no_ceiling() {
        let mut clock = HybridClock::new(5_000);
        clock.raise(10_000_000);
        assert_eq!(clock.seen(), 0);
        clock.absorb(300);
        assert_eq!(clock.seen(), 300);
        assert_eq!(clock.tick(7), Some(5_001));
        clock.absorb(400);
        assert_eq!(clock.seen(), 5_001);
    }

    #[test]
    fn ticks_are_above_what_was_absorbed() {
        let mut clock = HybridClock::new(0);
        clock.raise(10_000_000);
        clock.absorb(7_000);
        assert_eq!(clock.tick(5), Some(7_001));
    }

    #[test]
    fn nothing_is_issued_above_the_ceiling_nor_below_the_one_found_at_start() {
        let mut clock = HybridClock::new(1_000);
        assert_eq!(clock.tick(2_000), None);
        let ceiling = clock.wanted_ceiling(500).unwrap();
        clock.raise(ceiling);
        assert_eq!(clock.tick(500), Some(1_001));
        assert_eq!(clock.tick(ceiling + 1), None);
    }

    #[test]
    fn a_wall_clock_that_is_off_by_years_neither_stalls_nor_repeats() {
        let years = 50 * 365 * 24 * 60 * 60 * 1_000_000;
        let today = 1_790_000_000_000_000;
        let mut clock = HybridClock::new(0);
        let mut last = 0;
        for wall in [today, today + years, today - years, 0, -years, today] {
            for _ in 0..3 {
                if let Some(ceiling) = clock.wanted_ceiling(wall) {
                    clock.raise(ceiling);
                }
                let time = clock.tick(wall).unwrap();
                assert!(time > last && time >= wall);
                last = time;
            }
        }
    }

    #[test]
    fn the_end_of_the_numbers_is_an_end_and_no_panic() {
        let mut clock = HybridClock::new(0);
        clock.absorb(i64::MAX);
        clock.raise(i64::MAX);
        assert_eq!(clock.tick(1), None);
        assert_eq!(clock.wanted_ceiling(i64::MAX), None);
    }
}
