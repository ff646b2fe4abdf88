//! [`Folder`]: a model folder as Hugging Face lays it out. Opening one finds config.json and all weight files and
//! validates them before any of them is used.
//!
//! This module deliberately knows no model family and copies no weight. It reads safetensors only, because loading a
//! pickle file runs code that the file's author chose. Read `tensors.rs` next for how parts of tensors are read.

use crate::import::ImportError;
use crate::import::files::bytes::{Bytes, io, read_small, shortened, stays_inside};
use crate::import::files::config::Config;
use crate::import::files::index::{self, Index};
use crate::import::files::modules;
use crate::import::files::safetensors::File;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The weight file of a model whose weights are in one file.
const SINGLE: &str = "model.safetensors";

/// The names of the files that the Python library peft writes for an adapter such as a LoRA.
const ADAPTER: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];

/// The advice in the error about an adapter: how to merge it into its base model.
const MERGE: &str = "to merge the adapter into its base model, in Python: \
    `peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)`, with the Auto \
    class of the model's kind. To run the base model alone, take the adapter's files out of the folder";

/// A file of a folder that is embedded in the program: its name and its bytes.
type Embedded = (&'static str, &'static [u8]);

/// Where the files of a folder are: on disk, or embedded in the program.
#[derive(Clone, Copy, Debug)]
enum Place {
    Disk,
    Memory(&'static [Embedded]),
}

/// A model folder whose config.json has been parsed and whose weight files are open and validated.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Folder {
    /// The folder that the caller opened. modules.json and the files that it names are in this folder.
    root: PathBuf,
    /// The folder that holds config.json, the tokenizer and the weights: `root`, or the subfolder that modules.json
    /// names.
    path: PathBuf,
    /// The path from `root` to `path`, such as `0_Transformer/`. Empty if they are the same folder.
    inside: String,
    /// The fields, as (file, field), that are removed when a file other than config.json is read. Ignored fields of
    /// config.json have been removed from `config` already.
    ignored: Vec<(String, String)>,
    place: Place,
    config: Config,
    files: Arc<[File]>,
}

impl Folder {
    /// Opens the folder at `path`: config.json, and either model.safetensors or the files that
    /// model.safetensors.index.json lists. Older sentence-transformers folders keep these files in a subfolder, which
    /// modules.json names.
    ///
    /// Weight files are opened and their headers are validated; no element is read. Errors when a file is missing or
    /// damaged. Also errors when the folder holds an adapter, which is not supported: running the base model without it
    /// would silently give other results.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder, ImportError> {
        let path = path.as_ref();
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(folder_error(path, not_a_folder(path))),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let reason = "does not exist; a model is given as the path of its folder".into();
                return Err(folder_error(path, reason));
            }
            Err(e) => return Err(io(path, &e)),
        }
        Folder::build(path.to_owned(), Place::Disk)
    }

    /// A folder whose files are embedded in the program. Errors as [`Folder::open`].
    #[doc(hidden)]
    pub fn embedded(files: &'static [Embedded]) -> Result<Folder, ImportError> {
        Folder::build(PathBuf::from("<embedded>"), Place::Memory(files))
    }

    /// A folder without weights, for a model with random weights. The file at `path`, whatever its name, is its
    /// config.json, and [`Folder::path`] returns the path of that file. Errors when the file cannot be read or parsed.
    #[doc(hidden)]
    pub fn bare(path: impl AsRef<Path>) -> Result<Folder, ImportError> {
        let path = path.as_ref();
        let config = Config::parse(path, &read_small(path)?)?;
        let (root, path, inside, ignored) = (path.to_owned(), path.to_owned(), String::new(), Vec::new());
        Ok(Folder { root, path, inside, ignored, place: Place::Memory(&[]), config, files: Arc::new([]) })
    }

    fn build(root: PathBuf, place: Place) -> Result<Folder, ImportError> {
        let inside = match read(&root, place, modules::MODULES)? {
            Some(json) => modules::inner_folder(&Config::parse_list(&root.join(modules::MODULES), &json)?)?,
            None => String::new(),
        };
        let path = if inside.is_empty() {
            root.clone()
        } else if stays_inside(&inside) {
            root.join(inside.trim_end_matches('/'))
        } else {
            return Err(leads_out(&root, &inside));
        };
        for folder in [&root, &path] {
            if let Some(name) = ADAPTER.iter().find(|name| there(folder, place, name)) {
                return Err(folder_error(
                    folder,
                    format!("holds an adapter ({name}), which is not supported; {MERGE}"),
                ));
            }
        }
        // Weights are opened before config.json is looked for. A folder with weights in another format, such as a GGUF
        // file, may lack config.json too, and the error about the format is the more useful one.
        let files = open_weights(&path, place)?;
        let Some(config) = read(&path, place, "config.json")? else {
            return Err(folder_error(&path, "holds no config.json, which says what the model is".into()));
        };
        let config = Config::parse(&path.join("config.json"), &config)?;
        let ignored = Vec::new();
        Ok(Folder { root, path, inside, ignored, place, config, files: files.into() })
    }

    /// The folder that holds config.json and the weights: the opened folder itself, or the subfolder that modules.json
    /// names.
    #[doc(hidden)]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same folder, read as if its files did not have `fields`. A field of config.json is given by its name, a
    /// field of another file as `FILE:FIELD`, such as `1_Pooling/config.json:include_prompt`. Errors when a file or a
    /// field does not exist.
    pub fn ignoring(mut self, fields: &[impl AsRef<str>]) -> Result<Folder, ImportError> {
        let (elsewhere, own): (Vec<&str>, Vec<&str>) =
            fields.iter().map(AsRef::as_ref).partition(|field| field.contains(".json:"));
        self.config = self.config.without(&own)?;
        for field in elsewhere {
            let (file, field) = field.split_once(".json:").unwrap_or((field, ""));
            let file = format!("{file}.json");
            if read(&self.root, self.place, &file)?.is_none() {
                return Err(folder_error(&self.root, format!("holds no {file}, a field of which is to be ignored")));
            }
            self.ignored.push((file, field.to_string()));
        }
        // Reads each file once and drops the result: reading removes the fields and errors if one does not exist.
        for (file, _) in &self.ignored {
            match file.as_str() {
                modules::MODULES => drop(self.json_list(file)?),
                _ => drop(self.outer_json(file)?),
            }
        }
        Ok(self)
    }

    /// The settings in config.json.
    #[doc(hidden)]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The JSON object in the file `name` in [`Folder::path`]; `name` may contain subfolders. `None` when there is no
    /// such file. Errors when the file cannot be read or parsed, or when `name` leads outside the folder.
    #[doc(hidden)]
    pub fn json(&self, name: &str) -> Result<Option<Config>, ImportError> {
        self.outer_json(&format!("{}{name}", self.inside))
    }

    /// As [`Folder::json`], with `name` relative to the folder that the caller opened, where modules.json is.
    pub(crate) fn outer_json(&self, name: &str) -> Result<Option<Config>, ImportError> {
        let Some(json) = read(&self.root, self.place, name)? else { return Ok(None) };
        let config = Config::parse(&self.root.join(name), &json)?.of_file(name);
        let ignored: Vec<&String> = self.ignored.iter().filter(|(file, _)| file == name).map(|(_, f)| f).collect();
        config.without(&ignored).map(Some)
    }

    /// The JSON list of objects in the file `name`, relative to the folder that the caller opened. `None` when there is
    /// no such file.
    #[doc(hidden)]
    pub fn json_list(&self, name: &str) -> Result<Option<Vec<Config>>, ImportError> {
        let Some(json) = read(&self.root, self.place, name)? else { return Ok(None) };
        let entries = Config::parse_list(&self.root.join(name), &json)?;
        let known = |field: &str| {
            let at = field.split_once('.').and_then(|(at, _)| at.parse::<usize>().ok());
            at.is_some_and(|at| at < entries.len())
        };
        if let Some((_, field)) = self.ignored.iter().find(|(file, field)| file == name && !known(field)) {
            let count = entries.len();
            let reason =
                format!("is to be ignored, and is not there: of {count} entries the first one's are named 0.FIELD");
            return Err(ImportError::Config { path: self.root.join(name), field: field.clone(), reason });
        }
        let entries = entries.into_iter().enumerate();
        let entry = |(i, config): (usize, Config)| {
            let own = self.ignored.iter().filter(|(file, _)| file == name);
            let ignored: Vec<&str> = own.filter_map(|(_, field)| field.strip_prefix(&format!("{i}."))).collect();
            config.of_file(name).without(&ignored)
        };
        entries.map(entry).collect::<Result<_, ImportError>>().map(Some)
    }

    /// The bytes of the file `name` in [`Folder::path`], for example of tokenizer.json. `None` when there is no such
    /// file.
    ///
    /// Errors when the file is longer than 64 MiB or cannot be read. Also errors when `name` leads outside the folder:
    /// it may come from another file of the folder, which the folder's author controls.
    #[doc(hidden)]
    pub fn bytes(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, ImportError> {
        read(&self.path, self.place, name)
    }

    /// The names of all tensors: file by file, and within a file in the order in which their elements are stored.
    #[doc(hidden)]
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.name.as_str())
    }

    /// The size in bytes of all tensors together.
    #[doc(hidden)]
    pub fn weight_bytes(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.range.len() as u64).sum()
    }

    /// The weight files, open and validated.
    pub(crate) fn files(&self) -> &Arc<[File]> {
        &self.files
    }
}

fn open_weights(path: &Path, place: Place) -> Result<Vec<File>, ImportError> {
    if let Some(file) = open_file(path, place, SINGLE)? {
        return Ok(vec![file]);
    }
    let Some(text) = read(path, place, index::NAME)? else {
        return Err(folder_error(path, no_weights(path, place)));
    };
    let index = Index::parse(path.join(index::NAME), text.into_owned())?;
    let mut files = Vec::new();
    for name in index.files() {
        files.push(open_file(path, place, name)?.ok_or_else(|| index.missing_file(name))?);
    }
    // A tensor that is in two files is an error, even though the index names one of them: one file is probably left
    // over from an earlier version of the model.
    let mut holder: HashMap<&str, &File> = HashMap::new();
    for file in &files {
        for entry in &file.entries {
            if let Some(other) = holder.insert(&entry.name, file) {
                return Err(entry.error(&file.path, format!("is also in {}", other.path.display())));
            }
        }
    }
    for (tensor, name) in &index.weight_map {
        if holder.get(tensor.as_str()).is_none_or(|file| file.path != path.join(name)) {
            return Err(index.missing_tensor(tensor, name));
        }
    }
    Ok(files)
}

/// Opens and validates the weight file `name`. `None` when there is no such file.
fn open_file(path: &Path, place: Place, name: &str) -> Result<Option<File>, ImportError> {
    let full = path.join(name);
    match place {
        Place::Disk if !exists(&full) => Ok(None),
        Place::Disk => File::open(full).map(Some),
        Place::Memory(files) => find(files, name).map(|bytes| File::from_bytes(full, Bytes::Static(bytes))).transpose(),
    }
}

fn read(path: &Path, place: Place, name: &str) -> Result<Option<Cow<'static, [u8]>>, ImportError> {
    if !stays_inside(name) {
        return Err(leads_out(path, name));
    }
    let full = path.join(name);
    match place {
        Place::Disk if !exists(&full) => Ok(None),
        Place::Disk => Ok(Some(Cow::Owned(read_small(&full)?))),
        Place::Memory(files) => Ok(find(files, name).map(Cow::Borrowed)),
    }
}

fn find(files: &'static [Embedded], name: &str) -> Option<&'static [u8]> {
    files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| *bytes)
}

/// Whether there is a file, a folder or a symbolic link at `path`. A broken link counts, so that opening it gives an
/// error about it instead of treating the file as absent.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether the folder at `path` holds a file called `name`.
fn there(path: &Path, place: Place, name: &str) -> bool {
    match place {
        Place::Disk => exists(&path.join(name)),
        Place::Memory(files) => find(files, name).is_some(),
    }
}

fn leads_out(path: &Path, name: &str) -> ImportError {
    folder_error(path, format!("the file name {:?} leads out of the folder", shortened(name, 200)))
}

fn folder_error(path: &Path, reason: String) -> ImportError {
    ImportError::Folder { path: path.to_owned(), reason }
}

fn not_a_folder(path: &Path) -> String {
    match kind(&path.to_string_lossy()) {
        Some(Kind::Safetensors) => "is a file; give the folder that holds it, with its config.json".into(),
        Some(Kind::Pickle) => format!("is a pickle file. {CONVERT}"),
        Some(Kind::Gguf) => format!("is a GGUF file. {NO_GGUF}"),
        None => "is a file; a model is given as the path of its folder".into(),
    }
}

const CONVERT: &str = "Only safetensors is read, because a pickle can run any code. To convert it, in Python: \
    `AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)`, with the Auto class of the model's kind, on a \
    machine where you trust the file";
const NO_GGUF: &str = "Only safetensors is read: get the model's original folder, which has config.json and \
    model.safetensors";

enum Kind {
    Safetensors,
    Pickle,
    Gguf,
}

fn kind(name: &str) -> Option<Kind> {
    match name.to_ascii_lowercase().rsplit_once('.')?.1 {
        "safetensors" => Some(Kind::Safetensors),
        "bin" | "pth" | "pt" | "ckpt" | "pkl" => Some(Kind::Pickle),
        "gguf" => Some(Kind::Gguf),
        _ => None,
    }
}

/// The message for a folder without safetensors weights: which other weights it holds, and how to get usable ones.
fn no_weights(path: &Path, place: Place) -> String {
    let names: Vec<String> = match place {
        // A folder can hold millions of files, so only the first thousand names are read.
        Place::Disk => std::fs::read_dir(path)
            .map(|dir| dir.flatten().take(1000).map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default(),
        Place::Memory(files) => files.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    let first = |wanted: fn(&Kind) -> bool| names.iter().filter(|n| kind(n).is_some_and(|k| wanted(&k))).min();
    let missing = format!("holds neither {SINGLE} nor {}", index::NAME);
    if let Some(name) = first(|k| matches!(k, Kind::Safetensors)) {
        format!("{missing}, only {name:?}, which is not the name of a whole model")
    } else if let Some(name) = first(|k| matches!(k, Kind::Pickle)) {
        format!("{missing}, only the pickle file {name:?}. {CONVERT}")
    } else if let Some(name) = first(|k| matches!(k, Kind::Gguf)) {
        format!("{missing}, only the GGUF file {name:?}. {NO_GGUF}")
    } else if names.is_empty() {
        format!("is empty: it {missing}")
    } else {
        missing
    }
}
