//! `chord-client`: the console, one command from the shell, or commands from a pipe.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chord::client::grammar::{self, Command, GrammarError, WORDS};
use chord::client::{Client, Options, Safety, batch, show};
use chord::model::Level;
use clap::Parser;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper, Highlighter, Hinter};

/// Lines of a pipe that wait to be taken up.
const LINES: usize = 4_096;

/// Talks to a Chord cluster: a console on a terminal, one command from the shell, or commands from a pipe.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  chord-client                                  the console
  chord-client put 137 v quorum                 one command
  chord-client --quiet < commands               many, hundreds in flight at a time

Commands: put, get, delete, scan, status, server, help, exit; see `chord-client help`.

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
    /// For commands that name none: one, quorum or all.
    #[arg(long, env = "CHORD_LEVEL", default_value = "quorum")]
    level: Level,
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
    /// From a pipe: every write under a ticket, so that it can be sent again when a server dies; one at a time.
    #[arg(long, conflicts_with = "fast")]
    safe: bool,
    /// On a terminal and from the shell: writes in one call, without a ticket.
    #[arg(long)]
    fast: bool,
    /// `get` from the shell: the value's bytes and nothing else.
    #[arg(long)]
    raw: bool,
    /// One command; without one, the console or standard input.
    #[arg(trailing_var_arg = true)]
    command: Vec<std::ffi::OsString>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.01..=600.0).contains(number));
    number.ok_or_else(|| "write seconds, from 0.01 to 600".to_owned())
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
    let from_pipe = flags.command.is_empty() && !io::stdin().is_terminal();
    let ticket = if from_pipe { flags.safe } else { !flags.fast };
    let mut client = Client::new(Options {
        servers: flags.server.clone(),
        timeout: Duration::from_secs_f64(flags.timeout),
        safety: if ticket { Safety::Ticket } else { Safety::OneCall },
    });
    let done = if !flags.command.is_empty() {
        runtime.block_on(one_shot(&mut client, &flags))
    } else if from_pipe {
        runtime.block_on(piped(&mut client, &flags))
    } else {
        console(&runtime, &mut client, &flags)
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

async fn one_shot(client: &mut Client, flags: &Flags) -> io::Result<u8> {
    use std::os::unix::ffi::OsStringExt;
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
    let result = batch::perform(client, &command, flags.level).await;
    if flags.raw
        && let Ok(answered) = &result
        && let chord::model::ClientResponse::Get { cell: Some(cell) } = &answered.response
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

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[allow(clippy::disallowed_methods, reason = "a rate for people")]
async fn piped(client: &mut Client, flags: &Flags) -> io::Result<u8> {
    let (sender, mut lines) = tokio::sync::mpsc::channel(LINES);
    // Reading blocks, so it has a thread of its own; it ends with the input or with this program.
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if sender.blocking_send(text).is_err() {
                break;
            }
        }
    });
    let began = Instant::now();
    let options = batch::Options {
        level: flags.level,
        json: flags.json,
        quiet: flags.quiet,
        one_by_one: flags.safe,
    };
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout());
    let summary = batch::run(client, &mut lines, options, &mut out, &mut io::stderr()).await?;
    out.flush()?;
    let seconds = began.elapsed().as_secs_f64();
    let batch::Summary { commands, ok, not_found, failed, exit } = summary;
    eprintln!(
        "{commands} commands: {ok} ok, {not_found} not found, {failed} failed, in {seconds:.1} s \
         ({:.0}/s)",
        commands as f64 / seconds.max(1e-9)
    );
    Ok(exit)
}

// ── The console ─────────────────────────────────────────────────────────────────────────────────────────

/// Completes commands and levels; a line with an open quote goes on.
#[derive(Helper, Hinter, Highlighter)]
struct Words;

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match grammar::words(context.input()) {
            Err(GrammarError::Unclosed) => ValidationResult::Incomplete,
            Ok(_) | Err(_) => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..position];
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        let begun = &before[start..];
        let candidates: Vec<&str> = if start == 0 {
            WORDS.iter().map(|(word, _, _)| *word).collect()
        } else {
            vec!["one", "quorum", "all"]
        };
        let fitting = candidates.into_iter().filter(|word| word.starts_with(begun));
        Ok((start, fitting.map(|word| format!("{word} ")).collect()))
    }
}

/// Where the history is kept; `None`: nowhere.
fn history_file() -> Option<PathBuf> {
    match std::env::var_os("CHORD_HISTFILE") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => {
            let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
            Some(state.or_else(home)?.join("chord/history"))
        }
    }
}

fn console(
    runtime: &tokio::runtime::Runtime,
    client: &mut Client,
    flags: &Flags,
) -> io::Result<u8> {
    let mut editor: Editor<Words, DefaultHistory> = Editor::new().map_err(io::Error::other)?;
    editor.set_helper(Some(Words));
    let history = history_file();
    if let Some(path) = &history {
        // What is typed may be confidential.
        let _ = path.parent().map(std::fs::create_dir_all);
        make_private(path);
        let _ = editor.load_history(path);
    }
    if let Err(error) = runtime.block_on(client.connection()) {
        eprintln!("chord-client: {error}");
    }
    let mut connected = client.address().map(str::to_owned);
    loop {
        let now = client.address().map(str::to_owned);
        if let (Some(before), Some(now)) = (&connected, &now)
            && before != now
        {
            eprintln!("note: {before} is gone; now connected to {now}");
        }
        connected = now.or(connected);
        let prompt = match client.address() {
            Some(address) => format!("chord {address}> "),
            None => "chord (not connected)> ".to_owned(),
        };
        let line = match editor.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(io::Error::other(error)),
        };
        let _ = editor.add_history_entry(&line);
        match grammar::parse(&line) {
            Ok(None) => {}
            Ok(Some(Command::Exit)) => break,
            Ok(Some(Command::Help(word))) => print(&show::help(word.as_deref()))?,
            Ok(Some(Command::Server(address))) => {
                if let Some(address) = address {
                    client.set_servers(vec![address]);
                }
                match runtime.block_on(client.connection()) {
                    Ok(_) => {
                        connected = client.address().map(str::to_owned);
                        print(&format!("connected to {}\n", client.address().unwrap_or("nobody")))?;
                    }
                    Err(error) => eprintln!("{error}"),
                }
            }
            Ok(Some(command)) => {
                let result = runtime.block_on(batch::perform(client, &command, flags.level));
                let shown = show::outcome(&command, &result, flags.json);
                print(&shown.out)?;
                eprint!("{}", shown.note);
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    if let Some(path) = &history {
        let _ = editor.save_history(path);
        make_private(path);
    }
    Ok(0)
}

/// The history is for its owner alone.
fn make_private(path: &std::path::Path) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    if let Ok(file) = made {
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o600));
    }
}
