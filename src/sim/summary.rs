//! What a run, or many, have exercised.

use std::fmt;

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
    /// Reads that found out.
    reads_ok,
    /// Reads that did not.
    reads_failed,
    /// Keys read by scans.
    scanned,
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
    /// Syncs that were made to fail.
    failed_syncs,
    /// Servers that stopped for it.
    stops,
    /// Bits turned in logs at rest.
    flips,
    /// Starts that found damage.
    damage_found,
    /// Folders replaced by older copies.
    old_copies,
    /// Of them noticed.
    old_copies_found,
    /// Cuts of links.
    cuts,
    /// Clocks that jumped.
    jumps,
    /// Batches on disks.
    batches,
    /// Segments compacted.
    compactions,
    /// Hints kept.
    hints_kept,
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
    /// Milliseconds of virtual time.
    virtual_ms,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.counts() {
            writeln!(f, "{:>16}  {count}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
