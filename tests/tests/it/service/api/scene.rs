//! A coordinator on a database of its own, and clients in this process.

use chatvec::channel::{Connection, Coordinators};
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use chatvec_proto::v1::worker_service_client::WorkerServiceClient;
use chatvec_proto::{MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use chatvec_tests::component::Postgres;
use chatvec_tests::process::{self, until};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::service::scene::{Scene, Service};

/// A coordinator that listens, its database, and a family of checkpoints.
pub(super) struct Api {
    pub(super) service: Service,
    pub(super) postgres: Postgres,
    pub(super) scene: Scene,
    pub(super) runtime: Runtime,
}

impl Api {
    pub(super) fn start(more: &[&str]) -> Self {
        let (scene, postgres) = (Scene::new(), Postgres::start());
        process::run(["migrate", "--database", &postgres.url()]).expect_code(0);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        Self {
            service: scene.serve_on(&postgres.url(), more),
            postgres,
            scene,
            runtime: runtime.expect("a runtime can be made"),
        }
    }

    /// A connection of its own, made at its first call. Within the runtime.
    pub(super) fn channel(&self) -> Connection {
        let coordinators = Coordinators::parse(&self.service.address);
        coordinators.expect("it is an address").connect()
    }

    pub(super) fn client(&self) -> MergeServiceClient<Connection> {
        MergeServiceClient::new(self.channel())
    }

    pub(super) fn worker_client(&self) -> WorkerServiceClient<Connection> {
        WorkerServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A merge of the family into a folder of the scene.
    pub(super) fn merge(&self, out: &str) -> v1::CreateJobRequest {
        let text = |path: std::path::PathBuf| path.display().to_string();
        let vector = v1::Vector {
            chat: text(self.scene.family.chat()),
            base: text(self.scene.family.base()),
            weight: 0.7,
        };
        let output = v1::Output {
            url: text(self.scene.path(out)),
            ..v1::Output::default()
        };
        v1::CreateJobRequest {
            recipe: Some(v1::Recipe {
                cp: text(self.scene.family.cp()),
                vectors: vec![vector],
                output: Some(output),
                ..v1::Recipe::default()
            }),
            ..v1::CreateJobRequest::default()
        }
    }

    /// Submits a merge into a folder of the scene, and waits until it is planned.
    pub(super) fn queued(&self, out: &str) -> String {
        let request = self.merge(out);
        let created = self
            .runtime
            .block_on(async { self.client().create_job(request).await });
        let job = created.expect("created").into_inner().job;
        let job = job.expect("a job").job_id;
        self.service.until(&job, "the job to be planned", |job| {
            assert_eq!(job["error"], Value::Null, "{job:#}");
            job["state"] == "QUEUED"
        });
        job
    }

    /// How many sessions of chatvec on the database are like this.
    pub(super) fn sessions(&self, like: &str) -> u32 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name LIKE 'chatvec%' AND {like}"
        );
        self.postgres.query(&sql).parse().expect("a number")
    }

    /// Waits until no session works or holds a transaction.
    pub(super) fn until_database_rests(&self) {
        until("the sessions on the database to rest", || {
            self.sessions("state <> 'idle'") == 0
        });
    }
}

/// What a worker of this version says of itself.
pub(super) fn worker(id: &str) -> v1::Worker {
    v1::Worker {
        worker_id: id.to_owned(),
        hostname: "host".to_owned(),
        version: "test".to_owned(),
        slots: 1,
        memory_bytes: 1 << 30,
        protocol_version: PROTOCOL_VERSION,
    }
}

/// A worker that asks for tasks and waits a while.
pub(super) fn acquire(id: &str, max_tasks: u32, wait_ms: u32) -> v1::AcquireTasksRequest {
    v1::AcquireTasksRequest {
        worker: Some(worker(id)),
        max_tasks,
        wait_ms,
    }
}
