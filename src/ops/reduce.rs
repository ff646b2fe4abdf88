//! ReduceMean and ReduceSum over one dimension.
//!
//! Their dimension is contracted: cut, each rank adds its part, and a mean divides by the global length. Folding what
//! the ranks contributed is the same ReduceSum, over the ranks, in their order. Read `shaders/reduce.wgsl` next.

use super::sample::{Random, Role, Sample, Samples};
use super::{Call, Operator, Site, arity, leading};
use crate::error::{GraphError, Result};
use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Shape, Tensor};

const SHADER: Shader = Shader { name: "reduce", source: include_str!("../../shaders/reduce.wgsl") };

/// Which reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ReduceKind {
    /// The sum.
    Sum,
    /// The sum over the global length.
    Mean,
}

/// A reduction that removes one dimension, in the order of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reduce {
    /// Which.
    pub kind: ReduceKind,
    /// The dimension.
    pub axis: usize,
}

impl Reduce {
    pub(super) const SAMPLES: &'static Samples =
        &[("ReduceMean", |r| sample(r, ReduceKind::Mean)), ("ReduceSum", |r| sample(r, ReduceKind::Sum))];

    /// The letter of the reduced dimension in `rank` dimensions.
    fn letter(&self, rank: usize) -> String {
        leading(rank).split(' ').nth(self.axis).unwrap_or_default().to_string()
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        match self.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule> {
        arity(self.name(), inputs, 1..2, "1")?;
        let dims = leading(inputs[0].len());
        let letter = self.letter(inputs[0].len());
        if letter.is_empty() {
            let reason = format!("no dimension {} in {} dimensions", self.axis, inputs[0].len());
            return Err(GraphError::Attribute { op: self.name(), reason }.into());
        }
        let kept: Vec<&str> = dims.split(' ').filter(|l| *l != letter).collect();
        ShardingRule::of(self.name(), &format!("{dims} -> {}", kept.join(" "))).linear(&[0]).bind(inputs)
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Tensor> {
        let x = call.inputs[0];
        let (n, inner): (usize, usize) = (x.shape()[self.axis], x.shape()[self.axis + 1..].iter().product());
        let global = call.part(&self.letter(x.shape().len())).global;
        let values = x.as_f32()?;
        call.fill(|i| {
            let (outer, inner_index) = (i / inner, i % inner);
            let sum: f64 = (0..n).map(|j| values[(outer * n + j) * inner + inner_index] as f64).sum();
            match self.kind {
                ReduceKind::Sum => sum,
                ReduceKind::Mean => sum / global as f64,
            }
        })
    }

    fn launches(&self, site: &Site<'_>) -> Result<Vec<Launch>> {
        let x = &site.inputs[0];
        let n = site.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let (len, inner): (usize, usize) = (x[self.axis], x[self.axis + 1..].iter().product());
        let divisor = match self.kind {
            ReduceKind::Sum => 1.0,
            ReduceKind::Mean => site.part(&self.letter(x.len())).global as f32,
        };
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "reduce"),
            params: vec![n as u32, len as u32, inner as u32, divisor.to_bits()],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: linear_grid(n, 64),
        }])
    }
}

fn sample(random: &mut Random, kind: ReduceKind) -> Sample {
    let rank = random.range(2, 4);
    let shape: Vec<usize> = (0..rank).map(|_| random.range(1, 8)).collect();
    let x = random.tensor(DType::F32, &shape);
    Sample::new(Reduce { kind, axis: random.range(0, rank - 1) }, vec![(Role::Input, x)])
}
