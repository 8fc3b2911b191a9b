//! The node's side of its folder's identity: what is to be saved, and who waits for it.
//!
//! One save is under way at a time; what comes up meanwhile shares the next. One that found no space is made again after
//! a while, and whoever waits goes on waiting.

use std::time::Duration;

use super::turn::{Outbox, ReplyTo};
use crate::model::{Instant, ServerId};
use crate::storage::{Command, Identity, Ticket};

/// What happens once the identity, as it was when this was asked, is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSaved {
    /// Version times up to here may be issued.
    Ceiling(i64),
    /// A peer's new incarnation is recorded: tell it.
    Recorded(ServerId, ReplyTo),
    /// A step of this server's own joining.
    Joining,
    /// Nobody waits.
    Nothing,
}

/// After a save that found no space.
const RETRY: Duration = Duration::from_millis(500);

/// The identity, and its saves.
#[derive(Debug)]
pub(super) struct IdentityKeeper {
    pub(super) identity: Identity,
    saving: Option<(Ticket, Vec<OnSaved>)>,
    waiting: Vec<OnSaved>,
    next_ticket: u64,
    /// Not before.
    retry_at: Option<Instant>,
}

impl IdentityKeeper {
    pub(super) fn new(identity: Identity) -> IdentityKeeper {
        IdentityKeeper {
            identity,
            saving: None,
            waiting: Vec::new(),
            next_ticket: 0,
            retry_at: None,
        }
    }

    /// Has the identity saved as it is now, or later.
    pub(super) fn save(&mut self, then: OnSaved, out: &mut Outbox) {
        self.waiting.push(then);
        self.begin(out);
    }

    /// A save of this kind is under way or waiting.
    pub(super) fn is_saving(&self, what: impl Fn(&OnSaved) -> bool) -> bool {
        let under_way = self.saving.iter().flat_map(|(_, then)| then);
        under_way.chain(&self.waiting).any(what)
    }

    /// A save is durable: what was waiting for it.
    pub(super) fn on_saved(&mut self, ticket: Ticket, out: &mut Outbox) -> Vec<OnSaved> {
        let done = match self.saving.take() {
            Some((saving, then)) if saving == ticket => then,
            other => {
                self.saving = other;
                Vec::new()
            }
        };
        self.begin(out);
        done
    }

    /// A save found no space.
    pub(super) fn on_unsaved(&mut self, ticket: Ticket, now: Instant) {
        match self.saving.take() {
            Some((saving, then)) if saving == ticket => {
                self.waiting.splice(0..0, then);
                self.retry_at = Some(now + RETRY);
            }
            other => self.saving = other,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn on_time(&mut self, now: Instant, out: &mut Outbox) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.begin(out);
        }
    }

    fn begin(&mut self, out: &mut Outbox) {
        if self.saving.is_some() || self.waiting.is_empty() || self.retry_at.is_some() {
            return;
        }
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let identity = Box::new(self.identity.clone());
        out.storage([Command::SaveIdentity { ticket, identity }]);
        self.saving = Some((ticket, std::mem::take(&mut self.waiting)));
    }
}
