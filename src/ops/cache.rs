//! TensorScatter: writes new keys or values into a state of fixed capacity, in place (ONNX TensorScatter, opset 24).
//!
//! The state is appended to, never concatenated: a decode step moves only its own position. The file does not know
//! what the rows are. Read `shaders/cache.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity};
use super::sample::{Role, Sample, Samples};
use crate::kernel::{Binding, Kernel, Launch, Shader, Step, linear_grid};
use crate::shape::{Dim, Shape};
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Region, Tensor, copy_region};

const SHADER: Shader = Shader::built_in("cache", include_str!("../../shaders/cache.wgsl"));

/// Writes new keys or values into a state of fixed capacity, in place: `state[:, past..past + seq] = update`.
///
/// Positions past the capacity are dropped. If `state` is no state of the graph, a copy of it is written.
///
/// | | |
/// |---|---|
/// | rule | `b c (h d), b s (h d) -> b c (h d)` |
/// | inputs | `state` `[batch, capacity, heads * d]` f32; `update` `[batch, seq, heads * d]` f32 |
/// | output | the shape of `state`, f32 |
/// | may be cut | `h` and `b`; not the positions `c` and `s`, nor a head's `d` |
/// | ONNX | TensorScatter (opset 24) |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct TensorScatter {
    /// Heads of the whole model, not of a rank.
    pub heads: usize,
}

impl TensorScatter {
    pub(super) const SAMPLES: &'static Samples = &[("TensorScatter", sample)];
}

impl Operator for TensorScatter {
    fn name(&self) -> &'static str {
        "TensorScatter"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("TensorScatter", inputs, 2..3, "2 (state, update)")?;
        if let (Some(Dim::Fixed(c)), Some(Dim::Fixed(s))) = (inputs[0].get(1), inputs[1].get(1))
            && s > c
        {
            let reason = format!("{s} new positions do not fit a state of {c}");
            return Err(OpError::Attribute { op: "TensorScatter", reason });
        }
        Ok(ShardingRule::of("TensorScatter", "b c (h d), b s (h d) -> b c (h d)")
            .size("h", self.heads)
            .whole("c s d")
            .bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn step(&self) -> Option<Step> {
        Some(Step::Scatter)
    }

    fn step_words(&self, context: &LaunchContext<'_>) -> Vec<u32> {
        let (update, capacity) = (&context.inputs[1], context.inputs[0][1]);
        [update[1], capacity, update[2]].map(|word| word as u32).to_vec()
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (mut state, update) = (context.inputs[0].clone(), context.inputs[1]);
        let shape = state.shape().to_vec();
        let (mut from, mut to) = (Region::whole(update.shape()), Region::whole(&shape));
        // Positions past the capacity are dropped, as the kernel drops them.
        let start = context.env.past.min(shape[1]);
        let count = update.shape()[1].min(shape[1] - start);
        (from.0[1], to.0[1]) = (0..count, start..start + count);
        copy_region(4, (update.bytes(), update.shape(), &from), (state.bytes_mut(), &shape, &to));
        Ok(state)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let (update, capacity) = (&context.inputs[1], context.inputs[0][1]);
        let n: usize = update.iter().product();
        if n == 0 {
            return Ok(Vec::new());
        }
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "append"),
            params: [n, update[1], capacity, update[2]].map(|word| word as u32).to_vec(),
            bindings: vec![Binding::input(1), Binding::Output, Binding::Run],
            groups: linear_grid(n, 64),
        }])
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
    Sample { past, ..Sample::new(TensorScatter { heads: h }, inputs).mixed(random) }
}
