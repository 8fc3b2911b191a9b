//! Commands from standard input.

use std::io::{self, BufRead, Write};
use std::time::Instant;

use chord::client::batch::{self, Streams};
use chord::client::{Client, grammar};
use tokio::sync::mpsc;

use crate::Flags;

/// Lines that wait to be taken up.
const LINES: usize = 4_096;
/// Longest line that is read, in bytes: the longest value, every byte of it escaped, and its key.
pub(crate) const MAX_LINE: usize = 66 << 20;

/// Lines of a reader, without their ends, from a thread of its own: reading blocks. The thread ends with the input,
/// or with this program. A line that is too long comes cut, so that it fails like any other that makes no sense.
pub(crate) fn lines(mut input: impl BufRead + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, lines) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        loop {
            let mut line = Vec::new();
            let mut limited = io::Read::take(&mut input, MAX_LINE as u64);
            match limited.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    eprintln!("chord-client: the input cannot be read: {error}");
                    break;
                }
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() == MAX_LINE && !skip_line(&mut input) {
                break;
            }
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Reads on to the end of the line; `false`: there is nothing more.
fn skip_line(input: &mut impl BufRead) -> bool {
    loop {
        let Ok(buffer) = input.fill_buf() else { return false };
        if buffer.is_empty() {
            return true;
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() {
            return true;
        }
    }
}

/// Runs the commands of standard input.
#[allow(clippy::disallowed_methods, reason = "a rate for people")]
pub(crate) async fn piped(client: &Client, flags: &Flags) -> io::Result<u8> {
    let mut lines = lines(io::BufReader::with_capacity(1 << 20, io::stdin()));
    let began = Instant::now();
    let (level, json, quiet) = (flags.level(), flags.json, flags.quiet);
    let options = batch::Options { level, json, quiet, numbered: false };
    let out = io::BufWriter::with_capacity(64 << 10, io::stdout());
    let mut streams = Streams(out, io::stderr());
    let parse = |line: &[u8]| grammar::parse(String::from_utf8_lossy(line).trim_end_matches('\r'));
    let summary = batch::run(client, &mut lines, parse, options, &mut streams).await?;
    streams.0.flush()?;
    let seconds = began.elapsed().as_secs_f64();
    let batch::Summary { commands, ok, not_found, unknown, failed, exit } = summary;
    let unknown = if unknown > 0 { format!("{unknown} unknown, ") } else { String::new() };
    eprintln!(
        "{commands} commands: {ok} ok, {not_found} not found, {unknown}{failed} failed, in {seconds:.1} s \
         ({:.0}/s)",
        commands as f64 / seconds.max(1e-9)
    );
    Ok(exit)
}
