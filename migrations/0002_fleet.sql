-- The fleet: tenants and their fair shares, labels and priorities of jobs, the
-- one job that may write to an output, uploads to object storage, and leases
-- of coordinators on the jobs that they plan or publish.
--
-- A column is renamed here, which a shared store would not forgive: but every
-- store before this migration belonged to one process.

-- Who jobs are accounted to. A row comes with a tenant's first job.
CREATE TABLE tenant (
    -- Its name.
    tenant text NOT NULL PRIMARY KEY,
    -- Its share of the workers, relative to the other tenants'.
    weight bigint NOT NULL DEFAULT 1 CHECK (weight > 0),
    -- Most tasks of it that are leased at once; null for no limit.
    leased_tasks_max bigint CHECK (leased_tasks_max > 0),
    -- Most jobs of it that have not ended; null for no limit.
    open_jobs_max bigint CHECK (open_jobs_max > 0)
);

-- Where each flow of tasks stands in the order of scheduling: the jobs of one
-- tenant with one priority follow each other, flows run side by side.
CREATE TABLE flow (
    -- The tenant.
    tenant text NOT NULL REFERENCES tenant (tenant) ON DELETE CASCADE,
    -- The priority.
    priority bigint NOT NULL,
    -- `sched_key` at which the flow's next job may begin; never lowered.
    next_key bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, priority)
);

INSERT INTO tenant (tenant) VALUES ('default');

-- A request is named within its tenant: `tenant/request id`. The tenant's name
-- has no slash.
ALTER TABLE job RENAME COLUMN request_id TO request_key;

-- Who the job is accounted to.
ALTER TABLE job ADD COLUMN tenant text NOT NULL DEFAULT 'default';
-- 0 to 99; ten points double the share of the workers.
ALTER TABLE job ADD COLUMN priority bigint NOT NULL DEFAULT 50
    CHECK (priority >= 0 AND priority <= 99);
-- What the client says about the job, as a JSON object of texts.
ALTER TABLE job ADD COLUMN labels text NOT NULL DEFAULT '{}';
-- When the lease of the coordinator ends that plans or publishes the job under
-- `epoch`; 0 if none does.
ALTER TABLE job ADD COLUMN epoch_expires_at_ms bigint NOT NULL DEFAULT 0;
-- Bytes of output weights of the plan; 0 until planned.
ALTER TABLE job ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

-- Jobs that were planned before this migration.
UPDATE job SET bytes = (
    SELECT coalesce(sum(task.bytes), 0) FROM task WHERE task.job_id = job.job_id);
UPDATE job SET request_key = 'default/' || request_key;

-- How many jobs of a tenant have not ended.
CREATE INDEX job_open_of_tenant ON job (tenant)
    WHERE state IN ('PLANNING', 'QUEUED', 'RUNNING', 'COMMITTING', 'CANCELLING');
-- Ended jobs by age, for those that are kept no longer.
CREATE INDEX job_ended ON job (finished_at_ms) WHERE finished_at_ms IS NOT NULL;

-- The labels of `job.labels` again, to find jobs by.
CREATE TABLE job_label (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- The label's name.
    name text NOT NULL,
    -- Its value, which may be empty.
    value text NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- Jobs by label.
CREATE INDEX job_label_by_value ON job_label (name, value, job_id);

-- What the user should know of a planned job and nothing stops for.
CREATE TABLE job_warning (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- Position in the list, from 0.
    warning_no bigint NOT NULL,
    -- The object.
    subject text NOT NULL,
    -- What was found.
    message text NOT NULL,
    -- What the user can do; null if there is nothing to say.
    hint text,
    PRIMARY KEY (job_id, warning_no)
);

-- The one job that may write to an output: from its submission until it has
-- succeeded, or until its leftovers are removed.
CREATE TABLE output_claim (
    -- The output's URL in its one normal form.
    output_key text NOT NULL PRIMARY KEY,
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE
);

-- To release the claim of a job.
CREATE INDEX output_claim_of_job ON output_claim (job_id);

-- A multipart upload of an output file. The row is older than the upload, so
-- that no crash leaves an upload that nobody knows.
CREATE TABLE upload (
    -- The job.
    job_id text NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    -- The output file: first the weight files, then the small ones.
    file_no bigint NOT NULL,
    -- Of the coordinator that made it; the file's upload is that of the
    -- highest epoch.
    epoch bigint NOT NULL,
    -- The URL of the object.
    url text NOT NULL,
    -- What the object bears as metadata, so that it can be told to be ours.
    nonce text NOT NULL,
    -- What storage calls the upload; null until it has answered.
    upload_id text,
    -- What became of it.
    state text NOT NULL DEFAULT 'INTENT' CHECK (state IN (
        'INTENT', 'OPEN', 'COMPLETED', 'ABORTED')),
    -- The one part of a small file: what storage calls it; null until it is
    -- put, and for weight files, whose parts are rows of `part`.
    part_id text,
    -- The one part of a small file: CRC-64/NVME of its bytes, the unsigned
    -- value's bits as a signed number; null as `part_id` is.
    part_crc64 bigint,
    -- The one part of a small file: its length; null as `part_id` is.
    part_bytes bigint,
    -- What storage says the finished object is; null unless COMPLETED.
    etag text,
    -- When the row was made.
    created_at_ms bigint NOT NULL,
    PRIMARY KEY (job_id, file_no, epoch),
    CONSTRAINT upload_has_its_id CHECK (
        upload_id IS NOT NULL OR state IN ('INTENT', 'ABORTED')),
    CONSTRAINT upload_has_its_etag CHECK (
        (etag IS NOT NULL) = (state = 'COMPLETED')),
    CONSTRAINT upload_part_is_whole CHECK (
        (part_crc64 IS NOT NULL) = (part_id IS NOT NULL)
        AND (part_bytes IS NOT NULL) = (part_id IS NOT NULL))
);

-- Uploads that may have to be aborted.
CREATE INDEX upload_unfinished ON upload (job_id) WHERE state IN ('INTENT', 'OPEN');

-- Who finished the task; null unless DONE, and for a task that was done before
-- this migration.
ALTER TABLE task ADD COLUMN done_by text;
-- When the latest lease was given; null before one.
ALTER TABLE task ADD COLUMN leased_at_ms bigint;
-- When `progress_bytes` last rose, or else when the latest lease was given;
-- null before one.
ALTER TABLE task ADD COLUMN progressed_at_ms bigint;
-- Heartbeats of the holder in a row that did not name the lease.
ALTER TABLE task ADD COLUMN missed_beats bigint NOT NULL DEFAULT 0;
-- How often the task was taken from a worker that was slow or stuck.
ALTER TABLE task ADD COLUMN steals bigint NOT NULL DEFAULT 0;
-- The worker from which the task was stolen, and which does not get it again
-- while there are others; null if there is none.
ALTER TABLE task ADD COLUMN stolen_from text;

-- The leases of a worker.
CREATE INDEX task_leased_by ON task (worker_id) WHERE state = 'LEASED';

-- Bytes of memory that the worker's tasks use at most; 0 if it did not say.
ALTER TABLE worker ADD COLUMN memory_bytes bigint NOT NULL DEFAULT 0;
-- When the worker said that it stops; null if it did not.
ALTER TABLE worker ADD COLUMN stopped_at_ms bigint;
-- Workers by the time they were last seen.
CREATE INDEX worker_by_last_seen ON worker (last_seen_ms);
