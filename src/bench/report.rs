//! Figures of several rounds, for people and for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{Measured, histogram};

/// Median and bounds of several rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the rounds gave less.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these rounds; zeroes of none.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = rounds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Spread::default();
        };
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Spread { median: low.midpoint(high), min: *min, max: *max }
    }
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl Latency {
    /// Of a histogram in microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let max = histogram.max();
        Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999), max }
    }
}

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Calls that succeeded.
    pub operations: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Why the first of them did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Calls a second.
    pub rate: f64,
    /// Of all calls.
    pub latency: Latency,
    /// Of reads.
    pub reads: Latency,
    /// Of writes.
    pub writes: Latency,
    /// Processor time of the store's processes, microseconds a call.
    pub store_cpu: f64,
    /// Processor time of the generator, microseconds a call.
    pub own_cpu: f64,
    /// Processors that worked for neither, on average: noise.
    pub other: f64,
}

impl Round {
    /// What a run has measured.
    pub fn of(measured: &Measured) -> Round {
        let mut all = histogram();
        // They have the same bounds.
        let _ = all.add(&measured.reads);
        let _ = all.add(&measured.writes);
        let seconds = measured.elapsed.as_secs_f64();
        let operations = measured.operations;
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (operations.max(1) as f64);
        Round {
            operations,
            failed: measured.failed,
            why: measured.why.clone(),
            seconds,
            rate: operations as f64 / seconds,
            latency: Latency::of(&all),
            reads: Latency::of(&measured.reads),
            writes: Latency::of(&measured.writes),
            store_cpu: each(measured.store_cpu),
            own_cpu: each(measured.own_cpu),
            other: measured.other_cpu.as_secs_f64() / seconds,
        }
    }
}

/// A setting and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Calls a second.
    pub rate: Spread,
    /// Median of the rounds' percentiles, in microseconds.
    pub latency: Latency,
    /// The same of reads alone.
    pub reads: Latency,
    /// The same of writes alone.
    pub writes: Latency,
    /// Processor time of the store's processes, microseconds a call.
    pub store_cpu: Spread,
    /// Processor time of the generator, microseconds a call.
    pub own_cpu: Spread,
    /// Syncs of all servers for each write, over all rounds, if they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs_per_write: Option<f64>,
    /// Each round.
    pub rounds: Vec<Round>,
}

impl Row {
    /// Of these rounds.
    pub fn of(name: String, rounds: Vec<Round>) -> Row {
        let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
        let latency = |of: fn(&Round) -> Latency| {
            let median = |part: fn(&Latency) -> u64| {
                Spread::of(rounds.iter().map(|round| part(&of(round)) as f64)).median as u64
            };
            Latency {
                p50: median(|l| l.p50),
                p95: median(|l| l.p95),
                p99: median(|l| l.p99),
                p999: median(|l| l.p999),
                max: median(|l| l.max),
            }
        };
        Row {
            name,
            rate: spread(|round| round.rate),
            latency: latency(|round| round.latency),
            reads: latency(|round| round.reads),
            writes: latency(|round| round.writes),
            store_cpu: spread(|round| round.store_cpu),
            own_cpu: spread(|round| round.own_cpu),
            syncs_per_write: None,
            rounds,
        }
    }

    /// Calls that failed, over all rounds.
    pub fn failed(&self) -> u64 {
        self.rounds.iter().map(|round| round.failed).sum()
    }
}

/// Rows as people read them: rates as median (least to greatest), latencies in milliseconds.
pub fn table(rows: &[Row]) -> Table {
    let mut table = plain_table([
        "",
        "ops/s",
        "least–most",
        "p50 ms",
        "p95",
        "p99",
        "p99.9",
        "max",
        "servers µs/op",
        "generator",
        "other",
        "syncs/write",
    ]);
    for row in rows {
        let other = Spread::of(row.rounds.iter().map(|round| round.other)).median;
        table.add_row([
            row.name.clone(),
            thousands(row.rate.median),
            format!("{}–{}", thousands(row.rate.min), thousands(row.rate.max)),
            millis(row.latency.p50),
            millis(row.latency.p95),
            millis(row.latency.p99),
            millis(row.latency.p999),
            millis(row.latency.max),
            format!("{:.1}", row.store_cpu.median),
            format!("{:.1}", row.own_cpu.median),
            format!("{other:.2}"),
            row.syncs_per_write.map(|syncs| format!("{syncs:.2}")).unwrap_or_default(),
        ]);
    }
    table
}

/// A table with this head, numbers to the right.
pub fn plain_table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Microseconds as milliseconds, with as many digits as say something.
pub fn millis(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{:.2}", micros as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", micros as f64 / 1e3),
        _ => format!("{}", micros / 1000),
    }
}

/// A whole number with commas.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        let spread = Spread::of([3.0, 1.0, 10.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 10.0));
        assert_eq!(Spread::of([7.0]).median, 7.0);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(
            (millis(312), millis(12_345), millis(123_456)),
            ("0.31".into(), "12.3".into(), "123".into())
        );
    }
}
