//! The progress bar of a merge, on stderr where that is a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chatvec_core::job::JobState;
use chatvec_proto::convert::JobView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::text;

/// Between two drawings without news, so that the time goes on.
const TICK: Duration = Duration::from_millis(200);

/// A bar, or nothing. Clones are the same bar.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Bytes that were done when the work began to be seen: what an earlier
    /// run did counts in no rate. Set with the plan.
    first: Arc<OnceLock<u64>>,
}

impl Progress {
    /// A bar if stderr is a terminal.
    pub(super) fn on_stderr() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(planning_style());
            bar.set_message("planning");
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            bar,
            first: Arc::default(),
        }
    }

    /// Whether there is a bar.
    pub(super) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows a job as it stands.
    pub(super) fn show(&self, job: &JobView) {
        let Some(bar) = &self.bar else { return };
        let progress = &job.progress;
        bar.set_message(phase(job.state));
        if progress.bytes_total == 0 {
            return;
        }
        if self.first.set(progress.bytes_done).is_ok() {
            bar.set_style(working_style(Arc::clone(&self.first)));
            bar.set_length(progress.bytes_total);
            bar.reset_elapsed();
        }
        bar.set_position(progress.bytes_done);
    }

    /// Tells something above the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| super::output::note(text)),
            None => super::output::note(text),
        }
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn planning_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").expect("the template is well-formed")
}

fn working_style(first: Arc<OnceLock<u64>>) -> ProgressStyle {
    let sizes = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let total = text::size(state.len().unwrap_or(0));
        // A terminal that is gone needs no text.
        let _gone = write!(out, "{} of {total}", text::size(state.pos()));
    };
    let pace = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let first = first.get().copied().unwrap_or(0);
        let total = state.len().unwrap_or(0);
        let _gone = out.write_str(&pace(first, state.pos(), total, state.elapsed()));
    };
    ProgressStyle::with_template("{msg:10} [{wide_bar}] {percent:>3}%  {sizes}{pace}")
        .expect("the template is well-formed")
        .with_key("sizes", sizes)
        .with_key("pace", pace)
        .progress_chars("=> ")
}

/// Rate and time left by the mean so far; nothing before anything is known.
fn pace(first: u64, done: u64, total: u64, elapsed: Duration) -> String {
    let rate = text::rate(done.saturating_sub(first), elapsed);
    if rate == 0 || done >= total {
        return String::new();
    }
    let left = Duration::from_secs((total - done).div_ceil(rate));
    format!(
        "  {}/s  {} left",
        text::size(rate),
        text::whole_seconds(left)
    )
}

fn phase(state: JobState) -> &'static str {
    match state {
        JobState::Planning => "planning",
        JobState::Queued => "waiting",
        JobState::Running => "merging",
        JobState::Committing => "publishing",
        JobState::Succeeded => "published",
        JobState::Failed => "failed",
        JobState::Cancelling | JobState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_did_counts_in_no_rate() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            pace(1_000_000, 2_000_000, 5_000_000, ten),
            "  100.00 kB/s  30 s left"
        );
        assert_eq!(pace(0, 0, 10, ten), "");
        assert_eq!(pace(5, 5, 10, Duration::ZERO), "");
        assert_eq!(pace(0, 10, 10, ten), "");
    }
}
