//! A SeaweedFS server: a real distributed store that speaks S3.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::{Access, Bucket, TRIES, bound, free_ports};
use crate::process::Process;
use crate::python;

/// The one bucket of every server.
pub const BUCKET: &str = "models";

/// Who calls the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// May do everything.
    Owner,
    /// May list and read, and nothing else.
    Reader,
}

impl Identity {
    const ALL: [Self; 2] = [Self::Owner, Self::Reader];

    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Reader => "reader",
        }
    }

    fn secret(self) -> String {
        format!("{}-secret", self.name())
    }

    fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Owner => &["Admin", "Read", "Write", "List", "Tagging"],
            Self::Reader => &["Read", "List"],
        }
    }
}

/// A SeaweedFS server of its own with one empty bucket. It is stopped by a
/// kill: asked politely, it takes a quarter of a minute.
#[derive(Debug)]
pub struct SeaweedFs {
    process: Process,
    port: u16,
    /// Where it shows the bucket as a filesystem, to whoever asks.
    filer_port: u16,
    // Removed after the server has ended: fields are dropped in this order.
    _folder: TempDir,
}

impl SeaweedFs {
    /// Starts a server and waits until its bucket takes objects.
    ///
    /// # Panics
    /// If SeaweedFS is not installed and cannot be, or does not start. A test
    /// that needs object storage must not pass without it.
    pub fn start() -> Self {
        let program = python::env().with_file_name("weed");
        for _ in 0..TRIES {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (command, port, filer_port) = mini(&program, folder.path());
            let mut server = Self {
                process: Process::start(command),
                port,
                filer_port,
                _folder: folder,
            };
            let bucket = server.bucket();
            let is_ready = || bucket.put("probe", Vec::new()).is_ok();
            if server
                .process
                .runs_until("SeaweedFS to take objects", is_ready)
            {
                bucket.delete("probe").expect("what was put can be deleted");
                return server;
            }
            let outcome = server.process.wait();
            let said = [&outcome.stdout, &outcome.stderr];
            assert!(
                said.iter()
                    .any(|text| text.contains("address already in use")),
                "SeaweedFS does not start: {outcome:#?}"
            );
        }
        panic!("SeaweedFS found no ports free in {TRIES} tries");
    }

    /// Its id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// What a client needs to call it.
    pub fn access(&self, identity: Identity) -> Access {
        Access {
            endpoint: format!("http://127.0.0.1:{}", self.port),
            key_id: identity.name().to_owned(),
            secret_key: identity.secret(),
        }
    }

    /// Writes an object of this size: these bytes, and behind them a hole, which
    /// takes no space and reads as zeros. S3 itself has no such thing.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn put_with_hole(&self, key: &str, bytes: Vec<u8>, size: u64) -> anyhow::Result<()> {
        let url = format!(
            "http://127.0.0.1:{}/buckets/{BUCKET}/{key}",
            self.filer_port
        );
        let bucket = self.bucket();
        bucket.put_to(&url, bytes)?;
        bucket.put_to(&format!("{url}?offset={}", size - 1), vec![0])
    }

    /// Its bucket, for whom everything is allowed.
    pub fn bucket(&self) -> Bucket {
        Bucket::new(BUCKET, self.access(Identity::Owner))
    }
}

/// The command of a server in a folder, the port where it speaks S3, and the one
/// of its filesystem.
fn mini(program: &Path, folder: &Path) -> (Command, u16, u16) {
    let identities = Identity::ALL.map(|identity| {
        json!({
            "name": identity.name(),
            "credentials": [{"accessKey": identity.name(), "secretKey": identity.secret()}],
            "actions": identity.actions(),
        })
    });
    let config = folder.join("s3.json");
    fs::write(&config, json!({"identities": identities}).to_string()).expect("written");
    let data = folder.join("data");
    fs::create_dir(&data).expect("made");

    let mut command = bound(program, "KILL", &[]);
    command
        .args(["mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args(["-admin.ui=false", "-webdav=false", "-s3.iam=false"])
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
        .arg(format!("-bucket={BUCKET}"))
        .arg(format!("-s3.config={}", config.display()))
        .arg(format!("-dir={}", data.display()))
        .current_dir(folder);
    const PORTS: [&str; 10] = [
        "s3.port",
        "filer.port",
        "s3.port.grpc",
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port.grpc",
        "admin.port",
        "admin.port.grpc",
    ];
    let ports = free_ports::<{ PORTS.len() }>();
    for (name, port) in PORTS.into_iter().zip(ports) {
        command.arg(format!("-{name}={port}"));
    }
    (command, ports[0], ports[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_run_at_once_and_keep_what_is_uploaded() {
        let servers = [SeaweedFs::start(), SeaweedFs::start()];
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        // One of a single part and a bit, one of none.
        fs::write(from.join("large"), vec![7; (8 << 20) + 1]).unwrap();
        fs::write(from.join("small"), b"abc").unwrap();
        let buckets = servers.each_ref().map(SeaweedFs::bucket);
        buckets[0].upload(&from, "some/place").unwrap();
        assert_eq!(
            buckets[0].keys("").unwrap(),
            ["some/place/large", "some/place/small"]
        );
        assert!(buckets[1].keys("").unwrap().is_empty());
        buckets[0].download("some/place", &to).unwrap();
        for name in ["large", "small"] {
            assert!(fs::read(from.join(name)).unwrap() == fs::read(to.join(name)).unwrap());
        }
        assert!(buckets[0].unfinished_uploads().unwrap().is_empty());
    }

    #[test]
    fn a_hole_takes_no_space_and_counts_in_the_size() {
        let server = SeaweedFs::start();
        server
            .put_with_hole("some/object", b"abc".to_vec(), 10)
            .unwrap();
        let found = server.bucket().get("some/object").unwrap();
        assert_eq!(found, b"abc\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_reader_may_not_write_and_a_stranger_nothing() {
        let server = SeaweedFs::start();
        server.bucket().put("object", b"abc".to_vec()).unwrap();
        let reader = Bucket::new(BUCKET, server.access(Identity::Reader));
        assert_eq!(reader.get("object").unwrap(), b"abc");
        assert!(reader.put("object", Vec::new()).is_err());
        let stranger = Access {
            secret_key: "guessed".to_owned(),
            ..server.access(Identity::Owner)
        };
        assert!(Bucket::new(BUCKET, stranger).get("object").is_err());
    }
}
