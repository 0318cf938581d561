//! Random operations on a store, each checked against a small model in memory:
//! what the operation must answer, and every task and job afterwards. The
//! store is also held to the rules that need no model: fences only rise, a
//! DONE task keeps its fence, states change as `may_become` allows, and a
//! job's end leaves nothing waiting or leased.

use std::collections::BTreeMap;

use chatvec_core::ids::{JobId, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::task::{
    FailureKind, Lease, TaskCounters, TaskState, Verdict, job_retries_max, judge,
};

use super::fixture::*;
use crate::coordinator::store::{FailOutcome, JobRow, Recorded, Store, StoreError, TaskRow};

const JOBS: u32 = 3;
const TASKS: u32 = 4;
const STEPS: usize = 250;

/// A sequence of numbers that a seed fixes (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        match of.len() as u64 {
            0 => None,
            len => Some(&of[self.below(len) as usize]),
        }
    }
}

/// What the model knows of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    state: TaskState,
    fence: u64,
    attempt: u32,
    done_fence: Option<u64>,
    counters: TaskCounters,
    first_crash: Option<String>,
    worker: Option<String>,
    expired: bool,
}

struct Job {
    state: JobState,
    tasks: Vec<Task>,
}

impl Job {
    fn is_unwanted(&self) -> bool {
        self.state == JobState::Cancelling || self.state.is_terminal()
    }

    fn fail(&mut self) {
        if self.state.gives_leases() {
            self.state = JobState::Failed;
            for task in &mut self.tasks {
                if matches!(task.state, TaskState::Ready | TaskState::Leased) {
                    task.end(TaskState::Cancelled, 1);
                }
            }
        }
    }

    fn settle(&mut self) {
        let open = |task: &Task| matches!(task.state, TaskState::Ready | TaskState::Leased);
        if self.state == JobState::Cancelling && !self.tasks.iter().any(open) {
            self.state = JobState::Cancelled;
        }
    }
}

impl Task {
    fn new() -> Self {
        Self {
            state: TaskState::Ready,
            fence: 0,
            attempt: 0,
            done_fence: None,
            counters: TaskCounters::default(),
            first_crash: None,
            worker: None,
            expired: false,
        }
    }

    /// Leaves READY or LEASED for a state that holds no lease.
    fn end(&mut self, next: TaskState, fence: u64) {
        self.state = next;
        self.fence += fence;
        self.worker = None;
        self.expired = false;
    }
}

struct Model {
    jobs: BTreeMap<JobId, Job>,
    /// In the order of leasing.
    order: Vec<JobId>,
    /// Every lease ever given: most are over, and must stay so.
    leases: Vec<Lease>,
}

impl Model {
    /// The task, if the lease is still good.
    fn held(&mut self, lease: &Lease) -> Option<&mut Task> {
        let job = self
            .jobs
            .get_mut(&lease.job)
            .expect("leases are of known jobs");
        let task = &mut job.tasks[lease.task.0 as usize];
        (task.state == TaskState::Leased && task.fence == lease.fence.0).then_some(task)
    }

    fn job(&mut self, job: &JobId) -> &mut Job {
        self.jobs.get_mut(job).expect("the model knows the job")
    }
}

async fn acquire_some(store: &Store, model: &mut Model, numbers: &mut Numbers) {
    let by = format!("w{}", numbers.below(2));
    let expired = numbers.below(3) == 0;
    let max = 1 + numbers.below(3) as usize;
    let ms = if expired { EXPIRED_MS } else { LONG_MS };
    let mut expected = Vec::new();
    for name in model.order.clone() {
        let job = model.job(&name);
        if !job.state.gives_leases() {
            continue;
        }
        for (number, task) in job.tasks.iter_mut().enumerate() {
            if task.state == TaskState::Ready && expected.len() < max {
                task.state = TaskState::Leased;
                task.fence += 1;
                task.attempt += 1;
                task.worker = Some(by.clone());
                task.expired = expired;
                job.state = JobState::Running;
                expected.push((name.clone(), number as u32, task.fence));
            }
        }
    }
    let acquired = store
        .acquire_tasks(&worker(&by), max as u32, ms)
        .await
        .unwrap();
    let found: Vec<_> = acquired
        .iter()
        .map(|a| (a.lease.job.clone(), a.lease.task.0, a.lease.fence.0))
        .collect();
    assert_eq!(found, expected);
    model.leases.extend(acquired.into_iter().map(|a| a.lease));
}

async fn complete(store: &Store, model: &mut Model, lease: &Lease) {
    let answer = store.complete_task(lease, &parts(lease.task)).await;
    if let Some(task) = model.held(lease) {
        assert_eq!(answer.unwrap(), Recorded::Recorded);
        task.done_fence = Some(task.fence);
        task.end(TaskState::Done, 0);
        return;
    }
    let task = &model.job(&lease.job).tasks[lease.task.0 as usize];
    if task.done_fence == Some(lease.fence.0) {
        assert_eq!(answer.unwrap(), Recorded::AlreadyRecorded);
    } else {
        assert!(matches!(answer, Err(StoreError::LeaseLost { .. })));
    }
}

async fn fail(store: &Store, model: &mut Model, lease: &Lease, kind: FailureKind) {
    let answer = store.fail_task(lease, &failure(kind), 0.0).await;
    let Some(task) = model.held(lease) else {
        assert!(matches!(answer, Err(StoreError::LeaseLost { .. })));
        return;
    };
    task.counters.failures += u32::from(kind.is_charged());
    let counters = task.counters;
    let job = model.job(&lease.job);
    let spent: u32 = job.tasks.iter().map(|task| task.counters.failures).sum();
    let burnt = kind.is_charged() && u64::from(spent) > job_retries_max(TASKS.into());
    let unwanted = job.is_unwanted();
    let task = &mut job.tasks[lease.task.0 as usize];
    if unwanted {
        task.end(TaskState::Cancelled, 0);
        assert_eq!(answer.unwrap(), FailOutcome::Cancelled);
    } else if burnt || judge(Some(kind), counters, 0.0) == Verdict::GiveUp {
        task.end(TaskState::Failed, 0);
        job.fail();
        assert_eq!(answer.unwrap(), FailOutcome::GaveUp);
    } else {
        task.end(TaskState::Ready, 0);
        assert!(matches!(answer.unwrap(), FailOutcome::Retried { .. }));
    }
}

async fn release(store: &Store, model: &mut Model, lease: &Lease) {
    let answer = store.release_task(lease).await;
    let unwanted = model.job(&lease.job).is_unwanted();
    match model.held(lease) {
        Some(task) if unwanted => task.end(TaskState::Cancelled, 0),
        Some(task) => task.end(TaskState::Ready, 0),
        None => return assert!(matches!(answer, Err(StoreError::LeaseLost { .. }))),
    }
    answer.unwrap();
}

async fn release_all(store: &Store, model: &mut Model) {
    let mut released = 0;
    for job in model.jobs.values_mut() {
        let unwanted = job.is_unwanted();
        for task in job
            .tasks
            .iter_mut()
            .filter(|t| t.state == TaskState::Leased)
        {
            let next = if unwanted {
                TaskState::Cancelled
            } else {
                TaskState::Ready
            };
            task.end(next, 1);
            released += 1;
        }
    }
    assert_eq!(store.release_all_leases().await.unwrap(), released);
}

async fn reap(store: &Store, model: &mut Model) {
    let mut expired = 0;
    for job in model.jobs.values_mut() {
        let unwanted = job.is_unwanted();
        let mut poisoned = false;
        for task in job.tasks.iter_mut().filter(|task| task.expired) {
            expired += 1;
            if unwanted {
                task.end(TaskState::Cancelled, 1);
                continue;
            }
            let by = task.worker.clone().expect("a leased task has a worker");
            let first = task.first_crash.get_or_insert_with(|| by.clone());
            let workers = if *first == by { 1 } else { 2 };
            task.counters.crashes += 1;
            task.counters.crashed_workers = task.counters.crashed_workers.max(workers);
            match judge(None, task.counters, 0.0) {
                Verdict::RetryAfterMs(_) => task.end(TaskState::Ready, 1),
                Verdict::GiveUp => {
                    task.end(TaskState::Failed, 1);
                    poisoned = true;
                }
            }
        }
        if poisoned {
            job.fail();
        }
        job.settle();
    }
    let reaped = store.reap(Reaping::Expired).await.unwrap();
    assert_eq!((reaped.expired, reaped.swept), (expired, 0));
}

async fn cancel(store: &Store, model: &mut Model, name: &JobId) {
    let answer = store.cancel_job(name).await;
    let job = model.job(name);
    match job.state {
        JobState::Cancelling | JobState::Cancelled => {}
        state if state.may_become(JobState::Cancelling) => {
            job.state = JobState::Cancelling;
            for task in job.tasks.iter_mut().filter(|t| t.state == TaskState::Ready) {
                task.end(TaskState::Cancelled, 1);
            }
            job.settle();
        }
        _ => return assert!(matches!(answer, Err(StoreError::WrongState { .. }))),
    }
    assert_eq!(answer.unwrap().state, job.state);
}

async fn commit(store: &Store, model: &mut Model, name: &JobId) {
    let answer = store.start_finalizing(name, EXPIRED_MS).await;
    let job = model.job(name);
    if !job.state.gives_leases() {
        return assert!(matches!(answer, Err(StoreError::WrongState { .. })));
    }
    let done = job.tasks.iter().all(|task| task.state == TaskState::Done);
    let epoch = answer
        .unwrap()
        .expect("leases of finalizers expire at once");
    let commit = store.start_commit(name, epoch).await.unwrap();
    assert_eq!(commit.is_some(), done);
    if let Some(commit) = commit {
        job.state = JobState::Succeeded;
        store.finish_commit(name, commit.epoch).await.unwrap();
    }
}

async fn reopen(store: &Store, model: &mut Model, name: &JobId, task: u32) {
    let answer = store.reopen_task(name, TaskOrdinal(task)).await;
    let job = model.job(name);
    let wanted = job.state.gives_leases();
    let task = &mut job.tasks[task as usize];
    if wanted && task.state == TaskState::Done {
        answer.unwrap();
        task.done_fence = None;
        task.end(TaskState::Ready, 1);
    } else {
        assert!(answer.is_err());
    }
}

async fn step(store: &Store, model: &mut Model, numbers: &mut Numbers) {
    let lease = numbers.pick(&model.leases).cloned();
    let job = numbers.pick(&model.order).cloned().expect("there are jobs");
    let kind = *numbers.pick(&FailureKind::ALL).expect("there are kinds");
    match (numbers.below(100), lease) {
        (0..40, _) | (_, None) => acquire_some(store, model, numbers).await,
        (40..65, Some(lease)) => complete(store, model, &lease).await,
        (65..73, Some(lease)) if !kind.is_permanent() => fail(store, model, &lease, kind).await,
        (73..74, Some(lease)) => fail(store, model, &lease, kind).await,
        (74..80, Some(lease)) => release(store, model, &lease).await,
        (80..90, _) => reap(store, model).await,
        (90..91, _) => release_all(store, model).await,
        (91..92, _) => cancel(store, model, &job).await,
        (92..94, _) => reopen(store, model, &job, numbers.below(TASKS.into()) as u32).await,
        _ => commit(store, model, &job).await,
    }
}

/// The store says of every job and task what the model says.
async fn compare(store: &Store, model: &Model, last: &mut BTreeMap<JobId, (JobRow, Vec<TaskRow>)>) {
    for (name, job) in &model.jobs {
        let row = job_of(store, name).await;
        let tasks = store.tasks(name).await.unwrap();
        assert_eq!(row.state, job.state, "{name}");
        for (task, expected) in tasks.iter().zip(&job.tasks) {
            let found = Task {
                state: task.state,
                fence: task.fence.0,
                attempt: task.attempt.0,
                done_fence: task.done_fence.map(|fence| fence.0),
                counters: task.counters,
                worker: task.worker.clone().map(|worker| worker.0),
                // Columns that the store shows nobody.
                first_crash: expected.first_crash.clone(),
                expired: expected.expired,
            };
            assert_eq!(found, *expected, "{name} task {}", task.task);
        }
        if let Some((old_row, old_tasks)) = last.insert(name.clone(), (row, tasks)) {
            let (row, tasks) = &last[name];
            check_job_change(&old_row, row);
            for (old, new) in old_tasks.iter().zip(tasks) {
                check_task_change(old, new);
            }
        }
    }
}

fn check_job_change(old: &JobRow, new: &JobRow) {
    // One call may pass through a state in between: cancelling, committing.
    let reachable = old.state == new.state
        || old.state.may_become(new.state)
        || JobState::ALL
            .into_iter()
            .any(|via| old.state.may_become(via) && via.may_become(new.state));
    assert!(reachable, "{} became {}", old.state, new.state);
    assert!(new.epoch >= old.epoch && new.revision >= old.revision);
    assert!(old.state == new.state || new.revision > old.revision);
}

fn check_task_change(old: &TaskRow, new: &TaskRow) {
    assert!(new.fence >= old.fence, "a fence was lowered");
    if new.state != old.state {
        assert!(
            old.state.may_become(new.state),
            "{} became {}",
            old.state,
            new.state
        );
        if new.state == TaskState::Leased {
            assert!(new.fence > old.fence, "a claim kept the fence");
        }
    } else if new.state == TaskState::Done {
        assert_eq!(new.done_fence, old.done_fence);
    }
}

async fn run(store: &Store, seed: u64) {
    let mut numbers = Numbers(seed);
    let mut order = Vec::new();
    for number in 0..JOBS {
        order.push(queued(store, &format!("{seed:08}-{number}"), TASKS).await);
    }
    let job = || Job {
        state: JobState::Queued,
        tasks: vec![Task::new(); TASKS as usize],
    };
    let mut model = Model {
        jobs: order.iter().map(|name| (name.clone(), job())).collect(),
        order,
        leases: Vec::new(),
    };
    let mut last = BTreeMap::new();
    for _ in 0..STEPS {
        step(store, &mut model, &mut numbers).await;
        compare(store, &model, &mut last).await;
    }
    // What is left must come to its end, and hold nothing then.
    for name in model.order.clone() {
        if !model.job(&name).state.is_terminal() {
            cancel(store, &mut model, &name).await;
        }
    }
    release_all(store, &mut model).await;
    reap(store, &mut model).await;
    compare(store, &model, &mut last).await;
    for (name, job) in &model.jobs {
        assert!(job.state.is_terminal(), "{name}");
        let progress = store.progress(name).await.unwrap();
        assert_eq!(progress.ready + progress.leased, 0, "{name}");
    }
}

/// Names the seed of a run that fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the seed of this run is {}", self.0);
        }
    }
}

async fn the_store_does_what_the_model_does(store: &Store) {
    for seed in 1..=12 {
        let seed = Seed(seed);
        run(store, seed.0).await;
    }
}

super::conformance! {
    the_store_does_what_the_model_does,
}
