//! The URL of a checkpoint: a folder of the local filesystem, or a prefix in
//! object storage.

use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use chatvec_core::problem::Problem;

use super::object::{ObjectUrl, ObjectUrlError, Scheme};

/// Where a checkpoint is. Equal are those of one place, however it was written.
#[derive(Debug, Clone)]
pub enum Location {
    /// A folder of the local filesystem.
    Folder {
        /// Its absolute path.
        path: PathBuf,
        /// What the user wrote.
        text: String,
    },
    /// What lies below a prefix in object storage.
    Objects(ObjectUrl),
}

/// Why a text is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing is written.
    #[error("expected the path of a folder or a URL, found nothing")]
    Empty,
    /// A store that this build cannot reach.
    #[error("`{}://` is not supported by this build", scheme.name())]
    NotBuilt {
        /// What is written.
        text: String,
        /// The kind of store.
        scheme: Scheme,
        /// What the build lacks.
        feature: &'static str,
    },
    /// A URL of another kind.
    #[error("unknown kind of URL `{scheme}://`, expected a path, `s3://` or `file://`")]
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
    /// A URL of object storage that names no place in a bucket.
    #[error("{error}")]
    ObjectUrl {
        /// What is written.
        text: String,
        /// Why not.
        error: ObjectUrlError,
    },
}

impl LocationError {
    /// The error as a problem of what is written, with advice.
    pub fn problems(&self) -> Vec<Problem> {
        let message = self.to_string();
        vec![match self {
            Self::Empty => Problem::new("location", message),
            Self::NotBuilt { text, feature, .. } => Problem::new(text, message)
                .with_hint(format!("build chatvec with `--features {feature}`")),
            Self::UnknownScheme { text, .. } => Problem::new(text, message)
                .with_hint("download it first and give the folder, or put it into a bucket"),
            Self::FileUrl { text } | Self::ObjectUrl { text, .. } => Problem::new(text, message),
        }]
    }
}

impl Location {
    /// Parses a path, a `file://` URL or a URL of object storage. A relative
    /// path is taken from `relative_to`, which must be absolute. Nothing is
    /// looked up.
    ///
    /// # Errors
    /// Nothing is written, or a URL that cannot be read.
    pub fn parse(text: &str, relative_to: &Path) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        let path = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => {
                if let Some(scheme) = Scheme::named(scheme) {
                    return in_bucket(scheme, text);
                }
                from_url(&scheme.to_ascii_lowercase(), rest, text)?
            }
            _ => PathBuf::from(text),
        };
        // Collecting drops `.` and doubled slashes; `..` stays, as what it
        // means depends on links.
        let path = relative_to.join(path).components().collect();
        let text = text.to_owned();
        Ok(Self::Folder { path, text })
    }

    /// Whether the text means the same from every folder: an absolute path or a URL.
    pub fn is_absolute(text: &str) -> bool {
        let is_url = text
            .split_once("://")
            .is_some_and(|(scheme, _)| is_scheme(scheme));
        is_url || Path::new(text).is_absolute()
    }

    /// The absolute path, where it is a folder.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder { path, .. } => Some(path),
            Self::Objects(_) => None,
        }
    }

    /// The one text of this place, by which the job store compares it.
    pub fn key(&self) -> String {
        self.to_string()
    }

    /// Whether the text has the form of a model's name on the Hub,
    /// `organisation/name`.
    pub(super) fn resembles_hub_name(&self) -> bool {
        let is_part = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(plain)
        };
        let Self::Folder { text, .. } = self else {
            return false;
        };
        let parts = text.split_once('/');
        parts.is_some_and(|(organisation, name)| is_part(organisation) && is_part(name))
    }

    /// What the user wrote, or means the same.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Folder { text, .. } => text.clone(),
            Self::Objects(url) => url.to_string(),
        }
    }
}

impl PartialEq for Location {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder { path, .. }, Self::Folder { path: other, .. }) => path == other,
            (Self::Objects(url), Self::Objects(other)) => url == other,
            _ => false,
        }
    }
}

impl Eq for Location {}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, .. } => path.display().fmt(f),
            Self::Objects(url) => url.fmt(f),
        }
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
        _ => Err(LocationError::UnknownScheme { text, scheme }),
    }
}

fn in_bucket(scheme: Scheme, text: &str) -> Result<Location, LocationError> {
    let text = text.to_owned();
    if let Some(feature) = scheme.missing_feature() {
        return Err(LocationError::NotBuilt {
            text,
            scheme,
            feature,
        });
    }
    match ObjectUrl::parse(&text) {
        Ok(url) => Ok(Location::Objects(url)),
        Err(error) => Err(LocationError::ObjectUrl { text, error }),
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
            assert_eq!(
                parse(text).unwrap().folder(),
                Some(Path::new(path)),
                "{text}"
            );
        }
        assert_eq!(parse("./x/"), parse("/here//x"));
        assert_ne!(parse("x"), parse("y"));
    }

    #[test]
    fn a_place_in_a_bucket_has_one_key_however_it_is_written() {
        for text in ["s3://bucket/a/b", "S3://bucket//a/b/"] {
            let location = parse(text).unwrap();
            assert_eq!(location.key(), "s3://bucket/a/b", "{text}");
            assert_eq!(location.folder(), None);
            assert_eq!(Ok(location), parse("s3://bucket/a/b"));
        }
        assert_ne!(parse("s3://bucket/a"), parse("/bucket/a"));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_scheme() {
        for (text, message) in [
            ("", "found nothing"),
            ("s3://", "expected the name of a bucket after `s3://`"),
            (
                "s3://bucket/x/../y",
                "expected the name of an object or folder",
            ),
            ("https://host/x", "unknown kind of URL `https://`"),
            #[cfg(not(feature = "gcs"))]
            ("gs://bucket/x", "`gs://` is not supported by this build"),
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
        let problem = &parse("https://host/x").unwrap_err().problems()[0];
        assert_eq!(problem.subject, "https://host/x");
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
