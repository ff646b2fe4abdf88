//! Checks weights for NaN and infinity, which a damaged file or a diverged training leaves in them.
//!
//! This module deliberately runs no model and repairs nothing: it returns an error that names the first such element.
//! Read `open.rs` next, whose `ModelSource::check` runs this check on every weight of a model.

use crate::import::ImportError;
use crate::import::files::tensors::{Tensors, View};
use crate::tensor::Region;

/// The approximate number of elements that are read at a time. A block is a whole number of rows, at least one.
const BLOCK: usize = 4 << 20;

/// Errors with [`ImportError::NotFinite`] if an element of `view` is NaN or infinite; the error names the first one.
/// Calls `progress` after each block with the number of bytes in it.
pub(crate) fn check(tensors: &dyn Tensors, view: &View, progress: &dyn Fn(u64)) -> Result<(), ImportError> {
    let rows = view.shape.first().copied().unwrap_or(1);
    let step = (BLOCK / (view.numel() / rows.max(1)).max(1)).max(1);
    for start in (0..rows).step_by(step) {
        let mut region = Region::whole(&view.shape);
        if let Some(first) = region.0.first_mut() {
            *first = start..(start + step).min(rows);
        }
        let block = view.region(&region)?;
        let read = tensors.read(&block)?;
        progress(read.bytes().len() as u64);
        if let Some((at, value)) = read.first_not_finite() {
            let (path, name) = (tensors.file(view.tensor)?.to_path_buf(), tensors.name(view.tensor)?);
            let index = index(block.element(at), tensors.shape(view.tensor)?);
            let tensor = crate::import::files::bytes::shortened(name, 200);
            return Err(ImportError::NotFinite { path, tensor, index, value });
        }
    }
    Ok(())
}

/// The index, one number per dimension, of the element that is at position `at` of a row-major tensor of `shape`.
fn index(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = at % n.max(1);
        at /= n.max(1);
    }
    index
}
