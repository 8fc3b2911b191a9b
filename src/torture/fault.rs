//! What can go wrong, by name.

use std::fmt;
use std::str::FromStr;

use super::disk::Medium;
use super::machine::Machine;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`, and later a start.
    Kill,
    /// An orderly stop, and a start.
    Restart,
    /// SIGSTOP, and later SIGCONT.
    Pause,
    /// Some links carry nothing: one way, one server, halves, halves with a bridge; some on and off.
    Cut,
    /// Three packets of ten are lost, everywhere.
    Loss,
    /// Everything is late, with a heavy tail.
    Delay,
    /// A server's connections end all at once.
    Reset,
    /// A server's wall clock steps: by seconds, an hour, three days or fifty years either way.
    Clock,
    /// A server's disk has no room.
    Full,
    /// A server's syncs fail.
    Sync,
    /// A server's syncs take long.
    Slow,
    /// A server's disk hangs.
    Hang,
    /// The power of one server is cut.
    Power,
    /// The power of all servers is cut at once.
    Blackout,
    /// A server loses its folder.
    Wipe,
    /// A bit turns in a sealed segment or key file.
    Rot,
    /// A server's disk turns read-only, and stays so until it is mounted again.
    ReadOnly,
    /// Bits turn in values at all servers at once; no key is struck at two of them.
    RotAll,
}

/// All, in the order of their pairs.
pub const FAULTS: [Fault; 18] = [
    Fault::Kill,
    Fault::Restart,
    Fault::Pause,
    Fault::Cut,
    Fault::Loss,
    Fault::Delay,
    Fault::Reset,
    Fault::Clock,
    Fault::Full,
    Fault::Sync,
    Fault::Slow,
    Fault::Hang,
    Fault::Power,
    Fault::Blackout,
    Fault::Wipe,
    Fault::Rot,
    Fault::ReadOnly,
    Fault::RotAll,
];

impl Fault {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Restart => "restart",
            Fault::Pause => "pause",
            Fault::Cut => "cut",
            Fault::Loss => "loss",
            Fault::Delay => "delay",
            Fault::Reset => "reset",
            Fault::Clock => "clock",
            Fault::Full => "full",
            Fault::Sync => "sync",
            Fault::Slow => "slow",
            Fault::Hang => "hang",
            Fault::Power => "power",
            Fault::Blackout => "blackout",
            Fault::Wipe => "wipe",
            Fault::Rot => "rot",
            Fault::ReadOnly => "read-only",
            Fault::RotAll => "rot-all",
        }
    }

    /// What the machine would have to permit for it, if it does not.
    pub(super) fn lacks(self, machine: &Machine) -> Option<&'static str> {
        let (permitted, what) = match self {
            Fault::Loss => (machine.hosts, "network namespaces and nft"),
            Fault::Clock => (machine.faketime.is_some(), "libfaketime"),
            Fault::Full => (machine.tmpfs, "mounts"),
            Fault::Sync | Fault::Slow => (machine.strace, "strace"),
            Fault::Hang | Fault::Power | Fault::Blackout | Fault::ReadOnly => {
                (machine.ext4, "ext4 on a loop mount")
            }
            Fault::Kill
            | Fault::Restart
            | Fault::Pause
            | Fault::Cut
            | Fault::Delay
            | Fault::Reset
            | Fault::Wipe
            | Fault::Rot
            | Fault::RotAll => (true, ""),
        };
        (!permitted).then_some(what)
    }

    /// Can it happen on such a network? Proxies can delay, hosts can lose.
    pub(super) fn fits_network(self, hosts: bool) -> bool {
        match self {
            Fault::Loss => hosts,
            Fault::Delay => !hosts,
            _ => true,
        }
    }

    /// Can it happen to such a disk?
    pub(super) fn fits_medium(self, medium: Medium) -> bool {
        match self {
            Fault::Full => medium != Medium::Folder,
            Fault::Hang | Fault::Power | Fault::Blackout | Fault::ReadOnly => {
                medium == Medium::Ext4
            }
            _ => true,
        }
    }

    /// It may end a server, which then says why.
    pub(super) fn may_end_a_server(self) -> bool {
        matches!(self, Fault::Sync | Fault::ReadOnly)
    }

    /// It takes data away, and so no other that does strikes until all is whole again.
    pub(super) fn takes_data(self) -> bool {
        matches!(self, Fault::Wipe | Fault::Rot | Fault::RotAll)
    }

    /// A server that this one has struck is not started before it is over.
    pub(super) fn keeps_down(self) -> bool {
        use Fault::{Blackout, Hang, Kill, Power, ReadOnly, Restart};
        matches!(self, Kill | Restart | Power | Blackout | Hang | ReadOnly)
    }

    /// Whether a server that suffers this one may be struck by `second`, too. Not where one could not be begun or ended
    /// while the other lasts: nothing is written to, or removed from, a disk that hangs.
    pub(super) fn bears(self, second: Fault) -> bool {
        use Fault::{
            Clock, Full, Hang, Kill, Pause, ReadOnly, Reset, Restart, Rot, Slow, Sync, Wipe,
        };
        match self {
            Kill => second == Full,
            Full => matches!(second, Kill | Restart | Pause | Reset | Clock | Slow | Sync),
            Hang => matches!(second, Kill | Pause | Reset | Clock),
            ReadOnly => matches!(second, Kill | Pause | Reset | Clock),
            Slow | Sync => matches!(second, Kill | Full | Hang | Pause | Reset | Clock),
            Pause => matches!(second, Kill | Full | Hang | Clock),
            Wipe | Rot => {
                matches!(second, Kill | Restart | Pause | Full | Hang | Slow | Reset | Clock)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such fault.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "there is no fault '{0}'; there are kill, restart, pause, cut, loss, delay, reset, clock, full, sync, slow, hang, \
         power, blackout, wipe, rot, read-only and rot-all"
)]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Fault, UnknownFault> {
        let found = FAULTS.iter().find(|fault| fault.name() == text.to_lowercase());
        found.copied().ok_or_else(|| UnknownFault(text.to_owned()))
    }
}
