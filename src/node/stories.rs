//! Golden scripts: the protocol as stories, with their whole trace.
//!
//! Each file in `testscripts/` is a story: commands, then `---`, then everything that happened, in order. The trace
//! is the assertion; `UPDATE_GOLDENFILES=1 cargo test stories` writes it anew, and its diff is to be read as code.
//!
//! | command | |
//! |---|---|
//! | `cluster nodes=4 replicas=3` | starts servers, ranges from 1-byte starts `a`, `b`, …; lets them all come to vote; with `old=2`, n2 holds and tells contents as release 0.1 does |
//! | `put n1 key=value level=quorum`, `delete n1 key`, `get n1 key`, `scan n1 limit=10` | a client calls; `ticket=V` retries |
//! | `prepare n1 key` | it asks for a ticket |
//! | `clock n1 days=3650` | its wall clock is that far off |
//! | `run` | messages and disks go on until nothing moves |
//! | `hold n2` / `release n2` | messages to and from n2 are held back, its links stay up / all come through |
//! | `stall n2` / `unstall n2` | its disk does nothing / catches up |
//! | `rot n2 text` | a bit of that text turns in its log |
//! | `scrub n2` | its sealed segments are read through from its next start on |
//! | `upgrade n2` | it is of this release from its next start on |
//! | `crash n2` / `restart n2` / `wipe n2` | links break, unsynced bytes are lost / comes back / its disk is empty |
//! | `advance ms=1000` | time passes, in steps of the nodes' own deadlines |
//! | `state key` | what every server holds of a key, who votes, and whose disk is not well |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use goldenscript::{Command, Context, Runner};

use super::{Config, Effect, Event, Node};
use crate::model::{
    CallId, ClientRequest, ClientResponse, Content, DamagedRecord, Failure, FolderId,
    InspectSource, Instant, Key, Level, Now, PeerAnswer, PeerReply, PeerRequest, PreparedPut,
    Reached, RequestId, ServerId, Status, Version,
};
use crate::ring::Placement;
use crate::storage::{
    self, Disk as _, Engine, EngineOptions, MemoryDisk, StorageFlaw, StoreOptions, SyncPolicy,
};

/// Where the wall clock of every server starts.
const EPOCH: i64 = 0;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node/testscripts");
    let mut scripts: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Stage::default(), &script).unwrap_or_else(|error| {
            panic!("{}: {error}", script.display());
        });
    }
}

/// Every third page is lost, in a rebuild of many: it goes on where it was, and asks for no more than it must.
#[test]
fn a_rebuild_goes_on_where_it_was_however_often_a_page_is_late() -> Result<()> {
    const KEYS: u64 = 60;
    let page = Some(2);
    let mut stage = Stage { bounds: Bounds { page, ..Bounds::default() }, ..Stage::default() };
    stage.cluster(3, 3)?;
    for number in 0..KEYS {
        stage.put(
            ServerId(0),
            &format!("k{number:03}"),
            Content::Value("v".into()),
            Level::All,
            None,
            None,
        )?;
        stage.settle();
    }
    let lost = ServerId(2);
    stage.crash(lost);
    stage.actor(lost).disk = Some(MemoryDisk::default());
    stage.start(lost)?;
    stage.lose_pages = 3;
    stage.link(lost);
    stage.trace.clear();
    stage.advance(7_000_000);
    let under_way = stage.status(lost);
    assert!(!under_way.voting && under_way.state.contains("cells copied"), "{}", under_way.state);
    assert!(under_way.state.contains("was late with a page"), "{}", under_way.state);
    stage.advance(600_000_000);
    let done = stage.status(lost);
    assert!(done.voting, "{}", done.state);
    let asked =
        stage.trace.lines().filter(|line| line.starts_with("n2 → ") && line.contains("page"));
    let (asked, lost) = (asked.count() as u64, stage.pages.1);
    assert!(lost > 10, "only {lost} pages were lost");
    // At one cell a page: all from both sources, the ends of three ranges of each, and again what was lost.
    let most = 2 * KEYS + 6 + lost;
    assert!(
        asked <= most,
        "{asked} pages were asked for, of which {lost} were lost; {most} are enough"
    );
    Ok(())
}

/// A few servers, and everything between them.
#[derive(Default)]
struct Stage {
    now: u64,
    actors: BTreeMap<ServerId, Actor>,
    messages: VecDeque<Message>,
    copies: BTreeMap<ServerId, MemoryDisk>,
    held: BTreeSet<ServerId>,
    stalled: BTreeSet<ServerId>,
    scrubs: BTreeSet<ServerId>,
    next_call: u64,
    lives: u64,
    trace: String,
    config: Option<Config>,
    bounds: Bounds,
    /// Of the pages that servers answer with, every so many-th is lost. 0: none.
    lose_pages: u64,
    /// Pages answered with, and lost.
    pages: (u64, u64),
    /// How far wall clocks are off, in microseconds.
    clocks: BTreeMap<ServerId, i64>,
    /// Of release 0.1, where it is asked what it holds.
    old: Option<ServerId>,
}

/// Of [`Config`], where a story wants another.
#[derive(Clone, Copy, Default)]
struct Bounds {
    hints: Option<usize>,
    storing: Option<usize>,
    hint_bytes: Option<usize>,
    page: Option<usize>,
}

struct Actor {
    node: Option<Node>,
    engine: Option<Engine<MemoryDisk>>,
    disk: Option<MemoryDisk>,
    commands: Vec<storage::Command>,
}

enum Message {
    Request { from: ServerId, to: ServerId, id: RequestId, request: PeerRequest },
    Reply { from: ServerId, to: ServerId, id: RequestId, reply: PeerReply },
}

impl Message {
    fn ends(&self) -> (ServerId, ServerId) {
        match self {
            Message::Request { from, to, .. } | Message::Reply { from, to, .. } => (*from, *to),
        }
    }
}

impl Runner for Stage {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String> {
        let mut args = command.consume_args();
        self.trace.clear();
        match command.name.as_str() {
            "cluster" => {
                let nodes: u16 = args.take_key("nodes").unwrap_or("4").parse()?;
                let replicas: usize = args.take_key("replicas").unwrap_or("3").parse()?;
                let hints: Option<usize> = args.take_key("hints").map(str::parse).transpose()?;
                let storing = args.take_key("storing").map(str::parse).transpose()?;
                let hint_bytes = args.take_key("hint_bytes").map(str::parse).transpose()?;
                let page = args.take_key("page").map(str::parse).transpose()?;
                let old: Option<u16> = args.take_key("old").map(str::parse).transpose()?;
                self.old = old.map(ServerId);
                self.bounds = Bounds { hints, storing, hint_bytes, page };
                self.cluster(nodes, replicas)?;
            }
            "put" => {
                let level = args.take_key("level").unwrap_or("quorum").parse()?;
                let ticket = args.take_key("ticket").map(version).transpose()?;
                let after = args.take_key("after").map(version).transpose()?;
                let server = self.server(args.next_pos())?;
                let (key, value) = args.next_key().ok_or("give key=value")?;
                let content = Content::Value(value.to_owned().into());
                self.put(server, key, content, level, ticket, after)?;
            }
            "delete" => {
                let level = args.take_key("level").unwrap_or("quorum").parse()?;
                let ticket = args.take_key("ticket").map(version).transpose()?;
                let server = self.server(args.next_pos())?;
                let key = args.next_pos().ok_or("give a key")?;
                self.put(server, key, Content::Tombstone, level, ticket, None)?;
            }
            "get" => {
                let level = args.take_key("level").unwrap_or("quorum").parse()?;
                let server = self.server(args.next_pos())?;
                let key = Key::new(args.next_pos().ok_or("give a key")?.to_owned())?;
                self.call(server, ClientRequest::Get { key, level, timeout: None });
            }
            "scan" => {
                let limit = args.take_key("limit").unwrap_or("10").parse()?;
                let from = Key::bound(args.take_key("from").unwrap_or("").to_owned());
                let level = args.take_key("level").unwrap_or("quorum").parse()?;
                let any_order = args.take_key("any_order").is_some_and(|any| any == "yes");
                let server = self.server(args.next_pos())?;
                let (to, timeout) = (None, None);
                let scan = ClientRequest::Scan { from, to, limit, level, timeout, any_order };
                self.call(server, scan);
            }
            "prepare" => {
                let server = self.server(args.next_pos())?;
                let key = Key::new(args.next_pos().ok_or("give a key")?.to_owned())?;
                let (level, timeout, after) = (Level::Quorum, None, None);
                self.call(server, ClientRequest::Prepare { key, level, timeout, after });
            }
            "clock" => {
                let days: i64 = args.take_key("days").ok_or("give days=")?.parse()?;
                let server = self.server(args.next_pos())?;
                self.clocks.insert(server, days * 24 * 60 * 60 * 1_000_000);
            }
            "run" => self.settle(),
            "hold" => {
                self.held.insert(self.server(args.next_pos())?);
            }
            "release" => {
                self.held.remove(&self.server(args.next_pos())?);
            }
            "stall" => {
                self.stalled.insert(self.server(args.next_pos())?);
            }
            "unstall" => {
                self.stalled.remove(&self.server(args.next_pos())?);
            }
            "crash" => {
                let server = self.server(args.next_pos())?;
                self.crash(server);
            }
            "copy" => {
                let server = self.server(args.next_pos())?;
                let disk = self.actor(server).disk.clone().ok_or("it is running")?;
                self.copies.insert(server, disk);
            }
            "put-back" => {
                let server = self.server(args.next_pos())?;
                let copy = self.copies.get(&server).cloned().ok_or("there is no copy")?;
                self.actor(server).disk = Some(copy);
            }
            "fill" => {
                let room: u64 = args.take_key("room").unwrap_or("0").parse()?;
                let server = self.server(args.next_pos())?;
                let disk = self.actor(server).engine.as_mut().ok_or("it is down")?.disk_mut();
                let used: u64 = disk.files().iter().map(|(_, length)| length).sum();
                disk.set_capacity(Some(used + room));
            }
            "empty" => {
                let server = self.server(args.next_pos())?;
                let disk = self.actor(server).engine.as_mut().ok_or("it is down")?.disk_mut();
                disk.set_capacity(None);
            }
            "wipe" => {
                let server = self.server(args.next_pos())?;
                self.actor(server).disk = Some(MemoryDisk::default());
            }
            "rot" => {
                let server = self.server(args.next_pos())?;
                let text = args.next_pos().ok_or("give a text")?.as_bytes();
                let disk = self.actor(server).engine.as_mut().ok_or("it is down")?.disk_mut();
                let found = disk.files().into_iter().find_map(|(name, length)| {
                    let bytes = disk.read(&name, 0, length as usize).ok()?;
                    let at = bytes.windows(text.len()).position(|window| window == text)?;
                    name.ends_with(".log").then_some((name, at))
                });
                let (name, at) = found.ok_or("it is in no log")?;
                disk.flip(&name, at, 0);
            }
            "scrub" => {
                self.scrubs.insert(self.server(args.next_pos())?);
            }
            "upgrade" => {
                let server = self.server(args.next_pos())?;
                self.old = self.old.filter(|old| *old != server);
            }
            "restart" => {
                let server = self.server(args.next_pos())?;
                self.start(server)?;
                self.link(server);
            }
            "status" => {
                let server = self.server(args.next_pos())?;
                let Status { state, scrub, .. } = self.status(server);
                let _ = writeln!(self.trace, "{server}: {state}");
                for record in scrub.unwrap_or_default().recent {
                    let DamagedRecord { file, key, found, healed, .. } = record;
                    let healed =
                        healed.map_or("not healed".to_owned(), |at| format!("healed {at}"));
                    let key = key.escape_ascii();
                    let _ = writeln!(self.trace, "{file}: {key} damaged {found}, {healed}");
                }
            }
            "advance" => {
                let ms: u64 = args.take_key("ms").ok_or("give ms=")?.parse()?;
                self.advance(ms * 1000);
            }
            "state" => {
                let key = Key::new(args.next_pos().ok_or("give a key")?.to_owned())?;
                self.state(&key)?;
            }
            name => return Err(format!("there is no command {name}").into()),
        }
        args.reject_next()?;
        Ok(std::mem::take(&mut self.trace))
    }
}

impl Stage {
    fn cluster(&mut self, nodes: u16, replicas: usize) -> Result<()> {
        let servers: Vec<_> = (0..nodes).map(ServerId).collect();
        let starts: Vec<_> = (0..nodes)
            .map(|i| if i == 0 { Key::bound("") } else { Key::bound(vec![b'a' + i as u8 - 1]) })
            .collect();
        let topology = Placement::Ring.topology(&servers, &starts, replicas)?;
        let mut config = Config::new(ServerId(0), "stories".to_owned(), topology);
        config.addresses = servers.iter().map(|s| (*s, format!("n{s}"))).collect();
        config.cells = StoreOptions { memory: 1 << 20, dead_percent: 50, flaw: None };
        // Far away, so that it is in a trace only where time is advanced for it.
        config.repair_interval = Duration::from_secs(60);
        let Bounds { hints, storing, hint_bytes, page } = self.bounds;
        config.max_hints = hints.unwrap_or(config.max_hints);
        config.max_storing = storing.unwrap_or(config.max_storing);
        config.max_hint_bytes = hint_bytes.unwrap_or(config.max_hint_bytes);
        config.rebuild_page = page.unwrap_or(config.rebuild_page);
        self.config = Some(config);
        for server in &servers {
            let disk = Some(MemoryDisk::default());
            let actor = Actor { node: None, engine: None, disk, commands: Vec::new() };
            self.actors.insert(*server, actor);
        }
        for server in &servers {
            self.start(*server)?;
        }
        for server in servers {
            self.link(server);
        }
        self.settle();
        self.advance(1_000_000);
        let voting = |actor: &Actor| actor.node.as_ref().is_some_and(Node::is_voting);
        if !self.actors.values().all(voting) {
            return Err(format!("not all vote:\n{}", self.trace).into());
        }
        self.trace.clear();
        Ok(())
    }

    fn server(&self, name: Option<&str>) -> Result<ServerId> {
        let number =
            name.and_then(|name| name.strip_prefix('n')).ok_or("name a server, like n1")?;
        let server = ServerId(number.parse()?);
        self.actors.contains_key(&server).then_some(server).ok_or("no such server".into())
    }

    fn actor(&mut self, server: ServerId) -> &mut Actor {
        self.actors.get_mut(&server).unwrap()
    }

    fn moment(&self, server: ServerId) -> Now {
        let off = self.clocks.get(&server).copied().unwrap_or(0);
        Now { instant: Instant(self.now), wall: EPOCH + off + self.now as i64 + 1 }
    }

    fn start(&mut self, server: ServerId) -> Result<()> {
        self.lives += 1;
        let options = EngineOptions {
            cluster: "stories".to_owned(),
            server,
            fresh_folder: FolderId(self.lives),
            salt_seed: 1,
            segment_bytes: 1 << 20,
            sync: SyncPolicy::Always,
            flaw: None,
        };
        let mut config = self.config.clone().ok_or("begin with `cluster`")?;
        config.server = server;
        config.first_request = self.lives << 32;
        config.scrub_rate = if self.scrubs.contains(&server) { config.scrub_rate } else { 0 };
        if self.old == Some(server) {
            config.cells.flaw = Some(StorageFlaw::EqualVersionsKeepTheFirst);
        }
        let (now, seed) = (self.moment(server), self.lives);
        let actor = self.actor(server);
        let disk = actor.disk.take().ok_or("it is running")?;
        let (engine, opened) = Engine::open(disk, options)?;
        actor.node = Some(Node::new(config, opened, now, seed));
        actor.engine = Some(engine);
        self.step(server, Event::Deadline);
        Ok(())
    }

    /// Links in both directions with everyone who is running.
    fn link(&mut self, server: ServerId) {
        let others: Vec<_> = self.actors.keys().copied().filter(|other| *other != server).collect();
        for other in others {
            for (a, b) in [(server, other), (other, server)] {
                let hello = self.actors[&b].node.as_ref().map(|node| node.hello(a));
                if let (Some(hello), true) = (hello, self.actors[&a].node.is_some()) {
                    self.step(a, Event::LinkUp { hello });
                }
            }
        }
    }

    fn crash(&mut self, server: ServerId) {
        let actor = self.actor(server);
        actor.node = None;
        actor.commands.clear();
        if let Some(engine) = actor.engine.take() {
            let mut disk = engine.into_disk();
            disk.crash(|_| 0);
            actor.disk = Some(disk);
        }
        self.messages.retain(|message| message.ends().0 != server && message.ends().1 != server);
        let others: Vec<_> = self.actors.keys().copied().filter(|other| *other != server).collect();
        for other in others {
            self.step(other, Event::LinkDown { peer: server });
        }
    }

    fn put(
        &mut self,
        server: ServerId,
        key: &str,
        content: Content,
        level: Level,
        ticket: Option<Version>,
        after: Option<Version>,
    ) -> Result<()> {
        let key = Key::new(key.to_owned())?;
        let put = PreparedPut { key, content, level, timeout: None, ticket, after };
        self.call(server, ClientRequest::Put(put));
        Ok(())
    }

    fn call(&mut self, server: ServerId, request: ClientRequest) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.step(server, Event::Call { call, request });
    }

    /// Lets one node take in an event, and carries out its effects; its disk works when it is not stalled.
    fn step(&mut self, server: ServerId, event: Event) {
        let now = self.moment(server);
        let mut effects = Vec::new();
        let Some(node) = &mut self.actor(server).node else { return };
        node.step(now, event, &mut effects);
        while node.has_gathered() {
            node.step(now, Event::Flush, &mut effects);
        }
        for effect in effects {
            self.perform(server, effect);
        }
    }

    fn perform(&mut self, server: ServerId, effect: Effect) {
        match effect {
            Effect::Storage(command) => self.actor(server).commands.push(command),
            Effect::Send { to, id, request } => {
                if let Some(text) = show_request(&request) {
                    let held = if self.is_held(server, to) { "  (held)" } else { "" };
                    let _ = writeln!(self.trace, "n{server} → n{to} {text}{held}");
                }
                self.messages.push_back(Message::Request { from: server, to, id, request });
            }
            Effect::Reply { to, id, mut reply } => {
                if self.old == Some(server) {
                    without_contents(&mut reply.answer);
                }
                if let Some(text) = show_answer(&reply) {
                    let held = if self.is_held(server, to) { "  (held)" } else { "" };
                    let _ = writeln!(self.trace, "n{server} → n{to} {text}{held}");
                }
                if matches!(reply.answer, PeerAnswer::Page { .. }) && self.lose_pages > 0 {
                    self.pages.0 += 1;
                    if self.pages.0.is_multiple_of(self.lose_pages) {
                        self.pages.1 += 1;
                        return;
                    }
                }
                self.messages.push_back(Message::Reply { from: server, to, id, reply });
            }
            Effect::Answer { call, result } => {
                let _ = writeln!(self.trace, "n{server} → c{} {}", call.0, show_result(&result));
            }
            Effect::Notice(notice) => {
                let _ = writeln!(self.trace, "n{server} notes: {}", notice.text);
            }
            Effect::Stop { reason } => {
                let _ = writeln!(self.trace, "n{server} stops: {reason}");
            }
        }
    }

    fn is_held(&self, a: ServerId, b: ServerId) -> bool {
        self.held.contains(&a) || self.held.contains(&b)
    }

    /// Goes on until nothing moves.
    fn settle(&mut self) {
        loop {
            let ready = self
                .messages
                .iter()
                .position(|message| !self.is_held(message.ends().0, message.ends().1));
            if let Some(message) = ready.and_then(|position| self.messages.remove(position)) {
                match message {
                    Message::Request { from, to, id, request } => {
                        self.step(to, Event::Request { from, id, request });
                    }
                    Message::Reply { from, to, id, reply } => {
                        self.step(to, Event::Reply { from, id, reply });
                    }
                }
                continue;
            }
            let busy = |(server, actor): (&ServerId, &Actor)| {
                let busy = !actor.commands.is_empty() && actor.engine.is_some();
                (busy && !self.stalled.contains(server)).then_some(*server)
            };
            let Some(server) = self.actors.iter().find_map(busy) else { break };
            self.work(server);
        }
    }

    /// The disk of one server carries out all it has been ordered.
    fn work(&mut self, server: ServerId) {
        let actor = self.actor(server);
        let commands = std::mem::take(&mut actor.commands);
        for command in &commands {
            if let storage::Command::Append { log: storage::Log::Cells, record, .. } = command {
                let _ = writeln!(self.trace, "n{server} syncs {}", show_record(record));
            } else if let storage::Command::Append { record, .. } = command {
                let _ = writeln!(self.trace, "n{server} syncs hint {}", show_record(record));
            }
        }
        let mut completions = Vec::new();
        let actor = self.actor(server);
        let Some(engine) = &mut actor.engine else { return };
        engine.execute(commands, &mut completions);
        for completion in completions {
            self.step(server, Event::Completed(completion));
        }
    }

    /// Time passes from deadline to deadline.
    fn advance(&mut self, micros: u64) {
        let end = self.now + micros;
        loop {
            self.settle();
            let next = self
                .actors
                .iter()
                .filter_map(|(server, actor)| {
                    Some((actor.node.as_ref()?.next_deadline()?, *server))
                })
                .min();
            match next {
                Some((at, server)) if at.0 <= end => {
                    self.now = self.now.max(at.0);
                    self.step(server, Event::Deadline);
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
    }

    fn status(&mut self, server: ServerId) -> Status {
        let now = self.moment(server);
        let mut effects = Vec::new();
        if let Some(node) = &mut self.actor(server).node {
            node.step(
                now,
                Event::Call { call: CallId(0), request: ClientRequest::Status },
                &mut effects,
            );
        }
        let status = effects.into_iter().find_map(|effect| match effect {
            Effect::Answer { result: Ok(ClientResponse::Status(status)), .. } => Some(*status),
            _ => None,
        });
        status.unwrap_or_default()
    }

    /// What every server holds, asked as an inspector would.
    fn state(&mut self, key: &Key) -> Result<()> {
        let servers: Vec<_> = self.actors.keys().copied().collect();
        for server in servers {
            let now = self.moment(server);
            let actor = self.actor(server);
            let (Some(node), Some(engine)) = (&mut actor.node, &mut actor.engine) else {
                let _ = writeln!(self.trace, "n{server}: down");
                continue;
            };
            let mut effects = Vec::new();
            let (source, from) = (InspectSource::Cells, key.clone());
            let inspect = ClientRequest::Inspect { source, from, limit: 1 };
            for request in [inspect, ClientRequest::Status] {
                node.step(now, Event::Call { call: CallId(0), request }, &mut effects);
            }
            // A value may have to be fetched from the disk.
            let is_load =
                |effect: &Effect| matches!(effect, Effect::Storage(storage::Command::Load { .. }));
            let (loads, mut effects): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_load);
            for load in loads {
                let Effect::Storage(command) = load else { continue };
                let mut completions = Vec::new();
                engine.execute([command], &mut completions);
                for completion in completions {
                    node.step(now, Event::Completed(completion), &mut effects);
                }
            }
            let (mut held, mut standing) = ("nothing".to_owned(), String::new());
            for effect in effects {
                match effect {
                    Effect::Answer {
                        result: Ok(ClientResponse::Inspected { entries, .. }),
                        ..
                    } => {
                        if let Some((_, cell)) = entries.iter().find(|(found, _)| found == key) {
                            held = format!("{} @{}", show_content(&cell.content), cell.version);
                        }
                    }
                    Effect::Answer { result: Ok(ClientResponse::Status(status)), .. } => {
                        let hints: Vec<_> = status
                            .peers
                            .iter()
                            .filter(|peer| peer.hints > 0)
                            .map(|peer| format!("{} for n{}", peer.hints, peer.server))
                            .collect();
                        if !hints.is_empty() {
                            standing = format!(", hints: {}", hints.join(", "));
                        }
                        if !status.voting {
                            standing += ", does not vote";
                        }
                        if let Some(disk) = &status.disk {
                            standing += &format!(", {disk}");
                        }
                        for peer in &status.peers {
                            if let Some(disk) = &peer.disk {
                                standing += &format!(", of n{}: {disk}", peer.server);
                            }
                        }
                    }
                    other => self.perform(server, other),
                }
            }
            let _ = writeln!(self.trace, "n{server}: {held}{standing}");
        }
        Ok(())
    }
}

fn version(text: &str) -> Result<Version> {
    Ok(text.parse()?)
}

fn show_content(content: &Content) -> String {
    content.value().map_or("deleted".to_owned(), |value| value.escape_ascii().to_string())
}

fn show_record(record: &storage::Record) -> String {
    match record {
        storage::Record::Put { key, cell } => {
            format!("{key}={} @{}", show_content(&cell.content), cell.version)
        }
        storage::Record::Erase { key, up_to } => format!("{key} erased to @{up_to}"),
    }
}

/// Signs of life are not part of any story.
fn show_request(request: &PeerRequest) -> Option<String> {
    Some(match request {
        PeerRequest::Ping => return None,
        PeerRequest::Read(read) if read.with_value => format!("read {}", read.key),
        PeerRequest::Read(read) => format!("version? {}", read.key),
        PeerRequest::Store { key, cell, .. } => {
            format!("store {key}={} @{}", show_content(&cell.content), cell.version)
        }
        PeerRequest::Page { from, .. } => format!("page from '{from}'"),
        PeerRequest::Clock { .. } => "clock?".to_owned(),
        PeerRequest::Digest { start, .. } => format!("digest of '{start}'"),
        PeerRequest::Join(join) => format!("join as {}", join.incarnation),
    })
}

/// What release 0.1 would not have told.
fn without_contents(answer: &mut PeerAnswer) {
    match answer {
        PeerAnswer::Held { checksum, .. } => *checksum = None,
        PeerAnswer::Stored { other, .. } => *other = None,
        PeerAnswer::Page { entries, .. } => {
            entries.iter_mut().for_each(|entry| entry.checksum = None);
        }
        PeerAnswer::Digest { contents, .. } => *contents = None,
        _ => {}
    }
}

fn show_answer(reply: &PeerReply) -> Option<String> {
    let answer = match &reply.answer {
        PeerAnswer::Pong { .. } => return None,
        PeerAnswer::Held { version, content: None, .. } => format!("held @{version}"),
        PeerAnswer::Held { version, content: Some(content), .. } => {
            format!("held {} @{version}", show_content(content))
        }
        PeerAnswer::Stored { current, other: None } => format!("stored @{current}"),
        PeerAnswer::Stored { current, other: Some(_) } => {
            format!("stored @{current}, another content")
        }
        PeerAnswer::Page { entries, truncated } => {
            let more = if *truncated { ", more" } else { "" };
            format!("page of {}{more}", entries.len())
        }
        PeerAnswer::Clock { time } => format!("clock {time}"),
        PeerAnswer::Digest { count, .. } => format!("digest, {count} keys"),
        PeerAnswer::Joined { recorded, remembered } => {
            let known = remembered.map_or(0, |remembered| remembered.incarnation.0);
            format!("joined, {}known as {known}", if *recorded { "recorded, " } else { "" })
        }
        PeerAnswer::Refused(refusal) => format!("refused: {refusal:?}"),
    };
    let doubt = if reply.sender.voting { "" } else { "  (not voting)" };
    Some(answer + doubt)
}

fn show_reached(reached: Option<&Reached>) -> String {
    reached.map_or(String::new(), |reached| format!(" ({reached})"))
}

fn show_result(result: &Result<ClientResponse, Failure>) -> String {
    match result {
        Ok(ClientResponse::Put { version, overtaken, reached }) => {
            let overtaken = if *overtaken { ", overtaken" } else { "" };
            format!("ok @{version}{overtaken}{}", show_reached(reached.as_ref()))
        }
        Ok(ClientResponse::Get { cell: None, reached }) => {
            format!("not found{}", show_reached(reached.as_ref()))
        }
        Ok(ClientResponse::Get { cell: Some(cell), reached }) => {
            let (content, reached) = (show_content(&cell.content), show_reached(reached.as_ref()));
            format!("{content} @{}{reached}", cell.version)
        }
        Ok(ClientResponse::Scan { entries, next }) => {
            let entries: Vec<_> =
                entries.iter().map(|e| format!("{}={}", e.key, e.value.escape_ascii())).collect();
            let next =
                next.as_ref().map_or("the end".to_owned(), |next| format!("more from '{next}'"));
            format!("[{}], {next}", entries.join(" "))
        }
        Ok(other) => format!("{other:?}"),
        Err(failure @ Failure::TimedOut { version: Some(version), .. }) => {
            format!("UNKNOWN: {failure}, ticket @{version}")
        }
        Err(failure) => format!("NO: {failure}"),
    }
}
