//! `chord-client`: the console, one command from the shell, commands from a pipe, import and export.

mod console;
mod pipe;
mod transfer;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::time::Duration;

use chord::client::grammar::{self, Command};
use chord::client::{Answered, Client, Error, Options, Routing, Safety, batch, show};
use chord::model::{ClientResponse, Key, Level};
use clap::Parser;

/// Talks to a Chord cluster: a console on a terminal, one command from the shell, or commands from a pipe.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  chord-client                                  the console
  chord-client put 137 v quorum                 one command
  chord-client --put key1 --val value1          the same in flags; prints: OK, server1
  chord-client --get key1                       prints: key1, value1, server1
  chord-client --quiet < commands               many, hundreds in flight at a time
  chord-client import words.tsv                 records from a file or a pipe
  chord-client export --output all.jsonl        all records into a file or a pipe

Commands: put, get, delete, scan, status, server, help, exit; see `chord-client help`.
Import and export have flags of their own: `chord-client import --help`.

Exit codes: 0 done; 1 key not found; 2 usage; 3 not enough replicas, nothing was stored; 4 timed out, the outcome is
unknown; 5 refused by the server; 6 no server can be reached; 130 interrupted. Of several commands the first failure
counts, and 4 before all others."
)]
struct Flags {
    /// Servers, tried in this order; repeat it or separate them by commas.
    #[arg(
        long,
        env = "CHORD_SERVER",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9000,127.0.0.1:9001,127.0.0.1:9002,127.0.0.1:9003"
    )]
    server: Vec<String>,
    /// For commands that name none: one, quorum, all or available. Without it: quorum, and available for --put, --get, --del.
    #[arg(long, env = "CHORD_LEVEL")]
    level: Option<Level>,
    /// Until a command is given up, in seconds.
    #[arg(long, env = "CHORD_TIMEOUT", default_value_t = 5.0, value_name = "SECONDS",
          value_parser = seconds)]
    timeout: f64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// From a pipe: print failures only.
    #[arg(long, short)]
    quiet: bool,
    /// From a pipe: every write under a ticket, so that it can be sent again when a server dies.
    #[arg(long, conflicts_with = "fast")]
    safe: bool,
    /// On a terminal and from the shell: writes in one call, without a ticket.
    #[arg(long)]
    fast: bool,
    /// Ask the servers of the list alone, as the console does; otherwise each call goes straight to a replica of its
    /// key.
    #[arg(long)]
    sticky: bool,
    /// `get` from the shell: the value's bytes and nothing else.
    #[arg(long)]
    raw: bool,
    /// Store --val under this key.
    #[arg(long, value_name = "KEY", requires = "val", conflicts_with_all = ["get", "del", "command"])]
    put: Option<OsString>,
    /// What --put stores.
    #[arg(long, value_name = "VALUE", requires = "put")]
    val: Option<OsString>,
    /// Read this key.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["del", "command"])]
    get: Option<OsString>,
    /// Delete this key.
    #[arg(long, value_name = "KEY", conflicts_with = "command")]
    del: Option<OsString>,
    /// One command; without one, the console or standard input.
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.01..=600.0).contains(number));
    number.ok_or_else(|| "write seconds, from 0.01 to 600".to_owned())
}

/// What is to be done.
enum Task {
    Console,
    Pipe,
    Command,
    /// `--put`, `--get` or `--del`, and its key.
    Driver(Command, Vec<u8>),
    Import(transfer::Import),
    Export(transfer::Export),
}

impl Flags {
    /// For commands that name none.
    fn level(&self) -> Level {
        self.level.unwrap_or_default()
    }

    fn task(&self) -> Task {
        let driver =
            |command: Command, key: &OsString| Task::Driver(command, key.clone().into_vec());
        let key = |key: &OsString| Key::bound(key.clone().into_vec());
        match (&self.put, &self.val, &self.get, &self.del) {
            (Some(name), Some(value), _, _) => {
                let value = value.clone().into_vec().into();
                return driver(Command::Put { key: key(name), value, level: None }, name);
            }
            (_, _, Some(name), _) => {
                return driver(Command::Get { key: key(name), level: None }, name);
            }
            (_, _, _, Some(name)) => {
                return driver(Command::Delete { key: key(name), level: None }, name);
            }
            _ => {}
        }
        match self.command.first().and_then(|word| word.to_str()) {
            Some("import") => Task::Import(transfer::Import::parse_from(&self.command)),
            Some("export") => Task::Export(transfer::Export::parse_from(&self.command)),
            Some(_) => Task::Command,
            None if !self.command.is_empty() => Task::Command,
            None if io::stdin().is_terminal() => Task::Console,
            None => Task::Pipe,
        }
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chord-client: cannot start: {error}");
            return ExitCode::from(6);
        }
    };
    let task = flags.task();
    let ticket = match &task {
        Task::Pipe => flags.safe,
        Task::Import(import) => !import.fast && !flags.fast,
        _ => !flags.fast,
    };
    let sticky = flags.sticky || matches!(task, Task::Console);
    let client = Client::new(Options {
        servers: flags.server.clone(),
        timeout: Duration::from_secs_f64(flags.timeout),
        safety: if ticket { Safety::Ticket } else { Safety::OneCall },
        routing: if sticky { Routing::Sticky } else { Routing::Replica { prefer: None } },
    });
    let done = match task {
        Task::Console => console::console(&runtime, &client, &flags),
        Task::Pipe => runtime.block_on(pipe::piped(&client, &flags)),
        Task::Command => runtime.block_on(one_shot(&client, &flags)),
        Task::Driver(command, key) => {
            let level = flags.level.unwrap_or(Level::Available);
            runtime.block_on(driver(&client, &command, &key, level))
        }
        Task::Import(import) => runtime.block_on(transfer::import(&client, &import, flags.level())),
        Task::Export(export) => runtime.block_on(transfer::export(&client, &export, flags.level())),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // Whoever read our output has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chord-client: {error}");
            ExitCode::from(2)
        }
    }
}

async fn one_shot(client: &Client, flags: &Flags) -> io::Result<u8> {
    let words = flags.command.iter().map(|word| word.clone().into_vec()).collect();
    let command = match grammar::command(words) {
        Ok(Some(command)) => command,
        Ok(None) => return Ok(0),
        Err(error) => {
            eprintln!("chord-client: {error}");
            return Ok(2);
        }
    };
    match &command {
        Command::Help(word) => {
            print(&show::help(word.as_deref()))?;
            return Ok(0);
        }
        Command::Exit | Command::Server(_) => return Ok(0),
        _ => {}
    }
    let result = batch::perform(client, &command, flags.level()).await;
    if flags.raw
        && let Ok(answered) = &result
        && let ClientResponse::Get { cell: Some(cell), .. } = &answered.response
        && let Some(value) = cell.content.value()
    {
        io::stdout().lock().write_all(value)?;
        return Ok(0);
    }
    let shown = show::outcome(&command, &result, flags.json);
    eprint!("{}", shown.note);
    print(&shown.out)?;
    Ok(shown.exit)
}

/// One command in the words of the manager-and-nodes demo: `OK, server1` and `key1, value1, server1`; behind it, what it has
/// had where that was no majority.
async fn driver(client: &Client, command: &Command, key: &[u8], level: Level) -> io::Result<u8> {
    let result = batch::perform(client, command, level).await;
    let name = |answered: &Answered| {
        let server =
            answered.server.map_or("server?".to_owned(), |server| format!("server{server}"));
        match &answered.response {
            ClientResponse::Put { reached: Some(reached), .. }
            | ClientResponse::Get { reached: Some(reached), .. }
                if reached.level == Level::Available =>
            {
                format!("{server} ({reached})")
            }
            _ => server,
        }
    };
    let found = |answered: &Answered| match &answered.response {
        ClientResponse::Get { cell, .. } => {
            cell.as_ref().and_then(|cell| cell.content.value().cloned())
        }
        _ => None,
    };
    let key = show::text(key);
    match (command, &result) {
        (Command::Get { .. }, Ok(answered)) => match found(answered) {
            Some(value) => {
                print(&format!("{key}, {}, {}\n", show::text(&value), name(answered)))?;
                Ok(0)
            }
            None => {
                eprintln!("NOT FOUND, {key}, {}", name(answered));
                Ok(1)
            }
        },
        (_, Ok(answered)) => {
            print(&format!("OK, {}\n", name(answered)))?;
            Ok(0)
        }
        (_, Err(error @ Error::Unknown { .. })) => {
            eprintln!("UNKNOWN, {key}: {error}; it may or may not have been stored");
            Ok(error.exit_code())
        }
        (_, Err(error)) => {
            eprintln!("FAILED, {key}: {error}");
            Ok(error.exit_code())
        }
    }
}

/// To standard output, at once.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
