//! Finds weights that are NaN or infinite, as a damaged file or a diverged training leaves them.
//!
//! It deliberately runs nothing and repairs nothing: it names the first tensor at fault. Read `model.rs` for what a
//! model's weights are.

use crate::import::ImportError;
use crate::import::files::tensors::{Tensors, View};
use crate::tensor::Region;

/// The number of elements in memory at a time.
const BLOCK: usize = 4 << 20;

/// Errors with [`ImportError::NotFinite`] at the first element of `view` that is NaN or infinite. Calls `progress`
/// with the bytes of each block read.
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

/// The indices, one per dimension, of element `at` of a tensor of `shape`.
fn index(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i = at % n.max(1);
        at /= n.max(1);
    }
    index
}
