//! What a run, or many, have exercised.

use std::fmt;

use super::Fault;

macro_rules! summary {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened. A run that did nothing of something proves nothing about it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Summary {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Summary {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &Summary) {
                $(self.$name += other.$name;)*
            }

            /// All counts by name.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

summary! {
    /// Runs.
    runs,
    /// Writes that succeeded.
    writes_ok,
    /// Writes refused for sure.
    writes_refused,
    /// Writes whose outcome stayed unknown.
    writes_unknown,
    /// Writes sent again.
    retries,
    /// Writes under a ticket that was used for another value.
    tickets_reused,
    /// Of them refused for that.
    tickets_refused,
    /// Reads that found out.
    reads_ok,
    /// Reads that did not.
    reads_failed,
    /// Keys read by scans.
    scanned,
    /// Of them at ONE.
    scanned_at_one,
    /// Clusters of another shape than the demo's.
    other_shapes,
    /// Runs of many more operations than usual.
    long_runs,
    /// Clusters that settled by themselves.
    settled,
    /// Messages sent.
    messages,
    /// Of them lost, also to cuts.
    lost,
    /// Come twice.
    twice,
    /// Servers crashed.
    crashes,
    /// Disks lost.
    wipes,
    /// Servers that stood still.
    pauses,
    /// Disks that were full.
    full_disks,
    /// Of them read-only.
    read_only_disks,
    /// Servers started on a disk that may have no room.
    full_starts,
    /// Syncs that were made to fail.
    failed_syncs,
    /// Servers that stopped for it.
    stops,
    /// Bits turned in logs at rest.
    flips,
    /// Of them in segments that were written to.
    flips_in_last,
    /// Starts that found damage.
    damage_found,
    /// Damaged segments that a scrub found, and no start or read before it.
    scrubbed,
    /// Folders replaced by older copies.
    old_copies,
    /// Of them noticed.
    old_copies_found,
    /// Cuts of links.
    cuts,
    /// Clocks that jumped.
    jumps,
    /// Clocks that were set to another year.
    years,
    /// Batches on disks.
    batches,
    /// Segments compacted.
    compactions,
    /// Reads that waited for others to come from the disk.
    loads_put_off,
    /// Hints kept.
    hints_kept,
    /// Answered operations that ended early, as too many went on.
    let_go,
    /// Stores that were refused, as too many waited for the disk.
    overloaded,
    /// Marks kept in the place of hints.
    marks,
    /// Hints delivered.
    hints_delivered,
    /// Reads that wrote back.
    written_back,
    /// Cells mended by comparison.
    repaired,
    /// Servers rebuilt or joined.
    joins,
    /// Operations judged.
    judged,
    /// Answers at AVAILABLE that had less than QUORUM.
    fallen_back,
    /// Disks that hung.
    hung_disks,
    /// Servers that knew of it in time.
    hangs_named,
    /// Servers that knew at the end whose clock was off by years.
    clocks_named,
    /// Milliseconds of virtual time.
    virtual_ms,
}

impl Summary {
    /// What runs in which these faults occur should have exercised, and have not.
    pub fn missing(&self, faults: &[Fault]) -> Vec<&'static str> {
        let mut needed = vec![
            ("writes that succeeded", self.writes_ok),
            ("reads that found out", self.reads_ok),
            ("scans", self.scanned),
            ("scans at ONE", self.scanned_at_one),
            ("compactions", self.compactions),
            ("reads that waited for others to come from the disk", self.loads_put_off),
        ];
        for fault in faults {
            needed.push(match fault {
                Fault::Crash => ("crashes", self.crashes),
                Fault::Cut => ("cuts", self.cuts),
                Fault::Jump => ("jumps of clocks", self.jumps),
                Fault::Pause => ("pauses", self.pauses),
                Fault::Full => ("full disks", self.full_disks),
                Fault::Sync => ("servers that stopped for a failed sync", self.stops),
                Fault::Wipe => ("lost disks", self.wipes),
                Fault::Flip => ("damage that was found", self.damage_found),
                Fault::Old => ("older copies that were noticed", self.old_copies_found),
                Fault::Hang => ("disks that hung", self.hung_disks),
                Fault::Years => ("clocks off by years", self.years),
            });
        }
        if faults.contains(&Fault::Years) {
            needed.push(("servers that named a bad clock", self.clocks_named));
        }
        let crashes_or_cuts = faults.iter().any(|f| matches!(f, Fault::Crash | Fault::Cut));
        if crashes_or_cuts {
            needed.push(("writes sent again", self.retries));
            needed.push(("hints delivered", self.hints_delivered));
            needed.push(("reads that wrote back", self.written_back));
        }
        let missing = needed.into_iter().filter(|(_, count)| *count == 0);
        missing.map(|(what, _)| what).collect()
    }
}

impl Summary {
    /// The same of runs whose shapes are left to their seeds.
    pub fn missing_shapes(&self, faults: &[Fault]) -> Vec<&'static str> {
        let mut needed =
            vec![("clusters of other shapes", self.other_shapes), ("long runs", self.long_runs)];
        if faults.iter().any(|f| matches!(f, Fault::Crash | Fault::Cut)) {
            needed.push(("marks in the place of hints", self.marks));
        }
        let missing = needed.into_iter().filter(|(_, count)| *count == 0);
        missing.map(|(what, _)| what).collect()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.counts() {
            writeln!(f, "{:>16}  {count}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
