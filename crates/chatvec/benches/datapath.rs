//! How close a merge on one machine comes to copying the files.
//!
//! `cargo bench -p chatvec --bench datapath -- gib=2 threads=1,2,4` writes three
//! bf16 files under `target/bench-datapath`, once, and merges them; it prints
//! wall and CPU time beside those of reading the inputs and copying one of
//! them. More settings: `chunk_kib`, `piece_kib`, `part_mib`, `rounds`,
//! `direct=yes|no`, `cold=no|yes` (inputs evicted from the page cache first).
#![expect(clippy::print_stdout, reason = "a bench prints what it measures")]

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chatvec::storage::local::{Direct, PartialFile, PartialWriter, aligned_zeroes};
use chatvec::storage::object::{ObjectStorage, ObjectStorageOptions};
use chatvec::storage::pin::pin_of;
use chatvec::worker::execute::{ChunkPool, Slot, SlotOptions};
use chatvec::worker::gate::{LeaseGate, boottime_ms};
use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{FileOrdinal, PartOrdinal, TensorOrdinal};
use chatvec_core::task::{Operation, PartRange, Piece, Segment, SourceFile, TaskSpec, Term};
use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

/// Where the tensors begin in every file: a header of a usual size.
const HEADER_BYTES: u64 = 31_416;
/// A weight matrix, and the small vector that follows it.
const TENSOR_BYTES: [u64; 2] = [32 << 20, 8 << 10];
const COPY_BLOCK_BYTES: usize = 1 << 20;

struct Settings {
    gib: f64,
    threads: Vec<usize>,
    rounds: usize,
    part_bytes: u64,
    is_cold: bool,
    slot: SlotOptions,
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings()?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-datapath");
    fs::create_dir_all(&dir)?;
    let len = HEADER_BYTES + (settings.gib * f64::from(1 << 30)) as u64 / 2 * 2;
    let inputs = ["cp", "chat", "base"].map(|name| dir.join(name));
    for (salt, path) in inputs.iter().enumerate() {
        prepare(path, len, salt as u64)?;
    }
    let target = dir.join("out");
    println!("{:.2} GB of output, {:?}", len as f64 / 1e9, settings.slot);
    for _ in 0..settings.rounds {
        warm_or_chill(&inputs, settings.is_cold)?;
        report("read the three inputs", len, || read_all(&inputs))?;
        warm_or_chill(&inputs, settings.is_cold)?;
        report("direct-I/O copy of one", len, || {
            copy(&inputs[0], &target, len)
        })?;
        for &threads in &settings.threads {
            let tasks = tasks(&inputs, &target, len, settings.part_bytes)?;
            warm_or_chill(&inputs, settings.is_cold)?;
            report(&format!("merge, {threads} threads"), len, || {
                merge(&tasks, &target, len, threads, settings.slot)
            })?;
        }
    }
    fs::remove_file(&target)?;
    Ok(())
}

fn settings() -> Result<Settings, Box<dyn Error>> {
    let mut settings = Settings {
        gib: 2.0,
        threads: vec![1, 2, 4],
        rounds: 1,
        part_bytes: 64 << 20,
        is_cold: false,
        slot: SlotOptions::default(),
    };
    for argument in std::env::args().skip(1) {
        let Some((name, value)) = argument.split_once('=') else {
            // Cargo's own `--bench`.
            continue;
        };
        match name {
            "gib" => settings.gib = value.parse()?,
            "threads" => {
                settings.threads = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "rounds" => settings.rounds = value.parse()?,
            "part_mib" => settings.part_bytes = value.parse::<u64>()? << 20,
            "chunk_kib" => settings.slot.chunk_bytes = value.parse::<usize>()? << 10,
            "piece_kib" => settings.slot.piece_bytes = value.parse::<usize>()? << 10,
            "direct" if value == "no" => settings.slot.direct = Direct::Never,
            "direct" => settings.slot.direct = Direct::WhereAccepted,
            "cold" => settings.is_cold = value == "yes",
            _ => return Err(format!("unknown setting `{name}`").into()),
        }
    }
    Ok(settings)
}

/// Runs `work` and prints its wall and CPU time, the kernel's share included.
fn report(
    what: &str,
    len: u64,
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (wall, cpu) = (Instant::now(), cpu_time());
    work()?;
    let (wall, cpu) = (
        wall.elapsed().as_secs_f64(),
        (cpu_time() - cpu).as_secs_f64(),
    );
    let gb = len as f64 / 1e9;
    println!(
        "{what:24} wall {wall:.2} s, CPU {cpu:.2} s: {:.2} GB/s, {:.2} CPU s per GB",
        gb / wall,
        cpu / gb
    );
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Writes a file of bf16 values between 2⁻⁸ and 1, unless it is there.
fn prepare(path: &Path, len: u64, salt: u64) -> Result<(), Box<dyn Error>> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.size() == len) {
        return Ok(());
    }
    let mut state = salt;
    let block: Vec<u8> = (0..COPY_BLOCK_BYTES / 2)
        .flat_map(|_| {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(2 * salt + 1);
            let bits = (state >> 48) as u16;
            ((0x3b80 + bits % 0x400) | (bits & 0x8000)).to_le_bytes()
        })
        .collect();
    let file = File::create(path)?;
    let mut offset = 0;
    while offset < len {
        let wanted = (len - offset).min(block.len() as u64) as usize;
        file.write_all_at(&block[..wanted], offset)?;
        offset += wanted as u64;
    }
    file.sync_all()?;
    Ok(())
}

fn warm_or_chill(inputs: &[PathBuf], is_cold: bool) -> Result<(), Box<dyn Error>> {
    if !is_cold {
        return read_all(inputs);
    }
    for path in inputs {
        fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn read_all(inputs: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let mut block = aligned_zeroes(COPY_BLOCK_BYTES);
    for path in inputs {
        let file = File::open(path)?;
        let mut offset = 0;
        loop {
            match file.read_at(&mut block, offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, len: u64) -> Result<(), Box<dyn Error>> {
    let partial = fresh(to, len)?;
    let mut writer = PartialWriter::open(to, len, Direct::WhereAccepted)?;
    let source = File::open(from)?;
    let mut block = aligned_zeroes(COPY_BLOCK_BYTES);
    let mut offset = 0;
    while offset < len {
        let wanted = (len - offset).min(COPY_BLOCK_BYTES as u64) as usize;
        source.read_exact_at(&mut block[..wanted], offset)?;
        writer.write_all_at(&block[..wanted], offset)?;
        offset += wanted as u64;
    }
    partial.sync()?;
    Ok(())
}

fn fresh(target: &Path, len: u64) -> Result<PartialFile, Box<dyn Error>> {
    if target.exists() {
        fs::remove_file(target)?;
    }
    Ok(PartialFile::create(target, len)?)
}

fn merge(
    tasks: &[TaskSpec],
    target: &Path,
    len: u64,
    threads: usize,
    options: SlotOptions,
) -> Result<(), Box<dyn Error>> {
    let partial = fresh(target, len)?;
    let next = AtomicUsize::new(0);
    let progress = AtomicU64::new(0);
    let gate = Arc::new(LeaseGate::new(boottime_ms(), Duration::MAX));
    let storage = ObjectStorage::new(ObjectStorageOptions::from_variables([]));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut slot = Slot::new(options, storage.clone(), ChunkPool::default());
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    slot.execute(task, "", &gate, &progress)
                        .expect("nothing disturbs a bench");
                }
            });
        }
    });
    assert_eq!(progress.load(Ordering::Relaxed), len);
    partial.sync()?;
    Ok(())
}

/// One task for each part.
fn tasks(
    inputs: &[PathBuf; 3],
    target: &Path,
    len: u64,
    part_bytes: u64,
) -> Result<Vec<TaskSpec>, Box<dyn Error>> {
    let mut sources = Vec::new();
    for path in inputs {
        let metadata = fs::metadata(path)?;
        sources.push(SourceFile {
            url: path.to_str().ok_or("the path is not UTF-8")?.to_owned(),
            size: metadata.len(),
            pin: pin_of(&metadata),
        });
    }
    let task = |part: u64| {
        let offset = part * part_bytes;
        let range = PartRange {
            part: PartOrdinal(part as u32),
            offset,
            len: part_bytes.min(len - offset),
        };
        TaskSpec {
            file: FileOrdinal(0),
            target: target.to_string_lossy().into_owned(),
            file_size: len,
            parts: vec![range],
            sources: sources.clone(),
            segments: segments(offset, offset + range.len),
            nonfinite_is_error: true,
        }
    };
    Ok((0..len.div_ceil(part_bytes)).map(task).collect())
}

/// The segments between two offsets of the output: the header, then matrices
/// and small vectors in turn.
fn segments(from: u64, to: u64) -> Vec<Segment> {
    let mut segments = Vec::new();
    let (mut begin, mut ordinal) = (0, 0);
    while begin < to {
        let len = match ordinal {
            0 => HEADER_BYTES,
            _ => TENSOR_BYTES[(ordinal - 1) as usize % 2],
        };
        let (offset, end) = (begin.max(from), (begin + len).min(to));
        if offset < end {
            segments.push(segment(ordinal, offset, end - offset));
        }
        begin += len;
        ordinal += 1;
    }
    segments
}

fn segment(ordinal: u32, offset: u64, len: u64) -> Segment {
    let piece = |source| Piece {
        source,
        offset,
        format: FloatFormat::Bf16,
    };
    let merge = Operation::Merge {
        cp: piece(0),
        terms: vec![Term {
            vector: 0,
            lambda: 0.5,
            chat: piece(1),
            base: piece(2),
        }],
        format: FloatFormat::Bf16,
    };
    Segment {
        tensor: ordinal.checked_sub(1).map(TensorOrdinal),
        name: format!("tensor.{ordinal}"),
        offset,
        len,
        operation: match ordinal {
            0 => Operation::Literal(vec![b' '; len as usize]),
            _ => merge,
        },
    }
}
