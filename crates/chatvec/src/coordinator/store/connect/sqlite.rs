//! SQLite, in a file that belongs to one process.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{Connection, Executor};

use super::schema::MIGRATIONS;
use crate::coordinator::store::dialect::SQLITE;
use crate::coordinator::store::wake::Wake;
use crate::coordinator::store::{Store, StoreError};

/// What SQLite is told on each new connection, in this order:
/// * exclusive locking before the first access, so that WAL needs no shared
///   memory and works on network filesystems;
/// * `synchronous = NORMAL`: a power cut may lose the last transactions but
///   harms nothing. Lost reports are redone;
/// * a short wait where an earlier process is still closing the file.
const SQLITE_SETTINGS: [&str; 5] = [
    "PRAGMA busy_timeout = 5000",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
];

/// How long a call may wait for the one connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);

impl Store {
    /// Opens the database file at `path`, creates it if it is missing, and
    /// applies the migrations. The file belongs to this process until
    /// [`Store::close`]: another process that opens it fails after 5 s.
    ///
    /// # Errors
    /// If the file cannot be opened, belongs to another process, or has a
    /// schema that is newer than this program.
    pub async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let url = resolved(path)
            .and_then(|path| sqlite_url(&path))
            .map_err(|source| StoreError::Path {
                path: path.to_owned(),
                source,
            })?;
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    for setting in SQLITE_SETTINGS {
                        connection.execute(setting).await?;
                    }
                    connection.ping().await
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    // Behind a rollback that is under way.
                    connection.ping().await?;
                    // Where a full disk made SQLite roll back by itself, the
                    // driver still counts a transaction as open: what is
                    // committed inside of it would never reach the disk.
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect(&url)
            .await?;
        MIGRATIONS.run(&pool).await?;
        let store = Self {
            pool,
            dialect: &SQLITE,
            wake: Arc::new(Wake::default()),
            floor: Arc::default(),
        };
        // The file was another process's until now: whoever planned or
        // published there is dead.
        store.release_all_epochs().await?;
        Ok(store)
    }
}

/// The path with its folder resolved: a URL's `..` would be cut lexically,
/// which goes elsewhere where the folder is a symbolic link.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no file name"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    Ok(folder.canonicalize()?.join(name))
}

/// The path as a URL. Everything but plain characters is percent-encoded, so
/// that `?`, `#`, `%` and blanks stay part of the path.
fn sqlite_url(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path is not valid UTF-8"))?;
    let mut url = String::from("sqlite://");
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => {
                url.push(char::from(byte));
            }
            other => write!(url, "%{other:02X}").expect("a String takes any text"),
        }
    }
    url.push_str("?mode=rwc");
    Ok(url)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn every_character_of_a_path_reaches_the_database() {
        assert_eq!(
            sqlite_url(Path::new("/a b/ü?#%.db")).unwrap(),
            "sqlite:///a%20b/%C3%BC%3F%23%25.db?mode=rwc"
        );
    }
}
