//! The fetched inputs of a stripe, in the chunks in which they came.

use bytes::Bytes;

/// Chunks of several sources. They are not joined: the kernel reads them where
/// they are, and only what straddles two of them is copied.
#[derive(Debug, Default)]
pub(in crate::worker::execute) struct Chunks {
    /// In the order of source and offset.
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    source: u32,
    /// Where it begins in its source.
    offset: u64,
    bytes: Bytes,
}

impl Chunks {
    /// Adds the chunks of one request. Requests are added in the order of source
    /// and offset.
    pub(super) fn add(&mut self, source: u32, mut offset: u64, chunks: Vec<Bytes>) {
        for bytes in chunks.into_iter().filter(|bytes| !bytes.is_empty()) {
            let len = bytes.len() as u64;
            self.chunks.push(Chunk {
                source,
                offset,
                bytes,
            });
            offset += len;
        }
    }

    /// The bytes of a source from `offset` on that lie in one piece; never empty.
    ///
    /// # Panics
    /// If the byte was not fetched.
    pub(in crate::worker::execute) fn run(&self, source: u32, offset: u64) -> &[u8] {
        let after = self
            .chunks
            .partition_point(|chunk| (chunk.source, chunk.offset) <= (source, offset));
        let chunk = &self.chunks[after.checked_sub(1).expect("a stripe has its inputs")];
        let skipped = usize::try_from(offset - chunk.offset).expect("less than a chunk");
        assert!(
            chunk.source == source && skipped < chunk.bytes.len(),
            "a stripe has its inputs"
        );
        &chunk.bytes[skipped..]
    }

    /// Fills `out` with the bytes of a source from `offset` on.
    ///
    /// # Panics
    /// If any of them was not fetched.
    pub(in crate::worker::execute) fn copy(
        &self,
        source: u32,
        mut offset: u64,
        mut out: &mut [u8],
    ) {
        while !out.is_empty() {
            let run = self.run(source, offset);
            let (head, rest) = out.split_at_mut(run.len().min(out.len()));
            head.copy_from_slice(&run[..head.len()]);
            offset += head.len() as u64;
            out = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks() -> Chunks {
        let mut chunks = Chunks::default();
        let of = |texts: &[&'static str]| texts.iter().map(|&text| text.into()).collect();
        chunks.add(0, 10, of(&["abc", "", "d"]));
        // The next request goes on where the one before ended.
        chunks.add(0, 14, of(&["ef"]));
        chunks.add(2, 0, of(&["xyz"]));
        chunks
    }

    #[test]
    fn a_run_ends_with_its_chunk() {
        let chunks = chunks();
        assert_eq!(chunks.run(0, 10), b"abc");
        assert_eq!(chunks.run(0, 12), b"c");
        assert_eq!(chunks.run(0, 13), b"d");
        assert_eq!(chunks.run(2, 1), b"yz");
    }

    #[test]
    fn a_copy_crosses_chunks_and_requests() {
        let mut out = [0; 5];
        chunks().copy(0, 11, &mut out);
        assert_eq!(&out, b"bcdef");
    }

    #[test]
    #[should_panic(expected = "a stripe has its inputs")]
    fn a_byte_that_was_not_fetched_is_a_bug() {
        chunks().run(0, 16);
    }
}
