//! Reading a header, with nothing taken on trust.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};

use super::{HEADER_MAX, Header, HeaderError, LENGTH_BYTES, METADATA_KEY, TensorEntry};
use crate::dtype::Dtype;

/// How a Git-LFS pointer begins. As a length these bytes would be far more
/// than [`HEADER_MAX`], so no real file is taken for a pointer.
const GIT_LFS_START: &[u8] = b"version https://git-lfs";

/// Reads the length of the JSON from the first bytes of a file: 8 of them, or
/// all that a shorter file has. More may be given.
///
/// # Errors
/// The bytes are those of a Git-LFS pointer or fewer than 8, or the header
/// would be over [`HEADER_MAX`] or would not fit into the file.
pub fn parse_length(first8: &[u8], object_size: u64) -> Result<u64, HeaderError> {
    let Some(length) = first8.first_chunk() else {
        return Err(HeaderError::TooShort { size: object_size });
    };
    if GIT_LFS_START.starts_with(length) {
        return Err(HeaderError::GitLfsPointer);
    }
    let length = u64::from_le_bytes(*length);
    if length > HEADER_MAX {
        return Err(HeaderError::TooLong { length });
    }
    let wanted = LENGTH_BYTES + length;
    if wanted > object_size {
        return Err(HeaderError::HeaderTruncated {
            wanted,
            size: object_size,
        });
    }
    Ok(length)
}

/// Parses the JSON of a header, all of it and nothing else, and checks every
/// tensor and the size of the file against it.
///
/// # Errors
/// Whatever the reference implementation rejects; and beyond it white space
/// before the JSON, a name that stands twice, and tensors that are not objects.
pub fn parse(json: &[u8], object_size: u64) -> Result<Header, HeaderError> {
    let length = json.len() as u64;
    if length > HEADER_MAX {
        return Err(HeaderError::TooLong { length });
    }
    if json.first() != Some(&b'{') {
        return Err(HeaderError::NotAnObject);
    }
    let text = std::str::from_utf8(json).map_err(HeaderError::NotUtf8)?;
    let raw: RawHeader = serde_json::from_str(text).map_err(HeaderError::Json)?;
    refuse_duplicates(&raw.tensors)?;
    let mut tensors = raw
        .tensors
        .into_iter()
        .map(|(name, entry)| check_entry(name, entry))
        .collect::<Result<Vec<_>, _>>()?;
    // The list was made in the place of a larger one.
    tensors.shrink_to_fit();
    tensors.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let data_end = check_contiguous(&tensors)?;

    let data_start = LENGTH_BYTES + length;
    // Saturated, the sum is still larger than any file.
    let wanted = data_start.saturating_add(data_end);
    if wanted > object_size {
        return Err(HeaderError::Truncated {
            wanted,
            size: object_size,
        });
    }
    if wanted < object_size {
        return Err(HeaderError::TrailingBytes {
            wanted,
            size: object_size,
        });
    }
    Ok(Header {
        data_start,
        tensors,
        metadata: raw.metadata,
    })
}

fn refuse_duplicates(tensors: &[(String, RawEntry)]) -> Result<(), HeaderError> {
    let mut seen = HashSet::with_capacity(tensors.len());
    match tensors.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(HeaderError::DuplicateTensor {
            tensor: name.clone(),
        }),
    }
}

fn check_entry(tensor: String, raw: RawEntry) -> Result<TensorEntry, HeaderError> {
    let RawEntry {
        dtype, mut shape, ..
    } = raw;
    shape.shrink_to_fit();
    let [begin, end] = raw.data_offsets;
    let deserializer: StrDeserializer<'_, ValueError> = dtype.as_str().into_deserializer();
    let Ok(dtype) = Dtype::deserialize(deserializer) else {
        return Err(HeaderError::UnknownDtype { tensor, dtype });
    };
    let Some(found) = end.checked_sub(begin) else {
        return Err(HeaderError::ReversedOffsets { tensor, begin, end });
    };
    match super::tensor_bytes(dtype, &shape) {
        Some(Ok(expected)) if expected == found => Ok(TensorEntry {
            name: tensor,
            dtype,
            shape,
            begin,
            end,
        }),
        Some(Ok(expected)) => Err(HeaderError::SizeMismatch {
            tensor,
            dtype,
            shape,
            expected,
            found,
        }),
        Some(Err(bits)) => Err(HeaderError::PartialByte {
            tensor,
            dtype,
            shape,
            bits,
        }),
        None => Err(HeaderError::ShapeOverflow {
            tensor,
            dtype,
            shape,
        }),
    }
}

/// Checks that the sorted tensors cover the data section from 0 without hole
/// or overlap, and returns where it ends.
fn check_contiguous(tensors: &[TensorEntry]) -> Result<u64, HeaderError> {
    let mut previous: Option<&TensorEntry> = None;
    for tensor in tensors {
        let expected = previous.map_or(0, |previous| previous.end);
        if tensor.begin > expected {
            return Err(HeaderError::Hole {
                tensor: tensor.name.clone(),
                begin: tensor.begin,
                expected,
            });
        }
        if let Some(other) = previous
            && tensor.begin < expected
        {
            return Err(HeaderError::Overlap {
                tensor: tensor.name.clone(),
                begin: tensor.begin,
                other: other.name.clone(),
                other_end: expected,
            });
        }
        previous = Some(tensor);
    }
    Ok(previous.map_or(0, |last| last.end))
}

/// The JSON as it stands, every name kept, also one that stands twice.
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, RawEntry)>,
}

struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut metadata = None;
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA_KEY {
                let entry = map
                    .next_value::<RawEntry>()
                    .map_err(|error| A::Error::custom(format_args!("tensor `{name}`: {error}")))?;
                tensors.push((name, entry));
            } else if metadata.is_none() {
                metadata = Some(map.next_value::<Option<Metadata>>()?.unwrap_or_default());
            } else {
                return Err(A::Error::duplicate_field(METADATA_KEY));
            }
        }
        Ok(RawHeader {
            metadata: metadata.unwrap_or_default().0,
            tensors,
        })
    }
}

#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts in `__metadata__`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut metadata = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value()?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format_args!(
                    "key `{key}` stands twice in `{METADATA_KEY}`"
                )));
            }
        }
        Ok(Metadata(metadata))
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = RawEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `dtype`, `shape` and `data_offsets`")
    }

    // Written by hand, as a derived struct would take an array for an object.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry, A::Error> {
        let mut dtype = None;
        let mut shape = None;
        let mut data_offsets = None;
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Dtype => set_once(&mut dtype, "dtype", map.next_value()?)?,
                Field::Shape => set_once(&mut shape, "shape", map.next_value()?)?,
                Field::DataOffsets => {
                    set_once(&mut data_offsets, "data_offsets", map.next_value()?)?;
                }
                // Unknown fields do no harm. As a value rather than skipped, so
                // that the same numbers and depths are errors as for others.
                Field::Other => drop(map.next_value::<serde_json::Value>()?),
            }
        }
        Ok(RawEntry {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            data_offsets: data_offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }
}

fn set_once<T, E: serde::de::Error>(
    slot: &mut Option<T>,
    field: &'static str,
    value: T,
) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(field)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Dtype,
    Shape,
    DataOffsets,
    #[serde(other)]
    Other,
}
