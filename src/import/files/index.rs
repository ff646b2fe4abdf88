//! Parses model.safetensors.index.json, which says for a model stored in several files which file holds which tensor.
//!
//! This module deliberately opens no weights. It checks that every file name in the index is a plain name that ends in
//! `.safetensors`. Read [`super::folder`] next, which opens these files and compares their tensors with the index.

use crate::import::ImportError;
use crate::import::files::bytes::{is_plain_name, json_error, shortened};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// An index whose file names are checked and whose tensor names are unique.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    text: Vec<u8>,
    /// The name of the file that holds each tensor, by the tensor's name.
    pub(crate) weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Parses the index `text`. `path` is the file that error messages name. Errors when `text` is not an index, names
    /// a tensor twice or no tensor at all, or has a file name that is not allowed.
    pub(crate) fn parse(path: PathBuf, text: Vec<u8>) -> Result<Index, ImportError> {
        let raw: Raw = serde_json::from_slice(&text).map_err(|e| json_error(&path, &text, &e))?;
        let mut index = Index { path, text, weight_map: BTreeMap::new() };
        for (tensor, file) in raw.weight_map.0 {
            index.check_file(&tensor, &file)?;
            if let Some(first) = index.weight_map.get(&tensor) {
                return Err(index.error(&tensor, &tensor, format!("is named twice: in {first:?} and in {file:?}")));
            }
            index.weight_map.insert(tensor, file);
        }
        if index.weight_map.is_empty() {
            let reason = "weight_map names no tensor".into();
            return Err(ImportError::File { path: index.path, offset: 0, reason });
        }
        Ok(index)
    }

    /// The names of all weight files, each once, sorted.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// An error for a file that the index names and the folder does not hold.
    pub(crate) fn missing_file(&self, file: &str) -> ImportError {
        let tensor = self.weight_map.iter().find(|(_, f)| *f == file).map_or("", |(tensor, _)| tensor);
        self.error(tensor, file, format!("the index names the file {file:?}, which is not in the folder"))
    }

    /// An error for a tensor that is not in the file that the index names for it.
    pub(crate) fn missing_tensor(&self, tensor: &str, file: &str) -> ImportError {
        self.error(tensor, tensor, format!("the index names the file {file:?}, which has no such tensor"))
    }

    fn check_file(&self, tensor: &str, file: &str) -> Result<(), ImportError> {
        if !is_plain_name(file) {
            let reason = format!("the file {:?} is not a plain name within the folder", shortened(file, 200));
            return Err(self.error(tensor, file, reason));
        }
        if !file.ends_with(".safetensors") {
            let reason = format!("the file {:?} is not .safetensors, the only format read", shortened(file, 200));
            return Err(self.error(tensor, file, reason));
        }
        Ok(())
    }

    /// An [`ImportError::Tensor`] about `tensor`. Its byte offset is the first place in the index where the string `at`
    /// occurs in quotes, or 0 if there is none.
    fn error(&self, tensor: &str, at: &str, reason: String) -> ImportError {
        // serde keeps no positions of parsed strings, so the text is searched, which costs time only for an error.
        let quoted = serde_json::to_string(at).unwrap_or_default();
        let found = self.text.windows(quoted.len().max(1)).position(|w| w == quoted.as_bytes());
        let (path, tensor) = (self.path.clone(), shortened(tensor, 200));
        ImportError::Tensor { path, tensor, offset: found.unwrap_or(0) as u64, reason }
    }
}

#[derive(Deserialize)]
struct Raw {
    weight_map: Pairs,
}

/// The (key, value) pairs of a JSON object in file order. A key that appears twice is kept twice, where a map would
/// silently keep one of them.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// The name of the index file.
pub(crate) const NAME: &str = "model.safetensors.index.json";
