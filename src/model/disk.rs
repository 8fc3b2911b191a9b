//! What a server's disk does, as its server says it of itself.

use std::fmt;

/// What a server's disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskState {
    /// What it should.
    #[default]
    Healthy,
    /// It has carried out nothing for a second, though asked.
    Hanging,
    /// It had no room for what was written last.
    Full,
    /// It takes no writes at all.
    ReadOnly,
}

impl DiskState {
    /// It can be expected to take what is stored there.
    pub fn takes_writes(self) -> bool {
        self == DiskState::Healthy
    }

    /// It can be expected to read what lies there.
    pub fn reads(self) -> bool {
        self != DiskState::Hanging
    }

    /// A sentence for people, if there is anything to say: `its disk is full since 17:03:10 UTC`. `since` is of a wall
    /// clock, in microseconds since 1970.
    pub fn describe(self, since: i64) -> Option<String> {
        if self == DiskState::Healthy {
            return None;
        }
        let second = since.div_euclid(1_000_000).rem_euclid(24 * 60 * 60);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        Some(format!("its disk {self} since {hour:02}:{minute:02}:{second:02} UTC"))
    }
}

impl fmt::Display for DiskState {
    /// What it does: `hangs`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskState::Healthy => "is well",
            DiskState::Hanging => "hangs",
            DiskState::Full => "is full",
            DiskState::ReadOnly => "is read-only",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_with_the_time_of_day_when_it_began() {
        // 14 November 2023, 22:13:20 UTC.
        let since = 1_700_000_000_999_999;
        assert_eq!(DiskState::Healthy.describe(since), None);
        let full = DiskState::Full.describe(since).unwrap();
        assert_eq!(full, "its disk is full since 22:13:20 UTC");
        let before = DiskState::Hanging.describe(-1).unwrap();
        assert_eq!(before, "its disk hangs since 23:59:59 UTC");
    }
}
