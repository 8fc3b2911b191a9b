//! Commands from a pipe: many in flight, results in the order of the input.
//!
//! A command waits for an earlier one on the same key, so a line sees what the lines before it have done; a scan and
//! whatever else concerns more than one key waits for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use tokio::sync::mpsc;

use super::client::{failed_read, odd};
use super::grammar::{Command, parse};
use super::{Answered, Broken, Client, Error, Pending, show};
use crate::model::{ClientRequest, Content, Key, Level, PreparedPut};
use crate::wire::{RemoteFailure, Reply};

/// Calls in flight at most: what a server takes from one connection before it stops reading.
const WINDOW: usize = 1_000;
/// Bytes of keys and values in flight at most, if more than one call is.
const WINDOW_BYTES: usize = 32 << 20;

/// How a batch is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For commands that name none.
    pub level: Level,
    /// One object a line.
    pub json: bool,
    /// Print failures only.
    pub quiet: bool,
    /// Every write under a ticket, one after the other.
    pub one_by_one: bool,
}

/// What has come of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Commands, without blank lines and comments.
    pub commands: u64,
    /// Successes.
    pub ok: u64,
    /// Keys that were not there.
    pub not_found: u64,
    /// All else.
    pub failed: u64,
    /// The first failure's exit code; 4, *unknown*, beats every other.
    pub exit: u8,
}

impl Summary {
    fn add(&mut self, exit: u8) {
        self.commands += 1;
        match exit {
            0 => self.ok += 1,
            1 => self.not_found += 1,
            _ => self.failed += 1,
        }
        if self.exit == 0 || exit == 4 {
            self.exit = exit;
        }
    }
}

/// A command whose answer is to come.
struct Flying {
    command: Command,
    key: Key,
    bytes: usize,
    pending: Pending,
}

struct Batch<'a, O, E> {
    client: &'a mut Client,
    options: Options,
    out: &'a mut O,
    err: &'a mut E,
    flying: VecDeque<Flying>,
    /// Calls in flight by key.
    keys: BTreeMap<Key, usize>,
    bytes: usize,
    summary: Summary,
}

/// The level of a command, or the default.
pub fn level_of(command: &Command, default: Level) -> Level {
    match command {
        Command::Put { level, .. } | Command::Get { level, .. } | Command::Delete { level, .. } => {
            level.unwrap_or(default)
        }
        _ => default,
    }
}

/// Does one command, whatever it takes. The console's, and the slow way of a batch.
///
/// # Errors
/// See [`Error`].
pub async fn perform(
    client: &mut Client,
    command: &Command,
    default: Level,
) -> Result<Answered, Error> {
    let level = level_of(command, default);
    match command {
        Command::Put { key, value, .. } => {
            client.write(key.clone(), Content::Value(value.clone().into()), level).await
        }
        Command::Delete { key, .. } => client.write(key.clone(), Content::Tombstone, level).await,
        Command::Get { key, .. } => {
            client.read(ClientRequest::Get { key: key.clone(), level, timeout: None }).await
        }
        Command::Scan { from, to, limit } => {
            let (from, to, limit, timeout) = (from.clone(), to.clone(), *limit, None);
            client.read(ClientRequest::Scan { from, to, limit, level, timeout }).await
        }
        Command::Status | Command::Server(_) | Command::Help(_) | Command::Exit => {
            client.read(ClientRequest::Status).await
        }
    }
}

/// Runs commands until the lines end, or one says `exit`.
///
/// # Errors
/// Of writing the results: whoever reads them has gone.
pub async fn run(
    client: &mut Client,
    lines: &mut mpsc::Receiver<String>,
    options: Options,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<Summary> {
    let (flying, keys, summary) = (VecDeque::new(), BTreeMap::new(), Summary::default());
    let mut batch = Batch { client, options, out, err, flying, keys, bytes: 0, summary };
    let mut number = 0;
    loop {
        let room = batch.flying.len() < WINDOW && batch.bytes < WINDOW_BYTES;
        // Oldest first, as their answers come.
        let oldest = batch.flying.front_mut().map(|flying| &mut flying.pending);
        let has_oldest = oldest.is_some();
        tokio::select! {
            biased;
            line = lines.recv(), if room => {
                let Some(line) = line else { break };
                number += 1;
                match parse(&line) {
                    Ok(Some(Command::Exit)) => break,
                    Ok(Some(command)) => batch.begin(command).await?,
                    Ok(None) => {}
                    Err(error) => {
                        writeln!(batch.err, "line {number}: {error}")?;
                        batch.summary.add(2);
                    }
                }
            }
            answer = wait(oldest), if has_oldest => {
                let answer = answer.unwrap_or_else(closed);
                batch.settle(answer).await?;
            }
        }
        if batch.flying.is_empty() {
            // Nobody is kept waiting for what is known.
            batch.out.flush()?;
        }
    }
    batch.settle_all().await?;
    batch.out.flush()?;
    Ok(batch.summary)
}

async fn wait(pending: Option<&mut Pending>) -> Option<Result<Reply, Broken>> {
    pending?.await.ok()
}

fn closed() -> Result<Reply, Broken> {
    Err(Broken { why: "the connection is closed".to_owned(), unsent: false })
}

impl<O: Write, E: Write> Batch<'_, O, E> {
    async fn begin(&mut self, command: Command) -> io::Result<()> {
        let level = level_of(&command, self.options.level);
        let put = |key: &Key, content| {
            let (key, timeout, ticket) = (key.clone(), None, None);
            ClientRequest::Put(PreparedPut { key, content, level, timeout, ticket })
        };
        let (request, key) = match &command {
            Command::Put { key, value, .. } if !self.options.one_by_one => {
                (put(key, Content::Value(value.clone().into())), key.clone())
            }
            Command::Delete { key, .. } if !self.options.one_by_one => {
                (put(key, Content::Tombstone), key.clone())
            }
            Command::Get { key, .. } => {
                (ClientRequest::Get { key: key.clone(), level, timeout: None }, key.clone())
            }
            _ => {
                self.settle_all().await?;
                return self.do_alone(command).await;
            }
        };
        while self.keys.contains_key(&key) {
            self.settle_oldest().await?;
        }
        let connection = match self.client.connection().await {
            Ok(connection) => connection,
            Err(error) => {
                self.settle_all().await?;
                return self.show(&command, &Err(error));
            }
        };
        let bytes = key.as_bytes().len()
            + if let Command::Put { value, .. } = &command { value.len() } else { 0 };
        *self.keys.entry(key.clone()).or_insert(0) += 1;
        self.bytes += bytes;
        let pending = connection.send(request);
        self.flying.push_back(Flying { command, key, bytes, pending });
        Ok(())
    }

    async fn do_alone(&mut self, command: Command) -> io::Result<()> {
        match &command {
            Command::Help(word) => write!(self.err, "{}", show::help(word.as_deref())),
            Command::Server(Some(address)) => {
                self.client.set_servers(vec![address.clone()]);
                Ok(())
            }
            _ => {
                let result = perform(self.client, &command, self.options.level).await;
                self.show(&command, &result)
            }
        }
    }

    async fn settle_all(&mut self) -> io::Result<()> {
        while !self.flying.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(())
    }

    async fn settle_oldest(&mut self) -> io::Result<()> {
        let Some(flying) = self.flying.front_mut() else { return Ok(()) };
        let answer = (&mut flying.pending).await.unwrap_or_else(|_| closed());
        self.settle(answer).await
    }

    /// The oldest call's answer has come.
    async fn settle(&mut self, answer: Result<Reply, Broken>) -> io::Result<()> {
        let Some(Flying { command, key, bytes, .. }) = self.flying.pop_front() else {
            return Ok(());
        };
        self.bytes -= bytes;
        if let Some(count) = self.keys.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&key);
            }
        }
        let is_read = matches!(command, Command::Get { .. });
        let result = match answer {
            Ok(Reply::Client { server, result: Ok(response) }) => Ok(Answered { server, response }),
            Ok(Reply::Client { result: Err(failure), .. }) => Err(failed(failure, is_read)),
            Ok(other) => Err(failed(odd(&other), is_read)),
            // What surely did not arrive, and what only reads, may go to another server.
            Err(Broken { unsent, .. }) if is_read || unsent => {
                perform(self.client, &command, self.options.level).await
            }
            Err(Broken { why, .. }) => Err(Error::Unknown { why, ticket: None }),
        };
        self.show(&command, &result)
    }

    fn show(&mut self, command: &Command, result: &Result<Answered, Error>) -> io::Result<()> {
        let shown = show::outcome(command, result, self.options.json);
        self.summary.add(shown.exit);
        if !self.options.quiet || shown.exit > 1 {
            self.out.write_all(shown.out.as_bytes())?;
            self.err.write_all(shown.note.as_bytes())?;
        }
        Ok(())
    }
}

fn failed(failure: RemoteFailure, is_read: bool) -> Error {
    if is_read {
        failed_read(failure)
    } else if failure.is_definite() {
        Error::Refused(failure)
    } else {
        Error::Unknown { why: failure.message.clone(), ticket: failure.version }
    }
}
