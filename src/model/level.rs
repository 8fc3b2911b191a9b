//! Consistency levels.

use std::fmt;
use std::str::FromStr;

/// How many replicas must take part before a call has succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One replica: always there, may be stale.
    One,
    /// A majority: each key behaves as one copy.
    #[default]
    Quorum,
    /// Every replica: as QUORUM, less available.
    All,
    /// As QUORUM while a majority lives, else every replica that lives; the answer says which, see [`Reached`].
    Available,
}

impl Level {
    /// Each of them.
    pub const EVERY: [Level; 4] = [Level::One, Level::Quorum, Level::All, Level::Available];

    /// Replicas required of `replicas`; of AVAILABLE the fewest with which it can do.
    pub fn required(self, replicas: usize) -> usize {
        match self {
            Level::One | Level::Available => 1.min(replicas),
            Level::Quorum => replicas / 2 + 1,
            Level::All => replicas,
        }
    }

    /// The name as users write it: upper case.
    pub fn name(self) -> &'static str {
        match self {
            Level::One => "ONE",
            Level::Quorum => "QUORUM",
            Level::All => "ALL",
            Level::Available => "AVAILABLE",
        }
    }
}

/// What a call at [`Level::Available`] has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// [`Level::Quorum`] or [`Level::Available`]. A key of which every answer says QUORUM behaves as one copy.
    pub level: Level,
    /// Replicas that hold what was written or answered.
    pub holding: usize,
    /// Replicas that the key has.
    pub replicas: usize,
}

/// `quorum: 2 of 3 replicas`, `available: 1 of 3 replicas`.
impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reached { level, holding, replicas } = self;
        write!(f, "{}: {holding} of {replicas} replicas", level.name().to_lowercase())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no level; write one, quorum, all or available")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Upper and lower case are one.
    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        Level::EVERY
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_always_share_a_replica() {
        for replicas in 1..=7 {
            let quorum = Level::Quorum.required(replicas);
            assert!(2 * quorum > replicas && quorum <= replicas);
            assert_eq!(Level::One.required(replicas), 1);
            assert_eq!(Level::All.required(replicas), replicas);
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("quorum".parse(), Ok(Level::Quorum));
        assert_eq!("One".parse(), Ok(Level::One));
        assert_eq!("available".parse(), Ok(Level::Available));
        assert!("two".parse::<Level>().is_err());
    }
}
