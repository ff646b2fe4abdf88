//! Routing: which experts a token goes to, and how much each counts.
//!
//! A discrete choice, so its rule marks the experts as decided: one rank has the logits of all of them and chooses, and
//! the others are sent what they need of the gates. The file does not know what an expert is. Read
//! `shaders/routing.wgsl` next, and `experts.rs` for who reads the gates.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity};
use super::sample::{Role, Sample, Samples};
use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("routing", include_str!("../../shaders/routing.wgsl"));

/// The gates of a mixture of experts: a softmax over the experts of which the `top` largest stay; every other gate is exactly 0.
/// Of equal logits the lowest expert is chosen.
///
/// | | |
/// |---|---|
/// | rule | `b s e -> b s e` |
/// | inputs | `logits` `[batch, seq, experts]` f32 |
/// | output | `gates`, of the same shape, f32 |
/// | may be cut | only `e`, and only so that one rank holds all of it: the choice of experts is made once, on that rank |
/// | ONNX | none; equals Softmax, TopK and ScatterElements, and with `normalize` a division by the sum |
/// | source | Shazeer et al. 2017, "Outrageously Large Neural Networks" |
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Routing {
    /// How many experts a token goes to.
    pub top: usize,
    /// Whether the gates that stay are scaled to add up to 1.
    pub normalize: bool,
}

impl Routing {
    pub(super) const SAMPLES: &'static Samples = &[("Routing", sample)];
}

/// The indices of the `top` largest, the largest first. NaN counts as the largest, so that it is not lost.
fn largest(row: &[f32], top: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| {
        let descending = row[b].partial_cmp(&row[a]);
        descending.unwrap_or(row[b].is_nan().cmp(&row[a].is_nan())).then(a.cmp(&b))
    });
    order.truncate(top);
    order
}

impl Operator for Routing {
    fn name(&self) -> &'static str {
        "Routing"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Routing", inputs, 1..2, "1")?;
        let experts = inputs[0].last().and_then(|e| e.fixed()).unwrap_or(0);
        if self.top == 0 || self.top > experts {
            let reason = format!("the top {} of {experts} experts", self.top);
            return Err(OpError::Attribute { op: "Routing", reason });
        }
        Ok(ShardingRule::of("Routing", "b s e -> b s e").decided("e").bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        4 + self.top as u64
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let e = context.extent("e").len;
        let mut gates = Vec::new();
        for row in context.inputs[0].as_f32()?.chunks_exact(e.max(1)) {
            let chosen = largest(row, self.top);
            let max = row[chosen[0]] as f64;
            let weight = |&i: &usize| (row[i] as f64 - max).exp();
            let all: Vec<usize> = (0..e).collect();
            let total: f64 = if self.normalize { &chosen } else { &all }.iter().map(weight).sum();
            let gate = |i| if chosen.contains(i) { (weight(i) / total) as f32 } else { 0.0 };
            gates.extend(all.iter().map(gate));
        }
        Ok(Tensor::f32(context.output, gates)?)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let e = context.extent("e").len;
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let rows = context.numel() / e;
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "route"),
            params: [rows, e, self.top, self.normalize as usize].map(|word| word as u32).to_vec(),
            bindings: vec![Binding::input(0), Binding::Output],
            groups: linear_grid(rows, 1),
        }])
    }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, e) = (random.range(1, 3), random.range(1, 9), random.range(1, 20));
    let mut logits = random.tensor(DType::F32, &[b, s, e]);
    // Few values, so that equal logits are common.
    let equal = random.range(0, 2) == 0;
    let step = |x: &mut f32| *x = if equal { (*x * 2.0).round() } else { *x * 4.0 };
    bytemuck::cast_slice_mut::<u8, f32>(logits.bytes_mut()).iter_mut().for_each(step);
    let op = Routing { top: random.range(1, e), normalize: random.range(0, 1) == 1 };
    Sample::new(op, vec![(Role::Input, logits)]).mixed(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Op;
    use crate::shape::{Dim, Env};

    fn route(op: Routing, logits: &[f32]) -> Vec<f32> {
        let x = Tensor::f32([1, 1, logits.len()], logits.to_vec()).unwrap();
        let shape: Shape = x.shape().iter().map(|&d| Dim::Fixed(d)).collect();
        let rule = Op::from(op).rule(&[shape]).unwrap();
        let (extents, env) = (rule.extents(None, 0), Env::prompt(1));
        let call = EvalContext { inputs: &[&x], extents: &extents, env: &env, output: x.shape() };
        op.evaluate(&call).unwrap().as_f32().unwrap().to_vec()
    }

    #[test]
    fn the_largest_stay_and_equals_go_to_the_lowest() {
        // Softmax of these: 0.1, 0.2, 0.3, 0.4 by hand.
        let logits = [1f32, 2.0, 3.0, 4.0].map(f32::ln);
        let close = |found: Vec<f32>, wanted: [f32; 4]| {
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, expected {wanted:?}");
        };
        close(route(Routing { top: 2, normalize: false }, &logits), [0.0, 0.0, 0.3, 0.4]);
        close(route(Routing { top: 2, normalize: true }, &logits), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        close(route(Routing { top: 2, normalize: true }, &[5.0, 7.0, 5.0, 5.0]), [0.119_203, 0.880_797, 0.0, 0.0]);
        close(route(Routing { top: 1, normalize: true }, &[-0.0, 0.0, 0.0, -1.0]), [1.0, 0.0, 0.0, 0.0]);
        let found = route(Routing { top: 1, normalize: false }, &[1.0, f32::NAN, 9.0]);
        assert!(found[1].is_nan() && found[2] == 0.0, "{found:?}");
    }

    #[test]
    fn more_experts_than_there_are_is_an_error() {
        let rule = |top| Routing { top, normalize: true }.rule(&[vec![1.into(), 1.into(), 4.into()]]);
        assert!(rule(4).is_ok() && rule(5).is_err() && rule(0).is_err());
    }
}
