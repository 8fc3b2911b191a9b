//! What a benchmark says while it works: bars, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where bars are drawn: standard error, if that is a terminal and they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Draw them.
    pub wanted: bool,
}

impl Progress {
    /// Something with a known number of steps.
    pub fn counted(self, what: &str, steps: u64) -> ProgressBar {
        self.bar(
            ProgressBar::new(steps),
            what,
            "{msg:36} {bar:30} {human_pos}/{human_len} {per_sec}",
        )
    }

    /// Something that takes a known time; the position counts operations.
    pub fn timed(self, what: &str, length: Duration) -> ProgressBar {
        let what = format!("{what}, {} s", length.as_secs());
        self.bar(ProgressBar::no_length(), &what, "{msg:36} {spinner} {human_pos} {per_sec}")
    }

    fn bar(self, bar: ProgressBar, what: &str, template: &str) -> ProgressBar {
        if !self.wanted {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        // The templates are constants that it takes; a plain bar would do as well.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what.to_owned()).with_finish(indicatif::ProgressFinish::AndClear)
    }
}
