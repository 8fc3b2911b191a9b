//! Whether answers are what a true store could have given, as far as one generator sees it.
//!
//! Every value says what it is (see [`super::keys`]), so a value of another key, or one that was never written, is seen at once. Where
//! the store tells the order of writes, no read may answer with something older than what had been acknowledged when it was
//! sent, nor give one write two contents; that needs levels at which a majority acknowledges and a majority answers.
//! It is no decision about linearizability (that is [`crate::judge`]'s), but cheap enough to look at every answer.

use super::keys::{key, number, write_of};
use super::target::{Answer, Found, Order};

/// How many complaints are kept in words.
const KEPT: usize = 5;

/// What is known of every key.
#[derive(Debug)]
pub struct Checker {
    /// By number.
    known: Vec<Known>,
    /// Reads must be as new as what was acknowledged before.
    fresh: bool,
    value_length: usize,
    scratch: Vec<u8>,
    complaints: Complaints,
}

/// Wrong answers.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    /// How many.
    pub count: u64,
    /// The first of them, in words.
    pub first: Vec<String>,
}

impl Complaints {
    /// Counts those of another run, too.
    pub fn add(&mut self, other: Complaints) {
        self.count += other.count;
        self.first.extend(other.first);
    }
}

/// The newest write of a key that was acknowledged or read.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    order: Order,
    write: u64,
    /// It holds a value for good.
    there: bool,
}

/// What was known of a key when a call was sent.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    number: u64,
    order: Order,
    there: bool,
}

impl Checker {
    /// Of keys with numbers below `keys`. `fresh`: reads and writes meet in a majority.
    pub fn new(keys: u64, value_length: usize, fresh: bool) -> Checker {
        Checker {
            known: vec![Known::default(); keys as usize],
            fresh,
            value_length,
            scratch: Vec::new(),
            complaints: Complaints::default(),
        }
    }

    /// To be asked for when a call is sent.
    pub fn floor(&self, number: u64) -> Floor {
        let Known { order, there, .. } = self.known[number as usize];
        Floor { number, order, there }
    }

    /// A write of that number was acknowledged.
    pub fn put(&mut self, number: u64, write: u64, order: Option<Order>) {
        let known = &mut self.known[number as usize];
        known.there = true;
        if let Some(order) = order
            && order > known.order
        {
            (known.order, known.write) = (order, write);
        }
    }

    /// A read was answered.
    pub fn got(&mut self, floor: Floor, found: Option<&Found>) {
        let Floor { number, order: floor, there } = floor;
        let Some(Found { value, order }) = found else {
            if there && self.fresh {
                self.complain(number, "has a value, but none was found");
            }
            return;
        };
        let Some(write) = write_of(value, number, self.value_length, &mut self.scratch) else {
            self.complain(number, "was answered with a value that was never written to it");
            return;
        };
        let Some(order) = *order else { return };
        if self.fresh && order < floor {
            self.complain(number, "was answered with a value older than one acknowledged before");
        }
        let known = &mut self.known[number as usize];
        if order > known.order {
            (known.order, known.write) = (order, write);
        } else if order == known.order && write != known.write {
            self.complain(number, "has had two values under one version");
        }
    }

    /// A scan from that key on was answered.
    pub fn scanned(&mut self, floor: Floor, limit: usize, entries: &[(bytes::Bytes, Found)]) {
        let first = floor.number;
        let expected = (self.known.len() as u64 - first).min(limit as u64);
        if self.fresh && (entries.len() as u64) < expected {
            self.complain(
                first,
                &format!("begins a scan of {expected} keys that gave {}", entries.len()),
            );
        }
        for ((found, value), expected) in entries.iter().zip(first..) {
            if number(found) != Some(expected) {
                self.complain(expected, "is not where a scan should have found it");
                return;
            }
            // What was acknowledged while the scan ran may be in it or not.
            let floor = Floor { number: expected, order: Order::default(), there: true };
            self.got(floor, Some(value));
        }
    }

    /// An answer that does not belong to its call.
    pub fn odd(&mut self, floor: Floor, answer: &Answer) {
        self.complain(floor.number, &format!("was answered with something else: {answer:?}"));
    }

    /// All that was wrong so far.
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    fn complain(&mut self, number: u64, what: &str) {
        self.complaints.count += 1;
        if self.complaints.first.len() < KEPT {
            let name = key(number);
            self.complaints.first.push(format!("key {} {what}", name.escape_ascii()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::keys::fill;
    use super::*;

    fn found(number: u64, write: u64, order: u128) -> Found {
        let mut value = Vec::new();
        fill(&mut value, number, write, 40);
        Found { value: Bytes::from(value), order: Some(Order(order)) }
    }

    fn complaint(checker: &Checker) -> String {
        checker.complaints().first.first().cloned().unwrap_or_default()
    }

    #[test]
    fn stale_lost_foreign_and_double_values_are_seen() {
        type Case = (&'static str, fn(&mut Checker));
        let wrong: [Case; 4] = [
            ("older than", |checker| {
                checker.put(3, 2, Some(Order(20)));
                let floor = checker.floor(3);
                checker.got(floor, Some(&found(3, 1, 10)));
            }),
            ("none was found", |checker| {
                checker.put(3, 2, Some(Order(20)));
                let floor = checker.floor(3);
                checker.got(floor, None);
            }),
            ("never written", |checker| {
                let floor = checker.floor(3);
                checker.got(floor, Some(&found(4, 1, 10)));
            }),
            ("two values", |checker| {
                let floor = checker.floor(3);
                checker.got(floor, Some(&found(3, 1, 10)));
                checker.got(floor, Some(&found(3, 2, 10)));
            }),
        ];
        for (words, act) in wrong {
            let mut checker = Checker::new(10, 40, true);
            act(&mut checker);
            assert!(complaint(&checker).contains(words), "{words}: {}", complaint(&checker));
        }
    }

    #[test]
    fn what_was_acknowledged_after_a_read_was_sent_may_be_missing() {
        let mut checker = Checker::new(10, 40, true);
        checker.put(3, 1, Some(Order(10)));
        let floor = checker.floor(3);
        checker.put(3, 2, Some(Order(20)));
        checker.got(floor, Some(&found(3, 1, 10)));
        checker.got(floor, Some(&found(3, 2, 20)));
        assert_eq!(checker.complaints().count, 0);
        let mut lax = Checker::new(10, 40, false);
        lax.put(3, 2, Some(Order(20)));
        let floor = lax.floor(3);
        lax.got(floor, None);
        lax.got(floor, Some(&found(3, 1, 10)));
        assert_eq!(lax.complaints().count, 0, "at ONE");
    }

    #[test]
    fn a_scan_that_leaves_a_key_out_is_seen() {
        let entry = |number| (Bytes::copy_from_slice(&key(number)), found(number, 1, 5));
        let scan = |numbers: &[u64]| {
            let mut checker = Checker::new(10, 40, true);
            let entries: Vec<_> = numbers.iter().copied().map(entry).collect();
            let floor = checker.floor(6);
            checker.scanned(floor, 3, &entries);
            complaint(&checker)
        };
        assert_eq!(scan(&[6, 7, 8]), "");
        assert!(scan(&[6, 8, 9]).contains("not where"));
        assert!(scan(&[6, 7]).contains("that gave 2"));
    }
}
