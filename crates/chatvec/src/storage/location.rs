//! The URL of a checkpoint: for now a folder of the local filesystem.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use chatvec_core::problem::Problem;

/// Where a checkpoint is. Equal are those of one path, however it was written.
#[derive(Debug, Clone)]
pub struct Location {
    path: PathBuf,
    text: String,
}

/// Why a text is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing is written.
    #[error("expected the path of a folder, found nothing")]
    Empty,
    /// A store that is known but cannot be read yet.
    #[error("`{scheme}://` is not supported yet, expected a path or `file://`")]
    NotSupportedYet {
        /// What is written.
        text: String,
        /// The part before `://`.
        scheme: String,
    },
    /// A URL of another kind.
    #[error("unknown kind of URL `{scheme}://`, expected a path or `file://`")]
    UnknownScheme {
        /// What is written.
        text: String,
        /// The part before `://`.
        scheme: String,
    },
    /// A file URL that is not the absolute path of this machine.
    #[error("expected `file:///` and an absolute path")]
    FileUrl {
        /// What is written.
        text: String,
    },
}

impl LocationError {
    /// The error as a problem of what is written, with advice.
    pub fn problems(&self) -> Vec<Problem> {
        let message = self.to_string();
        vec![match self {
            Self::Empty => Problem::new("location", message),
            Self::NotSupportedYet { text, .. } => {
                Problem::new(text, message).with_hint("download it first and give the folder")
            }
            Self::UnknownScheme { text, .. } | Self::FileUrl { text } => {
                Problem::new(text, message)
            }
        }]
    }
}

impl Location {
    /// Parses a path or a `file://` URL. A relative path is taken from
    /// `relative_to`, which must be absolute. Nothing is looked up.
    ///
    /// # Errors
    /// Nothing is written, or a URL that cannot be read.
    pub fn parse(text: &str, relative_to: &Path) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        let path = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => {
                from_url(&scheme.to_ascii_lowercase(), rest, text)?
            }
            _ => PathBuf::from(text),
        };
        // Collecting drops `.` and doubled slashes; `..` stays, as what it
        // means depends on links.
        let path = relative_to.join(path).components().collect();
        Ok(Self {
            path,
            text: text.to_owned(),
        })
    }

    /// Whether the text means the same from every folder: an absolute path or a URL.
    pub fn is_absolute(text: &str) -> bool {
        let is_url = text
            .split_once("://")
            .is_some_and(|(scheme, _)| is_scheme(scheme));
        is_url || Path::new(text).is_absolute()
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the text has the form of a model's name on the Hub,
    /// `organisation/name`.
    pub(super) fn resembles_hub_name(&self) -> bool {
        let is_part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
        };
        let parts = self.text.split_once('/');
        parts.is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
    }

    /// What the user wrote.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Location {}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn from_url(scheme: &str, rest: &str, text: &str) -> Result<PathBuf, LocationError> {
    let (scheme, text) = (scheme.to_owned(), text.to_owned());
    match scheme.as_str() {
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            let decoded = path.starts_with('/').then(|| percent_decoded(path));
            decoded.flatten().ok_or(LocationError::FileUrl { text })
        }
        "s3" | "gs" | "az" | "http" | "https" => {
            Err(LocationError::NotSupportedYet { text, scheme })
        }
        _ => Err(LocationError::UnknownScheme { text, scheme }),
    }
}

/// The path with its `%20` replaced, or `None` where a `%` is not followed by
/// two hexadecimal digits, or they stand for the byte that no path may hold.
fn percent_decoded(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let decoded = u8::try_from(digit()? * 16 + digit()?).ok()?;
        if decoded == 0 {
            return None;
        }
        bytes.push(decoded);
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(text, Path::new("/here"))
    }

    #[test]
    fn paths_become_absolute_without_being_looked_up() {
        for (text, path) in [
            ("/models/x", "/models/x"),
            ("x", "/here/x"),
            ("./x/", "/here/x"),
            ("../x", "/here/../x"),
            ("a:b", "/here/a:b"),
            ("file:///models/a%20b%C3%A9", "/models/a bé"),
            ("FILE://localhost/models/x", "/models/x"),
        ] {
            assert_eq!(parse(text).unwrap().path(), Path::new(path), "{text}");
        }
        assert_eq!(parse("./x/"), parse("/here//x"));
        assert_ne!(parse("x"), parse("y"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_scheme() {
        for (text, message) in [
            ("", "found nothing"),
            ("s3://bucket/x", "`s3://` is not supported yet"),
            ("https://host/x", "`https://` is not supported yet"),
            ("ftp://host/x", "unknown kind of URL `ftp://`"),
            ("file://host/x", "expected `file:///`"),
            ("file://x", "expected `file:///`"),
            ("file:///x%2", "expected `file:///`"),
            ("file:///x%zz", "expected `file:///`"),
            ("file:///x%00", "expected `file:///`"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let problem = &parse("s3://bucket/x").unwrap_err().problems()[0];
        assert_eq!(problem.subject, "s3://bucket/x");
        assert!(problem.hint.is_some());
    }

    #[test]
    fn a_hub_name_is_two_plain_parts() {
        let is_hub = |text| parse(text).unwrap().resembles_hub_name();
        assert!(is_hub("meta-llama/Llama-3.1-8B"));
        for other in ["/a/b", "./a/b", "a", "a/b/c", "a/", "../a", "a b/c"] {
            assert!(!is_hub(other), "{other}");
        }
    }
}
