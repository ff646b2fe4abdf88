//! A model folder: finds its settings and its weights, and opens them all before any is used.
//!
//! This module deliberately knows no model family and copies no weight; it reads safetensors only, because a pickle
//! runs code of its author's choosing.
//! Read [`super::FileTensors`] next: it reads parts of the tensors found here.

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

/// The name of unsharded weights.
const SINGLE: &str = "model.safetensors";

/// The names that peft gives an adapter's settings and weights.
const ADAPTER: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];

/// What makes one model of an adapter and its base.
const MERGE: &str = "to merge the adapter into its base model, in Python: \
    `peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)`, with the Auto \
    class of the model's kind. To run the base model alone, take the adapter's files out of the folder";

/// A file of an embedded folder: its name and what it holds.
type Embedded = (&'static str, &'static [u8]);

/// Where the files are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Disk,
    Memory(&'static [Embedded]),
}

/// A model folder whose files have been found and validated.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Folder {
    /// What was opened: modules.json and what it names lie here.
    root: PathBuf,
    /// Where the model's own files lie: `root`, or the folder in it that modules.json names.
    path: PathBuf,
    /// `0_Transformer/`, what leads from `root` to `path`; empty where they are one.
    inside: String,
    /// The fields, by file, that are read as if they were not there. Those of config.json are gone already.
    ignored: Vec<(String, String)>,
    place: Place,
    config: Config,
    files: Arc<[File]>,
}

impl Folder {
    /// Opens the folder at `path`: config.json and model.safetensors, or else the files of
    /// model.safetensors.index.json. Older sentence-transformers folders keep these in a folder of their own, which
    /// modules.json names.
    ///
    /// Weights are mapped and their headers validated; no element is read. Errors when a file is missing or damaged, and
    /// when the folder holds an adapter, which would make another model of the one in its files.
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

    /// A folder whose files are part of the program.
    #[doc(hidden)]
    pub fn embedded(files: &'static [Embedded]) -> Result<Folder, ImportError> {
        Folder::build(PathBuf::from("<embedded>"), Place::Memory(files))
    }

    /// A folder of nothing but the settings in the file at `path`, whatever it is called. Its path is the file's.
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
        // Weights first: of a folder that holds another format this says the most.
        let files = open_weights(&path, place)?;
        let Some(config) = read(&path, place, "config.json")? else {
            return Err(folder_error(&path, "holds no config.json, which says what the model is".into()));
        };
        let config = Config::parse(&path.join("config.json"), &config)?;
        let ignored = Vec::new();
        Ok(Folder { root, path, inside, ignored, place, config, files: files.into() })
    }

    /// Where the model's own files lie: the folder's path, or below it where modules.json says so.
    #[doc(hidden)]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same folder, read as if `fields` were not there: those of config.json by their names, those of another file as
    /// `FILE:FIELD`, such as `1_Pooling/config.json:include_prompt`. Errors when one is not there.
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
        // Reading each of them once shows whether the fields are there.
        for (file, _) in &self.ignored {
            match file.as_str() {
                modules::MODULES => drop(self.json_list(file)?),
                _ => drop(self.outer_json(file)?),
            }
        }
        Ok(self)
    }

    /// config.json.
    #[doc(hidden)]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The object in the model's file `name`, which may be below a subfolder. `None` when there is no such file.
    #[doc(hidden)]
    pub fn json(&self, name: &str) -> Result<Option<Config>, ImportError> {
        self.outer_json(&format!("{}{name}", self.inside))
    }

    /// As [`Folder::json`], of a file that lies beside modules.json.
    pub(crate) fn outer_json(&self, name: &str) -> Result<Option<Config>, ImportError> {
        let Some(json) = read(&self.root, self.place, name)? else { return Ok(None) };
        let config = Config::parse(&self.root.join(name), &json)?.of_file(name);
        let ignored: Vec<&String> = self.ignored.iter().filter(|(file, _)| file == name).map(|(_, f)| f).collect();
        config.without(&ignored).map(Some)
    }

    /// The list of objects in the file `name`, which lies beside modules.json. `None` when there is no such file.
    #[doc(hidden)]
    pub fn json_list(&self, name: &str) -> Result<Option<Vec<Config>>, ImportError> {
        let Some(json) = read(&self.root, self.place, name)? else { return Ok(None) };
        let entries = Config::parse_list(&self.root.join(name), &json)?.into_iter().enumerate();
        let entry = |(i, config): (usize, Config)| {
            let own = self.ignored.iter().filter(|(file, _)| file == name);
            let ignored: Vec<&str> = own.filter_map(|(_, field)| field.strip_prefix(&format!("{i}."))).collect();
            config.of_file(name).without(&ignored)
        };
        entries.map(entry).collect::<Result<_, ImportError>>().map(Some)
    }

    /// What the small file `name` holds: tokenizer.json, say. `None` when there is no such file.
    ///
    /// `name` may come from another file of the folder: it cannot lead outside.
    #[doc(hidden)]
    pub fn bytes(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, ImportError> {
        read(&self.path, self.place, name)
    }

    /// The names of all tensors, in the order of their files and bytes.
    #[doc(hidden)]
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.name.as_str())
    }

    /// Bytes of all tensors together.
    #[doc(hidden)]
    pub fn weight_bytes(&self) -> u64 {
        self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.range.len() as u64).sum()
    }

    /// The open files.
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
    // A name in two files is an error even where the index settles which is meant: one of them is stale.
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

/// Opens the weights in the file `name`. `None` when there is no such file.
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

/// Whether anything has this name. A broken link counts, so that it is reported and not passed over.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether the folder holds the file `name`.
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

/// Why a folder without weights has none, and the way out.
fn no_weights(path: &Path, place: Place) -> String {
    let names: Vec<String> = match place {
        // A folder can hold millions of files; the first thousand tell what it is.
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
