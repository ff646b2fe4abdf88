//! The outputs of a call: each rank returns shards, and [`stack`] assembles the whole tensors from them.
//!
//! It deliberately knows no device and no thread. Read `rank.rs` for who returns shards.

use crate::program::Program;
use crate::shape::{Env, resolve};
use crate::tensor::{Region, SymbolicRegion, Tensor, copy_region};
use std::collections::HashMap;

/// Tensors by name: the inputs of a call, or its outputs.
pub type Tensors = HashMap<String, Tensor>;

/// One rank's shard of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputShard {
    /// The output's name.
    pub name: String,
    /// The region of the whole output that the shard covers.
    pub region: SymbolicRegion,
    /// The shard's elements, row-major and little-endian.
    pub bytes: Vec<u8>,
}

/// The whole outputs of `program` in a call of `env`, put together of the parts of all ranks.
///
/// Regions that no part covers are zero; a part that does not fit its region, or names no output, is left out.
pub fn stack(program: &Program, env: &Env, shards: impl IntoIterator<Item = OutputShard>) -> Tensors {
    let mut outputs = Tensors::new();
    for port in &program.outputs {
        outputs.insert(port.name.clone(), Tensor::zeros(port.dtype, resolve(&port.shape, env)));
    }
    for shard in shards {
        let Some(whole) = outputs.get_mut(&shard.name) else { continue };
        let (shape, size) = (whole.shape().to_vec(), whole.dtype().size());
        let region = shard.region.resolve(&shape);
        let inside = region.0.iter().zip(&shape).all(|(range, &n)| range.end <= n);
        if inside && region.numel() * size == shard.bytes.len() {
            let part = (shard.bytes.as_slice(), region.shape(), Region::whole(&region.shape()));
            copy_region(size, (part.0, &part.1, &part.2), (whole.bytes_mut(), &shape, &region));
        }
    }
    outputs
}
