//! The node's task: owns the node, hands it what happens, does what it asks for.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::clock::Clock;
use super::mail::{Input, Outgoing, Route};
use super::peer::Links;
use super::storage::Orders;
use crate::model::Now;
use crate::node::{Effect, Event, Node, Notice, Urgency};
use crate::storage::Completion;

/// Inputs taken in one go. What they cause leaves together: one write a connection, one batch for the disk. Not
/// more, or the first answers would wait for the last inputs.
const MAX_TURN: usize = 256;

/// Why the node's task has ended before it was told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// For the operator.
    pub(crate) reason: String,
}

/// See the module.
pub(crate) struct Runtime {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) completions: mpsc::UnboundedReceiver<Vec<Completion>>,
    pub(crate) orders: Orders,
    pub(crate) links: Links,
}

/// The parts of a running [`Runtime`] that effects reach.
struct Hands {
    links: Links,
    orders: Orders,
    connections: BTreeMap<u32, mpsc::UnboundedSender<Outgoing>>,
    finishing: bool,
}

impl Runtime {
    /// Runs until [`Input::End`], or until the node stops.
    pub(crate) async fn run(self) -> Result<(), Stopped> {
        let Runtime { mut node, clock, mut inputs, mut completions, orders, links } = self;
        let connections = BTreeMap::new();
        let mut hands = Hands { links, orders, connections, finishing: false };
        for peer in node.peers() {
            hands.links.open(peer);
        }
        let mut batch = Vec::with_capacity(MAX_TURN);
        let mut effects = Vec::new();
        // The effects of the start come with the first step.
        node.step(clock.now(), Event::Deadline, &mut effects);
        hands.perform(&mut effects)?;
        let timer = tokio::time::sleep_until(clock.timer(clock.instant()));
        tokio::pin!(timer);
        let mut armed = clock.instant();
        loop {
            // A deadline that moves away, as most do, leaves the timer alone: it rings early and is set anew.
            let deadline = node.next_deadline();
            if let Some(deadline) = deadline
                && (deadline < armed || timer.is_elapsed())
            {
                armed = deadline;
                timer.as_mut().reset(clock.timer(deadline));
            }
            tokio::select! {
                biased;
                done = completions.recv() => match done {
                    Some(done) => {
                        let now = clock.now();
                        complete(&mut node, now, done, &mut effects);
                        while let Ok(done) = completions.try_recv() {
                            complete(&mut node, now, done, &mut effects);
                        }
                    }
                    None => {
                        return Err(Stopped { reason: "the storage thread has ended".into() });
                    }
                },
                count = inputs.recv_many(&mut batch, MAX_TURN) => {
                    // Nobody is left who could ask anything.
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = &mut timer, if deadline.is_some() => {}
            }
            // Whatever woke us, whoever has come meanwhile shares the turn.
            while batch.len() < MAX_TURN
                && let Ok(input) = inputs.try_recv()
            {
                batch.push(input);
            }
            let now = clock.now();
            for input in batch.drain(..) {
                match input {
                    Input::Event(event) => node.step(now, event, &mut effects),
                    Input::End => return Ok(()),
                    other => hands.take(&node, other),
                }
            }
            if node.has_gathered() {
                node.step(now, Event::Flush, &mut effects);
            }
            if node.next_deadline().is_some_and(|deadline| deadline <= now.instant) {
                node.step(now, Event::Deadline, &mut effects);
            }
            hands.perform(&mut effects)?;
        }
    }
}

fn complete(node: &mut Node, now: Now, done: Vec<Completion>, effects: &mut Vec<Effect>) {
    for completion in done {
        node.step(now, Event::Completed(completion), effects);
    }
}

impl Hands {
    /// What concerns connections and links, not the protocol.
    fn take(&mut self, node: &Node, input: Input) {
        match input {
            Input::Opened { connection, outgoing } => {
                if self.finishing {
                    // Gone already if this fails, as below.
                    let _ = outgoing.send(Outgoing::Finish);
                }
                self.connections.insert(connection, outgoing);
            }
            Input::Closed { connection } => {
                self.connections.remove(&connection);
            }
            Input::Introduced { route, to } => {
                let hello = node.hello(to);
                // It is there: a link to it need not wait for the end of its pause.
                self.links.hurry(to);
                self.tell(route, |slot| Outgoing::Hello { slot, hello });
            }
            Input::Introduce { to, hello } => {
                // The link has given up waiting if this fails.
                let _ = hello.send(node.hello(to));
            }
            Input::Finish => {
                self.finishing = true;
                for outgoing in self.connections.values() {
                    let _ = outgoing.send(Outgoing::Finish);
                }
            }
            // Taken out before.
            Input::Event(_) | Input::End => {}
        }
    }

    /// To a connection; dropped if that is gone.
    fn tell(&self, route: Route, outgoing: impl FnOnce(u32) -> Outgoing) {
        if let Some(connection) = self.connections.get(&route.connection) {
            let _ = connection.send(outgoing(route.slot));
        }
    }

    /// Performs effects in order. Storage commands of a turn are queued together at its end: the thread that
    /// takes them works beside this one, so their order among each other is all that can be seen.
    fn perform(&mut self, effects: &mut Vec<Effect>) -> Result<(), Stopped> {
        let mut commands = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Storage(command) => commands.push(command),
                Effect::Send { to, id, request } => self.links.send(to, id, request),
                Effect::Reply { id, reply, .. } => {
                    self.tell(id.into(), |slot| Outgoing::Reply { slot, reply });
                }
                Effect::Answer { call, result } => {
                    self.tell(call.into(), |slot| Outgoing::Answer { slot, result });
                }
                Effect::Notice(Notice { urgency, text }) => log::log!(level(urgency), "{text}"),
                Effect::Stop { reason } => return Err(Stopped { reason }),
            }
        }
        if !commands.is_empty() && self.orders.send(commands).is_err() {
            return Err(Stopped { reason: "the storage thread has ended".into() });
        }
        Ok(())
    }
}

fn level(urgency: Urgency) -> log::Level {
    match urgency {
        Urgency::Info => log::Level::Info,
        Urgency::Warning => log::Level::Warn,
        Urgency::Error => log::Level::Error,
    }
}
