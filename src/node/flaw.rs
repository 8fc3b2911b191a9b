//! Deliberate faults: wrong turns that the simulator must catch.
//!
//! Each is a rule of the protocol left out, or a way that looked right once. Only code of this crate can set one, and only
//! the simulator does; a test there expects every one of them to be caught (docs/testing.md has the table).

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// A replica acknowledges a cell before the sync that covers it.
    AckBeforeSync,
    /// A replica answers a store with the newer cell it has taken in, before that one is synced.
    AckOvertakenFromMemory,
    /// A replica shows a cell before the sync that covers it.
    ReadUnsynced,
    /// A read answers with the newest cell although no majority is known to hold it.
    NoWriteBack,
    /// A read at QUORUM is content with one answer less.
    SmallReadQuorum,
    /// A write takes its version from the clock alone, without asking a majority first.
    ClockVersions,
    /// A write is content with a clock that was asked for before it began.
    ClockFromBefore,
    /// A server's clock has not seen, after a restart, what its log holds.
    ForgetSeen,
    /// A write whose outcome is unknown is sent again under a new version (set at the simulated client).
    RetryUnderNewVersion,
    /// A write whose outcome is unknown is undone where it may have arrived.
    UndoUnknown,
    /// A replica that cannot be reached counts as an acknowledgement, for there will be a hint.
    HintCounts,
    /// A write that was answered and is let go, as too much goes on, leaves no hint.
    LetGoWithoutHint,
    /// A hint is forgotten when it is sent.
    DropHintEarly,
    /// Answers of a server's former life count.
    OldLifeCounts,
    /// A server with an empty folder votes at once.
    VoteEmpty,
    /// A server that lost cells is copied from one source only.
    CopyFromOne,
    /// Compaction drops tombstones.
    DropTombstones,
    /// Damage in the middle of a log is cut away as if a crash had torn it.
    CutDamage,
    /// The checksums of records vouch for their bytes alone, wherever they are.
    Unsalted,
    /// A page that comes late makes a rebuild begin at the first key again.
    RebuildFromTheStart,
    /// A server forgets at a restart up to where it had issued version times.
    ForgetCeiling,
    /// Who shares no range with a server and has not answered it once is not asked for a sign of life.
    StrangersStaySilent,
    /// A mark goes with any comparison that ends, although something was missed after that had begun.
    DropNewMark,
    /// A scan at ONE asks one replica, itself first, and no other when that one cannot answer or is slow.
    ScanOneAsksNoOther,
    /// A call at AVAILABLE is content with one replica although more live.
    AvailableAsksOne,
    /// A read at AVAILABLE answers with the newest cell before those that live hold it.
    AvailableNoWriteBack,
    /// A read at ONE says *not found* without asking the other replicas that live.
    OneNotFoundAtOnce,
    /// A read at ONE asks any replica, whoever acknowledged what this coordinator wrote last.
    OneForgetsWrites,
    /// A server says nothing of its disk to others.
    DiskStaysUnnamed,
    /// A server does not say in its signs of life what time it is.
    ClockStaysUnnamed,
    /// A replica that was left out because its disk hangs counts as an acknowledgement, for it gets a hint.
    SparedCounts,
    /// A replica takes a key whose record it cannot read for one it never held.
    VoteForWhatWasLost,
    /// A write that some replica has refused was not stored, whatever the others do.
    RefusedThoughStored,
    /// What rots in a sealed segment stays there until somebody stumbles over it.
    NoScrub,
    /// A coordinator refuses a version that is far ahead of its own wall clock, and asks nobody.
    RefuseByOwnClock,
    /// After a restart a server vouches only for versions that its log holds, not for all that it may have issued.
    IssuerVouchesBySeen,
    /// Digests and pages tell versions alone, so that comparisons do not see two contents under one version.
    DigestVersionsOnly,
    /// Of two contents under one version a replica keeps the one that came first.
    EqualVersionsKeepTheFirst,
    /// A put whose ticket one replica holds another content of was not stored, whatever the others do.
    OtherContentOfOne,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 39] = [
        Flaw::AckBeforeSync,
        Flaw::AckOvertakenFromMemory,
        Flaw::ReadUnsynced,
        Flaw::NoWriteBack,
        Flaw::SmallReadQuorum,
        Flaw::ClockVersions,
        Flaw::ClockFromBefore,
        Flaw::ForgetSeen,
        Flaw::RetryUnderNewVersion,
        Flaw::UndoUnknown,
        Flaw::HintCounts,
        Flaw::LetGoWithoutHint,
        Flaw::DropHintEarly,
        Flaw::OldLifeCounts,
        Flaw::VoteEmpty,
        Flaw::CopyFromOne,
        Flaw::DropTombstones,
        Flaw::CutDamage,
        Flaw::Unsalted,
        Flaw::RebuildFromTheStart,
        Flaw::ForgetCeiling,
        Flaw::StrangersStaySilent,
        Flaw::DropNewMark,
        Flaw::ScanOneAsksNoOther,
        Flaw::AvailableAsksOne,
        Flaw::AvailableNoWriteBack,
        Flaw::OneNotFoundAtOnce,
        Flaw::OneForgetsWrites,
        Flaw::DiskStaysUnnamed,
        Flaw::ClockStaysUnnamed,
        Flaw::SparedCounts,
        Flaw::VoteForWhatWasLost,
        Flaw::RefusedThoughStored,
        Flaw::NoScrub,
        Flaw::RefuseByOwnClock,
        Flaw::IssuerVouchesBySeen,
        Flaw::DigestVersionsOnly,
        Flaw::EqualVersionsKeepTheFirst,
        Flaw::OtherContentOfOne,
    ];

    /// Whether it is about several contents under one version.
    pub(crate) fn is_of_contents(self) -> bool {
        matches!(
            self,
            Flaw::DigestVersionsOnly | Flaw::EqualVersionsKeepTheFirst | Flaw::OtherContentOfOne
        )
    }

    /// The name in flags and tables.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::AckBeforeSync => "ack-before-sync",
            Flaw::AckOvertakenFromMemory => "ack-overtaken-from-memory",
            Flaw::ReadUnsynced => "read-unsynced",
            Flaw::NoWriteBack => "no-write-back",
            Flaw::SmallReadQuorum => "small-read-quorum",
            Flaw::ClockVersions => "clock-versions",
            Flaw::ClockFromBefore => "clock-from-before",
            Flaw::ForgetSeen => "forget-seen",
            Flaw::RetryUnderNewVersion => "retry-under-new-version",
            Flaw::UndoUnknown => "undo-unknown",
            Flaw::HintCounts => "hint-counts",
            Flaw::LetGoWithoutHint => "let-go-without-hint",
            Flaw::DropHintEarly => "drop-hint-early",
            Flaw::OldLifeCounts => "old-life-counts",
            Flaw::VoteEmpty => "vote-empty",
            Flaw::CopyFromOne => "copy-from-one",
            Flaw::DropTombstones => "drop-tombstones",
            Flaw::CutDamage => "cut-damage",
            Flaw::Unsalted => "unsalted",
            Flaw::RebuildFromTheStart => "rebuild-from-the-start",
            Flaw::ForgetCeiling => "forget-ceiling",
            Flaw::StrangersStaySilent => "strangers-stay-silent",
            Flaw::DropNewMark => "drop-new-mark",
            Flaw::ScanOneAsksNoOther => "scan-one-asks-no-other",
            Flaw::AvailableAsksOne => "available-asks-one",
            Flaw::AvailableNoWriteBack => "available-no-write-back",
            Flaw::OneNotFoundAtOnce => "one-not-found-at-once",
            Flaw::OneForgetsWrites => "one-forgets-writes",
            Flaw::DiskStaysUnnamed => "disk-stays-unnamed",
            Flaw::ClockStaysUnnamed => "clock-stays-unnamed",
            Flaw::SparedCounts => "spared-counts",
            Flaw::VoteForWhatWasLost => "vote-for-what-was-lost",
            Flaw::RefusedThoughStored => "refused-though-stored",
            Flaw::NoScrub => "no-scrub",
            Flaw::RefuseByOwnClock => "refuse-by-own-clock",
            Flaw::IssuerVouchesBySeen => "issuer-vouches-by-seen",
            Flaw::DigestVersionsOnly => "digest-versions-only",
            Flaw::EqualVersionsKeepTheFirst => "equal-versions-keep-the-first",
            Flaw::OtherContentOfOne => "other-content-of-one",
        }
    }
}
