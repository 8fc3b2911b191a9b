//! Commands from a pipe: many in flight, results in the order of the input.
//!
//! A command waits for an earlier one on the same key, so a line sees what the lines before it have done; a scan and
//! whatever else concerns more than one key waits for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::grammar::Command;
use super::{Answered, Client, Error, show};
use crate::model::{ClientRequest, Content, Key, Level, PreparedPut};

/// Commands in flight at most: what a server takes from one connection before it stops reading.
const WINDOW: usize = 1_000;
/// Bytes of keys and values in flight at most, if more than one command is.
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
    /// Print the number of its line before each failure.
    pub numbered: bool,
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
    /// Writes of which it is not known whether they were stored.
    pub unknown: u64,
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
            4 => self.unknown += 1,
            _ => self.failed += 1,
        }
        if self.exit == 0 || exit == 4 {
            self.exit = exit;
        }
    }
}

/// Where a batch writes, and what it asks on the way.
pub trait Sink {
    /// What of the output cannot be written: whoever reads it has gone.
    ///
    /// # Errors
    /// The system's.
    fn show(&mut self, out: &[u8], note: &[u8]) -> io::Result<()>;

    /// Everything shown so far should be seen.
    ///
    /// # Errors
    /// The system's.
    fn flush(&mut self) -> io::Result<()>;

    /// A line has failed, by a sentence or by its command's outcome.
    ///
    /// # Errors
    /// The system's.
    fn rejected(&mut self, _line: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Whether failed lines are wanted, so that they must be kept until their outcome is known.
    fn wants_rejected(&self) -> bool {
        false
    }

    /// So far.
    fn progress(&mut self, _summary: &Summary) {}
}

/// Two streams, and nothing else.
#[derive(Debug)]
pub struct Streams<O, E>(pub O, pub E);

impl<O: Write, E: Write> Sink for Streams<O, E> {
    fn show(&mut self, out: &[u8], note: &[u8]) -> io::Result<()> {
        self.0.write_all(out)?;
        self.1.write_all(note)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A command whose outcome is to come.
struct Flying {
    command: Arc<Command>,
    number: u64,
    /// The line itself, if it will be wanted.
    line: Vec<u8>,
    key: Key,
    bytes: usize,
    task: JoinHandle<Result<Answered, Error>>,
}

struct Batch<'a, S> {
    client: &'a Client,
    options: Options,
    sink: &'a mut S,
    flying: VecDeque<Flying>,
    /// Commands in flight by key.
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

/// Does one command, whatever it takes.
///
/// # Errors
/// See [`Error`].
pub async fn perform(
    client: &Client,
    command: &Command,
    default: Level,
) -> Result<Answered, Error> {
    let level = level_of(command, default);
    match command {
        Command::Put { key, value, .. } => {
            let content = Content::Value(value.clone());
            client.write(PreparedPut::new(key.clone(), content, level)).await
        }
        Command::Delete { key, .. } => {
            client.write(PreparedPut::new(key.clone(), Content::Tombstone, level)).await
        }
        Command::Get { key, .. } => {
            client.read(ClientRequest::Get { key: key.clone(), level, timeout: None }).await
        }
        Command::Scan { from, to, limit } => {
            let (from, to, limit, timeout) = (from.clone(), to.clone(), *limit, None);
            let any_order = false;
            client.read(ClientRequest::Scan { from, to, limit, level, timeout, any_order }).await
        }
        Command::Status | Command::Server(_) | Command::Help(_) | Command::Exit => {
            client.read(ClientRequest::Status).await
        }
    }
}

/// Runs the commands that `parse` finds in lines, until these end or one says `exit`.
///
/// # Errors
/// Of writing the results.
pub async fn run<S: Sink, E: std::error::Error>(
    client: &Client,
    lines: &mut mpsc::Receiver<Vec<u8>>,
    parse: impl Fn(&[u8]) -> Result<Option<Command>, E>,
    options: Options,
    sink: &mut S,
) -> io::Result<Summary> {
    let (flying, keys, summary) = (VecDeque::new(), BTreeMap::new(), Summary::default());
    let mut batch = Batch { client, options, sink, flying, keys, bytes: 0, summary };
    let mut number = 0;
    loop {
        let room = batch.flying.len() < WINDOW && batch.bytes < WINDOW_BYTES;
        // Oldest first, as results are shown.
        let oldest = batch.flying.front_mut().map(|flying| &mut flying.task);
        let has_oldest = oldest.is_some();
        tokio::select! {
            biased;
            line = lines.recv(), if room => {
                let Some(line) = line else { break };
                number += 1;
                match parse(&line) {
                    Ok(Some(Command::Exit)) => break,
                    Ok(Some(command)) => batch.begin(number, line, command).await?,
                    Ok(None) => {}
                    Err(error) => {
                        let note = format!("line {number}: {error}\n");
                        batch.sink.show(b"", note.as_bytes())?;
                        batch.sink.rejected(&line)?;
                        batch.summary.add(2);
                    }
                }
            }
            result = wait(oldest), if has_oldest => batch.settle(result)?,
        }
        if batch.flying.is_empty() {
            // Nobody is kept waiting for what is known.
            batch.sink.flush()?;
        }
    }
    batch.settle_all().await?;
    batch.sink.flush()?;
    Ok(batch.summary)
}

/// The outcome. Never, if nothing is in flight.
async fn wait(task: Option<&mut JoinHandle<Result<Answered, Error>>>) -> Result<Answered, Error> {
    let Some(task) = task else { return std::future::pending().await };
    // A task that has ended in a panic can have sent anything.
    task.await.unwrap_or_else(|error| Err(Error::Unknown { why: error.to_string(), ticket: None }))
}

impl<S: Sink> Batch<'_, S> {
    async fn begin(&mut self, number: u64, line: Vec<u8>, command: Command) -> io::Result<()> {
        let (key, bytes) = match &command {
            Command::Put { key, value, .. } => (key.clone(), key.as_bytes().len() + value.len()),
            Command::Delete { key, .. } | Command::Get { key, .. } => {
                (key.clone(), key.as_bytes().len())
            }
            _ => {
                self.settle_all().await?;
                return self.do_alone(number, &command).await;
            }
        };
        while self.keys.contains_key(&key) {
            self.settle_oldest().await?;
        }
        *self.keys.entry(key.clone()).or_insert(0) += 1;
        self.bytes += bytes;
        let line = if self.sink.wants_rejected() { line } else { Vec::new() };
        let command = Arc::new(command);
        let (client, level) = (self.client.clone(), self.options.level);
        let ordered = Arc::clone(&command);
        let task = tokio::spawn(async move { perform(&client, &ordered, level).await });
        self.flying.push_back(Flying { command, number, line, key, bytes, task });
        Ok(())
    }

    async fn do_alone(&mut self, number: u64, command: &Command) -> io::Result<()> {
        match command {
            Command::Help(word) => {
                let help = show::help(word.as_deref());
                self.sink.show(b"", help.as_bytes())
            }
            Command::Server(Some(address)) => {
                self.client.set_servers(vec![address.clone()]);
                Ok(())
            }
            _ => {
                let result = perform(self.client, command, self.options.level).await;
                self.show(number, &[], command, &result)
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
        let result = wait(Some(&mut flying.task)).await;
        self.settle(result)
    }

    /// The oldest command's outcome has come.
    fn settle(&mut self, result: Result<Answered, Error>) -> io::Result<()> {
        let Some(Flying { command, number, line, key, bytes, .. }) = self.flying.pop_front() else {
            return Ok(());
        };
        self.bytes -= bytes;
        if let Some(count) = self.keys.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&key);
            }
        }
        self.show(number, &line, &command, &result)
    }

    fn show(
        &mut self,
        number: u64,
        line: &[u8],
        command: &Command,
        result: &Result<Answered, Error>,
    ) -> io::Result<()> {
        let shown = show::outcome(command, result, self.options.json);
        self.summary.add(shown.exit);
        self.sink.progress(&self.summary);
        let failed = shown.exit > 1;
        if failed {
            self.sink.rejected(line)?;
        }
        if failed && self.options.numbered {
            let out = format!("line {number}: {}", shown.out);
            return self.sink.show(out.as_bytes(), shown.note.as_bytes());
        }
        if failed || !self.options.quiet {
            return self.sink.show(shown.out.as_bytes(), shown.note.as_bytes());
        }
        Ok(())
    }
}
