//! `chord-sim`: simulated clusters, by the thousand, or one with its trace.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chord::ring::{Partitioner, Placement};
use chord::sim::{Activity, Fault, Fixed, Flaw, Options, Profile, Summary, replay, run};
use clap::Parser;

/// Runs simulated clusters in which everything goes wrong, and checks that nothing was lost or stale.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  chord-sim --seeds 100000                 a hundred thousand clusters
  chord-sim --seed 42 --trace              one, with everything that happened
  chord-sim --flaw no-write-back           a rule left out: it should be caught
  chord-sim --only full --workload scans   one fault, one workload

Exit codes: 0 nothing found; 1 a violation, or a thousand clusters in which something never happened; 2 usage."
)]
struct Flags {
    /// How many clusters.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One cluster: this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happened, of one cluster.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Write what clients did and were told into this file, of one cluster: one operation a line of JSON.
    #[arg(long, requires = "seed", value_name = "FILE")]
    history: Option<std::path::PathBuf>,
    /// How much goes wrong, and what: mixed, calm, crashes, cuts, clocks, wipes, disks, pauses, lives, restarts,
    /// outages, hangs or years.
    #[arg(long)]
    profile: Option<Profile>,
    /// What clients do: any, hot, many, deletes, scans, one, available or tickets.
    #[arg(long, default_value = "any")]
    workload: Activity,
    /// Of all faults only this one: crash, cut, jump, pause, full, sync, wipe, flip, old, hang or years.
    #[arg(long, value_name = "FAULT")]
    only: Option<Fault>,
    /// Servers, 1 to 9; what of the shape is not given here is drawn by the seed.
    #[arg(long)]
    servers: Option<u16>,
    /// Copies of each key, 1 to 5.
    #[arg(long)]
    copies: Option<usize>,
    /// Who keeps what: ring or groups.
    #[arg(long)]
    placement: Option<Placement>,
    /// The order of keys: byte-ordered or hashed.
    #[arg(long)]
    partitioner: Option<Partitioner>,
    /// Hints kept for one server at most; marks beyond.
    #[arg(long)]
    max_hints: Option<usize>,
    /// Whether there is memory for few cells that wait for a disk or a replica.
    #[arg(long)]
    tight: Option<bool>,
    /// Whether runs are twenty times as long as usual.
    #[arg(long)]
    long: Option<bool>,
    /// Leave out a rule; docs/testing.md has the list.
    #[arg(long, value_parser = flaw)]
    flaw: Option<Flaw>,
    /// Clusters at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Go on after the first violation.
    #[arg(long)]
    keep_going: bool,
}

/// Clusters that should have exercised everything.
const ENOUGH: u64 = 1_000;

fn flaw(text: &str) -> Result<Flaw, String> {
    let names = || Flaw::ALL.map(Flaw::name).join(", ");
    Flaw::ALL
        .into_iter()
        .find(|flaw| flaw.name() == text)
        .ok_or_else(|| format!("'{text}' is no flaw; there are {}", names()))
}

#[allow(
    clippy::disallowed_methods,
    reason = "how long the whole thing takes is no part of any run"
)]
fn main() -> ExitCode {
    let flags = Flags::parse();
    let profile = flags.profile.or(flags.flaw.map(Profile::for_flaw)).unwrap_or_default();
    let Flags { workload: activity, only, flaw, .. } = flags;
    let Flags { servers, copies, placement, partitioner, max_hints, tight, long, .. } = flags;
    let fixed = Fixed { servers, copies, placement, partitioner, max_hints, tight, long };
    if let Err(why) = fixed.check() {
        eprintln!("chord-sim: {why}");
        return ExitCode::from(2);
    }
    let trace = flags.trace || flags.history.is_some();
    let options = |seed| Options { seed, profile, activity, fixed, only, flaw, trace };
    let (first, count) = flags.seed.map_or((flags.from, flags.seeds), |seed| (seed, 1));
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Summary::default());
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..flags.jobs.clamp(1, 64) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let options = options(first + number);
                    let report = run(options);
                    let mut out = std::io::stdout().lock();
                    if flags.trace {
                        // A closed pipe is no reason to fall.
                        let _ = out.write_all(report.trace.as_bytes());
                    }
                    if let Some(path) = &flags.history
                        && let Err(error) = std::fs::write(path, &report.history)
                    {
                        eprintln!("chord-sim: {}: {error}", path.display());
                    }
                    if !report.violations.is_empty() {
                        found.fetch_add(1, Ordering::Relaxed);
                        stop.fetch_or(!flags.keep_going, Ordering::Relaxed);
                        let _ = writeln!(out, "seed {}, {}:", options.seed, report.shape);
                        for violation in &report.violations {
                            let _ = writeln!(out, "  {violation}");
                        }
                        let _ = writeln!(out, "  replay: {}", replay(&options));
                    }
                    if let Ok(mut total) = total.lock() {
                        total.add(&report.summary);
                        if total.runs.is_multiple_of(1_000) && count > 1 {
                            eprintln!("{} of {count} clusters", total.runs);
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    eprint!("{total}");
    eprintln!(
        "{} clusters of profile {} in {seconds:.1} s, {:.0} a second; {} with violations",
        total.runs,
        profile.name(),
        total.runs as f64 / seconds,
        found.load(Ordering::Relaxed)
    );
    // A few clusters may well miss something; many that do prove nothing about it.
    let faults = flags.only.map_or_else(|| profile.faults(), |only| vec![only]);
    let mut missing = if total.runs >= ENOUGH { total.missing(&faults) } else { Vec::new() };
    if total.runs >= ENOUGH && fixed == Fixed::default() {
        missing.extend(total.missing_shapes(&faults));
    }
    if !missing.is_empty() {
        eprintln!(
            "chord-sim: there were no {}: these runs prove nothing about that",
            missing.join(", no ")
        );
    }
    ExitCode::from(u8::from(found.load(Ordering::Relaxed) > 0 || !missing.is_empty()))
}
