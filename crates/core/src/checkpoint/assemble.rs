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
    let (by_name, in_order, ignored_tensors) =
        place_tensors(&files, selection.index.as_ref(), &mut problems);
    if let Some(index) = &selection.index {
        problems.extend(absent_tensors(index, &by_name));
    }
    let by_name = by_name.into_values().collect();
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
        ignored_tensors,
        warnings: Vec::new(),
        config: config.unwrap_or_default(),
        by_name,
        in_order,
    };
    checkpoint.warnings = warnings(&checkpoint, selection.index.as_ref(), config_json.is_some());
    Ok(checkpoint)
}

/// What to do where the index and the files contradict each other.
const OTHER_INDEX: &str =
    "the index and the files are of different checkpoints: download both again";

type Placed<'a> = (BTreeMap<&'a str, Place>, Vec<Place>, Vec<(String, String)>);

/// Gives every tensor its place. Tensors that the index does not name are set
/// aside, as loaders of the checkpoint do.
fn place_tensors<'a>(
    files: &'a [WeightFile],
    index: Option<&Index>,
    problems: &mut Vec<Problem>,
) -> Placed<'a> {
    let mut by_name: BTreeMap<&str, Place> = BTreeMap::new();
    let mut in_order = Vec::new();
    let mut ignored = Vec::new();
    for (file_ordinal, file) in files.iter().enumerate() {
        for (entry_ordinal, entry) in file.header.tensors.iter().enumerate() {
            if index.is_some_and(|index| !index.weight_map.contains_key(&entry.name)) {
                ignored.push((file.name.clone(), entry.name.clone()));
                continue;
            }
            let place = Place {
                file: file_ordinal,
                entry: entry_ordinal,
            };
            if let Some(first) = by_name.get(entry.name.as_str()) {
                let first = &files[first.file].name;
                let message = format!("stands in two files: `{first}` and `{}`", file.name);
                problems.push(Problem::new(&entry.name, message).with_hint(
                    "two checkpoints may be mixed in one folder: keep the files of one of them",
                ));
                continue;
            }
            if let Some(named) = index.and_then(|index| index.weight_map.get(&entry.name))
                && *named != file.name
            {
                let message = format!(
                    "`{INDEX_FILE}` says it is in `{named}`, found in `{}`",
                    file.name
                );
                problems.push(Problem::new(&entry.name, message).with_hint(OTHER_INDEX));
            }
            by_name.insert(&entry.name, place);
            in_order.push(place);
        }
    }
    (by_name, in_order, ignored)
}

/// Tensors of the index that no file holds.
fn absent_tensors<'a>(
    index: &'a Index,
    by_name: &'a BTreeMap<&str, Place>,
) -> impl Iterator<Item = Problem> + 'a {
    let absent = index
        .weight_map
        .iter()
        .filter(|(tensor, _)| !by_name.contains_key(tensor.as_str()));
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
