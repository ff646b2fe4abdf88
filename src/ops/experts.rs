//! The products of a mixture of experts: up, from a token to each of its experts, and down, from them back to one sum.
//!
//! Experts are a factor like any other: cut, each rank has some of them, and down yields Partial, since it adds over them.
//! The file does not know how the gates were chosen, nor what lies between up and down. Read `shaders/experts.wgsl`
//! next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity};
use super::sample::{Role, Sample, Samples, weight};

use crate::kernel::{Binding, Kernel, Launch, Shader};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};
use std::ops::Range;

/// Columns of the output that a workgroup computes: four in each of eight lanes.
const COLUMNS: usize = 32;

const SHADER: Shader = Shader::built_in("experts", include_str!("../../shaders/experts.wgsl"));

/// The two layers of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum ExpertsKind {
    /// `y[b, s, e, n] = sum over k of x[b, s, k] * w[e, n, k]`, and 0 where the gate is 0.
    Up,
    /// `y[b, s, k] = sum over e of gate[b, s, e] * (sum over n of x[b, s, e, n] * w[e, k, n])`.
    Down,
}

/// One linear layer of every expert whose gate is not 0 for a token.
///
/// | | |
/// |---|---|
/// | rule | Up: `b s k, e n k, b s e -> b s e n`; Down: `b s e n, e k n, b s e -> b s k` |
/// | inputs | `x` `[batch, seq, K]`, for Down `[batch, seq, experts, N]`, f32; the experts' weights `[experts, N, K]`, for Down `[experts, K, N]`, f32, f16 or bf16; `gates` `[batch, seq, experts]` f32 |
/// | output | Up: `[batch, seq, experts, N]`; Down: `[batch, seq, K]`; f32 |
/// | may be cut | `e` (each rank holds some experts), `n`, `k`, `b`, `s`. A cut of `k` for Up, of `e` or `n` for Down, gives partial sums |
/// | ONNX | none; equals a batched MatMul over experts, a Mul by the gates and, for Down, a ReduceSum |
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Experts {
    /// Whether this is the layer into the expert or the one out of it.
    pub kind: ExpertsKind,
}

impl Experts {
    pub(super) const SAMPLES: &'static Samples =
        &[("ExpertsUp", |r| sample(r, ExpertsKind::Up)), ("ExpertsDown", |r| sample(r, ExpertsKind::Down))];
}

impl Operator for Experts {
    fn family(&self) -> &'static str {
        "Experts"
    }

    fn name(&self) -> &'static str {
        match self.kind {
            ExpertsKind::Up => "ExpertsUp",
            ExpertsKind::Down => "ExpertsDown",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity(self.name(), inputs, 3..4, "3 (x, w, gates)")?;
        Ok(match self.kind {
            // Not linear in the gates: only whether they are 0 counts.
            ExpertsKind::Up => ShardingRule::of(self.name(), "b s k, e n k, b s e -> b s e n").linear(&[0]),
            ExpertsKind::Down => {
                ShardingRule::of(self.name(), "b s e n, e k n, b s e -> b s k").linear(&[0]).linear(&[2])
            }
        }
        .linear(&[1])
        .bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        2
    }

    fn operand(&self, input: usize) -> Operand {
        match input {
            1 => Operand::Matrix,
            _ => Operand::Numbers,
        }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (x, w, gates) = (context.inputs[0].as_f32()?, context.inputs[1].as_f32()?, context.inputs[2].as_f32()?);
        let [e, n, k] = ["e", "n", "k"].map(|name| context.extent(name).len);
        // Row `a` of x times row `b` of w.
        let dot = |a: usize, b: usize, len: usize| -> f64 {
            x[a * len..][..len].iter().zip(&w[b * len..][..len]).map(|(&x, &w)| x as f64 * w as f64).sum()
        };
        match self.kind {
            ExpertsKind::Up => context.fill(|i| {
                let (token, expert, column) = (i / n / e, i / n % e, i % n);
                if gates[token * e + expert] == 0.0 { 0.0 } else { dot(token, expert * n + column, k) }
            }),
            ExpertsKind::Down => context.fill(|i| {
                let (token, column) = (i / k, i % k);
                let of = |expert: usize| match gates[token * e + expert] {
                    0.0 => 0.0,
                    gate => gate as f64 * dot(token * e + expert, expert * k + column, n),
                };
                (0..e).map(of).sum()
            }),
        }
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let [b, s, e, n, k] = ["b", "s", "e", "n", "k"].map(|name| context.extent(name).len);
        let tokens = b * s;
        // What one row of x and of w has, and how many rows of w an expert has.
        let (len, width, rows) = match self.kind {
            ExpertsKind::Up => (k, n, tokens),
            ExpertsKind::Down => (n, k, tokens * e),
        };
        let (entry, rows_at_once, block) = match (self.kind, tokens) {
            (ExpertsKind::Up, 1) => ("up_one", 1, 1),
            (ExpertsKind::Up, _) => ("up_many", 8, 8),
            (ExpertsKind::Down, 1) => ("down_one", 1, 1),
            (ExpertsKind::Down, _) => ("down_many", 4, 32),
        };
        let kernel = Kernel::new(SHADER, entry)
            .weight(context.wide_rows(1, len))
            .spread(context.sharing_lanes())
            .constant("ROWS", rows_at_once)
            .terms(len);
        let launch = |(piece, range): (usize, &Range<usize>)| {
            let experts = match self.kind {
                ExpertsKind::Up => range.end.div_ceil(width) - range.start / width,
                ExpertsKind::Down => 1,
            };
            let counts = [rows, range.len(), len, range.start, width, e, tokens];
            Launch {
                kernel: kernel.clone(),
                params: counts.map(|word| word as u32).to_vec(),
                bindings: vec![
                    Binding::input(0),
                    Binding::Input { input: 1, piece },
                    Binding::input(2),
                    Binding::Output,
                ],
                groups: [width.div_ceil(COLUMNS), tokens.div_ceil(block), experts].map(|n| n as u32),
            }
        };
        Ok(context.pieces[1].iter().enumerate().map(launch).collect())
    }
}

fn sample(random: &mut Random, kind: ExpertsKind) -> Sample {
    // One token has kernels of its own.
    let (b, s) = if random.range(0, 4) == 0 { (1, 1) } else { (random.range(1, 3), random.range(1, 9)) };
    let e = random.range(1, 7);
    // The reduced length is `n` or `k`. Some of the time rows have a length that every format can store.
    let mut length = || random.pick(&[32, 64, 1, 2, 3, 5, 8, 13, 20, 24]);
    let (n, k) = (length(), length());
    let dtype = random.pick(&[DType::F32, DType::F16, DType::BF16]);
    let mut gates = random.tensor(DType::F32, &[b, s, e]);
    let shut = random.pick(&[0.2, 0.7]);
    let gates_of = bytemuck::cast_slice_mut::<u8, f32>(gates.bytes_mut());
    gates_of.iter_mut().filter(|gate| gate.abs() < shut).for_each(|gate| *gate = 0.0);
    let (x, w) = match kind {
        ExpertsKind::Up => (vec![b, s, k], [e, n, k]),
        ExpertsKind::Down => (vec![b, s, e, n], [e, k, n]),
    };
    let inputs =
        vec![(Role::Input, random.tensor(DType::F32, &x)), weight(random.tensor(dtype, &w)), (Role::Input, gates)];
    Sample::new(Experts { kind }, inputs).mixed(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;
    use crate::shape::{Dim, Env};

    fn evaluate(kind: ExpertsKind, inputs: [Tensor; 3]) -> Vec<f32> {
        let op = Op::from(Experts { kind });
        let shapes = inputs.each_ref().map(|x| x.shape().iter().map(|&d| Dim::Fixed(d)).collect::<Shape>());
        let rule = op.rule(&shapes).unwrap();
        let (extents, env) = (rule.extents(None, 0), Env::prompt(1));
        let output = crate::shape::resolve(&rule.output_shape(), &env);
        let call = EvalContext { inputs: &inputs.each_ref(), extents: &extents, env: &env, output: &output };
        op.evaluate(&call).unwrap().as_f32().unwrap().to_vec()
    }

    #[test]
    fn what_a_gate_shuts_is_not_there() {
        // Two experts of one column each, two tokens; what is shut would be infinite.
        let tensor = |shape: &[usize], values: &[f32]| Tensor::f32(shape, values.to_vec()).unwrap();
        let gates = || tensor(&[1, 2, 2], &[0.5, 0.0, 2.0, 3.0]);
        let (x, w) = (tensor(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]), tensor(&[2, 1, 2], &[1.0, 10.0, 100.0, 1000.0]));
        assert_eq!(evaluate(ExpertsKind::Up, [x, w, gates()]), [21.0, 0.0, 43.0, 4300.0]);
        let (x, w) = (tensor(&[1, 2, 2, 1], &[1.0, f32::INFINITY, 5.0, 7.0]), tensor(&[2, 1, 1], &[10.0, 100.0]));
        assert_eq!(evaluate(ExpertsKind::Down, [x, w, gates()]), [5.0, 100.0 + 2100.0]);
    }
}
