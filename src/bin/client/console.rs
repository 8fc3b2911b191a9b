//! The console: one command after the other, on a terminal.

use std::io;
use std::path::PathBuf;

use chord::client::grammar::{self, Command, GrammarError, WORDS};
use chord::client::{Client, batch, show};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper, Highlighter, Hinter};

use crate::{Flags, print};

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
            vec!["one", "quorum", "all", "available"]
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

/// Until `exit`, or the end of the input.
pub(crate) fn console(
    runtime: &tokio::runtime::Runtime,
    client: &Client,
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
    if let Err(error) = runtime.block_on(client.connect()) {
        eprintln!("chord-client: {error}");
    }
    let mut connected = client.address();
    loop {
        let now = client.address();
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
                match runtime.block_on(client.connect()) {
                    Ok(()) => {
                        connected = client.address();
                        let address = client.address().unwrap_or_else(|| "nobody".to_owned());
                        print(&format!("connected to {address}\n"))?;
                    }
                    Err(error) => eprintln!("{error}"),
                }
            }
            Ok(Some(command)) => {
                let result = runtime.block_on(batch::perform(client, &command, flags.level()));
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
