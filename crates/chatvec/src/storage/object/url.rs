//! `s3://bucket/key`: where an object, or a folder of them, is.

use std::fmt;

use object_store::path::Path;

/// The kinds of object storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage; the bucket is a container.
    Az,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::S3, Self::Gs, Self::Az];

    /// As it is written before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }

    /// The scheme of a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }

    /// The feature that this build lacks and that the scheme needs.
    pub fn missing_feature(self) -> Option<&'static str> {
        match self {
            Self::Gs if !cfg!(feature = "gcs") => Some("gcs"),
            Self::Az if !cfg!(feature = "azure") => Some("azure"),
            Self::S3 | Self::Gs | Self::Az => None,
        }
    }
}

/// A place in a bucket, in its one normal form: no slash at the end, none
/// doubled, the scheme in lower case. Equal URLs are the same place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectUrl {
    scheme: Scheme,
    bucket: String,
    key: String,
}

/// Why a text is no [`ObjectUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectUrlError {
    /// Not `s3://…`, `gs://…` or `az://…`.
    #[error("expected `s3://bucket/prefix`")]
    Scheme,
    /// The name of the bucket is missing or none.
    #[error("expected the name of a bucket after `{}://`, found `{found}`", scheme.name())]
    Bucket {
        /// The kind of store.
        scheme: Scheme,
        /// What stands there.
        found: String,
    },
    /// No object can be there.
    #[error("expected the name of an object or folder, found `{found}`: {reason}")]
    Key {
        /// What stands behind the bucket.
        found: String,
        /// Why it is none.
        reason: String,
    },
}

impl ObjectUrl {
    /// Parses a URL. The key is taken as it stands, never decoded: `%20` in it
    /// is three characters.
    ///
    /// # Errors
    /// Naming what is missing or cannot be.
    pub fn parse(text: &str) -> Result<Self, ObjectUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ObjectUrlError::Scheme)?;
        let scheme = Scheme::named(scheme).ok_or(ObjectUrlError::Scheme)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if bucket.is_empty() || !bucket.chars().all(in_name) {
            let found = bucket.to_owned();
            return Err(ObjectUrlError::Bucket { scheme, found });
        }
        let segments = key.split('/').filter(|segment| !segment.is_empty());
        let key = segments.collect::<Vec<_>>().join("/");
        check(&key)?;
        Ok(Self {
            scheme,
            bucket: bucket.to_owned(),
            key,
        })
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket, or the container.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The place in the bucket; empty for the bucket itself.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key of `name` below this place.
    pub fn key_of(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.key)
        }
    }

    /// The place of `name` below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        Self {
            key: self.key_of(name),
            ..self.clone()
        }
    }

    /// Another place in the same bucket.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..self.clone()
        }
    }

    /// Whether `self` is `other` or a place below it.
    pub fn is_within(&self, other: &Self) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/') || other.key.is_empty();
        (self.scheme, &self.bucket) == (other.scheme, &other.bucket)
            && self.key.strip_prefix(&other.key).is_some_and(below)
    }
}

fn check(key: &str) -> Result<(), ObjectUrlError> {
    match Path::parse(key) {
        Ok(_) => Ok(()),
        Err(error) => Err(ObjectUrlError::Key {
            found: key.to_owned(),
            reason: error.to_string(),
        }),
    }
}

impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.bucket)?;
        if !self.key.is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ObjectUrl {
        ObjectUrl::parse(text).unwrap()
    }

    #[test]
    fn a_url_has_one_normal_form() {
        for text in ["s3://b/x/y", "S3://b//x/y/", "s3://b/x//y//"] {
            assert_eq!(parse(text).to_string(), "s3://b/x/y", "{text}");
        }
        assert_eq!(parse("s3://b/").to_string(), "s3://b");
        assert_eq!(parse("s3://b").join("x").to_string(), "s3://b/x");
        assert_eq!(parse("s3://b/x").key_of("y/z"), "x/y/z");
        assert_eq!(parse("s3://b/a%20b c").key(), "a%20b c");
    }

    #[test]
    fn a_url_without_a_bucket_or_with_dots_for_folders_is_refused() {
        for (text, says) in [
            ("s3://", "name of a bucket"),
            ("s3:///x", "name of a bucket"),
            ("s3://b?x/y", "found `b?x`"),
            ("s3://b/x/../y", "found `x/../y`"),
            ("http://b/x", "expected `s3://"),
            ("/x", "expected `s3://"),
        ] {
            let error = ObjectUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_place_is_within_itself_its_folders_and_its_bucket() {
        let place = parse("s3://b/x/y");
        for around in ["s3://b/x/y", "s3://b/x", "s3://b"] {
            assert!(place.is_within(&parse(around)), "{around}");
        }
        for other in [
            "s3://b/x/y/z",
            "s3://b/x/yy",
            "s3://c/x",
            "gs://b/x",
            "s3://b/x/",
        ] {
            let is_within = other == "s3://b/x/";
            assert_eq!(place.is_within(&parse(other)), is_within, "{other}");
        }
        assert!(!parse("s3://b/xy").is_within(&parse("s3://b/x")));
    }
}
