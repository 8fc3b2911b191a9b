//! Who makes things go wrong: by seed, two faults at a time at most, each for a while; everything is healed at the end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::sim::Random;

use super::cluster::Cluster;
use super::fault::Fault;
use super::inject::Injection;
use super::network::{Links, all};
use super::{is_whole, now, wait_until};

/// How long a server that has lost data may take to be whole again.
const REBUILD: Duration = Duration::from_secs(90);

/// Values of each server that lose a bit when all do.
const VALUES: u64 = 8;

/// A fault that lasts.
#[derive(Debug)]
struct Active {
    fault: Fault,
    /// The server it strikes; `None`: all of them, or what is between them.
    server: Option<usize>,
    /// When it ends: nanoseconds.
    until: u64,
    /// What makes system calls go wrong.
    injection: Option<Injection>,
    /// Links that are cut and mended in turn.
    flapping: Option<Flapping>,
}

/// A cut that comes and goes.
#[derive(Debug)]
struct Flapping {
    links: Links,
    cut: bool,
    /// When it changes: nanoseconds.
    next: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Nemesis {
    random: Random,
    faults: Vec<Fault>,
    /// How long a disk hangs, where that is not left to chance.
    hang: Option<Duration>,
    active: Vec<Active>,
    next: u64,
    /// How often each fault has happened.
    pub(super) counts: BTreeMap<Fault, u64>,
    /// What happened when, for people.
    pub(super) log: Vec<String>,
    /// What must not happen, whatever the fault.
    pub(super) violations: Vec<String>,
}

impl Nemesis {
    pub(super) fn new(seed: u64, faults: Vec<Fault>, hang: Option<Duration>) -> Nemesis {
        let random = Random::stream(seed, "nemesis");
        let (counts, log, violations) = (BTreeMap::new(), Vec::new(), Vec::new());
        let next = now() + 500_000_000;
        Nemesis { random, faults, hang, active: Vec::new(), next, counts, log, violations }
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{:>15} {what}", now()));
    }

    /// Something between these, in milliseconds.
    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.between(least, most))
    }

    /// One turn: ends what is over, and begins something if it is time.
    pub(super) fn turn(&mut self, cluster: &mut Cluster) {
        for server in 0..cluster.count() {
            if cluster.has_died(server) {
                self.bury(cluster, server);
            }
        }
        while let Some(over) = self.active.iter().position(|active| active.until <= now()) {
            let active = self.active.remove(over);
            self.heal(cluster, active);
        }
        self.flap(cluster);
        if now() >= self.next && self.active.len() < 2 {
            let gap = self.millis(100, 1500);
            self.next = now() + gap.as_nanos() as u64;
            if let Some(fault) = self.random.pick(&self.faults).copied() {
                self.begin(cluster, fault);
            }
        }
    }

    /// Cuts that come and go do so.
    fn flap(&mut self, cluster: &Cluster) {
        let due =
            |active: &&mut Active| active.flapping.as_ref().is_some_and(|it| it.next <= now());
        for active in self.active.iter_mut().filter(due) {
            let Some(flapping) = &mut active.flapping else { continue };
            flapping.cut = !flapping.cut;
            flapping.next = now() + self.random.between(50, 900) * 1_000_000;
            let links = if flapping.cut { flapping.links.clone() } else { Links::new() };
            if let Err(error) = cluster.network.cut(&links) {
                self.violations.push(format!("cut: {error}"));
            }
        }
    }

    /// A server has ended of itself.
    fn bury(&mut self, cluster: &mut Cluster, server: usize) {
        let struck = self.active.iter().any(|active| active.server.is_none_or(|at| at == server));
        let expected = self.faults.iter().any(|fault| fault.may_end_a_server());
        self.note(&format!("server {server} has ended of itself"));
        if !expected {
            self.violations
                .push(format!("server {server} ended though nothing had happened to it"));
        }
        // Whoever struck it starts it again.
        if !struck {
            self.start(cluster, server);
        }
    }

    fn start(&mut self, cluster: &mut Cluster, server: usize) {
        if cluster.is_running(server) {
            return;
        }
        self.note(&format!("server {server} starts"));
        if let Err(error) = cluster.spawn(server) {
            self.violations.push(format!("start: {error}"));
            cluster.kill(server);
        }
    }

    fn begin(&mut self, cluster: &mut Cluster, fault: Fault) {
        let engaged =
            |server: usize| self.active.iter().any(|active| active.server == Some(server));
        let free: Vec<usize> = (0..cluster.count())
            .filter(|server| cluster.is_running(*server) && !engaged(*server))
            .collect();
        let is_there = self.active.iter().any(|active| active.fault == fault);
        let takes = self.active.iter().any(|active| active.fault.takes_data());
        let between = matches!(fault, Fault::Cut | Fault::Loss | Fault::Delay);
        if (between && is_there)
            || (fault.takes_data() && takes)
            || (matches!(fault, Fault::Blackout | Fault::RotAll) && free.len() < cluster.count())
        {
            return;
        }
        // Half of the time one that is struck already, if it can be.
        let stricken: Vec<usize> = self
            .active
            .iter()
            .filter(|active| active.fault.bears(fault))
            .filter_map(|active| active.server)
            .filter(|server| cluster.is_running(*server) || fault == Fault::Full)
            .collect();
        let among = if self.random.chance(500) && !stricken.is_empty() { &stricken } else { &free };
        let Some(server) = self.random.pick(among).copied() else { return };
        match self.strike(cluster, fault, server) {
            Ok(Some(active)) => {
                *self.counts.entry(fault).or_default() += 1;
                self.active.push(active);
            }
            // It was over as soon as it had begun.
            Ok(None) => *self.counts.entry(fault).or_default() += 1,
            Err(why) => self.note(&format!("{fault} could not be: {why}")),
        }
    }

    fn strike(
        &mut self,
        cluster: &mut Cluster,
        fault: Fault,
        server: usize,
    ) -> Result<Option<Active>, String> {
        let mut struck = Some(server);
        let (mut injection, mut flapping) = (None, None);
        let mut note = format!("{fault} at server {server}");
        let hold = match fault {
            Fault::Kill => {
                cluster.kill(server);
                self.millis(0, 3000)
            }
            Fault::Restart => {
                cluster.terminate(server).or_else(|why| {
                    self.violations.push(format!("restart: {why}"));
                    Ok::<(), String>(())
                })?;
                self.millis(0, 500)
            }
            Fault::Pause => {
                cluster.signal(server, "STOP")?;
                self.millis(300, 6000)
            }
            Fault::Cut => {
                let (shape, links) = self.links(cluster.count());
                cluster.network.cut(&links)?;
                note = format!("cut, {shape}: {links:?}");
                if self.random.chance(250) {
                    note += ", on and off";
                    flapping = Some(Flapping { links, cut: true, next: now() });
                }
                struck = None;
                self.millis(300, 7000)
            }
            Fault::Loss => {
                cluster.network.lose(true)?;
                note = "loss".to_owned();
                struck = None;
                self.millis(1000, 6000)
            }
            Fault::Delay => {
                cluster.network.delay(true)?;
                note = "delay".to_owned();
                struck = None;
                self.millis(1000, 6000)
            }
            Fault::Reset => {
                cluster.network.reset(server)?;
                self.note(&note);
                return Ok(None);
            }
            Fault::Clock => {
                const DAYS: i64 = 3 * 24 * 3600;
                const YEARS: i64 = 50 * 365 * 24 * 3600;
                const STEPS: [i64; 13] =
                    [-YEARS, -DAYS, -3600, -500, -10, -1, 0, 1, 10, 90, 3600, DAYS, YEARS];
                let seconds = self.random.pick(&STEPS).copied().unwrap_or(0);
                cluster.set_clock(server, seconds)?;
                self.note(&format!("{note}: {seconds:+} s"));
                return Ok(None);
            }
            Fault::Full => {
                cluster.disk(server).fill()?;
                self.millis(300, 5000)
            }
            Fault::Sync => {
                injection = Some(inject(cluster, server, "error=EIO")?);
                self.millis(500, 3000)
            }
            Fault::Slow => {
                injection = Some(inject(cluster, server, "delay_enter=150000")?);
                self.millis(1000, 6000)
            }
            Fault::Hang => {
                cluster.disk(server).freeze()?;
                self.hang.unwrap_or_else(|| self.millis(300, 6000))
            }
            Fault::ReadOnly => {
                cluster.disk(server).turn_read_only()?;
                self.millis(300, 5000)
            }
            Fault::Power => {
                cut_power(cluster, server..server + 1)?;
                self.millis(0, 2000)
            }
            Fault::Blackout => {
                let all = 0..cluster.count();
                cut_power(cluster, all)?;
                note = "blackout".to_owned();
                struck = None;
                self.millis(0, 1000)
            }
            Fault::Wipe => {
                if !self.can_spare(cluster, server) {
                    return Err("not all others are whole".to_owned());
                }
                cluster.kill(server);
                cluster.disk(server).wipe()?;
                self.start(cluster, server);
                REBUILD
            }
            Fault::Rot => {
                if !self.can_spare(cluster, server) {
                    return Err("not all others are whole".to_owned());
                }
                cluster.kill(server);
                let mut random = self.random.clone();
                let place = cluster.disk(server).rot(&mut |bound| random.below(bound));
                self.random = random;
                self.start(cluster, server);
                let Some(place) = place else { return Err("nothing is sealed yet".to_owned()) };
                note = format!("{note}: {place}");
                REBUILD
            }
            Fault::RotAll => {
                // Each key's number says at which server it is struck.
                let count = cluster.count();
                if !(0..count).all(|server| is_whole(&cluster.network.address(server))) {
                    return Err("not all are whole".to_owned());
                }
                let mut random = self.random.clone();
                let mut turned = Vec::new();
                for server in 0..count {
                    cluster.kill(server);
                    let is_struck = |key: &str| {
                        key.get(1..)
                            .and_then(|number| number.parse::<usize>().ok())
                            .is_some_and(|number| number % count == server)
                    };
                    turned.push(cluster.disk(server).rot_values(
                        VALUES,
                        &is_struck,
                        &mut |bound| random.below(bound),
                    ));
                    self.start(cluster, server);
                }
                self.random = random;
                if turned.iter().sum::<u64>() == 0 {
                    return Err("nothing is sealed yet".to_owned());
                }
                note = format!("{fault}: bits at each server: {turned:?}");
                struck = None;
                REBUILD
            }
        };
        self.note(&note);
        let until = now() + hold.as_nanos() as u64;
        Ok(Some(Active { fault, server: struck, until, injection, flapping }))
    }

    /// A copy may be taken away only where the others are whole: two lost disks of three are more than is promised.
    fn can_spare(&self, cluster: &Cluster, server: usize) -> bool {
        (0..cluster.count())
            .filter(|other| *other != server)
            .all(|other| is_whole(&cluster.network.address(other)))
    }

    fn heal(&mut self, cluster: &mut Cluster, mut active: Active) {
        self.note(&format!("{} is over", active.fault));
        // Whatever was injected ends with it.
        drop(active.injection.take());
        let healed = match (active.fault, active.server) {
            (Fault::Pause, Some(server)) => cluster.signal(server, "CONT"),
            (Fault::Cut, _) => cluster.network.cut(&Links::new()),
            (Fault::Loss, _) => cluster.network.lose(false),
            (Fault::Delay, _) => cluster.network.delay(false),
            (Fault::Full, Some(server)) => {
                cluster.disk(server).make_room();
                Ok(())
            }
            (Fault::Hang, Some(server)) => cluster.disk(server).thaw(),
            (Fault::ReadOnly, Some(server)) => {
                cluster.kill(server);
                cluster.disk(server).mount_again()
            }
            (Fault::Wipe | Fault::Rot | Fault::RotAll, at) => {
                // Not over before the server is whole again, unless that takes too long.
                let struck =
                    (0..cluster.count()).filter(|server| at.is_none_or(|at| at == *server));
                let addresses: Vec<_> =
                    struck.map(|server| cluster.network.address(server)).collect();
                match wait_until(REBUILD, || addresses.iter().all(|address| is_whole(address))) {
                    true => Ok(()),
                    false => Err(format!("{}: not whole again", active.fault)),
                }
            }
            (_, _) => Ok(()),
        };
        if let Err(error) = healed {
            self.violations.push(format!("heal: {error}"));
        }
        for server in 0..cluster.count() {
            let struck = active.server.is_none_or(|at| at == server);
            let stays_down = self.active.iter().any(|other| {
                other.fault.keeps_down() && other.server.is_none_or(|at| at == server)
            });
            if struck && !stays_down && !cluster.has_died(server) && !cluster.is_running(server) {
                self.start(cluster, server);
            }
        }
    }

    /// Ends what waits for a server that has become whole in the meantime.
    pub(super) fn see_to_the_rebuilt(&mut self, cluster: &Cluster) {
        for active in self.active.iter_mut().filter(|active| active.fault.takes_data()) {
            let mut struck =
                (0..cluster.count()).filter(|id| active.server.is_none_or(|at| at == *id));
            if struck.all(|server| is_whole(&cluster.network.address(server))) {
                active.until = 0;
            }
        }
    }

    /// Everything is healed, every server runs, every clock is right.
    pub(super) fn end(&mut self, cluster: &mut Cluster) {
        // What keeps others from being rebuilt goes first.
        self.active.sort_by_key(|active| active.fault.takes_data());
        for active in std::mem::take(&mut self.active) {
            self.heal(cluster, active);
        }
        for server in 0..cluster.count() {
            cluster.has_died(server);
            self.start(cluster, server);
            if let Err(error) = cluster.set_clock(server, 0) {
                self.violations.push(format!("clock: {error}"));
            }
        }
    }

    /// A cut of some shape.
    fn links(&mut self, servers: usize) -> (&'static str, Links) {
        let any = |random: &mut Random| random.below(servers as u64) as usize;
        let split = |side: &dyn Fn(usize) -> bool| -> Links {
            all(servers).into_iter().filter(|(from, to)| side(*from) != side(*to)).collect()
        };
        let (first, second) = (any(&mut self.random), any(&mut self.random));
        match self.random.below(6) {
            0 => {
                let to = if first == second { (first + 1) % servers } else { second };
                ("one way", Links::from([(first, to)]))
            }
            1 => (
                "one server's answers",
                all(servers).into_iter().filter(|(from, _)| *from == first).collect(),
            ),
            2 => ("one server", split(&|server| server == first)),
            3 => {
                let to = if first == second { (first + 1) % servers } else { second };
                ("one pair", Links::from([(first, to), (to, first)]))
            }
            4 => {
                let bits = self.random.next();
                ("halves", split(&|server| bits >> server & 1 == 1))
            }
            _ => {
                // Two sides that only one server can still talk to.
                let bits = self.random.next();
                let links = split(&|server| bits >> server & 1 == 1);
                let apart = |link: &(usize, usize)| link.0 != first && link.1 != first;
                ("a bridge", links.into_iter().filter(apart).collect())
            }
        }
    }
}

/// The power of these servers goes out at one moment: processors first, then disks. A server that still ran while its disk
/// was dying might be told by the kernel that a sync had succeeded, and pass it on, which no server without power can.
fn cut_power(cluster: &mut Cluster, servers: Range<usize>) -> Result<(), String> {
    for server in servers.clone() {
        cluster.signal(server, "STOP")?;
    }
    for server in servers.clone() {
        if !wait_until(Duration::from_secs(5), || cluster.stands_still(server)) {
            return Err(format!("server {server} does not stand still"));
        }
    }
    for server in servers.clone() {
        cluster.disk(server).cut_power()?;
    }
    for server in servers {
        cluster.kill(server);
        cluster.disk(server).mount_again()?;
    }
    Ok(())
}

/// Makes a running server's syncs go wrong.
fn inject(cluster: &Cluster, server: usize, how: &str) -> Result<Injection, String> {
    Injection::into_syncs(cluster.pid(server).ok_or("it does not run")?, how)
}
