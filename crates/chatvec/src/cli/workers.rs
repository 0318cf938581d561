//! `chatvec workers`: who works for a coordinator.

use chatvec_proto::convert::WorkerView;
use serde::Serialize;

use super::job::utc;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::text::{binary_size, write_rows};
use super::{Exit, Failure, OutputFormat, begin, output};

/// List the workers that were seen lately, the latest first.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkersArgs {
    /// How long ago a worker may have been seen.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    seen_within: u32,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct WorkersJson {
    workers: Vec<WorkerJson>,
}

/// A worker in JSON. Sizes are bytes; times are UTC by RFC 3339.
#[derive(Debug, Serialize)]
struct WorkerJson {
    worker_id: String,
    hostname: String,
    version: String,
    slots: u32,
    memory_bytes: u64,
    tasks_leased: u64,
    first_seen: String,
    last_seen: String,
    /// When it said that it stops.
    stopped: Option<String>,
}

impl From<&WorkerView> for WorkerJson {
    fn from(worker: &WorkerView) -> Self {
        Self {
            worker_id: worker.worker.0.clone(),
            hostname: worker.hostname.clone(),
            version: worker.version.clone(),
            slots: worker.slots,
            memory_bytes: worker.memory_bytes,
            tasks_leased: worker.tasks_leased,
            first_seen: utc(worker.first_seen),
            last_seen: utc(worker.last_seen),
            stopped: worker.stopped.map(utc),
        }
    }
}

pub(super) fn run(args: &WorkersArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let workers = block_on(async { Remote::new(&args.address)?.workers(args.seen_within).await })?;
    match args.output {
        OutputFormat::Text => {
            let title = [
                "WORKER", "HOST", "VERSION", "TASKS", "MEMORY", "SEEN", "STATE",
            ];
            let rows: Vec<_> = std::iter::once(title.map(str::to_owned))
                .chain(workers.iter().map(row))
                .collect();
            output::print(|out| write_rows(&rows, "", out))?;
        }
        OutputFormat::Json => output::print_json(&WorkersJson {
            workers: workers.iter().map(WorkerJson::from).collect(),
        })?,
    }
    Ok(Exit::Success)
}

fn row(worker: &WorkerView) -> [String; 7] {
    [
        worker.worker.0.clone(),
        worker.hostname.clone(),
        worker.version.clone(),
        format!("{} of {}", worker.tasks_leased, worker.slots),
        binary_size(worker.memory_bytes),
        utc(worker.last_seen),
        if worker.stopped.is_some() {
            "stops"
        } else {
            "works"
        }
        .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use chatvec_core::ids::WorkerId;
    use chatvec_proto::convert::TimeMs;

    use super::*;

    #[test]
    fn a_worker_is_a_line_and_one_that_stops_is_told_apart() {
        let mut worker = WorkerView {
            worker: WorkerId("w1".to_owned()),
            hostname: "gpu-3".to_owned(),
            version: "0.1.0".to_owned(),
            slots: 4,
            memory_bytes: 256 << 20,
            tasks_leased: 3,
            first_seen: TimeMs(0),
            last_seen: TimeMs(0),
            stopped: None,
        };
        let line = "w1 gpu-3 0.1.0 3 of 4 256 MiB 1970-01-01T00:00:00Z";
        assert_eq!(row(&worker).join(" "), format!("{line} works"));
        worker.stopped = Some(TimeMs(1000));
        assert_eq!(row(&worker).join(" "), format!("{line} stops"));
        let json = serde_json::to_value(WorkerJson::from(&worker)).unwrap();
        assert_eq!(json["stopped"], "1970-01-01T00:00:01Z");
    }
}
