-- Tasks that may be taking down their workers.

-- Those that have lost two workers: they are leased alone. There are hardly
-- ever any.
CREATE INDEX task_suspect ON task (state, sched_key, job_id, task_no) WHERE crashes >= 2;
