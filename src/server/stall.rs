//! Who makes a connection wait too long.

use std::time::Duration;

/// How often a connection looks whether it has stalled. A coarse clock: one timer a connection, never reset.
pub(crate) const WATCH: Duration = Duration::from_secs(5);

/// For how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// 30 seconds.
    Usual,
    /// 5 to 10 seconds: others wait for it.
    Short,
}

impl Patience {
    /// Looks without progress after which it has stalled.
    fn looks(self) -> u32 {
        match self {
            Patience::Usual => 6,
            Patience::Short => 1,
        }
    }
}

/// Bytes that count as progress. A byte every now and then does not, or a stranger could hold a half message
/// for ever.
const PROGRESS: usize = 16 * 1024;

/// Counts the looks during which something that should move has not.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    looks: u32,
    bytes: usize,
}

impl Stall {
    /// So many bytes have moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS {
            self.done();
        }
    }

    /// What was waited for is complete.
    pub(crate) fn done(&mut self) {
        *self = Stall::default();
    }

    /// Looks: `waiting` says whether anything should be moving at all. True: it has stalled.
    pub(crate) fn look(&mut self, waiting: bool, patience: Patience) -> bool {
        if waiting {
            self.looks += 1;
        } else {
            self.done();
        }
        self.looks > patience.looks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_at_a_time_stalls_but_a_slow_flow_does_not() {
        let mut trickle = Stall::default();
        let mut stalled = || {
            trickle.moved(1);
            trickle.look(true, Patience::Usual)
        };
        assert_eq!((0..100).position(|_| stalled()), Some(6));
        assert!(trickle.look(true, Patience::Short), "sooner where others wait");
        let mut flow = Stall::default();
        for _ in 0..100 {
            flow.moved(PROGRESS);
            assert!(!flow.look(true, Patience::Usual));
        }
        let mut idle = Stall::default();
        assert!((0..100).all(|_| !idle.look(false, Patience::Short)));
    }
}
