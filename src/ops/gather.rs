//! Gather: rows of a table by index, as an embedding reads them (ONNX Gather, axis 0).
//!
//! A rank that holds an interval of the rows writes zero for every other index, so a cut vocabulary yields Partial.
//! The file does not know what the indices mean. Read `shaders/gather.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples, weight};

use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};
use std::ops::Range;

const SHADER: Shader = Shader::built_in("gather", include_str!("../../shaders/gather.wgsl"));

/// Rows of a table by index, as an embedding reads them: `y[.., d] = table[index[..], d]`.
///
/// An index outside the table, or outside the rows that a rank holds, gives zeros.
///
/// | | |
/// |---|---|
/// | rule | `v d, b s -> b s d` |
/// | inputs | `table` `[V, D]`, f32, f16 or bf16; `index` `[..]` u32 |
/// | output | `[.., D]` f32 |
/// | may be cut | `d`; `v` (each rank looks up the rows that it holds, and the sum over ranks is the result); the dimensions of `index` |
/// | ONNX | Gather with `axis = 0` |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Gather;

impl Gather {
    pub(super) const SAMPLES: &'static Samples = &[("Gather", sample)];
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Gather", inputs, 2..3, "2")?;
        let lead = leading(inputs[1].len());
        Ok(ShardingRule::of("Gather", &format!("v d, {lead} -> {lead} d")).linear(&[0]).bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn operand(&self, input: usize) -> Operand {
        match input {
            0 => Operand::Matrix,
            _ => Operand::Indices,
        }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (table, indices) = (context.inputs[0].as_f32()?, context.inputs[1].as_u32()?);
        let (v, d) = (context.extent("v"), context.extent("d").len);
        context.fill(|i| match (indices[i / d] as usize).checked_sub(v.offset) {
            Some(row) if row < v.len => table[row * d + i % d] as f64,
            _ => 0.0,
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let (v, d) = (context.extent("v"), context.extent("d").len);
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let (rows, packed) = (context.numel() / d, d.div_ceil(4));
        let kernel = Kernel::new(SHADER, "gather").weight(context.rows(0, d));
        let launch = |(piece, range): (usize, &Range<usize>)| Launch {
            kernel: kernel.clone(),
            params: [rows, d, packed, v.offset + range.start, range.len(), (piece == 0) as usize]
                .map(|word| word as u32)
                .to_vec(),
            bindings: vec![Binding::Input { input: 0, piece }, Binding::input(1), Binding::Output],
            groups: linear_grid(rows * packed, 64),
        };
        Ok(context.pieces[0].iter().enumerate().map(launch).collect())
    }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, v) = (random.range(1, 3), random.range(1, 9), random.range(1, 40));
    // Half of the time rows that every format can store.
    let any = random.range(1, 40);
    let d = random.pick(&[32, 64, any, any]);
    let dtype = random.pick(&[DType::F32, DType::F16, DType::BF16]);
    Sample::new(Gather, vec![weight(random.tensor(dtype, &[v, d])), (Role::Input, random.indices(v, &[b, s]))])
        .mixed(random)
}
