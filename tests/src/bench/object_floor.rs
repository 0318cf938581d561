//! What any worker between buckets must do at least: fetch three checkpoints,
//! put one. A plain client of the same library, with a worker's requests,
//! checksums and signatures, and no arithmetic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, Checksum};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartId, ObjectMeta, ObjectStore, PutPayload,
};
use tokio::task::JoinHandle;

use crate::component::Access;
use crate::family::Member;

/// A part of an output file, as the coordinator cuts it.
const PART_BYTES: u64 = 64 << 20;
/// One request for a piece of one input.
const GET_BYTES: u64 = 8 << 20;
/// Pieces of each input that a slot has under way.
const WINDOW: usize = 2;
/// Threads of a worker's I/O runtime.
const IO_THREADS: usize = 2;

/// What to fetch, where to put it, and how many parts at a time.
#[derive(Debug, Clone)]
pub struct ObjectFloor {
    /// The bucket of all.
    pub bucket: String,
    /// The prefix of the three checkpoints.
    pub family: String,
    /// The prefix that gets the copy.
    pub out: String,
    /// Parts at once, as a worker's tasks.
    pub slots: usize,
}

/// Fetches every weight of the three checkpoints once and puts cp's.
///
/// # Errors
/// Whatever the store says, and inputs of different sizes. Nothing is tried twice.
pub fn copy(floor: &ObjectFloor, access: &Access) -> anyhow::Result<()> {
    let store = access
        .client(&floor.bucket)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_client_options(
            ClientOptions::new()
                .with_allow_http(true)
                .with_http1_only()
                .with_timeout_disabled(),
        )
        .build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(copy_all(Arc::new(store), floor))
}

/// An output file: the objects that it is made from, and its upload.
struct File {
    inputs: [ObjectMeta; 3],
    target: Path,
    upload: MultipartId,
}

impl File {
    fn size(&self) -> u64 {
        self.inputs[0].size
    }
}

/// A part of a file by their positions.
#[derive(Clone, Copy)]
struct Part {
    file: usize,
    part: usize,
}

type Finished = Vec<(Part, PartId)>;

async fn copy_all(store: Arc<AmazonS3>, floor: &ObjectFloor) -> anyhow::Result<()> {
    let files = Arc::new(begin(&store, floor).await?);
    let parts: Vec<Part> = files
        .iter()
        .enumerate()
        .flat_map(|(file, begun)| {
            let parts = begun.size().div_ceil(PART_BYTES) as usize;
            (0..parts).map(move |part| Part { file, part })
        })
        .collect();
    let parts = Arc::new(Mutex::new(parts.into_iter()));
    let slots: Vec<JoinHandle<anyhow::Result<Finished>>> = (0..floor.slots)
        .map(|_| {
            let (store, files, parts) =
                (Arc::clone(&store), Arc::clone(&files), Arc::clone(&parts));
            let next = move || parts.lock().expect("nobody panics with it").next();
            tokio::spawn(run_slot(store, files, next))
        })
        .collect();
    let mut finished: BTreeMap<(usize, usize), PartId> = BTreeMap::new();
    for slot in slots {
        let done = slot.await??;
        finished.extend(done.into_iter().map(|(at, id)| ((at.file, at.part), id)));
    }
    for (ordinal, file) in files.iter().enumerate() {
        let of_file = finished.range((ordinal, 0)..(ordinal + 1, 0));
        let ids = of_file.map(|(_, id)| id.clone()).collect();
        store
            .complete_multipart(&file.target, &file.upload, ids)
            .await?;
    }
    Ok(())
}

/// Lists the inputs and creates the uploads.
async fn begin(store: &AmazonS3, floor: &ObjectFloor) -> anyhow::Result<Vec<File>> {
    let mut members = Vec::new();
    for member in Member::ALL {
        let prefix = Path::from(format!("{}/{}", floor.family, member.folder()));
        let mut weights: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await?;
        weights.retain(|object| object.location.as_ref().ends_with(".safetensors"));
        weights.sort_by(|a, b| a.location.cmp(&b.location));
        ensure!(!weights.is_empty(), "no weights below `{prefix}`");
        members.push(weights.into_iter());
    }
    let mut files = Vec::new();
    while let Some(first) = members[0].next() {
        let others = [1, 2].map(|member: usize| members[member].next());
        let [Some(second), Some(third)] = others else {
            anyhow::bail!("the checkpoints have different numbers of files");
        };
        ensure!(
            first.size == second.size && first.size == third.size,
            "`{}` has another size in another checkpoint",
            first.location
        );
        let name = first.location.filename().context("a file has a name")?;
        let target = Path::from(format!("{}/{name}", floor.out));
        let upload = store.create_multipart(&target).await?;
        files.push(File {
            inputs: [first, second, third],
            target,
            upload,
        });
    }
    Ok(files)
}

/// Copies part after part: one is put while the next is fetched.
async fn run_slot(
    store: Arc<AmazonS3>,
    files: Arc<Vec<File>>,
    next: impl Fn() -> Option<Part>,
) -> anyhow::Result<Finished> {
    let mut finished = Finished::new();
    let mut under_way: Option<(Part, JoinHandle<object_store::Result<PartId>>)> = None;
    while let Some(at) = next() {
        let body = fetch(&store, &files[at.file], at.part).await?;
        if let Some((put, id)) = under_way.take() {
            finished.push((put, id.await??));
        }
        let (store, files) = (Arc::clone(&store), Arc::clone(&files));
        let put = async move {
            let file = &files[at.file];
            store
                .put_part(&file.target, &file.upload, at.part, body)
                .await
        };
        under_way = Some((at, tokio::spawn(put)));
    }
    if let Some((put, id)) = under_way {
        finished.push((put, id.await??));
    }
    Ok(finished)
}

/// Fetches a part of all inputs, and keeps the first one's.
async fn fetch(store: &Arc<AmazonS3>, file: &File, part: usize) -> anyhow::Result<PutPayload> {
    let begin = part as u64 * PART_BYTES;
    let end = (begin + PART_BYTES).min(file.size());
    let pieces = (begin..end).step_by(GET_BYTES as usize);
    let stripes = pieces.map(|piece| {
        let range = piece..(piece + GET_BYTES).min(end);
        let gets = file.inputs.each_ref().map(|input| {
            let (store, input, range) = (Arc::clone(store), input.clone(), range.clone());
            tokio::spawn(async move { get(&store, &input, range).await })
        });
        async move {
            let [kept, others @ ..] = gets;
            for other in others {
                other.await??;
            }
            anyhow::Ok(kept.await??)
        }
    });
    let stripes: Vec<Vec<Bytes>> = stream::iter(stripes).buffered(WINDOW).try_collect().await?;
    Ok(stripes.into_iter().flatten().collect())
}

async fn get(
    store: &AmazonS3,
    input: &ObjectMeta,
    range: Range<u64>,
) -> object_store::Result<Vec<Bytes>> {
    let options = GetOptions {
        range: Some(GetRange::Bounded(range)),
        if_match: input.e_tag.clone(),
        ..GetOptions::default()
    };
    let got = store.get_opts(&input.location, options).await?;
    got.into_stream().try_collect().await
}
