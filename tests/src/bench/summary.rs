//! The aims of a fleet beside what the last runs found.

use super::claims::ClaimsFigures;
use super::plan::PlanFigures;
use super::queue_figures::QueueFigures;
use super::record::Figures as _;
use super::scale_figures::{SHARE_MIN, ScaleFigures};
use crate::table::Table;

/// One aim, what was found, and whether that meets it.
type Aim = (String, String, bool);

/// The table of all aims, in Markdown.
///
/// # Errors
/// If something was not measured yet.
pub fn summary() -> anyhow::Result<String> {
    let mut table = Table::new(&["aim", "found", ""]);
    let aims = scale(&ScaleFigures::kept()?)
        .into_iter()
        .chain(claims(&ClaimsFigures::kept()?))
        .chain(plan(&PlanFigures::kept()?))
        .chain(queue(&QueueFigures::kept()?));
    for (aim, found, is_met) in aims {
        let verdict = if is_met { "met" } else { "**missed**" };
        table.row(&[aim, found, verdict.to_owned()]);
    }
    Ok(table.to_string())
}

fn scale(figures: &ScaleFigures) -> [Aim; 2] {
    let most = figures.runs.last();
    let workers = most.map_or(0, |run| run.workers);
    let least = figures.runs.iter().map(|run| figures.share(run));
    let least = least.fold(f64::INFINITY, f64::min);
    let tails = figures.runs.iter().map(|run| run.tail_s / run.wall_s);
    let tail = tails.fold(0.0, f64::max);
    [
        (
            format!("{workers} workers and fewer reach at least {SHARE_MIN} N of one"),
            format!("at least {least:.3} N"),
            least >= SHARE_MIN,
        ),
        (
            "from the first idle worker to the end at most 5 % of the job".to_owned(),
            format!("at most {:.1} %", tail * 100.0),
            tail <= 0.05,
        ),
    ]
}

fn claims(figures: &ClaimsFigures) -> [Aim; 2] {
    let (alone, held) = (figures.tasks_per_s(), figures.held_tasks_per_s());
    [
        (
            "at least 2,000 tasks/s claimed and completed, 3,000 to aim for".to_owned(),
            format!("{alone:.0}"),
            alone >= 2000.0,
        ),
        (
            "the same while a foreign transaction stays open for minutes".to_owned(),
            format!("{held:.0} at the end"),
            held >= 2000.0,
        ),
    ]
}

fn plan(figures: &PlanFigures) -> [Aim; 2] {
    let (wall, peak) = (figures.wall_s(), figures.peak_mib());
    [
        (
            "91,000 tensors in 3 × 163 files planned within 5 s".to_owned(),
            format!("{wall:.1} s"),
            wall <= 5.0,
        ),
        (
            "the coordinator's memory at most 200 MiB meanwhile".to_owned(),
            format!("{peak:.0} MiB"),
            peak <= 200.0,
        ),
    ]
}

fn queue(figures: &QueueFigures) -> [Aim; 2] {
    let (off, slowest) = (figures.furthest_off(), figures.slowest_p99_ms());
    [
        (
            "each tenant's share within 10 % of its weight".to_owned(),
            format!("within {:.1} %", off * 100.0),
            off <= 0.1,
        ),
        (
            "p99 of lists and watches at most 50 ms under 1,000 jobs".to_owned(),
            format!("at most {slowest:.0} ms"),
            slowest <= 50.0,
        ),
    ]
}
