//! Putting the headers of the weight files together.

use std::collections::BTreeMap;

use super::{CONFIG_FILE, Checkpoint, Config, INDEX_FILE, Index, Place, Selection, WeightFile};
use crate::problem::Problem;

/// Makes a checkpoint of the selected files. `files` are those of the
/// selection, in its order; `config_json` is the content of `config.json` if
/// there is one.
///
/// # Errors
/// All problems at once: tensors that stand in two files, that the index names
/// and its file lacks, or a configuration that cannot be read.
///
/// # Panics
/// If the files are not those of the selection.
pub fn assemble(
    selection: Selection,
    files: Vec<WeightFile>,
    config_json: Option<&[u8]>,
) -> Result<Checkpoint, Vec<Problem>> {
    let names = files.iter().map(|file| &file.name);
    assert!(
        names.eq(&selection.weight_files),
        "the headers are those of the selected files, in their order"
    );
    let mut problems = Vec::new();
    let placed = place_tensors(&files, selection.index.as_ref(), &mut problems);
    if let Some(index) = &selection.index {
        problems.extend(absent_tensors(index, &files, &placed.by_name));
    }
    let config = match config_json.map(Config::parse).transpose() {
        Ok(config) => config,
        Err(error) => {
            problems.push(Problem::new(CONFIG_FILE, error.to_string()));
            None
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut checkpoint = Checkpoint {
        files,
        ignored: selection.ignored,
        ignored_tensors: placed.ignored,
        warnings: Vec::new(),
        config: config.unwrap_or_default(),
        by_name: placed.by_name,
        in_order: placed.in_order,
    };
    checkpoint.warnings = warnings(&checkpoint, selection.index.as_ref(), config_json.is_some());
    Ok(checkpoint)
}

/// What to do where the index and the files contradict each other.
const OTHER_INDEX: &str =
    "the index and the files are of different checkpoints: download both again";

/// Where the tensors are.
struct Placed {
    by_name: Vec<Place>,
    in_order: Vec<Place>,
    /// As file and tensor.
    ignored: Vec<(String, String)>,
}

/// Gives every tensor its place. Tensors that the index does not name are set
/// aside, as loaders of the checkpoint do.
fn place_tensors(
    files: &[WeightFile],
    index: Option<&Index>,
    problems: &mut Vec<Problem>,
) -> Placed {
    let count = files.iter().map(|file| file.header.tensors.len()).sum();
    let mut in_order = Vec::with_capacity(count);
    let mut ignored = Vec::new();
    for (file_ordinal, file) in files.iter().enumerate() {
        for (entry_ordinal, entry) in file.header.tensors.iter().enumerate() {
            if index.is_some_and(|index| index.file_of(&entry.name).is_none()) {
                ignored.push((file.name.clone(), entry.name.clone()));
            } else {
                in_order.push(Place::new(file_ordinal, entry_ordinal));
            }
        }
    }
    let mut by_name = in_order.clone();
    by_name.sort_by(|a, b| a.entry(files).name.cmp(&b.entry(files).name));
    let twice = twice(files, &by_name);
    for place in &in_order {
        let (file, entry) = (&files[place.file as usize], place.entry(files));
        if let Some(first) = twice.get(place) {
            let first = &files[first.file as usize].name;
            let message = format!("stands in two files: `{first}` and `{}`", file.name);
            problems.push(Problem::new(&entry.name, message).with_hint(
                "two checkpoints may be mixed in one folder: keep the files of one of them",
            ));
            continue;
        }
        if let Some(named) = index.and_then(|index| index.file_of(&entry.name))
            && *named != file.name
        {
            let message = format!(
                "`{INDEX_FILE}` says it is in `{named}`, found in `{}`",
                file.name
            );
            problems.push(Problem::new(&entry.name, message).with_hint(OTHER_INDEX));
        }
    }
    Placed {
        by_name,
        in_order,
        ignored,
    }
}

/// Tensors whose name stood in an earlier place, with the first such place.
fn twice(files: &[WeightFile], by_name: &[Place]) -> BTreeMap<Place, Place> {
    let same_name = |a: &Place, b: &Place| a.entry(files).name == b.entry(files).name;
    let groups = by_name.chunk_by(same_name);
    groups
        .flat_map(|group| group[1..].iter().map(|later| (*later, group[0])))
        .collect()
}

/// Tensors of the index that no file holds.
fn absent_tensors<'a>(
    index: &'a Index,
    files: &'a [WeightFile],
    by_name: &'a [Place],
) -> impl Iterator<Item = Problem> + 'a {
    let is_held = move |tensor: &str| {
        let name = |place: &Place| place.entry(files).name.as_str();
        by_name
            .binary_search_by(|place| name(place).cmp(tensor))
            .is_ok()
    };
    let absent = index.iter().filter(move |(tensor, _)| !is_held(tensor));
    absent.map(|(tensor, file)| {
        let message = format!("`{INDEX_FILE}` says it is in `{file}`, which does not have it");
        Problem::new(tensor, message).with_hint(OTHER_INDEX)
    })
}

fn warnings(checkpoint: &Checkpoint, index: Option<&Index>, has_config: bool) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if let Some((file, first)) = checkpoint.ignored_tensors.first() {
        let more = match checkpoint.ignored_tensors.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more tensors"),
        };
        let message = format!("the index does not name `{first}`{more}: ignored");
        warnings.push(Problem::new(file, message));
    }
    let bytes = checkpoint.bytes();
    if let Some(total_size) = index.and_then(|index| index.total_size)
        && total_size != bytes
    {
        let message = format!("`total_size` is {total_size}, the tensors have {bytes} bytes");
        warnings.push(Problem::new(INDEX_FILE, message));
    }
    if !has_config {
        warnings.push(Problem::new(CONFIG_FILE, "the checkpoint has none"));
    }
    warnings
}
