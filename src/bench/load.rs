//! The loop: so many clients, each with so many calls in flight, and every answer looked at.
//!
//! One thread drives all clients, so that the generator takes one processor at most and what it takes is known. A latency is
//! counted from the moment at which the client decided on the call to the moment at which its answer was understood.
//! In a closed loop a slow answer keeps its client from asking: latencies are those of this load, not of one that
//! comes whatever happens. [`Until::Arrivals`] makes such a one of it: a call then counts from when it was due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use super::arrivals::Arrivals;
use super::check::{Checker, Floor};
use super::cost::{cpu_of, machine_cpu, own_cpu};
use super::keys::{Choice, Chooser, fill, key};
use super::target::{Answer, Call, Connection, Target};

/// The longest latency told apart, in microseconds.
const MAX_LATENCY: u64 = 60_000_000;

/// A piece of a [`Measured::timeline`].
pub const SLICE: Duration = Duration::from_millis(100);

/// Between attempts of a client to connect again.
const RECONNECT: Duration = Duration::from_millis(20);

/// Calls in flight when a store is filled, and bytes of values in them.
const FILL_CALLS: usize = 512;
const FILL_BYTES: usize = 16 << 20;

/// For how long a client tries to connect again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many.
    pub clients: usize,
    /// Calls that each has in flight.
    pub pipeline: usize,
    /// Reads among all calls, from 0 to 1.
    pub reads: f64,
    /// Reads are scans of so many keys.
    pub scan: Option<usize>,
    /// Keys there are.
    pub keys: u64,
    /// How they are chosen.
    pub choice: Choice,
    /// Bytes of a value.
    pub value_length: usize,
    /// Connections may break: the client connects to another server and goes on.
    pub may_break: bool,
    /// Of all choices.
    pub seed: u64,
}

/// When it is over.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many calls were answered.
    Operations(u64),
    /// So much time has passed.
    Elapsed(Duration),
    /// All calls that have come in this time are answered; they come whatever happens.
    Arrivals {
        /// Calls a second, on average.
        rate: f64,
        /// For how long they come.
        length: Duration,
    },
}

/// What came out.
#[derive(Debug)]
pub struct Measured {
    /// Calls that succeeded.
    pub operations: u64,
    /// Calls that did not, or whose connection broke.
    pub failed: u64,
    /// The first reason.
    pub why: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
    /// Latencies of reads, in microseconds.
    pub reads: Histogram<u64>,
    /// Latencies of writes, in microseconds.
    pub writes: Histogram<u64>,
    /// Processor time of the store's processes.
    pub store_cpu: Duration,
    /// Processor time of this process.
    pub own_cpu: Duration,
    /// Processor time that neither has taken.
    pub other_cpu: Duration,
    /// In pieces of [`SLICE`].
    pub timeline: Vec<Slice>,
    /// The longest latency of a call that was answered after the end, in microseconds.
    pub late: u64,
}

/// A piece of the time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    /// Calls answered.
    pub operations: u64,
    /// The longest latency of a call answered, in microseconds.
    pub slowest: u64,
}

/// Clients that are connected.
#[derive(Debug)]
pub struct Driver<T: Target> {
    target: Rc<T>,
    load: Rc<Load>,
    checker: Rc<RefCell<Checker>>,
    clients: Vec<Client<T::Connection>>,
    writes: Rc<Cell<u64>>,
    ascending: Rc<Cell<u64>>,
}

#[derive(Debug)]
struct Client<C> {
    number: usize,
    connection: C,
    chooser: Chooser,
}

/// One run, as its clients see it.
struct Run {
    began: Instant,
    until: Until,
    arrivals: Option<Arrivals>,
    issued: Cell<u64>,
    answered: Cell<u64>,
    measured: RefCell<Measured>,
}

struct Pending {
    floor: Floor,
    number: u64,
    /// `None`: a read.
    write: Option<u64>,
    began: Instant,
}

impl Run {
    /// Another call is to be sent; from when its latency counts.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    async fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let number = self.issued.get();
        match self.until {
            Until::Operations(count) if number >= count => return None,
            Until::Elapsed(length) if now - self.began >= length => return None,
            Until::Operations(_) | Until::Elapsed(_) | Until::Arrivals { .. } => {}
        }
        let Some(arrivals) = &self.arrivals else {
            self.issued.set(number + 1);
            return Some(now);
        };
        arrivals.wait().await?;
        let number = self.issued.get();
        self.issued.set(number + 1);
        arrivals.due_at(number).map(|due| self.began + due)
    }

    fn succeeded(&self, write: bool, began: Instant, now: Instant) {
        let measured = &mut *self.measured.borrow_mut();
        let latency = ((now - began).as_micros() as u64).clamp(1, MAX_LATENCY);
        // What is answered after the end belongs to nobody, but must not hide how long it took.
        if let Until::Elapsed(length) = self.until
            && now - self.began > length
        {
            measured.late = measured.late.max(latency);
            return;
        }
        self.answered.set(self.answered.get() + 1);
        let histogram = if write { &mut measured.writes } else { &mut measured.reads };
        histogram.saturating_record(latency);
        let slice = ((now - self.began).as_nanos() / SLICE.as_nanos()) as usize;
        if measured.timeline.len() <= slice {
            measured.timeline.resize(slice + 1, Slice::default());
        }
        let slice = &mut measured.timeline[slice];
        slice.operations += 1;
        slice.slowest = slice.slowest.max(latency);
    }

    fn failed(&self, count: u64, why: String) {
        let measured = &mut *self.measured.borrow_mut();
        measured.failed += count;
        measured.why.get_or_insert(why);
    }
}

/// Latencies from a microsecond to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that it takes.
    Histogram::new_with_bounds(1, MAX_LATENCY, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds"))
}

impl<T: Target + 'static> Driver<T> {
    /// Connects all clients.
    ///
    /// # Errors
    /// One cannot.
    pub async fn connect(
        target: Rc<T>,
        load: Load,
        checker: Rc<RefCell<Checker>>,
    ) -> Result<Driver<T>, String> {
        let load = Rc::new(load);
        let (mut clients, ascending) = (Vec::new(), Rc::new(Cell::new(0)));
        for number in 0..load.clients {
            let connection = target.connect(number).await?;
            let seed = load.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let chooser = Chooser::new(load.choice, load.keys, seed, Rc::clone(&ascending));
            clients.push(Client { number, connection, chooser });
        }
        // Writes of all drivers of one checker differ.
        let writes = Rc::new(Cell::new(load.seed << 40));
        Ok(Driver { target, load, checker, clients, writes, ascending })
    }

    /// Lets the clients work until the end. `store`: processes whose cost is the store's. `progress` is told ten times a second how
    /// many calls were answered.
    ///
    /// # Errors
    /// A connection has broken that must not.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub async fn run(
        &mut self,
        until: Until,
        store: &[u32],
        progress: impl Fn(u64),
    ) -> Result<Measured, String> {
        let (store_cpu, own, machine) = (cpu_of(store), own_cpu(), machine_cpu());
        let arrivals = match until {
            Until::Arrivals { rate, length } => Some(Arrivals::new(rate, length, self.load.seed)),
            Until::Operations(_) | Until::Elapsed(_) => None,
        };
        let began = Instant::now();
        if let Some(arrivals) = &arrivals {
            arrivals.begin(began, self.clients.len());
        }
        let run = Rc::new(Run {
            began,
            until,
            arrivals,
            issued: Cell::new(0),
            answered: Cell::new(0),
            measured: RefCell::new(Measured {
                operations: 0,
                failed: 0,
                why: None,
                elapsed: Duration::ZERO,
                reads: histogram(),
                writes: histogram(),
                store_cpu: Duration::ZERO,
                own_cpu: Duration::ZERO,
                other_cpu: Duration::ZERO,
                timeline: Vec::new(),
                late: 0,
            }),
        });
        let local = LocalSet::new();
        let mut tasks = Vec::new();
        for client in self.clients.drain(..) {
            let (target, load) = (Rc::clone(&self.target), Rc::clone(&self.load));
            let (checker, writes) = (Rc::clone(&self.checker), Rc::clone(&self.writes));
            let work = client.work(target, load, checker, writes, Rc::clone(&run));
            tasks.push(local.spawn_local(work));
        }
        let clients = &mut self.clients;
        let ended = local.run_until(async {
            let mut ticks = tokio::time::interval(SLICE);
            let mut all = std::pin::pin!(futures_util::future::join_all(tasks));
            loop {
                tokio::select! {
                    ended = &mut all => break ended,
                    _ = ticks.tick() => progress(run.answered.get()),
                }
            }
        });
        let mut broken = None;
        for ended in ended.await {
            match ended {
                Ok(Ok(client)) => clients.push(client),
                Ok(Err(why)) => broken = Some(why),
                Err(error) => broken = Some(error.to_string()),
            }
        }
        if let Some(why) = broken {
            return Err(why);
        }
        let elapsed = match until {
            Until::Operations(_) | Until::Arrivals { .. } => run.began.elapsed(),
            Until::Elapsed(length) => length,
        };
        let (store_cpu, own_cpu) = (cpu_of(store).saturating_sub(store_cpu), own_cpu() - own);
        let machine = machine_cpu() - machine;
        let run = Rc::into_inner(run).ok_or("a client goes on after its end")?;
        let operations = run.answered.get();
        let other_cpu = machine.saturating_sub(store_cpu + own_cpu);
        Ok(Measured {
            operations,
            elapsed,
            store_cpu,
            own_cpu,
            other_cpu,
            ..run.measured.into_inner()
        })
    }

    /// Puts every key once, in ascending order.
    ///
    /// # Errors
    /// A connection has broken, or a put has failed.
    pub async fn fill(&mut self, progress: impl Fn(u64)) -> Result<Measured, String> {
        self.ascending.set(0);
        let (keys, clients) = (self.load.keys, self.load.clients.max(1));
        let calls = FILL_CALLS.min(FILL_BYTES / self.load.value_length.max(1));
        let pipeline = self.load.pipeline.max(calls / clients).max(1);
        let load = Load { reads: 0.0, choice: Choice::Ascending, pipeline, ..(*self.load).clone() };
        let usual = std::mem::replace(&mut self.load, Rc::new(load));
        let mut choosers = Vec::new();
        for client in &mut self.clients {
            let next = Rc::clone(&self.ascending);
            let all = Chooser::new(Choice::Ascending, keys, 0, next);
            choosers.push(std::mem::replace(&mut client.chooser, all));
        }
        let measured = self.run(Until::Operations(keys), &[], progress).await;
        self.load = usual;
        for (client, chooser) in self.clients.iter_mut().zip(choosers) {
            client.chooser = chooser;
        }
        let measured = measured?;
        match &measured.why {
            Some(why) => Err(format!("{} puts have failed: {why}", measured.failed)),
            None => Ok(measured),
        }
    }
}

impl<C: Connection> Client<C> {
    async fn work<T: Target<Connection = C>>(
        mut self,
        target: Rc<T>,
        load: Rc<Load>,
        checker: Rc<RefCell<Checker>>,
        writes: Rc<Cell<u64>>,
        run: Rc<Run>,
    ) -> Result<Client<C>, String> {
        let mut pending = VecDeque::with_capacity(load.pipeline);
        let mut value = Vec::new();
        loop {
            let mut result = Ok(());
            while result.is_ok() && pending.len() < load.pipeline {
                let Some(began) = run.next().await else { break };
                let number = self.chooser.key();
                let key = key(number);
                let write = (!self.chooser.chance(load.reads)).then(|| {
                    writes.set(writes.get() + 1);
                    writes.get()
                });
                let floor = checker.borrow().floor(number);
                result = match (write, load.scan) {
                    (Some(write), _) => {
                        fill(&mut value, number, write, load.value_length);
                        self.connection.send(&Call::Put { key: &key, value: &value })
                    }
                    (None, Some(limit)) => self.connection.send(&Call::Scan { from: &key, limit }),
                    (None, None) => self.connection.send(&Call::Get { key: &key }),
                };
                pending.push_back(Pending { floor, number, write, began });
            }
            if pending.is_empty() {
                return Ok(self);
            }
            let answer = match result {
                Ok(()) => self.connection.receive().await,
                Err(why) => Err(why),
            };
            match answer {
                Ok(answer) => {
                    let Some(pending) = pending.pop_front() else { continue };
                    take(&run, &checker, &load, pending, answer);
                }
                Err(why) if load.may_break => {
                    run.failed(pending.len() as u64, why);
                    pending.clear();
                    self.connect_again(&*target, load.clients).await?;
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// To the next server that lets it.
    #[expect(clippy::disallowed_methods, reason = "it gives up at some time")]
    async fn connect_again<T: Target<Connection = C>>(
        &mut self,
        target: &T,
        clients: usize,
    ) -> Result<(), String> {
        let began = Instant::now();
        for attempt in 1.. {
            // Past all clients' own numbers, but in step with them, so that each begins elsewhere.
            match target.connect(self.number + attempt).await {
                Ok(connection) => {
                    self.connection = connection;
                    return Ok(());
                }
                Err(why) if began.elapsed() > PATIENCE => return Err(why),
                // All were tried.
                Err(_) if attempt % clients.max(2) == 0 => tokio::time::sleep(RECONNECT).await,
                Err(_) => {}
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn take(run: &Run, checker: &RefCell<Checker>, load: &Load, pending: Pending, answer: Answer) {
    let now = Instant::now();
    let Pending { floor, number, write, began } = pending;
    let mut checker = checker.borrow_mut();
    match (answer, write) {
        (Answer::Failed(why), _) => return run.failed(1, why),
        (Answer::Put(order), Some(write)) => checker.put(number, write, order),
        (Answer::Got(found), None) => checker.got(floor, found.as_ref()),
        (Answer::Scanned(entries), None) => {
            checker.scanned(floor, load.scan.unwrap_or(0), &entries);
        }
        (answer, _) => checker.odd(floor, &answer),
    }
    run.succeeded(write.is_some(), began, now);
}

#[cfg(test)]
mod tests {
    use super::super::target::{Call, Connection, Found};
    use super::*;

    /// A store that takes its time over each call and holds nothing.
    struct Slow;

    const EACH: Duration = Duration::from_millis(10);

    impl Target for Slow {
        type Connection = Slow;

        async fn connect(&self, _: usize) -> Result<Slow, String> {
            Ok(Slow)
        }
    }

    impl Connection for Slow {
        fn send(&mut self, _: &Call<'_>) -> Result<(), String> {
            Ok(())
        }

        async fn receive(&mut self) -> Result<Answer, String> {
            tokio::time::sleep(EACH).await;
            Ok(Answer::Got(None::<Found>))
        }
    }

    /// A store that cannot keep up hides that from clients that wait for it, but not from calls that come whatever happens.
    #[test]
    fn a_call_that_had_to_wait_its_turn_counts_from_when_it_was_due() {
        let load = Load {
            clients: 1,
            pipeline: 1,
            reads: 1.0,
            scan: None,
            keys: 1,
            choice: Choice::Uniform,
            value_length: 16,
            may_break: false,
            seed: 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let measured = |until| {
            let checker = Rc::new(RefCell::new(Checker::new(1, 16, true)));
            let load = load.clone();
            let run = async move {
                let mut driver = Driver::connect(Rc::new(Slow), load, checker).await?;
                driver.run(until, &[], |_| {}).await
            };
            match runtime.as_ref().map(|runtime| runtime.block_on(run)) {
                Ok(Ok(measured)) => measured,
                other => panic!("{other:?}"),
            }
        };
        let closed = measured(Until::Elapsed(Duration::from_millis(300)));
        // Three times as many calls as it can answer.
        let open = measured(Until::Arrivals { rate: 300.0, length: Duration::from_millis(300) });
        let p50 =
            |measured: &Measured| Duration::from_micros(measured.reads.value_at_quantile(0.5));
        assert!(
            p50(&closed) >= EACH && p50(&open) >= 8 * EACH,
            "{:?}, {:?}",
            p50(&closed),
            p50(&open)
        );
        assert!(open.operations > 60 && open.elapsed >= EACH * 60, "{open:?}");
    }
}
