//! TensorScatter: writes new keys or values into a state of fixed capacity, in place (ONNX TensorScatter, opset 24).
//!
//! The state is appended to, never concatenated: a decode step moves only its own position. The file does not know
//! what the rows are. Read `shaders/cache.wgsl` next.

use super::sample::{Random, Role, Sample, Samples};
use super::{Call, Operator, Site, arity};
use crate::error::Result;
use crate::kernel::Launch;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Region, Shape, Tensor, copy_region};

/// `state[:, past..past + seq] = update`, on `[batch, capacity, heads * d]` and `[batch, seq, heads * d]`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct TensorScatter {
    /// Heads in the whole.
    pub heads: usize,
}

impl TensorScatter {
    pub(super) const SAMPLES: &'static Samples = &[("TensorScatter", sample)];
}

impl Operator for TensorScatter {
    fn name(&self) -> &'static str {
        "TensorScatter"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule> {
        arity("TensorScatter", inputs, 2..3, "2 (state, update)")?;
        ShardingRule::of("TensorScatter", "b c (h d), b s (h d) -> b c (h d)")
            .size("h", self.heads)
            .whole("c s d")
            .bind(inputs)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Tensor> {
        let (mut state, update) = (call.inputs[0].clone(), call.inputs[1]);
        let mut to = Region::whole(state.shape());
        to.0[1] = call.env.past..call.env.past + update.shape()[1];
        let shape = state.shape().to_vec();
        let from = Region::whole(update.shape());
        copy_region(4, (update.bytes(), update.shape(), &from), (state.bytes_mut(), &shape, &to));
        Ok(state)
    }

    fn launches(&self, _site: &Site<'_>) -> Result<Vec<Launch>> {
        unimplemented!()
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, h, d) = (random.range(1, 3), random.range(1, 9), random.range(1, 7), random.range(1, 9));
    let past = random.range(0, 9);
    let capacity = past + s + random.range(0, 4);
    let inputs = vec![
        (Role::State, random.tensor(DType::F32, &[b, capacity, h * d])),
        (Role::Input, random.tensor(DType::F32, &[b, s, h * d])),
    ];
    Sample { past, ..Sample::new(TensorScatter { heads: h }, inputs) }
}
