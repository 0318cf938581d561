//! Every reason for which a call is refused, as a client meets it.

use std::time::Duration;

use chatvec_proto::status::{DOMAIN, Reason};
use chatvec_proto::v1;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use super::scene::{Api, acquire, worker};

#[test]
fn every_reason_is_told_with_its_code_and_when_to_come_again() {
    let api = Api::start(&[]);
    // The one without a database comes last.
    let (last, others): (Vec<_>, Vec<_>) = Reason::ALL
        .into_iter()
        .partition(|reason| *reason == Reason::Unavailable);
    for reason in others.into_iter().chain(last) {
        let status = provoke(&api, reason);
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
        assert_eq!(info.reason, reason.name(), "{status:?}");
        assert_eq!(info.domain, DOMAIN);
        assert_eq!(status.code(), reason.code(), "{status:?}");
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, reason.retry_after(), "{status:?}");
        assert!(!status.message().is_empty());
    }
}

/// Makes a call that is refused for this reason.
fn provoke(api: &Api, reason: Reason) -> Status {
    match reason {
        Reason::BadRequest => refused(api, create(api, v1::CreateJobRequest::default())),
        Reason::RequestIdReused => {
            let named = |out| v1::CreateJobRequest {
                request_id: "nightly".to_owned(),
                ..api.merge(out)
            };
            created(api, named("named"));
            refused(api, create(api, named("other")))
        }
        Reason::OutputInUse => {
            api.queued("taken");
            refused(api, create(api, api.merge("taken")))
        }
        Reason::TenantLimit => {
            let limits = v1::UpdateTenantRequest {
                tenant: "small".to_owned(),
                open_jobs_max: Some(1),
                ..v1::UpdateTenantRequest::default()
            };
            let of_tenant = |out| v1::CreateJobRequest {
                tenant: "small".to_owned(),
                ..api.merge(out)
            };
            let set = async { api.client().update_tenant(limits).await };
            api.runtime.block_on(set).expect("set");
            created(api, of_tenant("first"));
            refused(api, create(api, of_tenant("second")))
        }
        Reason::JobNotFound => {
            let request = v1::GetJobRequest {
                job_id: "job-of-yesterday".to_owned(),
            };
            refused(api, async { api.client().get_job(request).await })
        }
        Reason::CommitInProgress => {
            let job = api.queued("committing");
            // As a finalizer leaves it that has an hour.
            api.postgres.query(&format!(
                "UPDATE job SET state = 'COMMITTING', committing_at_ms = created_at_ms,
                                epoch_expires_at_ms = created_at_ms + 3600000
                 WHERE job_id = '{job}'"
            ));
            cancelled(api, job)
        }
        Reason::JobEnded => {
            let mut request = api.merge("never");
            let recipe = request.recipe.as_mut().expect("it has a recipe");
            recipe.cp = "/nothing/here".to_owned();
            let job = created(api, request);
            api.service
                .until(&job, "the job to fail", |job| job["state"] == "FAILED");
            cancelled(api, job)
        }
        Reason::JobActive => {
            let request = v1::DeleteJobRequest {
                job_id: api.queued("active"),
            };
            refused(api, async { api.client().delete_job(request).await })
        }
        Reason::ProtocolVersion => {
            let mut request = acquire("of-tomorrow", 1, 0);
            let worker = request.worker.as_mut().expect("it has a worker");
            worker.protocol_version += 1;
            refused(api, async {
                api.worker_client().acquire_tasks(request).await
            })
        }
        Reason::DeadlineExceeded => {
            let mut request = Request::new(v1::WatchJobRequest {
                job_id: api.queued("watched"),
                after_revision: 0,
            });
            request.set_timeout(Duration::from_millis(500));
            api.runtime.block_on(async {
                let watch = api.client().watch_job(request).await;
                let mut watch = watch.expect("a watch").into_inner();
                loop {
                    match watch.message().await {
                        Ok(job) => job.expect("a watch of a job that waits does not end"),
                        Err(late) => return late,
                    };
                }
            })
        }
        Reason::Internal => {
            // What no coordinator writes.
            let job = api.queued("broken");
            api.postgres.query(&format!(
                "UPDATE job SET recipe = '{{' WHERE job_id = '{job}'"
            ));
            let request = v1::GetJobRequest { job_id: job };
            refused(api, async { api.client().get_job(request).await })
        }
        Reason::Unavailable => {
            // Whoever comes is told to go: the database is as good as gone.
            api.postgres.query(
                "BEGIN;
                 UPDATE pg_database SET datallowconn = false WHERE datname = 'postgres';
                 COMMIT;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name LIKE 'chatvec%'",
            );
            let beat = || v1::HeartbeatRequest {
                worker: Some(worker("cut-off")),
                ..v1::HeartbeatRequest::default()
            };
            let worker = refused(api, async { api.worker_client().heartbeat(beat()).await });
            assert_eq!(Reason::of(&worker), Some(Reason::Unavailable), "{worker:?}");
            let list = v1::ListJobsRequest::default();
            refused(api, async { api.client().list_jobs(list).await })
        }
    }
}

async fn create(
    api: &Api,
    request: v1::CreateJobRequest,
) -> Result<tonic::Response<v1::CreateJobResponse>, Status> {
    api.client().create_job(request).await
}

/// Makes a job; returns its id.
fn created(api: &Api, request: v1::CreateJobRequest) -> String {
    let created = api.runtime.block_on(create(api, request));
    let job = created.expect("created").into_inner().job;
    job.expect("a job").job_id
}

fn cancelled(api: &Api, job_id: String) -> Status {
    let request = v1::CancelJobRequest { job_id };
    refused(api, async { api.client().cancel_job(request).await })
}

fn refused<T>(api: &Api, call: impl Future<Output = Result<T, Status>>) -> Status {
    match api.runtime.block_on(call) {
        Ok(_) => panic!("the call is refused"),
        Err(status) => status,
    }
}
