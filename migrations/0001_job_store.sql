-- The job store: jobs, their plans, their tasks, the finished parts, and the
-- workers seen. Times are milliseconds since the Unix epoch by the database's
-- own clock. Counts, sizes and ordinals are never negative.

-- One merge job, from submission to its end.
CREATE TABLE job (
    -- Opaque, unique for ever.
    job_id text NOT NULL PRIMARY KEY,
    -- The client's name for the submission; a repeat finds this row.
    request_id text NOT NULL UNIQUE,
    -- The recipe as canonical JSON.
    recipe text NOT NULL,
    -- SHA-256 of `recipe`, lower-case hex: tells a repeat from another recipe.
    recipe_digest text NOT NULL,
    -- Where the checkpoint is published.
    output_url text NOT NULL,
    -- Digest of recipe and pinned inputs; null until planned.
    input_key text,
    -- Where the job stands.
    state text NOT NULL DEFAULT 'PLANNING' CHECK (state IN (
        'PLANNING', 'QUEUED', 'RUNNING', 'COMMITTING',
        'SUCCEEDED', 'FAILED', 'CANCELLING', 'CANCELLED')),
    -- Raised by every coordinator that starts to plan or to commit the job;
    -- what it writes afterwards must name the value it got.
    epoch bigint NOT NULL DEFAULT 0,
    -- Raised at each change of state, and when a finished task is reopened.
    revision bigint NOT NULL DEFAULT 1,
    -- Why the job failed: the class; null unless it failed.
    error_kind text,
    -- Why the job failed: the object; null unless it failed.
    error_subject text,
    -- Why the job failed: what was expected and what was found.
    error_message text,
    -- What the user can do about it; may be null for a failed job too.
    error_hint text,
    -- W3C trace context of the submission; null if the client sent none.
    traceparent text,
    -- When the job was submitted.
    created_at_ms bigint NOT NULL,
    -- When this row last changed.
    updated_at_ms bigint NOT NULL,
    -- When the plan was stored; null before.
    planned_at_ms bigint,
    -- When the part list was frozen: the point of no return; null before.
    committing_at_ms bigint,
    -- When the job ended; null before.
    finished_at_ms bigint,
    -- When what a failed or cancelled job left in storage was removed; null before.
    cleaned_at_ms bigint,
    CONSTRAINT job_finished_if_terminal CHECK (
        (finished_at_ms IS NOT NULL) = (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED'))),
    CONSTRAINT job_committing_has_its_time CHECK (
        committing_at_ms IS NOT NULL OR state NOT IN ('COMMITTING', 'SUCCEEDED')),
    CONSTRAINT job_error_if_failed CHECK (
        (error_kind IS NOT NULL) = (state = 'FAILED')
        AND (error_subject IS NOT NULL) = (state = 'FAILED')
        AND (error_message IS NOT NULL) = (state = 'FAILED')),
    CONSTRAINT job_cleaned_after_end CHECK (
        cleaned_at_ms IS NULL OR state IN ('FAILED', 'CANCELLED'))
);

-- Lists of jobs, newest first, page by page.
CREATE INDEX job_by_age ON job (created_at_ms, job_id);
-- The sweeps: jobs to plan, to commit, to settle, to clean.
CREATE INDEX job_by_state ON job (state, job_id);

-- The problems of a failed job beside the one on its row: a recipe's are all
-- told at once.
CREATE TABLE job_problem (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- Position in the list, from 0.
    problem_no bigint NOT NULL,
    -- The object.
    subject text NOT NULL,
    -- What was expected and what was found.
    message text NOT NULL,
    -- What the user can do; null if there is nothing to say.
    hint text,
    PRIMARY KEY (job_id, problem_no)
);

-- The plan of a job. Apart from `job`, since it can be tens of megabytes.
CREATE TABLE job_plan (
    -- The job.
    job_id text NOT NULL PRIMARY KEY REFERENCES job (job_id) ON DELETE CASCADE,
    -- The encoded plan, opaque to the store.
    plan bytea NOT NULL
);

-- A run of parts of one output file, leased as one.
CREATE TABLE task (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- Position among the job's tasks, from 0.
    task_no bigint NOT NULL,
    -- Position of the output file among the job's files, from 0.
    file_no bigint NOT NULL,
    -- The first part, counted from 0 inside the file.
    first_part bigint NOT NULL,
    -- How many parts, at least 1.
    part_count bigint NOT NULL CHECK (part_count > 0),
    -- Bytes of output the task writes.
    bytes bigint NOT NULL,
    -- Where the task stands.
    state text NOT NULL DEFAULT 'READY' CHECK (state IN (
        'READY', 'LEASED', 'DONE', 'FAILED', 'CANCELLED')),
    -- Order of leasing across jobs, the least first.
    sched_key bigint NOT NULL,
    -- READY tasks are not leased before this time.
    not_before_ms bigint NOT NULL DEFAULT 0,
    -- Raised by every claim, reap and cancellation and lowered by nothing;
    -- every report must name it.
    fence bigint NOT NULL DEFAULT 0,
    -- Leases given so far.
    attempt bigint NOT NULL DEFAULT 0,
    -- Charged failures that workers reported.
    failures bigint NOT NULL DEFAULT 0,
    -- Leases that expired with their worker.
    crashes bigint NOT NULL DEFAULT 0,
    -- The worker of the first crash; null before one.
    first_crash_worker text,
    -- Distinct workers among the crashes: 0, 1, or 2 for "at least two".
    crashed_workers bigint NOT NULL DEFAULT 0,
    -- Who holds the lease; null unless LEASED.
    worker_id text,
    -- When the lease ends; null unless LEASED. In no index, so that a
    -- heartbeat rewrites no index entry.
    lease_expires_at_ms bigint,
    -- The fence under which the task was done; null unless DONE.
    done_fence bigint,
    -- Bytes written so far, as the holder said; only an indication.
    progress_bytes bigint NOT NULL DEFAULT 0,
    -- The last failure or crash: its class; null before one.
    error_kind text,
    -- The last failure or crash: the object.
    error_subject text,
    -- The last failure or crash: what was expected and what was found.
    error_message text,
    -- The last failure or crash: what the user can do.
    error_hint text,
    -- When this row last changed.
    updated_at_ms bigint NOT NULL,
    PRIMARY KEY (job_id, task_no),
    CONSTRAINT task_holder_if_leased CHECK (
        (worker_id IS NOT NULL) = (state = 'LEASED')
        AND (lease_expires_at_ms IS NOT NULL) = (state = 'LEASED')),
    CONSTRAINT task_done_fence_if_done CHECK (
        (done_fence IS NOT NULL) = (state = 'DONE')),
    CONSTRAINT task_crash_has_a_worker CHECK (
        (first_crash_worker IS NOT NULL) = (crashes > 0)
        AND (crashed_workers > 0) = (crashes > 0))
);

-- The claim, in its order.
CREATE INDEX task_claim ON task (sched_key, job_id, task_no) WHERE state = 'READY';
-- The reaper's search for expired leases.
CREATE INDEX task_leased ON task (job_id, task_no) WHERE state = 'LEASED';
-- Whether a job has anything left to do.
CREATE INDEX task_open ON task (job_id) WHERE state <> 'DONE';

-- What a worker needs to run a task. Apart from `task`, so that claims and
-- heartbeats rewrite small rows only.
CREATE TABLE task_spec (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- The task.
    task_no bigint NOT NULL,
    -- The encoded description of the work, opaque to the store.
    spec bytea NOT NULL,
    PRIMARY KEY (job_id, task_no)
);

-- A finished part of an output file, as the report of its task recorded it.
CREATE TABLE part (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- The output file.
    file_no bigint NOT NULL,
    -- Position of the part inside the file, from 0.
    part_no bigint NOT NULL,
    -- The task that wrote it.
    task_no bigint NOT NULL,
    -- What storage calls the part, opaque.
    part_id text NOT NULL,
    -- CRC-64/NVME of its bytes, the unsigned value's bits as a signed number.
    crc64 bigint NOT NULL,
    -- Its length.
    bytes bigint NOT NULL,
    -- Encoded statistics of its tensors, opaque to the store.
    stats bytea NOT NULL,
    PRIMARY KEY (job_id, file_no, part_no)
);

-- Worker processes that have asked for work.
CREATE TABLE worker (
    -- A fresh id at every start of a process.
    worker_id text NOT NULL PRIMARY KEY,
    -- The machine.
    hostname text NOT NULL,
    -- The program's version.
    version text NOT NULL,
    -- Tasks it runs at once.
    slots bigint NOT NULL,
    -- When it first asked for work.
    first_seen_ms bigint NOT NULL,
    -- When it last asked for work or sent a heartbeat.
    last_seen_ms bigint NOT NULL
);
