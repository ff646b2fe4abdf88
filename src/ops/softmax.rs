//! Softmax over the last dimension.
//!
//! The dimension is whole: every element needs the sum of all. Attention has its own, fused one. Read
//! `shaders/softmax.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples};

use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("softmax", include_str!("../../shaders/softmax.wgsl"));

/// `exp(x - max) / sum(exp(x - max))` over the last dimension.
///
/// | | |
/// |---|---|
/// | rule | `b s k -> b s k`, any number of leading dimensions |
/// | inputs | `x` `[.., K]` f32 |
/// | output | the shape of `x`, f32 |
/// | may be cut | the leading dimensions; not `k`, since every element needs the sum over all of it |
/// | ONNX | Softmax with `axis = -1` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Softmax;

impl Softmax {
    pub(super) const SAMPLES: &'static Samples = &[("Softmax", sample)];
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Softmax", inputs, 1..2, "1")?;
        let dims = leading(inputs[0].len().saturating_sub(1));
        Ok(ShardingRule::of("Softmax", &format!("{dims} k -> {dims} k")).whole("k").bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        4
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        let k = context.extent("k").global;
        let rows: Vec<(f64, f64)> = x
            .chunks_exact(k.max(1))
            .map(|row| {
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
                (max, row.iter().map(|&x| (x as f64 - max).exp()).sum())
            })
            .collect();
        context.fill(|i| (x[i] as f64 - rows[i / k].0).exp() / rows[i / k].1)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let k = context.extent("k").len;
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let rows = context.numel() / k;
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "softmax"),
            params: vec![rows as u32, k as u32],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: linear_grid(rows, 1),
        }])
    }
}

fn sample(random: &mut Random) -> Sample {
    let mut shape: Vec<usize> = (0..random.range(1, 3)).map(|_| random.range(1, 9)).collect();
    shape.push(random.range(1, 70));
    Sample::new(Softmax, vec![(Role::Input, random.tensor(DType::F32, &shape))]).mixed(random)
}
