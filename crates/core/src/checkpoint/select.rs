//! Which files of a folder hold its weights.
//!
//! The index decides if there is one, then `model.safetensors`, then a whole
//! set of shards, then any other `.safetensors` files of the folder. Files that
//! hold the same weights again, in another form or precision, never count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{CheckpointError, INDEX_FILE, Index, SINGLE_FILE};

/// One entry of a folder's listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedFile {
    /// Its path relative to the folder, with `/` between the parts. A folder in
    /// the folder is listed too, with a `/` at its end; what lies deeper
    /// matters here only below `snapshots/`.
    pub name: String,
    /// Its size in bytes; 0 for a folder.
    pub size: u64,
}

/// How a checkpoint is spread over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The files that `model.safetensors.index.json` names.
    Indexed,
    /// `model.safetensors` alone.
    Single,
    /// Every `model-i-of-n.safetensors`, without an index.
    Shards,
    /// All other `.safetensors` files, without an index.
    Unnamed,
}

/// Why a file that looks like weights is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IgnoredReason {
    /// It is not in the folder itself.
    Subfolder,
    /// `consolidated…`: the same weights under the names of another program.
    Consolidated,
    /// The same weights in another precision, such as `model.fp16.safetensors`.
    Variant,
    /// An adapter.
    Adapter,
    /// Another format than safetensors.
    OtherFormat,
    /// An index of files that are not read.
    OtherIndex,
    /// The index does not name it.
    NotInIndex,
    /// It stands beside `model.safetensors`.
    BesideSingle,
    /// It stands beside a whole set of shards.
    BesideShards,
}

impl fmt::Display for IgnoredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subfolder => "not in the folder itself",
            Self::Consolidated => "the same weights in another layout",
            Self::Variant => "the same weights in another precision",
            Self::Adapter => "an adapter",
            Self::OtherFormat => "not safetensors",
            Self::OtherIndex => "the index of other files",
            Self::NotInIndex => "not named by the index",
            Self::BesideSingle => "beside `model.safetensors`",
            Self::BesideShards => "beside a whole set of shards",
        })
    }
}

/// A file or folder that looks like weights and is not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// Its name in the listing.
    pub name: String,
    /// Why.
    pub why: IgnoredReason,
}

/// The weight files of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Their names, sorted, all of them in the folder itself.
    pub weight_files: Vec<String>,
    /// What looks like weights and is not read, in the order of the listing.
    pub ignored: Vec<Ignored>,
    /// The index, if there is one.
    pub index: Option<Index>,
    /// How the files were found.
    pub layout: Layout,
}

/// Chooses the weight files. `index_json` is the content of
/// `model.safetensors.index.json`, given exactly if the listing has it.
///
/// # Errors
/// There are none, some are missing, or two checkpoints are mixed.
pub fn select(
    listing: &[ListedFile],
    index_json: Option<&[u8]>,
) -> Result<Selection, CheckpointError> {
    let (candidates, mut ignored) = sort_out(listing);
    let index = index_json
        .map(Index::parse)
        .transpose()
        .map_err(CheckpointError::Index)?;
    let (layout, chosen) = if let Some(index) = &index {
        (Layout::Indexed, indexed(index, listing)?)
    } else if candidates.contains(SINGLE_FILE) {
        (Layout::Single, BTreeSet::from([SINGLE_FILE]))
    } else if let Some(shards) = whole_set(&candidates)? {
        (Layout::Shards, shards)
    } else if !candidates.is_empty() {
        (Layout::Unnamed, candidates.clone())
    } else {
        return Err(nothing_found(listing, &ignored));
    };
    let spare = match layout {
        Layout::Indexed => IgnoredReason::NotInIndex,
        Layout::Single => IgnoredReason::BesideSingle,
        Layout::Shards | Layout::Unnamed => IgnoredReason::BesideShards,
    };
    ignored.retain(|file| !chosen.contains(file.name.as_str()));
    let unread = candidates.difference(&chosen).map(|name| Ignored {
        name: (*name).to_owned(),
        why: spare,
    });
    ignored.extend(unread);
    ignored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Selection {
        weight_files: chosen.into_iter().map(str::to_owned).collect(),
        ignored,
        index,
        layout,
    })
}

/// The files that may be weights of the checkpoint, and those that only look so.
fn sort_out(listing: &[ListedFile]) -> (BTreeSet<&str>, Vec<Ignored>) {
    let mut candidates = BTreeSet::new();
    let mut ignored = Vec::new();
    for file in listing {
        match judge(&file.name) {
            Some(Ok(())) => {
                candidates.insert(file.name.as_str());
            }
            Some(Err(why)) => ignored.push(Ignored {
                name: file.name.clone(),
                why,
            }),
            None => {}
        }
    }
    (candidates, ignored)
}

/// Whether a name is that of a weight file that may count, of one that never
/// counts unless an index names it, or of none.
fn judge(name: &str) -> Option<Result<(), IgnoredReason>> {
    const OTHER_FORMATS: [&str; 11] = [
        ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".ot", ".npz",
    ];
    // Folders of weights in other forms that published models have.
    const OTHER_FOLDERS: [&str; 4] = ["original/", "onnx/", "gguf/", "metal/"];
    let is_safetensors = name.ends_with(".safetensors");
    let is_other = OTHER_FORMATS.iter().any(|format| name.ends_with(format))
        // Training state of the same suffixes, no weights.
        && !["training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin"].contains(&name)
        && !name.starts_with("rng_state");
    let is_index = name.ends_with(".index.json");
    if name.contains('/') {
        let counts = is_safetensors || is_other || OTHER_FOLDERS.contains(&name);
        return counts.then_some(Err(IgnoredReason::Subfolder));
    }
    if !(is_safetensors || is_other || is_index && name != INDEX_FILE) {
        return None;
    }
    let reason = if name.starts_with("adapter_") {
        IgnoredReason::Adapter
    } else if name.starts_with("consolidated") {
        IgnoredReason::Consolidated
    } else if is_index {
        IgnoredReason::OtherIndex
    } else if is_other {
        IgnoredReason::OtherFormat
    } else if is_variant(name) {
        IgnoredReason::Variant
    } else {
        return Some(Ok(()));
    };
    Some(Err(reason))
}

/// Whether a part of the name between dots is a precision:
/// `model.fp16.safetensors`, `model.fp16-00001-of-00002.safetensors`.
fn is_variant(name: &str) -> bool {
    const VARIANTS: [&str; 10] = [
        "fp32", "fp16", "bf16", "fp8", "int8", "int4", "nf4", "fp4", "ema", "non_ema",
    ];
    let mut parts = name.split('.').skip(1);
    parts.any(|part| {
        let part = part.split('-').next().unwrap_or(part);
        VARIANTS.contains(&part)
    })
}

fn indexed<'a>(
    index: &'a Index,
    listing: &[ListedFile],
) -> Result<BTreeSet<&'a str>, CheckpointError> {
    let named: BTreeSet<&str> = index.files().collect();
    let listed: BTreeSet<&str> = listing.iter().map(|file| file.name.as_str()).collect();
    if listed.contains(SINGLE_FILE) && !named.contains(SINGLE_FILE) {
        return Err(CheckpointError::IndexAndSingle);
    }
    let missing: Vec<_> = named.difference(&listed).map(|s| (*s).to_owned()).collect();
    if missing.is_empty() {
        Ok(named)
    } else {
        Err(CheckpointError::MissingFiles { names: missing })
    }
}

/// `model-00002-of-00005.safetensors`, taken apart. The widths of the two
/// numbers belong to the set: they may differ from each other.
#[derive(Clone, Copy)]
struct ShardName<'a> {
    number: u32,
    count: u32,
    width: usize,
    count_text: &'a str,
}

/// No checkpoint has so many shards; a name that says more is not a shard's.
const SHARDS_MAX: u32 = 100_000;

impl<'a> ShardName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let numbers = name.strip_prefix("model-")?.strip_suffix(".safetensors")?;
        let (number_text, count_text) = numbers.split_once("-of-")?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(number_text) || !digits(count_text) {
            return None;
        }
        let number = number_text.parse().ok()?;
        let count = count_text.parse().ok()?;
        let fits = (1..=count).contains(&number) && count <= SHARDS_MAX;
        fits.then_some(Self {
            number,
            count,
            width: number_text.len(),
            count_text,
        })
    }

    fn nth(&self, number: u32) -> String {
        let (width, count) = (self.width, self.count_text);
        format!("model-{number:0width$}-of-{count}.safetensors")
    }
}

/// The shards among the candidates if they are one whole set, or `None` if
/// there is no shard.
fn whole_set<'a>(
    candidates: &BTreeSet<&'a str>,
) -> Result<Option<BTreeSet<&'a str>>, CheckpointError> {
    let shards: BTreeMap<&str, ShardName<'_>> = candidates
        .iter()
        .filter_map(|name| Some((*name, ShardName::parse(name)?)))
        .collect();
    let Some((first_name, first)) = shards.first_key_value() else {
        return Ok(None);
    };
    let stranger = shards
        .iter()
        .find(|(name, shard)| first.nth(shard.number) != **name);
    if let Some((name, _)) = stranger {
        return Err(CheckpointError::MixedShards {
            first: (*first_name).to_owned(),
            second: (*name).to_owned(),
        });
    }
    let missing: Vec<_> = (1..=first.count)
        .map(|number| first.nth(number))
        .filter(|name| !shards.contains_key(name.as_str()))
        .collect();
    if !missing.is_empty() {
        return Err(CheckpointError::MissingShards {
            count: first.count,
            names: missing,
        });
    }
    Ok(Some(shards.into_keys().collect()))
}

/// Says what a folder without usable weights is instead.
fn nothing_found(listing: &[ListedFile], ignored: &[Ignored]) -> CheckpointError {
    if listing.is_empty() {
        return CheckpointError::EmptyFolder;
    }
    let find = |wanted: &dyn Fn(&str) -> bool| {
        let mut names = listing.iter().map(|file| file.name.as_str());
        names.find(|name| wanted(name)).map(str::to_owned)
    };
    let is_cache = |name: &str| matches!(name, "snapshots/" | "refs/" | "blobs/");
    if listing.iter().filter(|file| is_cache(&file.name)).count() >= 2 {
        let below = |file: &ListedFile| {
            let name = file.name.strip_prefix("snapshots/")?.strip_suffix('/')?;
            (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
        };
        let snapshots = listing.iter().filter_map(below).collect();
        return CheckpointError::HubCacheRoot { snapshots };
    }
    let in_folder = |name: &str, suffixes: &[&str]| {
        !name.contains('/') && suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    if let Some(file) =
        find(&|name| name == "adapter_config.json" || name.starts_with("adapter_model"))
    {
        return CheckpointError::Adapter { file };
    }
    if let Some(file) = find(&|name| in_folder(name, &[".gguf", ".ggml"])) {
        return CheckpointError::Gguf { file };
    }
    let pickles = [".bin", ".pt", ".pth", ".ckpt"];
    let pickle = ignored.iter().find(|file| in_folder(&file.name, &pickles));
    if let Some(file) = pickle {
        return CheckpointError::Pickle {
            file: file.name.clone(),
        };
    }
    match ignored.first() {
        Some(file) => CheckpointError::OnlyIgnored {
            file: file.name.clone(),
            reason: file.why,
        },
        None => CheckpointError::NoWeights,
    }
}
