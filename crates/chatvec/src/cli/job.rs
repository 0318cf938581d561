//! How a job is shown.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::submission::{Priority, Tenant};
use chatvec_core::task::FailureKind;
use chatvec_proto::convert::{Condition, JobView, ProgressView, ShareView, TimeMs};
use serde::Serialize;

use super::text::{counted, printable, size, whole_seconds, write_rows, write_table};
use super::{Exit, Failure, output};

/// A job in JSON. Sizes are bytes; times are UTC by RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct JobJson {
    job_id: String,
    request_id: String,
    /// Whom it is accounted to.
    tenant: String,
    priority: u8,
    labels: BTreeMap<String, String>,
    /// `PLANNING`, `QUEUED`, `RUNNING`, `COMMITTING`, `SUCCEEDED`, `FAILED`,
    /// `CANCELLING` or `CANCELLED`.
    state: JobState,
    /// What holds it up, such as `WAITING_FOR_WORKERS`.
    conditions: Vec<&'static str>,
    /// Where the checkpoint is published.
    output: String,
    progress: ProgressJson,
    /// Why it failed.
    error: Option<ErrorJson>,
    /// Empty until planned, and in a list.
    warnings: Vec<Problem>,
    /// Raised at each change of state.
    revision: u64,
    created: String,
    ended: Option<String>,
    /// What was asked, with defaults spelled out.
    recipe: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ProgressJson {
    bytes_total: u64,
    bytes_done: u64,
    tasks_total: u64,
    tasks_ready: u64,
    tasks_leased: u64,
    tasks_done: u64,
    tasks_failed: u64,
    tasks_cancelled: u64,
    retries: u64,
    /// Over the last half minute.
    bytes_per_second: f64,
    /// At that rate; null where it cannot be told.
    seconds_left: Option<f64>,
    /// The most first.
    workers: Vec<ShareJson>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ShareJson {
    worker_id: String,
    hostname: String,
    tasks_done: u64,
    bytes_done: u64,
    tasks_leased: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ErrorJson {
    kind: FailureKind,
    problems: Vec<Problem>,
}

impl From<&JobView> for JobJson {
    fn from(job: &JobView) -> Self {
        let error = job.error.as_ref();
        let conditions = job.conditions.iter().map(|condition| condition.name());
        Self {
            job_id: job.job.0.clone(),
            request_id: job.request.0.clone(),
            tenant: job.tenant.to_string(),
            priority: job.priority.number(),
            labels: job
                .labels
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            state: job.state,
            conditions: conditions.collect(),
            output: job.recipe.output.url.clone(),
            progress: ProgressJson::from(&job.progress),
            error: error.map(|(kind, problems)| ErrorJson {
                kind: *kind,
                problems: problems.clone(),
            }),
            warnings: job.warnings.clone(),
            revision: job.revision,
            created: utc(job.created),
            ended: job.ended.map(utc),
            recipe: job.recipe.to_value(),
        }
    }
}

impl From<&ProgressView> for ProgressJson {
    fn from(progress: &ProgressView) -> Self {
        let share = |share: &ShareView| ShareJson {
            worker_id: share.worker.0.clone(),
            hostname: share.hostname.clone(),
            tasks_done: share.tasks_done,
            bytes_done: share.bytes_done,
            tasks_leased: share.tasks_leased,
        };
        Self {
            bytes_total: progress.bytes_total,
            bytes_done: progress.bytes_done,
            tasks_total: progress.tasks_total,
            tasks_ready: progress.tasks_ready,
            tasks_leased: progress.tasks_leased,
            tasks_done: progress.tasks_done,
            tasks_failed: progress.tasks_failed,
            tasks_cancelled: progress.tasks_cancelled,
            retries: progress.retries,
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress.seconds_left,
            workers: progress.workers.iter().map(share).collect(),
        }
    }
}

/// Writes a job for people.
pub(super) fn write(job: &JobView, out: &mut dyn Write) -> io::Result<()> {
    let progress = &job.progress;
    let row = |name: &str, value: String| [name.to_owned(), value];
    let mut rows = vec![
        row("job", job.job.0.clone()),
        row("state", job.state.to_string()),
        row("output", job.recipe.output.url.clone()),
    ];
    if progress.tasks_total > 0 {
        let (done, total) = (size(progress.bytes_done), size(progress.bytes_total));
        rows.push(row(
            "done",
            format!("{}, {done} of {total}", percent(progress)),
        ));
        let mut tasks = format!(
            "{} of {} done, {} running",
            progress.tasks_done, progress.tasks_total, progress.tasks_leased
        );
        if progress.retries > 0 {
            tasks.push_str(&format!(", {} retried", progress.retries));
        }
        rows.push(row("tasks", tasks));
    }
    if let Some(pace) = pace(progress) {
        rows.push(row("pace", pace));
    }
    for condition in &job.conditions {
        rows.push(row("held up", held_up(*condition).to_owned()));
    }
    rows.extend(who(job).map(|(name, value)| row(name, value)));
    rows.push(row("created", utc(job.created)));
    if let Some(ended) = job.ended {
        rows.push(row("ended", utc(ended)));
    }
    write_rows(&rows, "", out)?;
    if let Some((kind, problems)) = &job.error {
        writeln!(out, "failed: {kind}")?;
        for problem in problems {
            writeln!(out, "  {}", printable(&problem.to_string()))?;
            if let Some(hint) = &problem.hint {
                writeln!(out, "    hint: {}", printable(hint))?;
            }
        }
    }
    output::write_warnings(&job.warnings, out)?;
    let shares: Vec<_> = progress.workers.iter().map(share_row).collect();
    write_table(&counted(shares.len() as u64, "worker"), &shares, out)
}

/// Rate and time left; nothing where nothing moves.
fn pace(progress: &ProgressView) -> Option<String> {
    let left = Duration::try_from_secs_f64(progress.seconds_left?.ceil()).ok()?;
    let rate = size(progress.bytes_per_second as u64);
    Some(format!("{rate}/s, {} left", whole_seconds(left)))
}

fn held_up(condition: Condition) -> &'static str {
    match condition {
        Condition::WaitingForWorkers => "tasks wait, and no worker was seen for a minute",
    }
}

/// What the client said of the job, as far as it said something.
fn who(job: &JobView) -> impl Iterator<Item = (&'static str, String)> {
    let labels: Vec<_> = job
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let tenant = (job.tenant != Tenant::default()).then(|| ("tenant", job.tenant.to_string()));
    let priority =
        (job.priority != Priority::default()).then(|| ("priority", job.priority.to_string()));
    let labels = (!labels.is_empty()).then(|| ("labels", labels.join(" ")));
    tenant.into_iter().chain(priority).chain(labels)
}

fn share_row(share: &ShareView) -> [String; 4] {
    let name = match share.hostname.as_str() {
        "" => share.worker.0.clone(),
        hostname => format!("{hostname} {}", share.worker),
    };
    [
        name,
        counted(share.tasks_done, "task"),
        size(share.bytes_done),
        format!("{} running", share.tasks_leased),
    ]
}

/// A line of a list of jobs: id, state, share, output, time.
pub(super) fn row(job: &JobView) -> [String; 5] {
    let done = percent(&job.progress);
    [
        job.job.0.clone(),
        job.state.to_string(),
        done,
        utc(job.created),
        job.recipe.output.url.clone(),
    ]
}

/// How a command ends that waited for the job.
pub(super) fn end(job: &JobView) -> Result<Exit, Failure> {
    match (job.state, &job.error) {
        (JobState::Failed, Some((kind, problems))) => Err(Failure::Problems {
            exit: Exit::of_kind(*kind),
            problems: problems.clone(),
        }),
        (JobState::Failed | JobState::Cancelled, _) => Ok(Exit::Failed),
        _ => Ok(Exit::Success),
    }
}

/// Rounded down: 100% is said of nothing that is not whole.
fn percent(progress: &ProgressView) -> String {
    let share = u128::from(progress.bytes_done) * 100;
    match share.checked_div(u128::from(progress.bytes_total)) {
        Some(percent) => format!("{percent}%"),
        None => "-".to_owned(),
    }
}

/// UTC by RFC 3339, to the second. The date is Howard Hinnant's
/// `civil_from_days` (chrono-Compatible Low-Level Date Algorithms): years that
/// begin in March put the leap day last.
pub(super) fn utc(time: TimeMs) -> String {
    let seconds = time.0.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use chatvec_core::ids::{JobId, RequestId, WorkerId};
    use chatvec_core::recipe::Recipe;
    use chatvec_core::submission::Labels;

    use super::*;

    fn job(state: JobState) -> JobView {
        let recipe =
            "{cp: /cp, vectors: [{chat: /chat, base: /base, lambda: 1}], output: {url: /out}}";
        JobView {
            job: JobId("j1".to_owned()),
            request: RequestId("r1".to_owned()),
            state,
            recipe: Recipe::parse(recipe).unwrap().recipe,
            error: None,
            progress: ProgressView {
                bytes_total: 2000,
                bytes_done: 1999,
                tasks_total: 4,
                tasks_done: 3,
                tasks_leased: 1,
                ..ProgressView::default()
            },
            revision: 3,
            created: TimeMs(1_709_251_199_999),
            ended: None,
            labels: Labels::default(),
            priority: Priority::default(),
            tenant: Tenant::default(),
            warnings: Vec::new(),
            conditions: Vec::new(),
        }
    }

    fn failed(kind: FailureKind) -> JobView {
        let problems = vec![Problem::new("cp", "no such folder").with_hint("give the folder")];
        JobView {
            error: Some((kind, problems)),
            ended: Some(TimeMs(0)),
            ..job(JobState::Failed)
        }
    }

    #[test]
    fn times_are_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc(TimeMs(ms)), text);
        }
    }

    #[test]
    fn a_job_is_shown_with_its_progress_and_its_problems() {
        let mut out = Vec::new();
        write(&failed(FailureKind::BadInput), &mut out).unwrap();
        let wanted = "job      j1
state    FAILED
output   /out
done     99%, 2.00 kB of 2.00 kB
tasks    3 of 4 done, 1 running
created  2024-02-29T23:59:59Z
ended    1970-01-01T00:00:00Z
failed: BAD_INPUT
  cp: no such folder
    hint: give the folder
";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_job_of_a_fleet_is_shown_with_its_pace_and_its_workers() {
        let mut running = job(JobState::Running);
        running.progress.bytes_per_second = 0.5;
        running.progress.seconds_left = Some(2.0);
        running.progress.workers = vec![ShareView {
            worker: WorkerId("w1".to_owned()),
            hostname: "gpu-3".to_owned(),
            tasks_done: 3,
            bytes_done: 1500,
            tasks_leased: 1,
        }];
        running.tenant = Tenant::parse("team-a").unwrap();
        running.priority = Priority::new(70).unwrap();
        running.labels = Labels::parse([("model".to_owned(), "m1".to_owned())]).unwrap();
        running.conditions = vec![Condition::WaitingForWorkers];
        running.warnings = vec![Problem::new("chat", "is odd")];
        let mut out = Vec::new();
        write(&running, &mut out).unwrap();
        let wanted = "job       j1
state     RUNNING
output    /out
done      99%, 2.00 kB of 2.00 kB
tasks     3 of 4 done, 1 running
pace      0 B/s, 2 s left
held up   tasks wait, and no worker was seen for a minute
tenant    team-a
priority  70
labels    model=m1
created   2024-02-29T23:59:59Z
warning: chat: is odd

1 worker
  gpu-3 w1  3 tasks  1.50 kB  1 running
";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        let json = serde_json::to_value(JobJson::from(&running)).unwrap();
        assert_eq!(json["labels"]["model"], "m1");
        assert_eq!(json["conditions"][0], "WAITING_FOR_WORKERS");
        assert_eq!(json["progress"]["workers"][0]["bytes_done"], 1500);
    }

    #[test]
    fn the_json_has_the_names_that_scripts_rely_on() {
        let json =
            serde_json::to_value(JobJson::from(&failed(FailureKind::SourceChanged))).unwrap();
        assert_eq!(json["job_id"], "j1");
        assert_eq!(json["state"], "FAILED");
        assert_eq!(json["progress"]["bytes_done"], 1999);
        assert_eq!(json["error"]["kind"], "SOURCE_CHANGED");
        assert_eq!(json["error"]["problems"][0]["hint"], "give the folder");
        assert_eq!(json["recipe"]["cp"], "/cp");
    }

    #[test]
    fn whoever_waits_learns_how_it_ended() {
        assert_eq!(end(&job(JobState::Succeeded)).unwrap(), Exit::Success);
        assert_eq!(end(&job(JobState::Cancelled)).unwrap(), Exit::Failed);
        assert_eq!(
            end(&failed(FailureKind::BadInput)).unwrap_err().exit(),
            Exit::BadInput
        );
        assert_eq!(
            end(&failed(FailureKind::SourceChanged)).unwrap_err().exit(),
            Exit::Failed
        );
    }

    #[test]
    fn a_job_without_a_plan_has_no_share() {
        assert_eq!(percent(&ProgressView::default()), "-");
    }
}
