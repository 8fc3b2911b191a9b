//! Who is there, and in which life.
//!
//! A peer is *alive* while its link is up and it has not left a question unanswered for longer than
//! [`super::Config::silence`], and if it says that it votes. A crash breaks the link, so it is noticed at once; a
//! peer that is cut off, paused or hung is noticed by its silence, unless this server has stood still itself. Servers that share ranges ask each other for a
//! sign of life when there is no other traffic; all others are asked until they vote, and as long as they owe an answer, and
//! else found out when they are needed, so that nothing is done by everyone to everyone every second. What time it is everyone is
//! asked every few seconds (`clocks`).
//!
//! With every answer a server says what its [disk](DiskState) does. Who stores there, and who reads, goes by that; it is no
//! part of being alive, for a server whose disk hangs answers all that needs no disk.
//!
//! Alive is a belief: it decides whether a call is worth starting, never whether it was successful.
//!
//! What must be remembered durably of peers, their incarnations and folders, is kept in the [`Identity`] by
//! `node.rs`; how this server gets its own is in [`join`].

pub(super) mod join;

use std::collections::BTreeMap;
use std::time::Duration;

use super::Config;
use super::turn::{Origin, Roster, Turn};
use crate::model::{
    DiskState, Hello, Incarnation, Instant, Now, PeerRequest, Remembered, Sender, ServerId,
};
use crate::storage::Identity;

/// Without any answer for so long, though asked: others are asked first.
const HESITATION: Duration = Duration::from_millis(30);

/// Another server as seen from here.
#[derive(Clone, Debug)]
struct Member {
    link: bool,
    /// It said so when it was last heard.
    voting: bool,
    /// Latest life known, from itself or by hearsay.
    incarnation: Incarnation,
    /// When it was first asked for something since it last answered.
    asked_at: Option<Instant>,
    /// When it last answered. What it asks of its own accord does not count: a cut may be in one direction only.
    heard_at: Instant,
    /// What its disk does, by its own word, and since when that is known here, by the wall clock.
    disk: (DiskState, i64),
}

/// All other servers of the topology, and this one.
#[derive(Debug)]
pub(super) struct Membership {
    me: ServerId,
    /// A deliberate fault: see [`super::Flaw::OldLifeCounts`].
    old_lives_count: bool,
    /// A deliberate fault: see [`super::Flaw::StrangersStaySilent`].
    strangers_stay_silent: bool,
    /// Of this process.
    session: u64,
    voting: bool,
    incarnation: Incarnation,
    disk: DiskState,
    members: BTreeMap<ServerId, Member>,
    /// Those that share ranges with this server.
    neighbours: Vec<ServerId>,
    silence: Duration,
    next_ping: Instant,
}

/// The roster at a moment.
pub(super) struct RosterAt<'a> {
    pub(super) membership: &'a Membership,
    pub(super) now: Instant,
}

impl RosterAt<'_> {
    /// The link is up and the server not silent, whether it votes or not.
    pub(super) fn is_up(&self, server: ServerId) -> bool {
        let Membership { members, silence, .. } = self.membership;
        members.get(&server).is_some_and(|member| {
            let silent = member.asked_at.is_some_and(|at| self.now - at > *silence);
            member.link && !silent
        })
    }
}

impl Roster for RosterAt<'_> {
    fn alive(&self, server: ServerId) -> bool {
        if server == self.membership.me {
            return self.membership.voting;
        }
        self.membership.is_voting(server) && self.is_up(server)
    }

    fn prompt(&self, server: ServerId) -> bool {
        let asked_at = self.membership.members.get(&server).and_then(|member| member.asked_at);
        asked_at.is_none_or(|at| self.now - at < HESITATION)
    }

    fn reachable(&self, server: ServerId) -> bool {
        server == self.membership.me
            || self.membership.members.get(&server).is_some_and(|member| member.link)
    }

    fn disk(&self, server: ServerId) -> DiskState {
        if server == self.membership.me {
            return self.membership.disk;
        }
        self.membership.disk(server).0
    }

    fn incarnation(&self, server: ServerId) -> Incarnation {
        if self.membership.old_lives_count {
            return Incarnation::NONE;
        }
        self.membership.incarnation(server)
    }
}

impl Membership {
    pub(super) fn new(config: &Config, identity: &Identity, now: Instant) -> Membership {
        let me = config.server;
        let mut servers: Vec<_> =
            config.topology.ranges().iter().flat_map(|range| &range.replicas).copied().collect();
        servers.extend(config.addresses.keys());
        servers.sort();
        servers.dedup();
        let member = |server: ServerId| Member {
            link: false,
            voting: false,
            incarnation: identity.peers.get(&server).map_or(Incarnation::NONE, |r| r.incarnation),
            asked_at: None,
            heard_at: now,
            disk: (DiskState::Healthy, 0),
        };
        let others = servers.into_iter().filter(|server| *server != me);
        Membership {
            me,
            old_lives_count: config.flaw == Some(super::Flaw::OldLifeCounts),
            strangers_stay_silent: config.flaw == Some(super::Flaw::StrangersStaySilent),
            session: config.first_request,
            voting: identity.voting,
            incarnation: identity.incarnation,
            disk: DiskState::Healthy,
            members: others.map(|server| (server, member(server))).collect(),
            neighbours: config.topology.neighbours(me),
            silence: config.silence,
            next_ping: now,
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.keys().copied()
    }

    pub(super) fn set_self(&mut self, incarnation: Incarnation, voting: bool) {
        (self.incarnation, self.voting) = (incarnation, voting);
    }

    /// What this server's own disk does.
    pub(super) fn set_disk(&mut self, disk: DiskState) {
        self.disk = disk;
    }

    /// What the disk of another does, by its own word, and since when that is known here.
    pub(super) fn disk(&self, server: ServerId) -> (DiskState, i64) {
        self.members.get(&server).map_or((DiskState::Healthy, 0), |member| member.disk)
    }

    /// What this server says of itself and others with every answer.
    pub(super) fn sender(&self, position: u64) -> Sender {
        let known = |server: &ServerId| {
            let incarnation = self.members.get(server)?.incarnation;
            (incarnation != Incarnation::NONE).then_some((*server, incarnation))
        };
        Sender {
            incarnation: self.incarnation,
            voting: self.voting,
            position,
            session: self.session,
            known: self.neighbours.iter().filter_map(known).collect(),
            disk: self.disk,
        }
    }

    pub(super) fn incarnation(&self, server: ServerId) -> Incarnation {
        if server == self.me {
            return self.incarnation;
        }
        self.members.get(&server).map_or(Incarnation::NONE, |member| member.incarnation)
    }

    pub(super) fn is_voting(&self, server: ServerId) -> bool {
        self.members.get(&server).is_some_and(|member| member.voting)
    }

    /// A peer has introduced itself on a link to it.
    pub(super) fn on_link_up(&mut self, hello: &Hello, now: Instant) {
        let Some(member) = self.members.get_mut(&hello.server) else { return };
        member.link = true;
        member.heard_at = now;
        member.asked_at = None;
        // The disk may be another one. Its first answer says what this one does.
        member.disk = (DiskState::Healthy, 0);
        // One that comes with less than was known of it has lost its folder.
        member.voting = hello.voting && hello.incarnation >= member.incarnation;
        member.incarnation = member.incarnation.max(hello.incarnation);
    }

    pub(super) fn on_link_down(&mut self, peer: ServerId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.link = false;
        }
    }

    /// This server itself stood still until now: what its peers have answered meanwhile may lie unread before it, so their silence
    /// begins now.
    pub(super) fn on_standstill(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.asked_at = member.asked_at.map(|_| now);
        }
    }

    /// A peer has answered: it is not silent.
    pub(super) fn on_heard(&mut self, peer: ServerId, now: Instant) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.heard_at = now;
            member.asked_at = None;
        }
    }

    /// Takes in what an answer says of its sender and of others. Incarnations only grow.
    pub(super) fn on_sender(&mut self, from: ServerId, sender: &Sender, now: Now) {
        self.learn(from, sender.incarnation);
        if let Some(member) = self.members.get_mut(&from)
            && (sender.incarnation >= member.incarnation || sender.incarnation == Incarnation::NONE)
        {
            member.voting = sender.voting;
        }
        if let Some(member) = self.members.get_mut(&from)
            && member.disk.0 != sender.disk
        {
            member.disk = (sender.disk, now.wall);
        }
        for (server, incarnation) in &sender.known {
            self.learn(*server, *incarnation);
        }
    }

    pub(super) fn learn(&mut self, server: ServerId, incarnation: Incarnation) {
        if let Some(member) = self.members.get_mut(&server) {
            member.incarnation = member.incarnation.max(incarnation);
        }
    }

    /// Requests were sent in this turn to this peer.
    pub(super) fn on_asked(&mut self, peer: ServerId, now: Instant) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.asked_at.get_or_insert(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.next_ping
    }

    /// When it is time for that: who has been quiet and should be asked for a sign of life, or is `wanted` to say what time it is.
    pub(super) fn on_time(
        &mut self,
        config: &Config,
        now: Instant,
        wanted: impl Fn(ServerId) -> bool,
    ) -> Option<Vec<ServerId>> {
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + config.ping_interval;
        // Half an interval: one that answered the last ping a moment late is asked all the same.
        let is_quiet = |member: &Member| now - member.heard_at >= config.ping_interval / 2;
        let is_asked = |(server, member): (&ServerId, &Member)| {
            // Of others, whether they vote is all that must be known beforehand; once they do, they are left alone, unless
            // they owe an answer: it may have been lost, and who is taken for dead is not asked for anything else. The same goes
            // for one whose disk takes no writes.
            let owes = member.asked_at.is_some() && !self.strangers_stay_silent;
            let is_ill = member.disk.0 != DiskState::Healthy;
            let matters = self.neighbours.contains(server) || !member.voting || owes || is_ill;
            let is_wanted = wanted(*server) && !self.strangers_stay_silent;
            (member.link && (is_wanted || matters && is_quiet(member))).then_some(*server)
        };
        Some(self.members.iter().filter_map(is_asked).collect())
    }
}

/// Of a peer that has recorded its new life here and not introduced itself in it.
pub(super) const NO_SESSION: u64 = 0;

/// Takes a peer's own word on its life into what is durably remembered. Returns whether that changed more than the
/// position.
pub(super) fn remember(
    peers: &mut BTreeMap<ServerId, Remembered>,
    server: ServerId,
    incarnation: Incarnation,
    folder: crate::model::FolderId,
    session: u64,
    position: u64,
) -> bool {
    if incarnation == Incarnation::NONE {
        return false;
    }
    let fresh = Remembered { incarnation, folder, replaced: false, position, session, before: 0 };
    match peers.get_mut(&server) {
        Some(remembered) if remembered.incarnation > incarnation => false,
        Some(remembered) if remembered.incarnation == incarnation => {
            if remembered.folder == folder && session != NO_SESSION {
                remembered.note(session, position);
            }
            false
        }
        Some(remembered) => {
            let replaced = remembered.replaced || remembered.folder != folder;
            *remembered = Remembered { replaced, ..fresh };
            true
        }
        None => {
            peers.insert(server, fresh);
            true
        }
    }
}

/// A sign of life is asked for.
pub(super) fn ping(turn: &mut Turn<'_>, peer: ServerId) {
    let expires = turn.now.instant + turn.config.silence;
    turn.out.ask(peer, Origin::Ping(turn.now.instant), PeerRequest::Ping, expires);
}
