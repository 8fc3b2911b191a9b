//! Deliberate faults: wrong turns that the simulator must catch.
//!
//! Each is a rule of the protocol left out. Only code of this crate can set one, and only the simulator does;
//! a test there expects every one of them to be caught (docs/testing.md has the table).

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A replica acknowledges a cell before the sync that covers it.
    AckBeforeSync,
    /// A read answers with the newest cell although no majority is known to hold it.
    NoWriteBack,
    /// A write takes its version from the clock alone, without asking a majority first.
    ClockVersions,
    /// A write whose outcome is unknown is sent again under a new version (set at the simulated client).
    RetryUnderNewVersion,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 4] =
        [Flaw::AckBeforeSync, Flaw::NoWriteBack, Flaw::ClockVersions, Flaw::RetryUnderNewVersion];

    /// The name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::AckBeforeSync => "ack-before-sync",
            Flaw::NoWriteBack => "no-write-back",
            Flaw::ClockVersions => "clock-versions",
            Flaw::RetryUnderNewVersion => "retry-under-new-version",
        }
    }
}
