//! The servers of a world: their lives, their links, their disks.

use std::time::Duration;

use bytes::BytesMut;

use super::{AtOne, Coming, NOBODY, Server, Snapshot, World, whole};
use crate::model::{
    ClientRequest, ClientResponse, Failure, FolderId, Hello, Key, Level, ServerId, Version,
};
use crate::node::{Config, Effect, Event, Flaw, Node};
use crate::sim::invariants::Kept;
use crate::sim::workload::Told;
use crate::storage::{
    Command, Completion, Engine, EngineOptions, Log, MemoryDisk, Opened, Record, StorageFlaw,
    StoreOptions, SyncPolicy, Ticket, synced_for_certain,
};
use crate::wire::{Call, Format, Sequence, decode_call, encode_call};

/// Microseconds for which a server gathers at most.
const GATHERING: u64 = 2_000;

/// How a server comes back.
#[derive(Clone, Debug)]
pub(super) enum Return {
    /// With what its disk has kept.
    Same,
    /// With an empty folder.
    Empty,
    /// With some bit of its log turned.
    Flipped,
    /// With this older copy of its folder.
    Older(MemoryDisk),
}

impl World {
    pub(super) fn start(&mut self, id: ServerId) {
        self.lives += 1;
        self.weather += 1;
        let life = self.lives;
        let random = self.disks.next();
        let storage = match self.options.flaw {
            Some(Flaw::DropTombstones) => Some(StorageFlaw::DropTombstones),
            Some(Flaw::CutDamage) => Some(StorageFlaw::CutDamage),
            Some(Flaw::Unsalted) => Some(StorageFlaw::Unsalted),
            Some(Flaw::EqualVersionsKeepTheFirst) => Some(StorageFlaw::EqualVersionsKeepTheFirst),
            _ => None,
        };
        let mut config = Config::new(id, "simulated".to_owned(), self.topology.clone());
        config.addresses = self.servers.keys().map(|id| (*id, format!("n{id}"))).collect();
        config.partitioner = self.shape.partitioner;
        config.accept_loss = self.fewest_copies(id) == 1;
        config.max_hints = self.shape.max_hints;
        if self.shape.tight {
            // A cell takes some 270 bytes.
            (config.max_storing, config.max_lingering) = (1_000, 600);
            config.max_gathering = 500;
        }
        // So that a rebuild of few keys is one of several pages.
        config.rebuild_page = 2;
        config.repair_interval = Duration::from_secs(1);
        // A segment in some 15 ms, all of them again and again.
        let scrubs = self.scrubs && self.options.flaw != Some(Flaw::NoScrub);
        config.scrub_rate = if scrubs { 100_000 } else { 0 };
        config.scrub_interval = Duration::from_secs(1);
        config.cells = StoreOptions { memory: 200, dead_percent: 50, flaw: storage };
        config.max_loading = 60;
        config.hints = StoreOptions { memory: 200, dead_percent: 50, flaw: None };
        config.first_request = life << 32;
        config.flaw = self.options.flaw;
        let options = EngineOptions {
            cluster: "simulated".to_owned(),
            server: id,
            fresh_folder: FolderId(random),
            // Not what goes to the node, where it may be seen.
            salt_seed: random.rotate_left(32) ^ life,
            segment_bytes: 1_500,
            sync: SyncPolicy::Always,
            flaw: storage,
        };
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(disk) = server.disk.take() else { return };
        self.summary.full_starts += u64::from(disk.is_bounded());
        let copy = self.keeps_copies.then(|| disk.clone());
        server.life = life;
        server.born = self.now;
        let opened = match Engine::open(disk, options) {
            Ok((engine, opened)) => {
                server.engine = Some(engine);
                opened
            }
            Err(error) => {
                self.broken.push(format!("server {id} cannot open its folder: {error}"));
                return;
            }
        };
        if !opened.damaged.is_empty() {
            if self.flipped.contains(&id) {
                self.summary.damage_found += 1;
            } else {
                let what =
                    format!("recovery: server {id} takes a crash for damage: {:?}", opened.damaged);
                self.broken.push(what);
            }
        }
        let position = opened.cells.position;
        self.keep_copy(id, copy, &opened);
        let now = self.moment(&self.servers[&id]);
        let node = Node::new(config, opened, now, random);
        if let Some(server) = self.servers.get_mut(&id) {
            server.node = Some(node);
            server.deadline = u64::MAX;
            server.flushing = false;
        }
        self.note(|| format!("{id} starts, life {life}, log position {position}"));
        self.step(id, Event::Deadline);
        let others: Vec<_> = self.servers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            let (there, back) = (self.disks.between(500, 5_000), self.disks.between(500, 5_000));
            self.plan(there, Coming::LinkUp { at: id, to: other });
            self.plan(back, Coming::LinkUp { at: other, to: id });
        }
    }

    /// A link comes up if both ends are there and nothing is between them; else it is tried again.
    /// Keeps the first copy of a folder that something was in: the older, the better.
    fn keep_copy(&mut self, id: ServerId, copy: Option<MemoryDisk>, opened: &Opened) {
        let Some(disk) = copy else { return };
        let identity = &opened.identity;
        let (folder, incarnation) = (identity.folder, identity.incarnation);
        let position = opened.cells.position;
        let same_folder =
            |kept: &Snapshot| kept.folder == folder && kept.incarnation == incarnation;
        if identity.voting && !self.copies.get(&id).is_some_and(same_folder) {
            self.copies.insert(id, Snapshot { disk, position, folder, incarnation });
        }
    }

    pub(super) fn link_up(&mut self, at: ServerId, to: ServerId) {
        if self.servers[&at].node.is_none() {
            return;
        }
        let cut = self.network.is_cut(at, to) || self.network.is_cut(to, at);
        let hello: Option<Hello> = self.servers[&to].node.as_ref().map(|node| node.hello(at));
        match hello.filter(|_| !cut) {
            Some(hello) => {
                // Through the wire like everything else.
                let mut out = BytesMut::new();
                let sent = encode_call(Format::NATIVE, Sequence(0), &Call::Hello(hello), &mut out);
                let message = sent.ok().and_then(|_| whole(&out.freeze()));
                let request =
                    message.and_then(|message| decode_call(Format::NATIVE.protocol, message).ok());
                if let Some(Ok(Call::Hello(hello))) = request.map(|request| request.call) {
                    let life = self.servers[&to].life;
                    self.links.insert((at, to), life);
                    self.relinked.insert((at, to), self.now);
                    self.weather += 1;
                    self.note(|| format!("{at} has a link to {to}"));
                    self.step(at, Event::LinkUp { hello });
                } else {
                    self.broken.push("a hello does not come back from its bytes".to_owned());
                }
            }
            None if cut => self.plan(200_000, Coming::LinkUp { at, to }),
            // It will link by itself when it starts.
            None => {}
        }
    }

    /// The power goes out at a server, and comes back later.
    pub(super) fn crash(&mut self, id: ServerId, comes_back: Return) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.node.is_some()) else {
            return;
        };
        if self.sync_failed == Some(id) {
            self.sync_failed = None;
        }
        let node = server.node.take();
        self.summary.scrubbed += node.map_or(0, |node| node.counted("segments_damaged"));
        self.weather += 1;
        let life = server.life;
        let Some(mut engine) = server.engine.take() else { return };
        if server.working {
            // The power goes out somewhere in the middle of the batch.
            let operations = self.disks.below(8);
            engine.disk_mut().cut_power_after(operations);
            engine.execute(server.batch.drain(..), &mut Vec::new());
        }
        server.commands.clear();
        server.batch.clear();
        (server.working, server.dies_at_work) = (false, false);
        let mut disk = engine.into_disk();
        let disks = &mut self.disks;
        disk.crash(|bound| disks.below(bound));
        disk.set_read_only(false);
        // Whoever must keep what is left of a damaged segment needs room for it.
        let may_be_full = matches!(comes_back, Return::Same) && !self.flipped.contains(&id);
        if disk.is_bounded() && (!may_be_full || disks.chance(500)) {
            disk.set_capacity(None);
        }
        (server.paused_until, server.hangs_until) = (0, 0);
        let what = match comes_back {
            Return::Same => {
                server.disk = Some(disk);
                ""
            }
            Return::Empty => {
                server.disk = Some(MemoryDisk::new());
                self.summary.wipes += 1;
                " and loses its disk"
            }
            Return::Flipped => {
                let flipped = flip(&mut disk, |bound| disks.below(bound));
                self.summary.flips += u64::from(flipped != Flipped::Nothing);
                self.summary.flips_in_last += u64::from(flipped == Flipped::Last);
                server.disk = Some(disk);
                " and a bit of its log turns"
            }
            Return::Older(mut copy) => {
                copy.set_capacity(None);
                copy.set_read_only(false);
                server.disk = Some(copy);
                self.summary.old_copies += 1;
                self.observer.forgive(id);
                " and an older copy of its folder is put back"
            }
        };
        if !what.is_empty() {
            self.hints.retain(|hint| hint.holder != id && !(hint.delivered && hint.target == id));
        }
        self.summary.crashes += 1;
        self.note(|| format!("{id} crashes{what}"));
        let others: Vec<_> = self.servers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            let after = self.disks.between(100, 20_000);
            self.plan(after, Coming::LinkDown { at: other, peer: id, life });
        }
        let lost: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, (_, server))| *server == id)
            .map(|(call, (client, _))| (*call, *client))
            .collect();
        for (call, client) in lost {
            self.calls.remove(&call);
            if client != NOBODY {
                self.tell(client, Told::Nothing);
            }
        }
        let after = self.disks.between(20_000, self.numbers.back_within * 1_000);
        self.plan(after, Coming::Restart { server: id });
    }

    pub(super) fn step(&mut self, id: ServerId, event: Event) {
        let Some(server) = self.servers.get(&id) else { return };
        let now = self.moment(server);
        let Some(node) = self.servers.get_mut(&id).and_then(|server| server.node.as_mut()) else {
            return;
        };
        let mut effects = Vec::new();
        node.step(now, event, &mut effects);
        let marks = node.marks();
        let (deadline, gathered) = (node.next_deadline(), node.has_gathered());
        let born = self.servers[&id].born;
        for (target, start, missed) in marks {
            self.marks.insert((id, target, start), born + missed.0);
        }
        for effect in effects {
            // It may have come to its end in the middle of them.
            if self.servers[&id].node.is_none() {
                return;
            }
            self.perform(id, effect);
        }
        // Now, or after whatever else comes in meanwhile.
        if gathered && !self.servers[&id].flushing {
            let after = if self.disks.chance(500) { 0 } else { self.disks.below(GATHERING) };
            let Some(server) = self.servers.get_mut(&id) else { return };
            server.flushing = true;
            let life = server.life;
            self.plan(after, Coming::Flush { server: id, life });
        }
        let Some(server) = self.servers.get_mut(&id) else { return };
        let (life, born) = (server.life, server.born);
        if let Some(at) = deadline.map(|at| (born + at.0).max(self.now))
            && at < server.deadline
        {
            server.deadline = at;
            self.plan(at - self.now, Coming::Deadline { server: id, life });
        }
    }

    fn perform(&mut self, id: ServerId, effect: Effect) {
        match effect {
            Effect::Storage(command) => {
                self.watch_hints(id, &command);
                let Some(server) = self.servers.get_mut(&id) else { return };
                server.commands.push(command);
                self.work(id);
            }
            Effect::Send { to, id: request_id, request } => self.send(id, to, request_id, request),
            Effect::Reply { to, id: request_id, reply } => self.reply(id, to, request_id, reply),
            Effect::Answer { call, result } => {
                self.note(|| format!("{id} answers call {}: {result:?}", call.0));
                self.judge_read(id, call.0, &result);
                if let Some((key, coordinator)) = self.sides.whose(call.0) {
                    let after = self.stands(coordinator, key);
                    self.sides.end(call.0, &result, self.now, after);
                }
                match self.calls.remove(&call.0) {
                    Some((NOBODY, _)) => {
                        self.answers.insert(call.0, result);
                    }
                    Some((client, _)) => self.tell(client, Told::Answer(result)),
                    None => {}
                }
            }
            Effect::Notice(notice) => self.note(|| format!("{id} notes: {}", notice.text)),
            Effect::Stop { reason } => {
                // Rightly, after a failed sync; the operator starts it again.
                if std::mem::take(&mut self.sync_failed) == Some(id) {
                    self.summary.stops += 1;
                    self.crash(id, Return::Same);
                } else {
                    self.broken.push(format!("server {id} stops: {reason}"));
                }
            }
        }
    }

    // ── Reads at ONE ────────────────────────────────────────────────────────────────────────────────────

    /// A read at ONE begins.
    pub(super) fn watch_read(&mut self, call: u64, server: ServerId, request: &ClientRequest) {
        let (place, timeout) = match request {
            ClientRequest::Get { key, level: Level::One, timeout } => {
                (self.shape.partitioner.place(key), timeout)
            }
            // One that ends within the range in which it begins.
            ClientRequest::Scan { from, to: Some(_), level: Level::One, timeout, .. } => {
                (from.clone(), timeout)
            }
            _ => return,
        };
        let Some(node) = &self.servers[&server].node else { return };
        let here = self.clock_of(server);
        let replicas = &self.topology.range_of(&place).replicas;
        let alive = replicas.iter().copied().filter(|replica| node.counts_on(*replica, here));
        let (began, timeout) = (self.now, timeout.unwrap_or_default().as_micros() as u64);
        let read = AtOne { began, deadline: began + timeout, alive: alive.collect() };
        self.reads_at_one.insert(call, read);
    }

    /// A read at ONE does not fail before its time while there is a replica that its coordinator has believed alive all the
    /// while, over the same link: that one could have been asked.
    fn judge_read(
        &mut self,
        server: ServerId,
        call: u64,
        result: &Result<ClientResponse, Failure>,
    ) {
        let Some(read) = self.reads_at_one.remove(&call) else { return };
        let Err(failure @ (Failure::TimedOut { .. } | Failure::Unavailable { .. })) = result else {
            return;
        };
        let Some(node) = &self.servers[&server].node else { return };
        let here = self.clock_of(server);
        let relinked = |replica: &ServerId| {
            self.relinked.get(&(server, *replica)).is_some_and(|at| *at >= read.began)
        };
        // Where a bit has turned, a key may be lost until another replica is there: for that key there is no answer.
        let could = |replica: &&ServerId| {
            node.counts_on(**replica, here)
                && !relinked(replica)
                && !self.flipped.contains(*replica)
        };
        if self.now < read.deadline
            && self.unavailable.is_empty()
            && let Some(replica) = read.alive.iter().find(could)
        {
            let ms = (read.deadline - self.now) / 1_000;
            self.unavailable.push(format!(
                "available: server {server} fails call {call} at ONE {ms} ms before its time, and could have \
                 asked server {replica}: {failure}"
            ));
        }
    }

    // ── Disks ───────────────────────────────────────────────────────────────────────────────────────────

    /// A hint may be forgotten once its target has said that it holds that much, and not before.
    fn watch_hints(&mut self, holder: ServerId, command: &Command) {
        if let Command::Append { log: Log::Hints, record: Record::Put { key, .. }, .. } = command {
            self.summary.marks += u64::from(key.as_bytes().first() == Some(&1));
        }
        let Command::Append { log: Log::Hints, record: Record::Erase { key, up_to }, .. } = command
        else {
            return;
        };
        if let Some((target, start)) = mark_key(key) {
            self.watch_mark(holder, target, start);
            return;
        }
        let Some((target, place)) = hint_key(key) else { return };
        let told = self.stored.get(&(holder, target, place.clone())).copied().unwrap_or_default();
        if told < *up_to {
            self.broken.push(format!(
                "hints: server {holder} forgets a hint for {target}, key {place} up to {up_to}, and was told of {told}"
            ));
        }
    }

    /// A mark may be forgotten once the range was compared, and nothing was missed since that began.
    fn watch_mark(&mut self, holder: ServerId, target: ServerId, start: Key) {
        let mark = (holder, target, start);
        let missed = self.marks.get(&mark).copied().unwrap_or_default();
        let compared = self.compared.get(&mark).copied();
        if compared.is_none_or(|began| began <= missed) {
            let (_, _, start) = mark;
            self.unsettled.push(format!(
                "hints: server {holder} forgets that {target} must be compared from '{start}' on: something \
                 was missed at {missed} µs, and the comparison began at {compared:?}"
            ));
        }
    }

    /// The disk takes up all that has been ordered, if it is idle.
    fn work(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.working || server.commands.is_empty() {
            return;
        }
        server.working = true;
        server.batches += 1;
        server.working_since = self.now;
        server.batch = std::mem::take(&mut server.commands);
        let life = server.life;
        let usual = self.disks.between(80, 400);
        let slow = if self.disks.chance(50) { self.disks.below(30_000) } else { 0 };
        self.plan(usual + slow, Coming::Worked { server: id, life });
        if let Some(server) = self.servers.get_mut(&id)
            && std::mem::take(&mut server.dies_at_work)
        {
            let after = self.disks.below(usual + slow);
            self.plan(after, Coming::Dies { server: id, life });
        }
        self.watch_hang(id);
    }

    pub(super) fn worked(&mut self, id: ServerId, life: u64) {
        if self.hangs(id, life) {
            return;
        }
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else {
            return;
        };
        let Some(engine) = &mut server.engine else { return };
        let ordered: Vec<_> = server.batch.iter().filter_map(|command| hint(id, command)).collect();
        let erased: Vec<_> = server.batch.iter().filter_map(erasure).collect();
        let mut completions = Vec::new();
        engine.execute(server.batch.drain(..), &mut completions);
        server.working = false;
        for completion in &completions {
            if let Completion::Appended { log: Log::Hints, ticket, result: Ok(_), .. } = completion
            {
                let kept = ordered.iter().filter(|(ordered, _)| ordered == ticket);
                self.hints.extend(kept.map(|(_, hint)| hint.clone()));
                for (_, target, place, up_to) in erased.iter().filter(|erased| erased.0 == *ticket)
                {
                    let is_this = |hint: &&mut Kept| {
                        (hint.holder, hint.target) == (id, *target)
                            && hint.place == *place
                            && hint.version <= *up_to
                    };
                    self.hints.iter_mut().filter(is_this).for_each(|hint| hint.delivered = true);
                }
            }
        }
        self.summary.batches += 1;
        for completion in completions {
            if self.servers[&id].life != life {
                return;
            }
            self.step(id, Event::Completed(completion));
        }
        self.work(id);
    }
}

/// The hint that a command has appended.
fn hint(holder: ServerId, command: &Command) -> Option<(Ticket, Kept)> {
    let Command::Append { log: Log::Hints, ticket, record: Record::Put { key, cell } } = command
    else {
        return None;
    };
    let (target, place) = hint_key(key)?;
    Some((*ticket, Kept { holder, target, place, version: cell.version, delivered: false }))
}

/// The hint that a command has forgotten: for whom, of which place, up to which version.
fn erasure(command: &Command) -> Option<(Ticket, ServerId, Key, Version)> {
    let Command::Append { log: Log::Hints, ticket, record: Record::Erase { key, up_to } } = command
    else {
        return None;
    };
    let (target, place) = hint_key(key)?;
    Some((*ticket, target, place, *up_to))
}

/// Of whom a mark is, and from which start on: its key is 1, the target, the start.
fn mark_key(key: &Key) -> Option<(ServerId, Key)> {
    match *key.as_bytes() {
        [1, high, low, ref start @ ..] => {
            Some((ServerId(u16::from_be_bytes([high, low])), Key::bound(start.to_vec())))
        }
        _ => None,
    }
}

/// For whom a hint is, and for which place: its key is 0, the target, the place.
fn hint_key(key: &Key) -> Option<(ServerId, Key)> {
    match *key.as_bytes() {
        [0, high, low, ref place @ ..] => {
            Some((ServerId(u16::from_be_bytes([high, low])), Key::bound(place.to_vec())))
        }
        _ => None,
    }
}

/// Turns a bit of a segment or of a key file. In the last segment it is one of what later records say has been synced: what
/// stands behind that could pass for torn by a crash, and that is the limit of what can be noticed.
pub(super) fn flip(disk: &mut MemoryDisk, mut random: impl FnMut(u64) -> u64) -> Flipped {
    let mut files: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(name, length)| name.starts_with("cells/") && *length > 0)
        .collect();
    let last =
        files.iter().filter(|(name, _)| name.ends_with(".log")).map(|(name, _)| name.clone()).max();
    // Of a running server it is what would be left of it without power.
    let mut durable = disk.clone();
    durable.crash(|_| 0);
    let known = synced_for_certain(&durable, Log::Cells);
    for (name, length) in &mut files {
        if Some(&*name) == last.as_ref() {
            let synced = known.as_ref().filter(|(file, _)| file == name);
            *length = synced.map_or(0, |(_, end)| u64::from(*end));
        }
    }
    files.retain(|(_, length)| *length > 0);
    if files.is_empty() {
        return Flipped::Nothing;
    }
    let (name, length) = &files[random(files.len() as u64) as usize];
    match disk.flip(name, random(*length) as usize, random(8) as u8) {
        false => Flipped::Nothing,
        true if Some(name) == last.as_ref() => Flipped::Last,
        true => Flipped::Sealed,
    }
}

/// Where a bit has turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flipped {
    Nothing,
    /// In a sealed segment or a key file.
    Sealed,
    /// In the segment that is written to.
    Last,
}

impl Server {
    pub(super) fn new(skew: i64) -> Server {
        Server {
            life: 0,
            born: 0,
            node: None,
            engine: None,
            disk: Some(MemoryDisk::new()),
            skew,
            commands: Vec::new(),
            batch: Vec::new(),
            working: false,
            batches: 0,
            working_since: 0,
            dies_at_work: false,
            hangs_until: 0,
            deadline: u64::MAX,
            flushing: false,
            paused_until: 0,
        }
    }
}
