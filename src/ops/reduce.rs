//! ReduceMean, ReduceSum and a weighted sum over one dimension.
//!
//! Their dimension is contracted: cut, each rank adds its part, and a mean divides by the global length. Pooling the
//! positions of padded texts is the weighted sum. Read `shaders/reduce.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples};
use crate::kernel::{Binding, Kernel, Launch, Shader, Step, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("reduce", include_str!("../../shaders/reduce.wgsl"));

/// The kinds of [`Reduce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ReduceKind {
    /// The sum.
    Sum,
    /// The sum divided by the length of the whole dimension.
    Mean,
    /// The sum weighted by a second input, of the first's dimensions up to the reduced one. An extension of ONNX's ops.
    Weighted,
}

/// A reduction that removes one dimension, in the order of its elements.
///
/// | | |
/// |---|---|
/// | rule | for `axis = 1`: `b s h -> b h`; the weighted sum `b s h, b s -> b h` |
/// | inputs | `x` f32; for the weighted sum `weights`, with the dimensions of `x` up to the reduced one |
/// | output | `x` without the dimension `axis`, f32 |
/// | may be cut | every dimension. A cut of the reduced one gives partial sums; a mean divides by the whole length |
/// | ONNX | ReduceSum, ReduceMean with `keepdims = 0`; the weighted sum is Mul and ReduceSum |
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reduce {
    /// Whether this is a sum, a mean or a weighted sum.
    pub kind: ReduceKind,
    /// The dimension that is removed, from 0.
    pub axis: usize,
}

impl Reduce {
    pub(super) const SAMPLES: &'static Samples = &[
        ("ReduceMean", |r| sample(r, ReduceKind::Mean)),
        ("ReduceSum", |r| sample(r, ReduceKind::Sum)),
        ("ReduceWeighted", |r| sample(r, ReduceKind::Weighted)),
    ];

    /// The letter of the reduced dimension in `rank` dimensions.
    fn letter(&self, rank: usize) -> String {
        leading(rank).split(' ').nth(self.axis).unwrap_or_default().to_string()
    }
}

impl Operator for Reduce {
    fn family(&self) -> &'static str {
        "Reduce"
    }

    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Weighted => "ReduceWeighted",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        let weighted = self.kind == ReduceKind::Weighted;
        if weighted {
            arity(self.name(), inputs, 2..3, "2 (x, weights)")?;
        } else {
            arity(self.name(), inputs, 1..2, "1")?;
        }
        let dims = leading(inputs[0].len());
        let letter = self.letter(inputs[0].len());
        if letter.is_empty() {
            let reason = format!("no dimension {} in {} dimensions", self.axis, inputs[0].len());
            return Err(OpError::Attribute { op: self.name(), reason });
        }
        let kept: Vec<&str> = dims.split(' ').filter(|l| *l != letter).collect();
        let kept = kept.join(" ");
        if weighted {
            let weights = leading(self.axis + 1);
            let rule = ShardingRule::of(self.name(), &format!("{dims}, {weights} -> {kept}"));
            return Ok(rule.linear(&[0]).linear(&[1]).bind(inputs)?);
        }
        Ok(ShardingRule::of(self.name(), &format!("{dims} -> {kept}")).linear(&[0]).bind(inputs)?)
    }

    fn takes_tail(&self, _first: Step) -> bool {
        true
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0];
        let (n, inner): (usize, usize) = (x.shape()[self.axis], x.shape()[self.axis + 1..].iter().product());
        let global = context.extent(&self.letter(x.shape().len())).global;
        let values = x.as_f32()?;
        let weights = context.inputs.get(1).map(|weights| weights.as_f32()).transpose()?;
        context.fill(|i| {
            let (outer, inner_index) = (i / inner, i % inner);
            let weight = |j: usize| weights.map_or(1.0, |w| w[outer * n + j] as f64);
            let sum: f64 = (0..n).map(|j| weight(j) * values[(outer * n + j) * inner + inner_index] as f64).sum();
            match self.kind {
                ReduceKind::Sum | ReduceKind::Weighted => sum,
                ReduceKind::Mean => sum / global as f64,
            }
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let x = &context.inputs[0];
        let n = context.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let (len, inner): (usize, usize) = (x[self.axis], x[self.axis + 1..].iter().product());
        let divisor = match self.kind {
            ReduceKind::Sum | ReduceKind::Weighted => 1.0,
            ReduceKind::Mean => context.extent(&self.letter(x.len())).global as f32,
        };
        let mut bindings = vec![Binding::input(0), Binding::Output];
        let entry = match self.kind {
            ReduceKind::Sum | ReduceKind::Mean => "reduce",
            ReduceKind::Weighted => {
                bindings.push(Binding::input(1));
                "reduce_weighted"
            }
        };
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, entry),
            params: vec![n as u32, len as u32, inner as u32, divisor.to_bits()],
            bindings,
            groups: linear_grid(n, 64),
        }])
    }
}

fn sample(random: &mut Random, kind: ReduceKind) -> Sample {
    let rank = random.range(2, 4);
    let shape: Vec<usize> = (0..rank).map(|_| random.range(1, 8)).collect();
    let axis = random.range(0, rank - 1);
    let mut inputs = vec![(Role::Input, random.tensor(DType::F32, &shape))];
    if kind == ReduceKind::Weighted {
        inputs.push((Role::Input, random.tensor(DType::F32, &shape[..=axis])));
    }
    Sample::new(Reduce { kind, axis }, inputs).mixed(random)
}
