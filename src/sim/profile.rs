//! How much goes wrong, and how much is done meanwhile.

use std::str::FromStr;

use super::Flaw;

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
}

/// The numbers of a profile. Rates are in a thousand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) clients: usize,
    pub(super) keys: usize,
    pub(super) operations: usize,
    /// Milliseconds between faults, on average; 0: none.
    pub(super) fault_every: u64,
    pub(super) crash: u64,
    pub(super) cut: u64,
    pub(super) jump: u64,
    pub(super) wipe: u64,
    /// Of messages.
    pub(super) lost: u64,
    pub(super) twice: u64,
    /// Late by up to seconds.
    pub(super) late: u64,
    /// Clocks are wrong by at most that many seconds.
    pub(super) skew: u64,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 6] = [
        Profile::Mixed,
        Profile::Calm,
        Profile::Crashes,
        Profile::Cuts,
        Profile::Clocks,
        Profile::Wipes,
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
        }
    }

    /// The world in which a flaw's situation is common.
    pub fn for_flaw(flaw: Flaw) -> Profile {
        match flaw {
            Flaw::AckBeforeSync => Profile::Crashes,
            Flaw::NoWriteBack | Flaw::RetryUnderNewVersion => Profile::Cuts,
            Flaw::ClockVersions => Profile::Clocks,
        }
    }

    pub(super) fn numbers(self) -> Numbers {
        let mixed = Numbers {
            clients: 4,
            keys: 2,
            operations: 60,
            fault_every: 300,
            crash: 400,
            cut: 450,
            jump: 130,
            wipe: 20,
            lost: 15,
            twice: 30,
            late: 40,
            skew: 10,
        };
        match self {
            Profile::Mixed => mixed,
            Profile::Calm => {
                Numbers { fault_every: 0, lost: 0, twice: 0, late: 0, skew: 1, ..mixed }
            }
            Profile::Crashes => Numbers {
                fault_every: 150,
                crash: 900,
                cut: 100,
                jump: 0,
                wipe: 0,
                lost: 0,
                keys: 1,
                ..mixed
            },
            Profile::Cuts => Numbers {
                fault_every: 200,
                crash: 100,
                cut: 850,
                wipe: 0,
                lost: 60,
                late: 100,
                keys: 1,
                ..mixed
            },
            Profile::Clocks => {
                Numbers { jump: 600, cut: 250, crash: 150, wipe: 0, keys: 1, ..mixed }
            }
            Profile::Wipes => Numbers { wipe: 300, crash: 350, cut: 350, jump: 0, ..mixed },
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        let known = || Profile::ALL.map(Profile::name).join(", ");
        Profile::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("'{text}' is no profile; there are {}", known()))
    }
}
