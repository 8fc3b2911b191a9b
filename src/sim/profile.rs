//! How much goes wrong, and what is done meanwhile.

use std::str::FromStr;

use super::Flaw;

/// Something that goes wrong at a moment. Messages go wrong all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A server dies, now and then all of them; what was not synced is lost in any part.
    Crash,
    /// Servers do not reach each other for a while, in one of many shapes.
    Cut,
    /// A wall clock jumps.
    Jump,
    /// A server stands still for a while, with messages in hand.
    Pause,
    /// A disk takes nothing more for a while.
    Full,
    /// A sync fails: the server stops, and starts again.
    Sync,
    /// A server dies and comes back with an empty folder.
    Wipe,
    /// A server dies, and a bit of its log has turned when it comes back.
    Flip,
    /// A server dies and comes back with an older copy of its folder.
    Old,
    /// A disk carries out nothing for longer than any time-out, and then all that was asked of it.
    Hang,
    /// A wall clock is years off, one server's at a time, or is right again.
    Years,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 11] = [
        Fault::Crash,
        Fault::Cut,
        Fault::Jump,
        Fault::Pause,
        Fault::Full,
        Fault::Sync,
        Fault::Wipe,
        Fault::Flip,
        Fault::Old,
        Fault::Hang,
        Fault::Years,
    ];

    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::Cut => "cut",
            Fault::Jump => "jump",
            Fault::Pause => "pause",
            Fault::Full => "full",
            Fault::Sync => "sync",
            Fault::Wipe => "wipe",
            Fault::Flip => "flip",
            Fault::Old => "old",
            Fault::Hang => "hang",
            Fault::Years => "years",
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        named("fault", text, &Fault::ALL, Fault::name)
    }
}

/// A kind of world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// A bit of everything.
    #[default]
    Mixed,
    /// Nothing: for bugs of a healthy cluster.
    Calm,
    /// Crashes above all.
    Crashes,
    /// Cuts and lost messages above all.
    Cuts,
    /// Clocks far apart and jumping.
    Clocks,
    /// Lost disks.
    Wipes,
    /// Disks that are full, fail, rot, or are older than they should be.
    Disks,
    /// Servers that stand still.
    Pauses,
    /// Disks lost again and again, back at once, while much is late: new lives meet answers of former ones.
    Lives,
    /// Coordinators that die in the middle, with their clocks set back, while hardly anyone else writes.
    Restarts,
    /// Servers that stay away for seconds, two at a time too, so that the others know it; and stores that take their time.
    Outages,
    /// Disks that hang, while messages are in time.
    Hangs,
    /// One server's clock is off by anything up to fifty years, and servers restart with it.
    Years,
}

/// The numbers of a profile. Rates are in a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) clients: usize,
    pub(super) keys: usize,
    pub(super) operations: usize,
    /// Milliseconds between faults, on average; 0: none.
    pub(super) fault_every: u64,
    /// How often each fault occurs, in relation to the others.
    pub(super) weights: [u64; Fault::ALL.len()],
    /// Of messages.
    pub(super) lost: u64,
    pub(super) twice: u64,
    /// Late by up to seconds.
    pub(super) late: u64,
    /// The same of stores alone: tenths of seconds, while all else is in time.
    pub(super) late_stores: u64,
    /// The same of first rounds.
    pub(super) late_clocks: u64,
    /// Milliseconds for which a client keeps a ticket before it writes under it, at most.
    pub(super) keeps: u64,
    /// Clocks are wrong by at most that many seconds.
    pub(super) skew: u64,
    /// Milliseconds until a server that died is back, at most.
    pub(super) back_within: u64,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 13] = [
        Profile::Mixed,
        Profile::Calm,
        Profile::Crashes,
        Profile::Cuts,
        Profile::Clocks,
        Profile::Wipes,
        Profile::Disks,
        Profile::Pauses,
        Profile::Lives,
        Profile::Restarts,
        Profile::Outages,
        Profile::Hangs,
        Profile::Years,
    ];

    /// The name in flags and replays.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Mixed => "mixed",
            Profile::Calm => "calm",
            Profile::Crashes => "crashes",
            Profile::Cuts => "cuts",
            Profile::Clocks => "clocks",
            Profile::Wipes => "wipes",
            Profile::Disks => "disks",
            Profile::Pauses => "pauses",
            Profile::Lives => "lives",
            Profile::Restarts => "restarts",
            Profile::Outages => "outages",
            Profile::Hangs => "hangs",
            Profile::Years => "years",
        }
    }

    /// The faults that occur in it.
    pub fn faults(self) -> Vec<Fault> {
        let Numbers { fault_every, weights, .. } = self.numbers();
        let occurs =
            |(fault, weight): (Fault, u64)| (fault_every > 0 && weight > 0).then_some(fault);
        Fault::ALL.into_iter().zip(weights).filter_map(occurs).collect()
    }

    /// The world in which a flaw's situation is common.
    pub fn for_flaw(flaw: Flaw) -> Profile {
        match flaw {
            Flaw::AckBeforeSync
            | Flaw::AckOvertakenFromMemory
            | Flaw::ReadUnsynced
            | Flaw::HintCounts
            | Flaw::DropHintEarly
            | Flaw::Unsalted
            | Flaw::DropTombstones => Profile::Crashes,
            Flaw::NoWriteBack
            | Flaw::SmallReadQuorum
            | Flaw::RetryUnderNewVersion
            | Flaw::UndoUnknown
            | Flaw::DropNewMark
            | Flaw::StrangersStaySilent => Profile::Cuts,
            Flaw::ClockVersions | Flaw::ClockFromBefore => Profile::Clocks,
            Flaw::ForgetCeiling | Flaw::ForgetSeen => Profile::Restarts,
            Flaw::OldLifeCounts => Profile::Lives,
            Flaw::VoteEmpty
            | Flaw::CopyFromOne
            | Flaw::RebuildFromTheStart
            | Flaw::ScanOneAsksNoOther => Profile::Wipes,
            Flaw::CutDamage
            | Flaw::VoteForWhatWasLost
            | Flaw::RefusedThoughStored
            | Flaw::NoScrub => Profile::Disks,
            Flaw::AvailableAsksOne
            | Flaw::AvailableNoWriteBack
            | Flaw::OneNotFoundAtOnce
            | Flaw::OneForgetsWrites
            | Flaw::LetGoWithoutHint => Profile::Outages,
            Flaw::DiskStaysUnnamed | Flaw::SparedCounts => Profile::Hangs,
            Flaw::RefuseByOwnClock | Flaw::IssuerVouchesBySeen | Flaw::ClockStaysUnnamed => {
                Profile::Years
            }
            Flaw::DigestVersionsOnly
            | Flaw::EqualVersionsKeepTheFirst
            | Flaw::OtherContentOfOne => Profile::Cuts,
        }
    }

    pub(super) fn numbers(self) -> Numbers {
        // Crash, cut, jump, pause, full, sync, wipe, flip, old, hang, years.
        let mixed = Numbers {
            clients: 4,
            keys: 2,
            operations: 60,
            fault_every: 300,
            weights: [350, 400, 100, 60, 30, 20, 20, 10, 10, 10, 0],
            lost: 15,
            twice: 30,
            late: 40,
            late_stores: 0,
            late_clocks: 0,
            keeps: 0,
            skew: 10,
            back_within: 3_000,
        };
        match self {
            Profile::Mixed => mixed,
            Profile::Calm => {
                Numbers { fault_every: 0, lost: 0, twice: 0, late: 0, skew: 1, ..mixed }
            }
            Profile::Crashes => Numbers {
                fault_every: 150,
                weights: [900, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                lost: 0,
                keys: 1,
                ..mixed
            },
            Profile::Cuts => Numbers {
                fault_every: 200,
                weights: [100, 850, 50, 0, 0, 0, 0, 0, 0, 0, 0],
                lost: 60,
                late: 100,
                keys: 1,
                ..mixed
            },
            Profile::Clocks => Numbers {
                weights: [150, 250, 600, 0, 0, 0, 0, 0, 0, 0, 0],
                keys: 1,
                late_clocks: 200,
                ..mixed
            },
            Profile::Wipes => Numbers { weights: [350, 350, 0, 0, 0, 0, 300, 0, 0, 0, 0], ..mixed },
            Profile::Disks => {
                Numbers { weights: [250, 100, 0, 0, 150, 150, 100, 150, 250, 0, 0], ..mixed }
            }
            Profile::Lives => Numbers {
                clients: 6,
                fault_every: 100,
                weights: [50, 150, 0, 0, 0, 0, 800, 0, 0, 0, 0],
                late: 0,
                late_stores: 600,
                keys: 1,
                back_within: 30,
                ..mixed
            },
            Profile::Restarts => Numbers {
                clients: 2,
                fault_every: 60,
                weights: [600, 150, 250, 0, 0, 0, 0, 0, 0, 0, 0],
                late_stores: 400,
                keys: 1,
                back_within: 60,
                ..mixed
            },
            Profile::Outages => Numbers {
                fault_every: 1_000,
                weights: [600, 400, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                lost: 0,
                late_stores: 200,
                back_within: 6_000,
                ..mixed
            },
            Profile::Hangs => Numbers {
                fault_every: 500,
                weights: [150, 50, 0, 0, 50, 0, 0, 0, 0, 750, 0],
                lost: 0,
                twice: 0,
                late: 0,
                ..mixed
            },
            Profile::Years => Numbers {
                fault_every: 60,
                weights: [550, 100, 0, 0, 0, 0, 50, 0, 0, 0, 300],
                late_stores: 200,
                keeps: 500,
                skew: 1,
                back_within: 60,
                ..mixed
            },
            Profile::Pauses => Numbers {
                fault_every: 200,
                weights: [150, 150, 50, 650, 0, 0, 0, 0, 0, 0, 0],
                ..mixed
            },
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        named("profile", text, &Profile::ALL, Profile::name)
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Any of the others, by the seed.
    #[default]
    Any,
    /// A key or two that everyone wants.
    Hot,
    /// More keys than clients.
    Many,
    /// Mostly deletes, and puts of what was deleted.
    Deletes,
    /// Scans over all keys while they change.
    Scans,
    /// Writes and reads at ONE beside those at QUORUM, on keys of their own.
    One,
    /// The same at AVAILABLE.
    Available,
    /// Tickets that are used again for another value.
    Tickets,
}

impl Activity {
    /// All of them.
    pub const ALL: [Activity; 8] = [
        Activity::Any,
        Activity::Hot,
        Activity::Many,
        Activity::Deletes,
        Activity::Scans,
        Activity::One,
        Activity::Available,
        Activity::Tickets,
    ];

    /// The name in flags and replays.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Any => "any",
            Activity::Hot => "hot",
            Activity::Many => "many",
            Activity::Deletes => "deletes",
            Activity::Scans => "scans",
            Activity::One => "one",
            Activity::Available => "available",
            Activity::Tickets => "tickets",
        }
    }
}

impl FromStr for Activity {
    type Err = String;

    fn from_str(text: &str) -> Result<Activity, String> {
        named("workload", text, &Activity::ALL, Activity::name)
    }
}

fn named<T: Copy>(
    what: &str,
    text: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    let known = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| format!("'{text}' is no {what}; there are {}", known()))
}
