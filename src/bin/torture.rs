//! `chord-torture`: real clusters of real programs, and everything that this machine can do to them; or the judgement of a
//! history that was recorded elsewhere.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chord::judge::{Entry, Judgement, judge};
use chord::torture::{FAULTS, Fault, Options, Torture, run_inside};
use clap::Parser;

/// Starts clusters of real servers, drives them with many clients, and makes everything go wrong meanwhile.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  chord-torture                            one minute of runs
  chord-torture --minutes 60               every pair of faults, and more
  chord-torture --faults power,cut         these two, alone and together
  chord-torture --faults hang,kill --hang 600 --seed 1
                                           a disk hangs for ten minutes, and its server is killed meanwhile
  chord-torture --seed 42                  one run again: the same faults in the same order
  chord-torture --judge history.jsonl      judge a history, of whatever store

As root, servers live in network namespaces and on file systems of the run's own, which vanish with it. Faults that the
machine does not permit are skipped by name.

Exit codes: 0 nothing found; 1 a violation; 2 usage."
)]
struct Flags {
    /// How long in all. A run that has begun is finished.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// The seed of the first run.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One run: this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds of each run, starting and settling aside.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds that a cluster may take to settle once everything is healed.
    #[arg(long, default_value_t = 90)]
    patience: u64,
    /// Clients at a time.
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// Only these faults, with commas between them.
    #[arg(long, value_delimiter = ',', value_name = "FAULTS")]
    faults: Vec<Fault>,
    /// How long each disk that hangs does so, in seconds; a run in which any may is so much longer. Without this: up to 6 s, by chance.
    #[arg(long, value_name = "SECONDS")]
    hang: Option<u64>,
    /// Proxies on loopback between the servers, even where hosts of their own are permitted.
    #[arg(long)]
    proxies: bool,
    /// Where histories and data of failed runs are kept.
    #[arg(long, default_value = "target/torture", value_name = "FOLDER")]
    folder: PathBuf,
    /// The server's program; without this, the one beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// A flag for every server, like --server-flag=--sync=5s; may be given several times.
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    server_flag: Vec<String>,
    /// Keep the history of every run in this folder, also of those that passed: one operation a line of JSON.
    #[arg(long, value_name = "FOLDER")]
    keep_histories: Option<PathBuf>,
    /// Judge this history, one operation a line of JSON, and end.
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    /// Go on after the first violation.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(path) = &flags.judge {
        return judge_file(path);
    }
    if let Some(status) = run_inside() {
        return ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    }
    // Within a namespace of its own this is the first process, which no signal ends that it does not expect.
    if let Err(error) = ctrlc::set_handler(|| std::process::exit(130)) {
        eprintln!("chord-torture: no handler for signals: {error}");
    }
    match torture(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("chord-torture: {why}");
            ExitCode::from(2)
        }
    }
}

/// True: no violation.
#[expect(clippy::disallowed_methods, reason = "how long to go on")]
fn torture(flags: &Flags) -> Result<bool, String> {
    let beside = || Ok(std::env::current_exe()?.with_file_name("chord-server"));
    let program = flags.program.clone().map_or_else(beside, Ok::<_, std::io::Error>);
    let program = program.and_then(std::path::absolute).map_err(|error| error.to_string())?;
    if !program.exists() {
        return Err(format!(
            "there is no {}; build it with cargo build --release",
            program.display()
        ));
    }
    let folder = std::path::absolute(&flags.folder).map_err(|error| error.to_string())?;
    let faults = if flags.faults.is_empty() { FAULTS.to_vec() } else { flags.faults.clone() };
    let torture = Torture::new(Options {
        folder,
        program,
        length: Duration::from_secs(flags.seconds.max(1)),
        patience: Duration::from_secs(flags.patience),
        clients: flags.clients.max(1),
        faults,
        hang: flags.hang.map(Duration::from_secs),
        proxies: flags.proxies,
        flags: flags.server_flag.clone(),
        histories: flags.keep_histories.clone(),
    })?;
    let began = Instant::now();
    let length = Duration::from_secs_f64(flags.minutes.max(0.0) * 60.0);
    let mut seeds = match flags.seed {
        Some(seed) => seed..=seed,
        None => flags.from..=u64::MAX,
    };
    let (mut total, mut faults, mut runs, mut peak) =
        (Judgement::default(), BTreeMap::new(), 0u64, 0);
    let mut out = std::io::stdout();
    let mut is_good = true;
    while let Some(seed) = seeds.next().filter(|_| runs == 0 || began.elapsed() < length) {
        let report = torture.run(seed);
        runs += 1;
        let judgement = &report.judgement;
        total.operations += judgement.operations;
        total.succeeded += judgement.succeeded;
        total.failed += judgement.failed;
        total.unknown += judgement.unknown;
        total.finals += judgement.finals;
        peak = peak.max(report.peak);
        for (fault, count) in &report.faults {
            *faults.entry(*fault).or_default() += count;
        }
        let told = writeln!(
            out,
            "seed {seed}: {}: {} faults, {}",
            report.about,
            report.faults.values().sum::<u64>(),
            figures(judgement)
        );
        // Whoever listened has gone; nothing is left to be told.
        if told.is_err() {
            break;
        }
        if !judgement.violations.is_empty() {
            is_good = false;
            for violation in &judgement.violations {
                eprintln!("  {violation}");
            }
            if let Some(kept) = &report.kept {
                eprintln!("  history, data, logs and faults are in {}", kept.display());
            }
            eprintln!(
                "  again: chord-torture --seed {seed} --seconds {}{}",
                flags.seconds,
                again(flags)
            );
            if !flags.keep_going {
                break;
            }
        }
    }
    let mut summary = format!(
        "{runs} runs of {} pairs of faults in {} s: {}\n",
        torture.pairs(),
        began.elapsed().as_secs(),
        figures(&total)
    );
    let happened = |(fault, count): (&Fault, &u64)| format!("{fault} {count}");
    let happened: Vec<_> = faults.iter().map(happened).collect();
    summary += &format!("faults: {}\n", happened.join(", "));
    summary += &format!("most memory of a server: {} MiB\n", peak / 1024);
    for (fault, lacks) in torture.skipped() {
        summary += &format!("SKIPPED {fault}: this machine lacks {lacks}\n");
    }
    summary += if is_good { "no violation" } else { "VIOLATED" };
    // As above.
    let _ = writeln!(out, "{summary}");
    Ok(is_good)
}

/// What a replay needs besides the seed.
fn again(flags: &Flags) -> String {
    let mut text = String::new();
    if !flags.faults.is_empty() {
        let names: Vec<_> = flags.faults.iter().map(|fault| fault.name()).collect();
        text += &format!(" --faults {}", names.join(","));
    }
    if flags.proxies {
        text += " --proxies";
    }
    for flag in &flags.server_flag {
        text += &format!(" --server-flag={flag}");
    }
    text
}

fn figures(judgement: &Judgement) -> String {
    format!(
        "{} operations ({} ok, {} no, {} unknown), {} final reads",
        judgement.operations,
        judgement.succeeded,
        judgement.failed,
        judgement.unknown,
        judgement.finals
    )
}

fn judge_file(path: &std::path::Path) -> ExitCode {
    let fail = |why: String| {
        eprintln!("chord-torture: {}: {why}", path.display());
        ExitCode::from(2)
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fail(error.to_string()),
    };
    let mut history = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match Entry::parse(line) {
            Ok(entry) => history.push(entry),
            Err(error) => return fail(format!("line {}: {error}", number + 1)),
        }
    }
    let judgement = judge(&history, 1);
    let mut text = figures(&judgement);
    for violation in &judgement.violations {
        text += &format!("\n{violation}");
    }
    // Whoever listened has gone.
    let _ = writeln!(std::io::stdout(), "{text}");
    if judgement.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
