//! A fixed set of seeds of every profile, and the proof that the simulator can fail.

#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chord::sim::{Activity, Fault, Fixed, Flaw, Options, Profile, Shape, Summary, replay, run};

/// Threads: what a small machine has.
const JOBS: usize = 2;

/// What came of many runs.
#[derive(Default)]
struct Total {
    summary: Summary,
    shapes: Vec<Shape>,
    /// The seed and the text of the first with a violation that counts.
    found: Option<(u64, String)>,
}

/// Runs seeds until one has a violation that counts, or all have run.
fn search(seeds: u64, of: Options, counts: impl Fn(&str) -> bool + Sync) -> Total {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let options = Options { seed, ..of };
                    let report = run(options);
                    let mut total = total.lock().unwrap();
                    total.summary.add(&report.summary);
                    total.shapes.push(report.shape);
                    if report.violations.iter().any(|violation| counts(violation)) {
                        let text = format!(
                            "{}:\n{}\nreplay: {}",
                            report.shape,
                            report.violations.join("\n"),
                            replay(&options)
                        );
                        if total.found.as_ref().is_none_or(|(found, _)| seed < *found) {
                            total.found = Some((seed, text));
                        }
                        next.store(seeds, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    total.into_inner().unwrap()
}

/// Anything that this profile has.
fn options(profile: Profile) -> Options {
    let (seed, activity, fixed) = (0, Activity::Any, Fixed::default());
    Options { seed, profile, activity, fixed, only: None, flaw: None, trace: false }
}

/// S6–S10, S12, W1–W10, W12–W14: 2,000 clusters, and none may lose, repeat, or show anything stale.
#[test]
fn two_thousand_clusters_without_a_violation() {
    let shares = [
        (Profile::Mixed, 400),
        (Profile::Lives, 50),
        (Profile::Restarts, 50),
        (Profile::Crashes, 200),
        (Profile::Cuts, 250),
        (Profile::Clocks, 100),
        (Profile::Wipes, 150),
        (Profile::Disks, 200),
        (Profile::Pauses, 100),
        (Profile::Calm, 100),
        (Profile::Outages, 100),
        (Profile::Hangs, 50),
        (Profile::Years, 50),
    ];
    let (mut total, mut shapes) = (Summary::default(), Vec::new());
    // What rots is found by a scrub before anyone else in few of all clusters, so there are some in which nothing else goes wrong.
    let rot =
        Options { only: Some(Fault::Flip), activity: Activity::Many, ..options(Profile::Disks) };
    let shares = shares.map(|(profile, seeds)| (options(profile), seeds));
    for (of, seeds) in shares.into_iter().chain([(rot, 200)]) {
        let of_profile = search(seeds, of, |_| true);
        if let Some((seed, text)) = of_profile.found {
            panic!("profile {}, seed {seed}, {text}", of.profile.name());
        }
        total.add(&of_profile.summary);
        shapes.extend(of_profile.shapes);
    }
    println!("{total}");
    assert_eq!(total.runs, 2_000);
    for (what, count) in total.counts() {
        assert!(count > 0, "2,000 clusters, and not once: {what}");
    }
    let servers: BTreeSet<_> = shapes.iter().map(|shape| shape.servers).collect();
    let copies: BTreeSet<_> = shapes.iter().map(|shape| shape.copies).collect();
    let orders: BTreeSet<_> =
        shapes.iter().map(|shape| (shape.placement.name(), shape.partitioner.name())).collect();
    assert!(
        servers.into_iter().eq(1..=9) && copies.into_iter().eq(1..=5),
        "some shape was not drawn"
    );
    assert_eq!(orders.len(), 4, "some order was not drawn: {orders:?}");
}

/// The simulator can fail: every rule left out on purpose is caught. docs/testing.md has the table that this prints.
#[test]
fn every_rule_left_out_is_caught() {
    for flaw in Flaw::ALL {
        let (profile, fixed) = (Profile::for_flaw(flaw), Fixed::for_flaw(flaw));
        let names = match flaw {
            Flaw::StrangersStaySilent | Flaw::NoScrub | Flaw::DigestVersionsOnly => {
                ["settled"].as_slice()
            }
            Flaw::ScanOneAsksNoOther => &["available"],
            Flaw::RebuildFromTheStart => &["rebuild"],
            Flaw::DiskStaysUnnamed | Flaw::ClockStaysUnnamed => &["named"],
            Flaw::RefuseByOwnClock | Flaw::IssuerVouchesBySeen | Flaw::ForgetCeiling => &["issued"],
            // That a server without its rules cannot be used at the end does not count.
            _ => &[
                "linearizable",
                "acknowledged",
                "never older",
                "hints",
                "twice",
                "agreement",
                "sides",
                "thin air",
                "recovery",
            ],
        };
        let name = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
        let counts = |text: &str| names.contains(&name(text).as_str());
        // Rare as they are: a turned bit is to be met before something newer is written, and two writers are to meet.
        let (only, activity) = match flaw {
            Flaw::CutDamage | Flaw::VoteForWhatWasLost | Flaw::NoScrub => {
                (Some(Fault::Flip), Activity::Many)
            }
            Flaw::ClockFromBefore => (None, Activity::Hot),
            // A range is to have several pages.
            Flaw::RebuildFromTheStart => (None, Activity::Many),
            Flaw::DigestVersionsOnly
            | Flaw::EqualVersionsKeepTheFirst
            | Flaw::OtherContentOfOne => (None, Activity::Tickets),
            _ => (None, Activity::Any),
        };
        let of = Options { fixed, only, activity, flaw: Some(flaw), ..options(profile) };
        let found = search(20_000, of, counts).found;
        let (seed, text) = found.unwrap_or_else(|| panic!("{} was not caught", flaw.name()));
        let what = text.lines().find(|line| counts(line)).map(name).unwrap_or_default();
        println!("| `{}` | {} | {} | {what} |", flaw.name(), profile.name(), seed + 1);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for profile in Profile::ALL {
        for seed in [1, 77] {
            let options = Options { seed, trace: true, ..options(profile) };
            let (first, second) = (run(options), run(options));
            assert!(first.trace.len() > 1_000, "the trace is empty");
            assert!(first.trace == second.trace, "seed {seed} of {} differs", profile.name());
            assert_eq!(first.summary, second.summary);
        }
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let trace = |seed| run(Options { seed, trace: true, ..options(Profile::Mixed) }).trace;
    assert_ne!(trace(1), trace(2));
}
