//! The outputs of a call: each rank returns shards, and [`stack`] assembles the whole tensors from them.
//!
//! It deliberately knows no device and no thread. Read `rank.rs` for who returns shards.

use super::error::SessionError;
use crate::program::{Port, Program};
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

/// Assembles the whole outputs of `program`, in a call of the sizes in `env`, from the shards that all its ranks returned.
///
/// Errors when a shard names no output, does not fit it, or when the shards do not cover an output: those of a rank are
/// missing, or were passed twice. A program's shards never overlap.
pub fn stack(
    program: &Program,
    env: &Env,
    shards: impl IntoIterator<Item = OutputShard>,
) -> Result<Tensors, SessionError> {
    let zeros = |port: &Port| (Tensor::zeros(port.dtype, resolve(&port.shape, env)), 0);
    let mut outputs: HashMap<&str, (Tensor, usize)> =
        program.outputs.iter().map(|port| (port.name.as_str(), zeros(port))).collect();
    for shard in shards {
        let Some((whole, covered)) = outputs.get_mut(shard.name.as_str()) else {
            return Err(unfit(&shard.name, "the program has no output of this name".to_string()));
        };
        let (shape, size) = (whole.shape().to_vec(), whole.dtype().size());
        if !shard.region.0.iter().all(|(dim, range)| shape.get(*dim).is_some_and(|&n| range.end <= n)) {
            return Err(unfit(&shard.name, format!("{:?} is not a region of {shape:?}", shard.region.0)));
        }
        let region = shard.region.resolve(&shape);
        let (expected, found) = (region.numel() * size, shard.bytes.len());
        if found != expected {
            return Err(unfit(&shard.name, format!("a shard has {found} bytes, its region {expected}")));
        }
        *covered += region.numel();
        let (from, lengths) = (Region::whole(&region.shape()), region.shape());
        copy_region(size, (&shard.bytes, &lengths, &from), (whole.bytes_mut(), &shape, &region));
    }
    let whole = |(name, (tensor, covered)): (&str, (Tensor, usize))| match tensor.numel() {
        all if all == covered => Ok((name.to_string(), tensor)),
        all => Err(unfit(name, format!("they hold {covered} of {all} elements; pass those of every rank, once"))),
    };
    outputs.into_iter().map(whole).collect()
}

fn unfit(name: &str, reason: String) -> SessionError {
    SessionError::Shards { name: name.to_string(), reason }
}
