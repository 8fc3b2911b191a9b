//! `chord-server`: one server of a cluster.

/// Small allocations that come and go on one thread, millions of them: what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use chord::gateway;
use chord::model::{ServerId, Status};
use chord::server::{self, Flags};
use clap::Parser;
use tokio::sync::watch;

/// One server of a Chord cluster. With a port alone: server PORT − 9000 of the demo cluster of four on this machine.
#[derive(Parser)]
#[command(name = "chord-server", version)]
struct Program {
    #[command(flatten)]
    flags: Flags,

    /// Check flags, cluster file and secret file, and end
    #[arg(long)]
    check: bool,

    /// Ask the server at this address how it is, and end: 0 it votes, 3 it does not vote yet, 1 no answer
    #[arg(long, value_name = "HOST:PORT", hide = true)]
    probe: Option<String>,
}

/// Of a server that answers but does not vote, or whose disk takes no writes.
const NOT_READY: u8 = 3;

/// What `--probe` exits with when the server votes and does not see all others vote.
const ALONE: u8 = 4;

/// What a signal ends this process with as long as there is nothing to be ended in order; [`RUNNING`]: there is.
static ON_SIGNAL: AtomicI32 = AtomicI32::new(0);
const RUNNING: i32 = -1;
/// Of a process that SIGTERM ends: whoever probes has got no answer.
const TERMINATED: i32 = 143;

fn main() -> ExitCode {
    // Before anything else: whoever starts a server may think better of it at once.
    let (ask, asked_to_stop) = watch::channel(false);
    let asked = AtomicBool::new(false);
    let handler = ctrlc::set_handler(move || {
        let code = ON_SIGNAL.load(Ordering::SeqCst);
        if code != RUNNING {
            std::process::exit(code);
        }
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        ask.send_replace(true);
    });
    if let Err(error) = handler {
        return fail(&error, 1);
    }
    let program = Program::parse();
    if let Some(address) = &program.probe {
        ON_SIGNAL.store(TERMINATED, Ordering::SeqCst);
        return probe(address);
    }
    let mut config = match program.flags.resolve() {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    if program.check {
        return ExitCode::SUCCESS;
    }
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("CHORD_LOG", "info"))
        .format_target(false)
        .init();
    ON_SIGNAL.store(RUNNING, Ordering::SeqCst);
    // The HTTP door is closed first, while the server still answers the requests that it has in hand.
    let stopped = match config.http.take() {
        None => asked_to_stop,
        Some(listen) => match open_door(settings(&config, listen), asked_to_stop) {
            Ok(stopped) => stopped,
            Err(error) => return fail(error.as_ref(), 1),
        },
    };
    let ready = |ready: &server::Ready| {
        // Whoever started the server may have closed its end; the server runs all the same.
        let _ = writeln!(std::io::stdout(), "{ready}");
    };
    match server::run(config, stopped, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// What the HTTP door needs to know.
fn settings(config: &server::Config, listen: String) -> gateway::Settings {
    let cluster = &config.cluster;
    let member = |(server, address): &(ServerId, String)| gateway::Member {
        server: *server,
        address: address.clone(),
        http: if *server == config.server {
            Some(listen.clone())
        } else {
            cluster.http.get(server).cloned()
        },
    };
    gateway::Settings {
        server: config.server,
        members: cluster.servers.iter().map(member).collect(),
        max_connections: config.max_http_connections,
        listen: listen.clone(),
        budget: config.budget.clone(),
    }
}

/// Serves HTTP on a thread of its own until `stop` becomes true; then what is returned does.
fn open_door(
    settings: gateway::Settings,
    stop: watch::Receiver<bool>,
) -> Result<watch::Receiver<bool>, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let door = runtime.block_on(gateway::open(settings))?;
    let (done, closed) = watch::channel(false);
    std::thread::Builder::new().name("http".into()).spawn(move || {
        runtime.block_on(door.serve(stop));
        done.send_replace(true);
    })?;
    Ok(closed)
}

fn probe(address: &str) -> ExitCode {
    match server::probe(address) {
        Ok(Status { server, voting: true, disk: Some(disk), keys, .. }) => {
            println!("server {server} votes, {keys} keys, but {disk}");
            ExitCode::from(NOT_READY)
        }
        Ok(status) if status.voting => {
            let unseen = status.peers.iter().filter(|peer| !peer.alive || !peer.voting).count();
            if unseen == 0 {
                println!("server {} votes, {} keys", status.server, status.keys);
                return ExitCode::SUCCESS;
            }
            println!(
                "server {} votes, {} keys, but does not see {unseen} others vote",
                status.server, status.keys
            );
            ExitCode::from(ALONE)
        }
        Ok(status) => {
            println!("server {} does not vote yet: {}", status.server, status.state);
            ExitCode::from(NOT_READY)
        }
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("chord-server: {error}");
    ExitCode::from(code)
}
