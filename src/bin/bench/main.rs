//! `chord-bench`: how fast Chord is here, and whether what it answers is true.

mod balance;
mod flags;
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Clusters and their data go away with the values that own them, so an interrupted run must come to its end too.
    let ended = match cli.command {
        Command::Throughput(flags) => flags::drive(throughput::run(*flags)),
        Command::Balance(flags) => flags::drive(balance::run(flags)),
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
