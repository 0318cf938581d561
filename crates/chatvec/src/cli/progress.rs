//! The progress bar of a merge, on stderr where that is a terminal.

use std::io::{self, IsTerminal as _};
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
}

impl Progress {
    /// A bar if stderr is a terminal.
    pub(super) fn on_stderr() -> Self {
        if !io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style());
        bar.enable_steady_tick(TICK);
        Self { bar: Some(bar) }
    }

    /// Whether there is a bar.
    pub(super) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows a job as it stands.
    pub(super) fn show(&self, job: &JobView) {
        let Some(bar) = &self.bar else { return };
        bar.set_message(phase(job.state));
        bar.set_length(job.progress.bytes_total);
        bar.set_position(job.progress.bytes_done);
    }

    /// Begins at what an earlier run did, which counts in no rate.
    pub(super) fn start_at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.reset_eta();
        }
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

fn style() -> ProgressStyle {
    let sizes = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let total = text::size(state.len().unwrap_or(0));
        // A terminal that is gone needs no text.
        let _gone = write!(out, "{} of {total}", text::size(state.pos()));
    };
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _gone = write!(out, "{}/s", text::size(state.per_sec() as u64));
    };
    ProgressStyle::with_template("{msg:10} [{wide_bar}] {percent:>3}%  {sizes}  {rate}  {eta} left")
        .expect("the template is well-formed")
        .with_key("sizes", sizes)
        .with_key("rate", rate)
        .progress_chars("=> ")
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
