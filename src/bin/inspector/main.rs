//! `chord-inspector`: what every server holds, and where replicas differ.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chord::client::show::{json_text, scrub_lines, standing, status_json, text, time};
use chord::client::{Client, Error, Options, Routing, Safety};
use chord::model::{
    Cell, ClientRequest, ClientResponse, InspectSource, Key, ServerId, Stamp, Status, TopologyView,
};
use chord::ring::Partitioner;
use clap::Parser;
use comfy_table::{Cell as TableCell, Table, presets};
use serde_json::{Value as Json, json};

mod folder;

/// Entries of a page.
const PAGE: usize = 500;
/// Letters of a value in the table.
const VALUE_WIDTH: usize = 40;

/// Shows every server's id, liveness, contents, waiting hints and log size, and marks where replicas of a key differ.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  chord-inspector                       the cluster of ./server.sh
  chord-inspector --json --limit 10
  chord-inspector --folder data/2       a data folder at rest; nothing is ever written to it
  chord-inspector --folder data/2 --verify   the same, every value read

A write in progress may show as a difference for a moment. A key's replicas are marked: = holds the newest,
OLDER, MISSING, ? does not answer; servers that are no replicas have no mark.

JSON: {\"version\":1, \"servers\":[{\"server\",\"address\",\"answers\",\"status\"}], \"keys\":[{\"key\",\"value\",\"deleted\",\"time\",
\"cell_version\",\"differs\",\"replicas\":{\"ID\":\"same|older|missing|unreachable\"}}], \"keys_total\", \"differing\"}.

Exit codes: 0 replicas agree; 1 some differ; 2 usage; 6 no server can be reached."
)]
struct Flags {
    /// Servers that may be asked first; all others are found through them.
    #[arg(
        long,
        env = "CHORD_SERVER",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9000,127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003"
    )]
    server: Vec<String>,
    /// One server alone, by its id.
    #[arg(long, value_name = "ID")]
    only: Option<u16>,
    /// Keys shown; all are compared.
    #[arg(long, default_value_t = 1000)]
    limit: u64,
    /// Servers only, no keys.
    #[arg(long)]
    summary: bool,
    /// Also the keys of waiting hints.
    #[arg(long)]
    hints: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    /// Look at a data folder at rest instead.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["only", "hints"])]
    folder: Option<PathBuf>,
    /// Read every value of that folder, and name the records that are damaged.
    #[arg(long, requires = "folder")]
    verify: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let result = match &flags.folder {
        Some(path) => folder::show(path, flags.json, flags.limit, flags.verify),
        None => inspect(&flags),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chord-inspector: {error}");
            ExitCode::from(6)
        }
    }
}

/// A server, and what it holds, page by page.
struct Server {
    id: ServerId,
    address: String,
    client: Client,
    status: Option<Status>,
    /// Cells that were fetched and not compared yet, by place.
    page: VecDeque<(Key, Key, Cell)>,
    /// Where the next page begins; `None`: there is none.
    next: Option<Key>,
}

/// One key as the replicas hold it.
struct Row {
    key: Key,
    newest: Cell,
    marks: BTreeMap<ServerId, Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Same,
    Older,
    Missing,
    Unreachable,
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Mark::Same => "same",
            Mark::Older => "older",
            Mark::Missing => "missing",
            Mark::Unreachable => "unreachable",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Mark::Same => "=",
            Mark::Older => "OLDER",
            Mark::Missing => "MISSING",
            Mark::Unreachable => "?",
        }
    }
}

impl Row {
    fn differs(&self) -> bool {
        self.marks.values().any(|mark| matches!(mark, Mark::Older | Mark::Missing))
    }
}

fn client(servers: Vec<String>) -> Client {
    let timeout = Duration::from_secs(10);
    Client::new(Options { servers, timeout, safety: Safety::OneCall, routing: Routing::Sticky })
}

fn inspect(flags: &Flags) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let first = client(flags.server.clone());
        let view = match first.read(ClientRequest::Topology).await {
            Ok(answered) => match answered.response {
                ClientResponse::Topology(view) => *view,
                other => return Err(io::Error::other(format!("an unexpected answer: {other:?}"))),
            },
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut servers = Vec::new();
        for server in &view.servers {
            if flags.only.is_none_or(|only| only == server.server.0) {
                servers.push(Server::ask(server.server, server.address.clone()).await);
            }
        }
        if let (Some(only), true) = (flags.only, servers.is_empty()) {
            return Err(io::Error::other(format!("there is no server {only} in this cluster")));
        }
        if servers.iter().all(|server| server.status.is_none()) {
            return Err(io::Error::other("no server answers"));
        }
        let mut report = Report::new(flags, &view);
        report.servers(&mut servers).await?;
        if !flags.summary {
            while let Some(row) = next_row(&mut servers, &view).await? {
                report.row(&servers, &row)?;
            }
        }
        report.end(&servers)
    })
}

impl Server {
    async fn ask(id: ServerId, address: String) -> Server {
        let client = client(vec![address.clone()]);
        let status = match client.read(ClientRequest::Status).await {
            Ok(answered) => match answered.response {
                ClientResponse::Status(status) => Some(*status),
                _ => None,
            },
            Err(_) => None,
        };
        let next = status.is_some().then(|| Key::bound(""));
        Server { id, address, client, status, page: VecDeque::new(), next }
    }

    /// Has a page at hand, unless there is none left.
    async fn fill(&mut self, partitioner: Partitioner) -> io::Result<()> {
        while self.page.is_empty()
            && let Some(from) = self.next.take()
        {
            let request =
                ClientRequest::Inspect { source: InspectSource::Cells, from, limit: PAGE };
            match self.client.read(request).await {
                Ok(answered) => {
                    if let ClientResponse::Inspected { entries, next } = answered.response {
                        let placed = entries
                            .into_iter()
                            .map(|(key, cell)| (partitioner.place(&key), key, cell));
                        self.page = placed.collect();
                        self.next = next;
                    }
                }
                Err(error) => {
                    let why = format!("server {} died during the inspection: {error}", self.id);
                    return Err(io::Error::other(why));
                }
            }
        }
        Ok(())
    }
}

/// The least key that any server still has, with what each replica holds of it.
async fn next_row(servers: &mut [Server], view: &TopologyView) -> io::Result<Option<Row>> {
    let partitioner = view.partitioner.parse().unwrap_or(Partitioner::ByteOrdered);
    for server in servers.iter_mut() {
        server.fill(partitioner).await?;
    }
    let fronts = servers.iter().filter_map(|server| server.page.front());
    let Some(place) = fronts.map(|(place, _, _)| place.clone()).min() else { return Ok(None) };
    let mut held: BTreeMap<ServerId, (Key, Cell)> = BTreeMap::new();
    for server in servers.iter_mut() {
        if server.page.front().is_some_and(|(front, _, _)| *front == place)
            && let Some((_, key, cell)) = server.page.pop_front()
        {
            held.insert(server.id, (key, cell));
        }
    }
    let Some((key, newest)) = held.values().max_by_key(|(_, cell)| Stamp::of(cell)).cloned() else {
        return Ok(None);
    };
    let range = view.ranges.partition_point(|range| range.start[..] <= *place.as_bytes());
    let replicas = view.ranges.get(range.saturating_sub(1)).map(|range| range.replicas.as_slice());
    let answering: BTreeMap<_, _> =
        servers.iter().map(|server| (server.id, server.status.is_some())).collect();
    let marks = marks(replicas.unwrap_or_default(), &answering, &held, &newest);
    Ok(Some(Row { key, newest, marks }))
}

/// How each replica that is inspected stands to the newest cell.
fn marks(
    replicas: &[ServerId],
    answering: &BTreeMap<ServerId, bool>,
    held: &BTreeMap<ServerId, (Key, Cell)>,
    newest: &Cell,
) -> BTreeMap<ServerId, Mark> {
    let mark = |id: &ServerId| {
        let mark = match (held.get(id), answering.get(id)?) {
            (Some((_, cell)), _) if cell == newest => Mark::Same,
            (Some(_), _) => Mark::Older,
            (None, true) => Mark::Missing,
            (None, false) => Mark::Unreachable,
        };
        Some((*id, mark))
    };
    replicas.iter().filter_map(mark).collect()
}

/// What is printed, as it becomes known.
struct Report<'a> {
    flags: &'a Flags,
    view: &'a TopologyView,
    table: Table,
    json_servers: Vec<Json>,
    json_keys: Vec<Json>,
    keys: u64,
    differing: u64,
}

impl<'a> Report<'a> {
    fn new(flags: &'a Flags, view: &'a TopologyView) -> Report<'a> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let (json_servers, json_keys) = (Vec::new(), Vec::new());
        Report { flags, view, table, json_servers, json_keys, keys: 0, differing: 0 }
    }

    async fn servers(&mut self, servers: &mut [Server]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for server in servers.iter_mut() {
            let mut object = json!({
                "server": server.id.0, "address": server.address, "answers": server.status.is_some(),
                "status": server.status.as_ref().map(status_json),
            });
            let Some(status) = server.status.clone() else {
                self.json_servers.push(object);
                if !self.flags.json {
                    writeln!(out, "server {} at {}: DOES NOT ANSWER", server.id, server.address)?;
                }
                continue;
            };
            if !self.flags.json {
                let standing = standing(&status);
                writeln!(
                    out,
                    "server {} at {}: alive, {standing}, incarnation {}, {} keys ({} deleted), log {} \
                     bytes, hint log {} bytes, values in memory {} of {} bytes",
                    server.id,
                    server.address,
                    status.incarnation,
                    status.keys,
                    status.tombstones,
                    status.log_bytes,
                    status.hint_log_bytes,
                    status.memory_bytes,
                    status.memory_budget
                )?;
                if let Some(clock) = &status.clock {
                    writeln!(out, "  says: {clock}")?;
                }
                for line in scrub_lines(&status) {
                    writeln!(out, "  {line}")?;
                }
                for peer in status.peers.iter().filter(|peer| !peer.alive) {
                    writeln!(out, "  believes server {} down", peer.server)?;
                }
                for peer in &status.peers {
                    if let Some(disk) = &peer.disk {
                        writeln!(out, "  hears of server {}: {disk}", peer.server)?;
                    }
                }
            }
            for peer in status.peers.iter().filter(|peer| peer.hints > 0) {
                if !self.flags.json {
                    writeln!(out, "  {} hints wait for server {}", peer.hints, peer.server)?;
                }
                if self.flags.hints {
                    let keys = hinted(&server.client, peer.server, self.flags.limit)
                        .await
                        .map_err(io::Error::other)?;
                    if !self.flags.json {
                        for (key, cell) in &keys {
                            let value = shorten(cell);
                            writeln!(out, "    {} = {value}", text(key.as_bytes()))?;
                        }
                    }
                    let keys: Vec<_> =
                        keys.iter().map(|(key, _)| json_text(key.as_bytes())).collect();
                    object["hinted_keys"][peer.server.0.to_string()] = json!(keys);
                }
            }
            self.json_servers.push(object);
        }
        let mut head = vec![TableCell::new(""), TableCell::new("key"), TableCell::new("value")];
        head.extend(["time", "version"].map(TableCell::new));
        head.extend(servers.iter().map(|server| TableCell::new(format!("server {}", server.id))));
        self.table.set_header(head);
        Ok(())
    }

    fn row(&mut self, servers: &[Server], row: &Row) -> io::Result<()> {
        self.keys += 1;
        self.differing += u64::from(row.differs());
        // Differences are shown whatever the limit.
        if self.keys > self.flags.limit && (!row.differs() || self.differing > self.flags.limit) {
            return Ok(());
        }
        if self.flags.json {
            let marks: serde_json::Map<_, _> =
                row.marks.iter().map(|(id, mark)| (id.0.to_string(), json!(mark.name()))).collect();
            let value = row.newest.content.value();
            self.json_keys.push(json!({
                "key": json_text(row.key.as_bytes()), "value": value.map(|value| json_text(value)),
                "deleted": value.is_none(), "time": row.newest.version.time,
                "cell_version": row.newest.version.to_string(), "differs": row.differs(),
                "replicas": marks,
            }));
            return Ok(());
        }
        let mut cells = vec![
            if row.differs() { "≠".to_owned() } else { String::new() },
            text(row.key.as_bytes()),
            shorten(&row.newest),
            time(row.newest.version.time),
            row.newest.version.to_string(),
        ];
        let sign = |server: &Server| row.marks.get(&server.id).map_or("", |mark| mark.sign());
        cells.extend(servers.iter().map(|server| sign(server).to_owned()));
        self.table.add_row(cells);
        Ok(())
    }

    fn end(self, servers: &[Server]) -> io::Result<u8> {
        let mut out = io::stdout().lock();
        let code = u8::from(self.differing > 0);
        if self.flags.json {
            let report = json!({
                "version": 1, "cluster": self.view.cluster, "servers": self.json_servers,
                "keys": self.json_keys, "keys_total": self.keys, "differing": self.differing,
            });
            writeln!(out, "{report}")?;
            return Ok(code);
        }
        if !self.flags.summary {
            if self.keys > 0 {
                writeln!(out, "{}", self.table)?;
            }
            let cut = if self.keys > self.flags.limit {
                format!(", the first {} shown", self.flags.limit)
            } else {
                String::new()
            };
            let verdict = match (self.differing, servers.iter().all(|s| s.status.is_some())) {
                (0, true) => "replicas agree".to_owned(),
                (0, false) => "replicas that answer agree".to_owned(),
                (count, _) => format!("REPLICAS DIFFER on {count}"),
            };
            writeln!(out, "{} keys{cut}; {verdict}", self.keys)?;
        }
        Ok(code)
    }
}

/// The hints that wait for a server.
async fn hinted(client: &Client, target: ServerId, limit: u64) -> Result<Vec<(Key, Cell)>, Error> {
    let mut found = Vec::new();
    let mut from = Some(Key::bound(""));
    while let Some(start) = from.take()
        && (found.len() as u64) < limit
    {
        let source = InspectSource::HintsFor(target);
        let request = ClientRequest::Inspect { source, from: start, limit: PAGE };
        if let ClientResponse::Inspected { entries, next } = client.read(request).await?.response {
            found.extend(entries);
            from = next;
        }
    }
    found.truncate(limit as usize);
    Ok(found)
}

/// A value as fits a table.
fn shorten(cell: &Cell) -> String {
    let Some(value) = cell.content.value() else { return "(deleted)".to_owned() };
    let shown = text(&value[..value.len().min(4 * VALUE_WIDTH)]);
    if shown.chars().count() <= VALUE_WIDTH && value.len() <= 4 * VALUE_WIDTH {
        return shown;
    }
    let begin: String = shown.chars().take(VALUE_WIDTH).collect();
    format!("{begin}… ({} bytes)", value.len())
}

#[cfg(test)]
mod tests {
    use chord::model::{Content, Version};

    use super::*;

    /// S11: a replica that holds something older, or nothing, is marked; one that does not answer is not accused.
    #[test]
    fn replicas_that_differ_are_marked() {
        let cell = |time| Cell {
            version: Version { time, ..Version::ZERO },
            content: Content::Value("v".into()),
        };
        let ids = [0, 1, 2, 3].map(ServerId);
        let answering = ids.iter().map(|id| (*id, *id != ids[3])).collect();
        let held = [(ids[0], cell(2)), (ids[1], cell(1))];
        let held = held.into_iter().map(|(id, cell)| (id, (Key::bound("k"), cell))).collect();
        let marks = marks(&ids, &answering, &held, &cell(2));
        let found: Vec<_> = marks.values().copied().collect();
        assert_eq!(found, [Mark::Same, Mark::Older, Mark::Missing, Mark::Unreachable]);
        let row = |marks| Row { key: Key::bound("k"), newest: cell(2), marks };
        assert!(row(marks).differs());
        assert!(
            !row(BTreeMap::from([(ids[0], Mark::Same), (ids[3], Mark::Unreachable)])).differs()
        );
    }
}
