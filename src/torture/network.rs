//! Between the servers: hosts of their own on a bridge with a filter, or, where the machine refuses those, proxies on
//! loopback.
//!
//! | | hosts | proxies |
//! |---|---|---|
//! | cut | packets are dropped; TCP sends again after healing | bytes are held back |
//! | loss | three packets of ten, at random | no |
//! | delay | no (the kernels here have no `netem`) | of every piece, with a heavy tail |
//! | reset | the kernel ends connections | so does the proxy |

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::machine::{tool, tool_with};
use crate::sim::Random;

/// From whom to whom.
pub(super) type Links = BTreeSet<(usize, usize)>;

/// What connects the servers.
#[derive(Debug)]
pub(super) enum Network {
    /// A host each.
    Hosts(Hosts),
    /// Loopback.
    Proxies(Proxies),
}

impl Network {
    /// Where the harness's clients find a server.
    pub(super) fn address(&self, server: usize) -> String {
        match self {
            Network::Hosts(_) => format!("{}:9000", host(server)),
            Network::Proxies(proxies) => format!("127.0.0.1:{}", proxies.ports[server]),
        }
    }

    /// Where `from` finds `to`.
    pub(super) fn address_between(&self, from: usize, to: usize) -> String {
        match self {
            Network::Proxies(proxies) if from != to => {
                format!("127.0.0.1:{}", proxies.links[from][to])
            }
            Network::Hosts(_) | Network::Proxies(_) => self.address(to),
        }
    }

    /// What a server's command line begins with.
    pub(super) fn prefix(&self, server: usize) -> Option<[String; 2]> {
        match self {
            // Not `ip netns exec`, which gives each process mounts of its own: a disk that was cut would live on in them.
            Network::Hosts(_) => {
                Some(["nsenter".to_owned(), format!("--net=/run/netns/n{server}")])
            }
            Network::Proxies(_) => None,
        }
    }

    /// These links carry nothing from now on, and all others do.
    pub(super) fn cut(&self, links: &Links) -> Result<(), String> {
        match self {
            Network::Hosts(_) => hosts_set("cut", links),
            Network::Proxies(proxies) => {
                proxies.rules.send_modify(|rules| rules.cut.clone_from(links));
                Ok(())
            }
        }
    }

    /// Three packets of ten between any two servers are lost, or none.
    pub(super) fn lose(&self, on: bool) -> Result<(), String> {
        match self {
            Network::Hosts(hosts) if on => hosts_set("lossy", &all(hosts.servers)),
            Network::Hosts(_) => hosts_set("lossy", &Links::new()),
            Network::Proxies(_) => Err("proxies lose nothing".to_owned()),
        }
    }

    /// Everything is late, at times very late, or not.
    pub(super) fn delay(&self, on: bool) -> Result<(), String> {
        match self {
            Network::Hosts(_) => Err("hosts delay nothing".to_owned()),
            Network::Proxies(proxies) => {
                proxies.rules.send_modify(|rules| rules.delays = on);
                Ok(())
            }
        }
    }

    /// Ends all connections of a server.
    pub(super) fn reset(&self, server: usize) -> Result<(), String> {
        match self {
            Network::Hosts(_) => {
                let name = format!("n{server}");
                let host = format!("--net=/run/netns/{name}");
                tool("nsenter", &[&host, "ss", "-K", "state", "established"]).map(drop)
            }
            Network::Proxies(proxies) => {
                proxies.rules.send_modify(|rules| rules.resets += 1);
                Ok(())
            }
        }
    }
}

/// Every link between different servers.
pub(super) fn all(servers: usize) -> Links {
    (0..servers)
        .flat_map(|from| (0..servers).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect()
}

// ── Hosts ───────────────────────────────────────────────────────────────────────────────────────────────

/// A network namespace each, on one bridge; the harness has an address on it too. Nothing outside can be reached.
#[derive(Debug)]
pub(super) struct Hosts {
    servers: usize,
}

fn host(server: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, server as u8 + 1)
}

fn hosts_set(set: &str, links: &Links) -> Result<(), String> {
    let element = |(from, to): &(usize, usize)| format!("{} . {}", host(*from), host(*to));
    let elements = links.iter().map(element).collect::<Vec<_>>().join(", ");
    let mut rules = format!("flush set bridge chord {set}\n");
    if !links.is_empty() {
        rules += &format!("add element bridge chord {set} {{ {elements} }}\n");
    }
    tool_with("nft", &["-f", "-"], &rules).map(drop)
}

impl Hosts {
    pub(super) fn create(servers: usize) -> Result<Hosts, String> {
        let hosts = Hosts { servers };
        tool("ip", &["link", "add", "br0", "type", "bridge"])?;
        tool("ip", &["addr", "add", "10.77.0.254/24", "dev", "br0"])?;
        tool("ip", &["link", "set", "br0", "up"])?;
        for server in 0..servers {
            let (name, port) = (format!("n{server}"), format!("p{server}"));
            tool("ip", &["netns", "add", &name])?;
            let link =
                ["link", "add", "eth0", "netns", &name, "type", "veth", "peer", "name", &port];
            tool("ip", &link)?;
            let address = format!("{}/24", host(server));
            tool("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            tool("ip", &["-n", &name, "link", "set", "lo", "up"])?;
            tool("ip", &["-n", &name, "link", "set", "eth0", "up"])?;
            tool("ip", &["link", "set", &port, "master", "br0"])?;
            tool("ip", &["link", "set", &port, "up"])?;
        }
        let rules = "table bridge chord {
            set cut { type ipv4_addr . ipv4_addr; }
            set lossy { type ipv4_addr . ipv4_addr; }
            chain between {
                type filter hook forward priority 0; policy accept;
                ip saddr . ip daddr @cut counter drop
                ip saddr . ip daddr @lossy numgen random mod 100 < 30 counter drop
            }
        }\n";
        tool_with("nft", &["-f", "-"], rules)?;
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for server in 0..self.servers {
            // The cable first: a namespace goes away some time after its name, and the cable with it.
            let _ = tool("ip", &["link", "del", &format!("p{server}")]);
            let _ = tool("ip", &["netns", "del", &format!("n{server}")]);
        }
        let _ = tool("ip", &["link", "del", "br0"]);
        let _ = tool("nft", &["delete", "table", "bridge", "chord"]);
    }
}

// ── Proxies ─────────────────────────────────────────────────────────────────────────────────────────────

/// A listener on loopback for every link; each server is told to find its peers behind those.
#[derive(Debug)]
pub(super) struct Proxies {
    /// Of the servers themselves.
    ports: Vec<u16>,
    /// Of the proxies, from whom to whom.
    links: Vec<Vec<u16>>,
    rules: watch::Sender<Rules>,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    cut: Links,
    delays: bool,
    resets: u64,
}

impl Proxies {
    /// Must be called within a runtime.
    pub(super) fn create(servers: usize, seed: u64) -> Result<Proxies, String> {
        let bind = || TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port: {error}"));
        let port = |listener: &TcpListener| match listener.local_addr() {
            Ok(address) => Ok(address.port()),
            Err(error) => Err(format!("no port: {error}")),
        };
        // Held together, so that they are different, and then left to the servers.
        let own: Vec<_> = (0..servers).map(|_| bind()).collect::<Result<_, _>>()?;
        let ports: Vec<_> = own.iter().map(port).collect::<Result<_, _>>()?;
        let (rules, _) = watch::channel(Rules::default());
        let mut links = vec![vec![0; servers]; servers];
        for (from, to) in all(servers) {
            let listener = bind()?;
            links[from][to] = port(&listener)?;
            let failed = |error| format!("no listener: {error}");
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = AsyncListener::from_std(listener).map_err(failed)?;
            let target = SocketAddr::from(([127, 0, 0, 1], ports[to]));
            let random = Random::stream(seed, &format!("link {from} {to}"));
            tokio::spawn(accept(listener, target, (from, to), rules.subscribe(), random));
        }
        drop(own);
        Ok(Proxies { ports, links, rules })
    }
}

/// Ends with the sender of the rules.
async fn accept(
    listener: AsyncListener,
    target: SocketAddr,
    (from, to): (usize, usize),
    rules: watch::Receiver<Rules>,
    mut random: Random,
) {
    let mut ending = rules.clone();
    loop {
        let near = tokio::select! {
            accepted = listener.accept() => accepted,
            () = async { while ending.changed().await.is_ok() {} } => return,
        };
        let Ok((near, _)) = near else { continue };
        // One that cannot be reached is reset, as its host would do.
        let Ok(far) = TcpStream::connect(target).await else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let mut pump = |link, from, to| {
            tokio::spawn(carry(
                link,
                from,
                to,
                rules.clone(),
                Random::stream(random.next(), "pump"),
            ));
        };
        pump((from, to), near_in, far_out);
        pump((to, from), far_in, near_out);
    }
}

/// Carries one direction of a connection, until it ends or is reset.
async fn carry(
    link: (usize, usize),
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut rules: watch::Receiver<Rules>,
    mut random: Random,
) {
    let resets = rules.borrow().resets;
    let (pieces, mut late) = mpsc::channel::<(Vec<u8>, tokio::time::Instant)>(64);
    let mut cutting = rules.clone();
    let reader = async move {
        let mut piece = vec![0; 16384];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let delays = rules.borrow_and_update().delays;
            let delay = if delays { delay(&mut random) } else { Duration::ZERO };
            let due = tokio::time::Instant::now() + delay;
            if pieces.send((piece[..length].to_vec(), due)).await.is_err() {
                break;
            }
        }
    };
    let mut resetting = cutting.clone();
    let writer = async move {
        while let Some((piece, due)) = late.recv().await {
            tokio::time::sleep_until(due).await;
            if cutting.wait_for(|rules| !rules.cut.contains(&link)).await.is_err()
                || to.write_all(&piece).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(reader, writer) } => {}
        _ = resetting.wait_for(|rules| rules.resets != resets) => {}
    }
}

/// Mostly little; now and then a good deal; rarely seconds.
fn delay(random: &mut Random) -> Duration {
    Duration::from_millis(match random.below(1000) {
        0..900 => random.below(20),
        900..995 => 50 + random.below(300),
        _ => 1000 + random.below(2000),
    })
}
