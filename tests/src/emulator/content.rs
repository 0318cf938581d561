//! Bytes as they came from the socket, in pieces that are never copied.

use std::ops::Range;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::{Digest as _, Md5};

/// A body shorter than this is copied: its pieces may hold on to a buffer of
/// the connection that is much larger.
const COPIED_BELOW: u64 = 64 << 10;
/// An object of at most so many bytes is small.
const SMALL_MAX: u64 = 1 << 20;

/// The bytes of an object, a part or a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    chunks: Vec<Bytes>,
    len: u64,
}

impl Content {
    pub(super) fn of(chunks: Vec<Bytes>) -> Self {
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let chunks = match len < COPIED_BELOW {
            true => vec![chunks.concat().into()],
            false => chunks,
        };
        Self { chunks, len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// All bytes in one piece, if there are few.
    pub(super) fn small(&self) -> Option<Bytes> {
        match self.chunks.as_slice() {
            _ if self.len > SMALL_MAX => None,
            [only] => Some(only.clone()),
            several => Some(several.concat().into()),
        }
    }

    /// Whether it is these bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.chunks
            .iter()
            .all(|chunk| match rest.split_at_checked(chunk.len()) {
                Some((begin, behind)) => {
                    rest = behind;
                    begin == chunk
                }
                None => false,
            })
            && rest.is_empty()
    }

    /// Several, one behind the other.
    pub(super) fn joined<'a>(contents: impl Iterator<Item = &'a Self>) -> Self {
        let mut joined = Self::default();
        for content in contents {
            joined.chunks.extend_from_slice(&content.chunks);
            joined.len += content.len;
        }
        joined
    }

    /// A range, which must lie within.
    pub(super) fn slice(&self, range: Range<u64>) -> Self {
        let mut begin = 0;
        let mut chunks = Vec::new();
        for chunk in &self.chunks {
            let end = begin + chunk.len() as u64;
            let (from, to) = (range.start.max(begin), range.end.min(end));
            if from < to {
                chunks.push(chunk.slice((from - begin) as usize..(to - begin) as usize));
            }
            begin = end;
        }
        let len = range.end - range.start;
        Self { chunks, len }
    }

    /// The same with the lowest bit of one byte flipped, if it has so many.
    pub(super) fn flipped(mut self, at: u64) -> Self {
        let mut begin = 0;
        for chunk in &mut self.chunks {
            let end = begin + chunk.len() as u64;
            if (begin..end).contains(&at) {
                let mut copy = chunk.to_vec();
                copy[(at - begin) as usize] ^= 1;
                *chunk = copy.into();
            }
            begin = end;
        }
        self
    }

    pub(super) fn md5(&self) -> [u8; 16] {
        let mut md5 = Md5::new();
        for chunk in &self.chunks {
            md5.update(chunk);
        }
        md5.finalize().into()
    }

    pub(super) fn crc64(&self) -> u64 {
        let mut crc = Crc::new(CrcAlgorithm::Crc64Nvme);
        for chunk in &self.chunks {
            crc.update(chunk);
        }
        crc.finalize()
    }
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_and_a_flip_are_those_of_the_whole() {
        let chunks = [&b"abc"[..], b"", b"defg", b"h"].map(Bytes::from_static);
        let content = Content {
            chunks: chunks.to_vec(),
            len: 8,
        };
        assert_eq!(content.slice(2..5).chunks().concat(), b"cde");
        assert_eq!(content.clone().flipped(3).chunks().concat(), b"abceefgh");
        assert_eq!(content.slice(3..3).len(), 0);
        assert!(content.is(b"abcdefgh"));
        for other in [&b"abcdefgx"[..], b"abcdefg", b"abcdefghi", b""] {
            assert!(!content.is(other), "{other:?}");
        }
    }
}
