//! Jobs under attack: submitted by real clients, some of them several times at
//! once, cancelled, challenged for their outputs, and followed to their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::merges::Merges;
use super::schedule::{Submission, Target};
use crate::cluster::Cluster;
use crate::process::{Outcome, Process};

/// Jobs that may be open at once: on a slow machine submissions wait.
const OPEN_MAX: usize = 8;
/// After which a client that found no coordinator tries again, as scripts do.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often the database is asked how jobs stand.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    due: std::vec::IntoIter<Submission>,
    next: Option<Submission>,
    jobs: Vec<Job>,
    question: Option<Process>,
    asked: Option<Instant>,
    /// What clients were told that cannot be.
    pub(super) violations: Vec<String>,
    /// Tasks that were done at the last look.
    pub(super) done: u64,
    /// Tasks that wait or are under way.
    pub(super) open_tasks: u64,
    /// Submissions of a request that was submitted already.
    pub(super) duplicates: u64,
    /// Submissions that were refused, as their output was in use.
    pub(super) refused: u64,
    /// Cancellations that came too late.
    pub(super) late_cancels: u64,
}

/// One job, from its first client on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) out: String,
    request: String,
    arguments: Vec<String>,
    clients: Vec<Client>,
    /// What clients were told: ids, and whether one was refused.
    ids: BTreeSet<String>,
    was_refused: bool,
    accepted: Option<Instant>,
    ended: Option<Instant>,
    cancel: Cancel,
    /// Whether it wants the output of a job that runs.
    is_rival: bool,
    has_rival: bool,
    pub(super) row: Option<Row>,
    is_verified: bool,
}

/// A process that submits or cancels, again and again until it is answered.
#[derive(Debug)]
enum Client {
    Waits(Instant),
    Runs(Process),
    Answered,
}

#[derive(Debug)]
enum Cancel {
    /// Not wanted, or not yet.
    Not,
    Asked(Client),
    Granted,
    TooLate,
}

/// A job as the database has it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    /// Its id.
    pub(super) job: String,
    pub(super) state: String,
    pub(super) error: Option<String>,
    pub(super) message: Option<String>,
    pub(super) finished_ms: Option<u64>,
    /// The most crashes that a task of it was charged.
    pub(super) crashes: Option<u64>,
}

impl Row {
    pub(super) fn has_ended(&self) -> bool {
        self.finished_ms.is_some()
    }
}

impl Jobs {
    pub(super) fn new(submissions: Vec<Submission>) -> Self {
        let mut due = submissions.into_iter();
        Self {
            next: due.next(),
            due,
            ..Self::default()
        }
    }

    /// All that were submitted.
    pub(super) fn all(&self) -> &[Job] {
        &self.jobs
    }

    /// No more is submitted.
    pub(super) fn end(&mut self) {
        self.next = None;
    }

    /// Whether everybody was answered and every job has ended.
    pub(super) fn are_settled(&self) -> bool {
        self.next.is_none() && self.jobs.iter().all(Job::is_settled)
    }

    /// What is not settled yet.
    pub(super) fn unsettled(&self) -> Vec<String> {
        let jobs = self.jobs.iter().filter(|job| !job.is_settled());
        jobs.map(Job::to_string).collect()
    }

    /// Goes on with everything that is due.
    pub(super) fn look(
        &mut self,
        now: Duration,
        cluster: &Cluster,
        coordinators: &str,
        merges: &Merges,
    ) {
        self.submit(now, cluster, merges);
        let mut rivals = Vec::new();
        for job in &mut self.jobs {
            let call = |arguments: &[String]| {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                Process::start(cluster.fleet.client_command(coordinators, &arguments))
            };
            match job.submit_on(&call) {
                Ok(refused) => self.refused += refused,
                Err(what) => self.violations.push(what),
            }
            match job.cancel_on(&call) {
                Ok(late) => self.late_cancels += late,
                Err(what) => self.violations.push(what),
            }
            if job.is_to_have_rival() {
                job.has_rival = true;
                rivals.push((job.submission, job.out.clone()));
            }
        }
        for (submission, out) in rivals {
            let number = self.jobs.len();
            self.jobs
                .push(Job::rival(number, submission, &out, cluster, merges));
        }
        self.ask(cluster);
        self.verify(cluster, merges);
    }

    fn submit(&mut self, now: Duration, cluster: &Cluster, merges: &Merges) {
        let open = self.jobs.iter().filter(|job| !job.is_settled()).count();
        let Some(submission) = self.next.filter(|next| next.at <= now && open < OPEN_MAX) else {
            return;
        };
        self.next = self.due.next();
        self.duplicates += submission.copies as u64 - 1;
        let number = self.jobs.len();
        self.jobs
            .push(Job::new(number, submission, cluster, merges));
    }

    /// Asks the database how jobs stand, and hears what it was asked before. While
    /// it is away nothing is heard.
    fn ask(&mut self, cluster: &Cluster) {
        if let Some(mut process) = self.question.take() {
            if !process.ends_within(Duration::ZERO) {
                self.question = Some(process);
                return;
            }
            let outcome = process.wait();
            if outcome.code == Some(0) {
                self.hear(&outcome.stdout);
            }
        }
        if self.asked.is_none_or(|asked| asked.elapsed() > LOOK_EVERY) {
            let open = self.jobs.iter().filter(|job| !job.has_ended());
            let open: Vec<String> = open
                .flat_map(|job| job.ids.iter().map(|id| format!("'{id}'")))
                .collect();
            self.asked = Some(Instant::now());
            self.question = Some(cluster.fleet.postgres.session(&question(&open)));
        }
    }

    fn hear(&mut self, answer: &str) {
        for line in answer.lines() {
            if let Ok(Tasks { done, open }) = serde_json::from_str(line) {
                (self.done, self.open_tasks) = (done, open);
                continue;
            }
            let row: Row = serde_json::from_str(line).expect("as it was asked");
            for job in &mut self.jobs {
                if job.ids.contains(&row.job) {
                    job.ended = row.has_ended().then(Instant::now);
                    job.row = Some(row.clone());
                }
            }
        }
        self.one_job_an_output();
    }

    /// Of all jobs that were accepted before the database was asked, no two are
    /// open that publish to one output.
    fn one_job_an_output(&mut self) {
        let asked = self.asked;
        let open = self.jobs.iter().filter(|job| {
            job.accepted < asked && job.row.as_ref().is_some_and(|row| !row.has_ended())
        });
        let mut holders: BTreeMap<&str, &Job> = BTreeMap::new();
        for job in open {
            if let Some(other) = holders.insert(&job.out, job) {
                let what = format!("{other} and {job} are open at once");
                self.violations.push(what);
            }
        }
    }

    /// Compares what was published since the last look.
    fn verify(&mut self, cluster: &Cluster, merges: &Merges) {
        for job in &mut self.jobs {
            let Some(row) = job.row.as_ref().filter(|_| !job.is_verified) else {
                continue;
            };
            if !row.has_ended() {
                continue;
            }
            job.is_verified = true;
            if row.state == "SUCCEEDED" {
                let found = merges.verify(cluster.store(), &row.job, &job.out, job.submission.size);
                self.violations.extend(found);
            }
            if job.submission.is_repeated {
                // Its id is answered again, however long after its end.
                job.clients.push(Client::Waits(Instant::now()));
                self.duplicates += 1;
            }
        }
    }

    /// How many jobs ended in each way.
    pub(super) fn ends(&self) -> BTreeMap<String, u64> {
        let mut ends = BTreeMap::new();
        for job in &self.jobs {
            let state = match (&job.row, job.ids.is_empty()) {
                (Some(row), _) => row.state.clone(),
                (None, true) => "refused".to_owned(),
                (None, false) => "unknown".to_owned(),
            };
            *ends.entry(state).or_default() += 1;
        }
        ends
    }
}

/// How the tasks of all jobs stand.
#[derive(Deserialize)]
struct Tasks {
    done: u64,
    open: u64,
}

fn question(jobs: &[String]) -> String {
    let ids = match jobs.is_empty() {
        true => "''".to_owned(),
        false => jobs.join(","),
    };
    format!(
        "SELECT json_build_object(
             'done', count(*) FILTER (WHERE task.state = 'DONE'),
             'open', count(*) FILTER (WHERE task.state IN ('READY', 'LEASED')
                                      AND job.state IN ('QUEUED', 'RUNNING')))
         FROM task JOIN job USING (job_id)
         UNION ALL
         SELECT json_build_object(
             'job', job_id, 'state', state, 'error', error_kind, 'message', error_message,
             'finished_ms', finished_at_ms,
             'crashes', (SELECT max(crashes) FROM task WHERE task.job_id = job.job_id))
         FROM job WHERE job_id IN ({ids})"
    )
}

impl Job {
    fn new(number: usize, submission: Submission, cluster: &Cluster, merges: &Merges) -> Self {
        let out = match submission.target {
            Target::Fresh => format!("out-{number:04}"),
            Target::Kept(kept) => format!("kept-{kept}"),
        };
        let mut more = Vec::new();
        if let Target::Kept(_) = submission.target {
            more.push("--overwrite".to_owned());
        }
        Self::at(number, submission, out, more, cluster, merges)
    }

    /// Another job for the same output.
    fn rival(number: usize, of: Submission, out: &str, cluster: &Cluster, merges: &Merges) -> Self {
        let submission = Submission {
            copies: 1,
            cancelled_after: None,
            has_rival: false,
            is_repeated: false,
            ..of
        };
        let more = match submission.target {
            Target::Kept(_) => vec!["--overwrite".to_owned()],
            Target::Fresh => Vec::new(),
        };
        Self {
            is_rival: true,
            ..Self::at(number, submission, out.to_owned(), more, cluster, merges)
        }
    }

    fn at(
        number: usize,
        submission: Submission,
        out: String,
        more: Vec<String>,
        cluster: &Cluster,
        merges: &Merges,
    ) -> Self {
        let request = format!("soak-{number}");
        let mut arguments = ["submit", "-o", "json", "--request-id", &request]
            .map(str::to_owned)
            .to_vec();
        arguments.extend([
            "--tenant".to_owned(),
            format!("tenant-{}", submission.tenant),
            "--priority".to_owned(),
            submission.priority.to_string(),
        ]);
        arguments.extend(merges.flags(cluster, submission.size, &out));
        arguments.extend(more);
        let now = Instant::now();
        Self {
            submission,
            out,
            request,
            arguments,
            clients: (0..submission.copies).map(|_| Client::Waits(now)).collect(),
            ids: BTreeSet::new(),
            was_refused: false,
            accepted: None,
            ended: None,
            cancel: Cancel::Not,
            is_rival: false,
            has_rival: false,
            row: None,
            is_verified: false,
        }
    }

    /// Whether a client was told that it is, and whether it may run.
    pub(super) fn id(&self) -> Option<&str> {
        self.ids.first().map(String::as_str)
    }

    fn has_ended(&self) -> bool {
        self.row.as_ref().is_some_and(Row::has_ended)
    }

    /// Whether it was open during some of this time, as far as clients know.
    pub(super) fn was_open_between(&self, begin: Instant, end: Option<Instant>) -> bool {
        let ended_before = self.ended.is_some_and(|ended| ended < begin);
        let begun_after = end
            .zip(self.accepted)
            .is_some_and(|(end, accepted)| end < accepted);
        !ended_before && !begun_after
    }

    /// Whether its cancellation was confirmed.
    pub(super) fn was_cancelled(&self) -> bool {
        matches!(self.cancel, Cancel::Granted)
    }

    /// Whether it may find a checkpoint that it must not replace.
    pub(super) fn may_find_another(&self) -> bool {
        self.is_rival && self.submission.target == Target::Fresh
    }

    fn is_settled(&self) -> bool {
        let is_answered = self
            .clients
            .iter()
            .all(|client| matches!(client, Client::Answered));
        let is_asked = matches!(self.cancel, Cancel::Asked(_));
        is_answered && !is_asked && (self.ids.is_empty() || (self.has_ended() && self.is_verified))
    }

    fn is_to_have_rival(&self) -> bool {
        self.submission.has_rival && !self.has_rival && self.accepted.is_some()
    }

    /// Goes on with its clients; how many were refused.
    fn submit_on(&mut self, call: &dyn Fn(&[String]) -> Process) -> Result<u64, String> {
        let mut refused = 0;
        for client in &mut self.clients {
            let Some(outcome) = client.go_on(&self.arguments, call) else {
                continue;
            };
            match outcome.code {
                Some(0) => {
                    let id = outcome.json()["job_id"].as_str().map(str::to_owned);
                    self.ids
                        .insert(id.ok_or_else(|| told(&self.request, &outcome))?);
                    self.accepted.get_or_insert_with(Instant::now);
                }
                _ if outcome.stderr.contains("is in use by job") => {
                    self.was_refused = true;
                    refused += 1;
                }
                Some(75) => *client = Client::Waits(Instant::now() + AGAIN_AFTER),
                _ => return Err(told(&self.request, &outcome)),
            }
        }
        match self.ids.len() {
            0 | 1 => Ok(refused),
            _ => Err(format!("one request became several jobs: {:?}", self.ids)),
        }
    }

    /// Goes on with its cancellation; whether one came too late.
    fn cancel_on(&mut self, call: &dyn Fn(&[String]) -> Process) -> Result<u64, String> {
        let (Some(accepted), Some(id)) = (self.accepted, self.ids.first()) else {
            return Ok(0);
        };
        let is_due = self.submission.cancelled_after;
        let is_due = is_due.is_some_and(|after| accepted.elapsed() >= after);
        match &mut self.cancel {
            Cancel::Not if is_due => {
                self.cancel = Cancel::Asked(Client::Waits(Instant::now()));
                Ok(0)
            }
            Cancel::Asked(client) => {
                let arguments = ["cancel", id, "-o", "json"].map(str::to_owned);
                let Some(outcome) = client.go_on(&arguments, call) else {
                    return Ok(0);
                };
                match outcome.code {
                    Some(0) => self.cancel = Cancel::Granted,
                    Some(75) => *client = Client::Waits(Instant::now() + AGAIN_AFTER),
                    Some(1) => {
                        self.cancel = Cancel::TooLate;
                        return Ok(1);
                    }
                    _ => return Err(told(&self.request, &outcome)),
                }
                Ok(0)
            }
            _ => Ok(0),
        }
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.id().unwrap_or("no job");
        let state = self
            .row
            .as_ref()
            .map_or("not seen", |row| row.state.as_str());
        write!(f, "{} ({id}, {state}) into `{}`", self.request, self.out)
    }
}

impl Client {
    /// Starts it when it is due, and gives its answer once.
    fn go_on(
        &mut self,
        arguments: &[String],
        call: &dyn Fn(&[String]) -> Process,
    ) -> Option<Outcome> {
        match self {
            Self::Waits(until) => {
                if Instant::now() >= *until {
                    *self = Self::Runs(call(arguments));
                }
                return None;
            }
            Self::Runs(process) => {
                if !process.ends_within(Duration::ZERO) {
                    return None;
                }
            }
            Self::Answered => return None,
        }
        match std::mem::replace(self, Self::Answered) {
            Self::Runs(process) => Some(process.wait()),
            Self::Waits(_) | Self::Answered => unreachable!("it runs"),
        }
    }
}

fn told(request: &str, outcome: &Outcome) -> String {
    format!(
        "{request} was told what nobody expects: code {:?}, {}",
        outcome.code,
        outcome.stderr.trim_end()
    )
}
