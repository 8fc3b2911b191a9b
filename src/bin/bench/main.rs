//! `chord-bench`: how fast Chord is here, and whether what it answers is true.

mod balance;
mod flags;
mod latency;
mod neighbours;
mod outage;
mod recovery;
mod scan;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Chord on this machine: starts clusters of its own, or drives one that runs.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Calls a second, their latencies, and what they cost, in a closed loop of clients
    Throughput(Box<throughput::Flags>),
    /// How many keys each server gets
    Balance(balance::Flags),
    /// Latencies of calls that come at a given rate, whatever happens
    Latency(Box<latency::Flags>),
    /// How long a killed server takes to be back, and what keys cost it
    Recovery(recovery::Flags),
    /// What clients notice of a server that is killed and comes back
    Outage(Box<outage::Flags>),
    /// What clients notice of one bad server while they talk to the others
    Neighbours(Box<neighbours::Flags>),
    /// Keys in order
    Scan(Box<scan::Flags>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Neighbours(flags) = &cli.command
        && neighbours::needs_namespaces(flags)
        && let Some(status) = chord::torture::run_inside()
    {
        return ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1));
    }
    // Clusters and their data go away with the values that own them, so an interrupted run must come to its end too.
    let ended = match cli.command {
        Command::Throughput(flags) => flags::drive(throughput::run(*flags)),
        Command::Balance(flags) => flags::drive(balance::run(flags)),
        Command::Latency(flags) => flags::drive(latency::run(*flags)),
        Command::Recovery(flags) => flags::drive(recovery::run(flags)),
        Command::Outage(flags) => flags::drive(outage::run(*flags)),
        Command::Neighbours(flags) => flags::drive(neighbours::run(*flags)),
        Command::Scan(flags) => flags::drive(scan::run(*flags)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(flags::Ended::Wrong(why)) => {
            eprintln!("chord-bench: {why}");
            ExitCode::from(1)
        }
        Err(flags::Ended::Failed(why)) => {
            eprintln!("chord-bench: {why}");
            ExitCode::from(2)
        }
        Err(flags::Ended::Interrupted) => ExitCode::from(130),
    }
}
