//! Import and export: records of a file or a pipe into the cluster, and out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chord::client::batch::{self, Sink, Summary};
use chord::client::grammar::Command;
use chord::client::record::{self, Format, RecordError};
use chord::client::{Client, Scanner};
use chord::model::{Key, Level};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pipe;

/// Failures that are shown one by one.
const SHOWN: u64 = 10;
/// Between two lines about progress where nobody sees a bar.
const QUIET: Duration = Duration::from_secs(5);
/// Records asked for at once.
const PAGE: usize = 5_000;
/// For how long an export asks again for a page that no server gives.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before it asks again.
const PAUSE: Duration = Duration::from_millis(500);

/// Stores records, at the level of --level (quorum), and reports what was not stored.
#[derive(Parser, Debug)]
#[command(
    name = "chord-client import",
    bin_name = "chord-client import",
    after_help = "\
Formats: jsonl has {\"key\": \"137\", \"value\": \"v\"} a line (key_base64, value_base64 for bytes that are no text);
tsv has key, tab, value a line, with \\t \\n \\r \\\\ \\xNN as escapes.

A record whose server dies is sent again through another one, under the same version. What could not be stored is
shown, and kept by --rejected FILE for another try. Of two records with one key the later one wins."
)]
pub(crate) struct Import {
    /// Where from; '-': standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// jsonl or tsv [default: by the file's name, else jsonl]
    #[arg(long, short)]
    format: Option<Format>,
    /// Lines that were not stored, or perhaps not, go here.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// One call a record: faster, but if a server dies, what it had in hand is unknown.
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Writes all records in key order (in the order of the cluster where keys are placed by hash), read at the level of
/// --level (quorum), some time while it runs.
#[derive(Parser, Debug)]
#[command(name = "chord-client export", bin_name = "chord-client export")]
pub(crate) struct Export {
    /// Where to; '-': standard output.
    #[arg(long, short, default_value = "-")]
    output: PathBuf,
    /// jsonl or tsv [default: by the file's name, else jsonl]
    #[arg(long, short)]
    format: Option<Format>,
    /// Go on behind the last whole line of the file, which an earlier export has left unfinished.
    #[arg(long)]
    resume: bool,
    /// First key, inclusive.
    #[arg(long, value_name = "KEY", conflicts_with = "resume")]
    from: Option<String>,
    /// End, exclusive.
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
}

fn is_pipe(path: &Path) -> bool {
    path == Path::new("-")
}

fn with_path(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A bar on a terminal; elsewhere a line now and then.
struct Progress {
    bar: ProgressBar,
    what: &'static str,
    began: Instant,
    told: Instant,
}

#[allow(clippy::disallowed_methods, reason = "a rate for people")]
impl Progress {
    /// `total`: bytes of input, if known.
    fn new(what: &'static str, total: Option<u64>) -> Progress {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let style = match total {
            Some(_) => "{elapsed_precise} {bar:30} {percent:>3} %  {msg}",
            None => "{elapsed_precise} {spinner} {msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(style)
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        Progress { bar, what, began: Instant::now(), told: Instant::now() }
    }

    fn rate(&self, records: u64) -> f64 {
        records as f64 / self.began.elapsed().as_secs_f64().max(1e-9)
    }

    /// `position`: bytes of the input so far.
    fn tell(&mut self, records: u64, failed: u64, position: Option<u64>) {
        // Often enough for people, and no work in between.
        let every = if self.bar.is_hidden() { QUIET } else { Duration::from_millis(100) };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let text = format!("{records} {}{failed}, {:.0}/s", self.what, self.rate(records));
        if self.bar.is_hidden() {
            eprintln!("{text}");
            return;
        }
        if let Some(position) = position {
            self.bar.set_position(position);
        }
        self.bar.set_message(text);
        self.bar.tick();
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows the first failures and keeps all of them.
struct Report {
    progress: Progress,
    rejected: Option<BufWriter<File>>,
    shown: u64,
    read: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Sink for Report {
    fn show(&mut self, out: &[u8], note: &[u8]) -> io::Result<()> {
        self.shown += 1;
        if self.shown > SHOWN {
            return Ok(());
        }
        let text = [out, note].concat();
        self.progress.bar.suspend(|| io::stderr().write_all(&text))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn rejected(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.rejected {
            Some(file) => {
                file.write_all(line)?;
                file.write_all(b"\n")
            }
            None => Ok(()),
        }
    }

    fn wants_rejected(&self) -> bool {
        self.rejected.is_some()
    }

    fn progress(&mut self, summary: &Summary) {
        let read = self.read.load(std::sync::atomic::Ordering::Relaxed);
        self.progress.tell(summary.commands, summary.failed + summary.unknown, Some(read));
    }
}

/// Counts what is read.
struct Counted<R>(R, std::sync::Arc<std::sync::atomic::AtomicU64>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(count)
    }
}

/// Stores the records of a file.
pub(crate) async fn import(client: &Client, import: &Import, level: Level) -> io::Result<u8> {
    let format = import.format.or_else(|| Format::of_path(&import.file)).unwrap_or_default();
    let read = std::sync::Arc::default();
    let (input, total): (Box<dyn Read + Send>, _) = if is_pipe(&import.file) {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(&import.file).map_err(with_path(&import.file))?;
        let total = file.metadata().map_err(with_path(&import.file))?.len();
        (Box::new(file), Some(total))
    };
    let counted = Counted(input, std::sync::Arc::clone(&read));
    let mut lines = pipe::lines(BufReader::with_capacity(1 << 20, counted));
    let rejected = match &import.rejected {
        Some(path) => Some(BufWriter::new(File::create(path).map_err(with_path(path))?)),
        None => None,
    };
    if let Err(error) = client.connect().await {
        eprintln!("chord-client import: {error}");
        return Ok(error.exit_code());
    }
    let mut report = Report { progress: Progress::new("records", total), rejected, shown: 0, read };
    let options = batch::Options { level, json: false, quiet: true, numbered: true };
    let parse = |line: &[u8]| -> Result<Option<Command>, RecordError> {
        let record = record::parse(format, line)?;
        Ok(record.map(|(key, value)| Command::Put { key, value: value.into(), level: None }))
    };
    let summary = batch::run(client, &mut lines, parse, options, &mut report).await?;
    report.progress.end();
    if let Some(mut file) = report.rejected.take() {
        file.flush()?;
    }
    let Summary { commands, ok, unknown, failed, exit, .. } = summary;
    if report.shown > SHOWN {
        eprintln!("… and {} more failures", report.shown - SHOWN);
    }
    eprintln!(
        "{commands} records: {ok} stored, {unknown} unknown, {failed} not stored, in {:.1} s ({:.0}/s)",
        report.progress.began.elapsed().as_secs_f64(),
        report.progress.rate(commands)
    );
    if let (Some(path), true) = (&import.rejected, unknown + failed > 0) {
        eprintln!("the lines that were not stored, or perhaps not, are in {}", path.display());
    }
    Ok(exit)
}

/// Where an unfinished export ends: the length of its whole lines, and the key of the last one.
fn last_record(file: &mut File, format: Format) -> io::Result<(u64, Option<Key>)> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut tail = Vec::new();
    let mut start = length;
    // Backwards, until a whole line is in hand.
    while start > 0 && tail.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let step = (64u64 << 10).max(tail.len() as u64).min(start);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = vec![0; step as usize];
        file.read_exact(&mut chunk)?;
        chunk.extend_from_slice(&tail);
        tail = chunk;
    }
    let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else { return Ok((0, None)) };
    let begin = tail[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let whole = start + end as u64 + 1;
    let bad = |error: RecordError| io::Error::new(io::ErrorKind::InvalidData, error);
    let record = record::parse(format, &tail[begin..end]).map_err(bad)?;
    let blank = || io::Error::new(io::ErrorKind::InvalidData, "its last line is blank");
    Ok((whole, Some(record.ok_or_else(blank)?.0)))
}

/// Writes all records into a file.
#[allow(clippy::disallowed_methods, reason = "patience of people")]
pub(crate) async fn export(client: &Client, export: &Export, level: Level) -> io::Result<u8> {
    let path = &export.output;
    let format = export.format.or_else(|| Format::of_path(path)).unwrap_or_default();
    let failed = |error: &dyn std::fmt::Display, code: u8| {
        eprintln!("chord-client export: {error}");
        Ok(code)
    };
    if is_pipe(path) && export.resume {
        return failed(&"--resume needs the file of --output", 2);
    }
    let mut last = None;
    let mut out: Box<dyn Write> = if is_pipe(path) {
        Box::new(BufWriter::with_capacity(1 << 20, io::stdout()))
    } else {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(!export.resume);
        let mut file = open.open(path).map_err(with_path(path))?;
        if export.resume {
            let (length, key) = last_record(&mut file, format).map_err(with_path(path))?;
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            last = key;
        }
        Box::new(BufWriter::with_capacity(1 << 20, file))
    };
    let bound = |text: &String| Key::bound(text.clone());
    let to = export.to.as_ref().map(bound);
    let scanner = match (&export.from, &to) {
        (None, None) => Scanner::behind(client.clone(), last.as_ref(), level).await,
        (from, _) => {
            let begin = last.map(|key| key.successor()).or(from.as_ref().map(bound));
            let begin = begin.unwrap_or_else(|| Key::bound(""));
            Ok(Scanner::ordered(client.clone(), begin, to, level))
        }
    };
    let mut scanner = match scanner {
        Ok(scanner) => scanner,
        Err(error) => return failed(&error, error.exit_code()),
    };
    let mut progress = Progress::new("records", None);
    let (mut records, mut buffer, mut since) = (0, Vec::new(), None::<Instant>);
    loop {
        let page = match scanner.page(PAGE).await {
            Ok(page) => page,
            Err(error) => {
                let patient = since.get_or_insert_with(Instant::now).elapsed() < PATIENCE;
                if error.may_retry() && patient {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                progress.end();
                out.flush()?;
                let again = if is_pipe(path) { "" } else { "; --resume goes on from there" };
                let text = format!("stopped after {records} records: {error}{again}");
                return failed(&text, error.exit_code());
            }
        };
        since = None;
        let Some(entries) = page else { break };
        for entry in &entries {
            record::write(format, entry.key.as_bytes(), &entry.value, &mut buffer);
        }
        out.write_all(&buffer)?;
        buffer.clear();
        records += entries.len() as u64;
        progress.tell(records, 0, None);
    }
    out.flush()?;
    progress.end();
    eprintln!(
        "{records} records in {:.1} s ({:.0}/s)",
        progress.began.elapsed().as_secs_f64(),
        progress.rate(records)
    );
    Ok(0)
}
