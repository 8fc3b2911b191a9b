//! A version that a client brings and that looks too new: has a server of this cluster issued it?
//!
//! This server's own wall clock does not say: it may be years behind, or the issuer's years ahead. What no server's clock is
//! near to was invented, and is refused before any clock absorbs it, for no clock can be set back. So a version up to
//! [`FAR_FUTURE`] beyond the wall clock and beyond the greatest version time that this server has seen is taken at once. Of any other
//! the clocks are asked: those of the replicas, as in the first round of a write, and that of the server which the version names as its
//! issuer, for a ticket may be known to nobody else. One clock that is near enough vouches for it. It is refused once a majority of the
//! replicas, all that can be asked, and the issuer have answered and none does. An issuer vouches for all up to the ceiling that it found when it
//! started, for what it has issued may be in no log. Where the issuer cannot be asked, or has lost its folder since, a ticket is not
//! refused: the outcome is unknown.

use super::super::turn::{OperationId, Turn};
use crate::model::{FAR_FUTURE, Incarnation, ServerId, Version};

/// A version that is being asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubt {
    pub(super) version: Version,
    /// A ticket: a former attempt may have arrived.
    pub(super) is_ticket: bool,
    issuer: Issuer,
    /// The greatest clock heard of.
    greatest: i64,
}

/// What has come of asking the server that the version names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Issuer {
    Asked,
    Answered,
    /// It cannot be asked, or lives another life by now.
    Missed,
    /// There is no such server.
    Stranger,
}

/// What is to become of the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Some clock is near to it.
    Issued,
    /// None is.
    Invented,
    /// None is, but the issuer's is not known.
    Open,
    /// Its issuer has not answered yet.
    Waits,
}

impl Doubt {
    /// Asks the issuer, unless it is among the replicas, which are asked anyway.
    pub(super) fn start(
        turn: &mut Turn<'_>,
        id: OperationId,
        version: Version,
        is_ticket: bool,
        replicas: &[ServerId],
    ) -> Doubt {
        let server = version.server;
        let issuer = if turn.config.topology.ranges_of(server).next().is_none() {
            Issuer::Stranger
        } else if turn.roster.reachable(server) {
            if !replicas.contains(&server) {
                turn.out.ask_clock(server, id, turn.config);
            }
            Issuer::Asked
        } else {
            Issuer::Missed
        };
        Doubt { version, is_ticket, issuer, greatest: 0 }
    }

    /// A clock has answered. Who has lost its folder since knows no more than others of what its former life has issued.
    pub(super) fn heard(&mut self, from: ServerId, life: Incarnation, time: i64) {
        self.greatest = self.greatest.max(time);
        if from == self.version.server {
            let is_that_life = life == self.version.incarnation;
            self.issuer = if is_that_life { Issuer::Answered } else { Issuer::Missed };
        }
    }

    /// This server will not tell its clock.
    pub(super) fn missed(&mut self, server: ServerId) {
        if server == self.version.server && self.issuer == Issuer::Asked {
            self.issuer = Issuer::Missed;
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        if is_near(self.version, self.greatest) {
            return Verdict::Issued;
        }
        match self.issuer {
            Issuer::Answered | Issuer::Stranger => Verdict::Invented,
            Issuer::Missed => Verdict::Open,
            Issuer::Asked => Verdict::Waits,
        }
    }
}

/// Whether a clock that has seen this can be one of those that have seen the version.
pub(super) fn is_near(version: Version, seen: i64) -> bool {
    version.time <= seen.saturating_add(FAR_FUTURE.as_micros() as i64)
}
