//! The source of a model that was made from a graph: it has weights and no files.
//!
//! It deliberately has neither a tokenizer nor a template. Read [`super::Model::from_graph`] for who makes one.

use super::source::ModelSource;
use crate::format::{Format, Stored};
use crate::graph::Graph;
use crate::tensor::{Region, Tensor};
use crate::weights::{SourceError, Weights};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// About how many elements a check of all weights holds in memory at a time.
const BLOCK: usize = 4 << 20;

/// The weights, and the number of bytes read from them.
pub(super) struct GraphSource {
    weights: Arc<dyn Weights>,
    bytes_read: AtomicU64,
}

impl GraphSource {
    pub(super) fn new(weights: Arc<dyn Weights>) -> GraphSource {
        GraphSource { weights, bytes_read: AtomicU64::new(0) }
    }
}

impl Weights for GraphSource {
    fn read(&self, name: &str, shape: &[usize], region: &Region) -> Result<Tensor, SourceError> {
        let tensor = self.weights.read(name, shape, region)?;
        self.bytes_read.fetch_add(tensor.bytes().len() as u64, Ordering::Relaxed);
        Ok(tensor)
    }

    fn read_stored(&self, name: &str, shape: &[usize], region: &Region, format: Format) -> Result<Stored, SourceError> {
        let stored = self.weights.read_stored(name, shape, region, format)?;
        self.bytes_read.fetch_add(stored.bytes().len() as u64, Ordering::Relaxed);
        Ok(stored)
    }
}

impl ModelSource for GraphSource {
    fn path(&self) -> &Path {
        Path::new("<graph>")
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn check(&self, graph: &Graph, progress: &dyn Fn(u64)) -> Result<(), SourceError> {
        for (_, value) in graph.values().filter(|(_, value)| value.format().is_some()) {
            // A weight with a dimension that only a call knows cannot be stored, so it is skipped.
            let Some(shape) = value.shape.iter().map(|dim| dim.fixed()).collect::<Option<Vec<usize>>>() else {
                continue;
            };
            let rows = shape.first().copied().unwrap_or(1);
            let row = shape.iter().skip(1).product::<usize>().max(1);
            let step = (BLOCK / row).max(1);
            for start in (0..rows).step_by(step) {
                let mut region = Region::whole(&shape);
                if let Some(first) = region.0.first_mut() {
                    *first = start..(start + step).min(rows);
                }
                let block = self.read(&value.name, &shape, &region)?;
                progress(block.bytes().len() as u64);
                if let Some((_, found)) = block.first_not_finite() {
                    return Err(SourceError::NotFinite { name: value.name.clone(), value: found });
                }
            }
        }
        Ok(())
    }
}
