//! [`StoredWeights`]: the weights of a user's own graph, stored as safetensors in files or in memory.
//!
//! A graph weight is the whole tensor of the same name, in the element type that it is stored in. This module
//! deliberately knows no folder and no configuration. Read [`crate::model::Model::from_graph`] next, which takes
//! weights.

use super::bytes::Bytes;
use super::safetensors::{File, display_name};
use super::tensors::{FileTensors, Tensors};
use crate::import::ImportError;
use crate::shape::display_shape;
use crate::tensor::{DType, Region, Tensor};
use crate::weights::{SourceError, Weights};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Weights stored as safetensors. A weight is found by its tensor's name.
#[derive(Debug)]
pub struct StoredWeights(FileTensors);

impl StoredWeights {
    /// Opens the safetensors files at `paths`. They stay open, and must not be written to while they are in use.
    ///
    /// Reads only the headers. Errors when a file cannot be opened or is not a valid safetensors file, and when two files have a
    /// tensor of the same name.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<StoredWeights, ImportError> {
        let files = paths.iter().map(|path| File::open(path.as_ref().to_owned()));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let mut first: HashMap<&str, &Path> = HashMap::new();
        for file in &files {
            for entry in &file.entries {
                if let Some(other) = first.insert(&entry.name, &file.path) {
                    let (path, tensor, offset) =
                        (file.path.clone(), display_name(&entry.name), entry.range.start as u64);
                    let reason = format!("{} has a tensor of this name, too", other.display());
                    return Err(ImportError::Tensor { path, tensor, offset, reason });
                }
            }
        }
        let path = paths.first().map(|path| path.as_ref().to_owned()).unwrap_or_default();
        Ok(StoredWeights(FileTensors::new(path, files.into())))
    }

    /// Opens a safetensors file whose bytes are in memory.
    ///
    /// Errors when `bytes` are not a valid safetensors file.
    pub fn from_bytes(bytes: Arc<[u8]>) -> Result<StoredWeights, ImportError> {
        let path = PathBuf::from("<memory>");
        let file = File::from_bytes(path.clone(), Bytes::Shared(bytes))?;
        Ok(StoredWeights(FileTensors::new(path, vec![file].into())))
    }

    /// The name, shape and element type of each tensor, with which a graph can declare its weights. Tensors of a type
    /// that weights cannot have, such as I64, are left out.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], DType)> {
        self.0.ids().filter_map(|id| Some((self.0.name(id).ok()?, self.0.shape(id).ok()?, self.0.dtype(id).ok()?)))
    }
}

impl Weights for StoredWeights {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        let id = self.0.find(name).ok_or_else(|| SourceError::Missing { name: name.to_string() })?;
        let found = self.0.shape(id)?;
        if found != shape {
            let (expected, found) = (display_shape(shape), display_shape(found));
            return Err(SourceError::Shape { name: name.to_string(), expected, found });
        }
        Ok(self.0.read(&self.0.view(id)?.region(region)?)?)
    }
}
