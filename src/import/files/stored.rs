//! The weights of a user's own graph, stored as safetensors: in mapped files or in memory.
//!
//! A weight is the whole tensor of the same name, in its stored type. It deliberately knows no folder and no
//! configuration.
//! Read [`crate::model::Model::from_graph`] for who takes weights.

use super::bytes::Bytes;
use super::safetensors::File;
use super::tensors::{FileTensors, Tensors};
use crate::import::ImportError;
use crate::shape::display_shape;
use crate::tensor::{DType, Region, Tensor};
use crate::weights::{SourceError, Weights};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Weights stored as safetensors, by the names of the tensors.
#[derive(Debug)]
pub struct StoredWeights(FileTensors);

impl StoredWeights {
    /// The tensors of the files at `paths`, which are mapped and must not be written to while they are in use.
    ///
    /// Reads headers only. Errors when a file cannot be opened or is no safetensors file.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<StoredWeights, ImportError> {
        let files = paths.iter().map(|path| File::open(path.as_ref().to_owned()));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let path = paths.first().map(|path| path.as_ref().to_owned()).unwrap_or_default();
        Ok(StoredWeights(FileTensors::new(path, files.into())))
    }

    /// The tensors of a safetensors file that lies in memory.
    ///
    /// Errors when it is no safetensors file.
    pub fn from_bytes(bytes: Arc<[u8]>) -> Result<StoredWeights, ImportError> {
        let path = PathBuf::from("<memory>");
        let file = File::from_bytes(path.clone(), Bytes::Shared(bytes))?;
        Ok(StoredWeights(FileTensors::new(path, vec![file].into())))
    }

    /// The names, shapes and types of the tensors, from which the weights of a graph can be declared. Tensors of a
    /// type that no weight may have are left out.
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
