//! Elementwise functions of one input: Gelu in both forms, Relu, Silu, Sigmoid, Tanh, a soft cap, a scale.
//!
//! Any dimension may be cut; Partial passes the scale, which alone is linear. The file does not know where they
//! stand in a model. Read `shaders/unary.wgsl` and `shaders/common/functions.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples};

use crate::kernel::{Binding, Kernel, Launch, Shader, Step, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("unary", include_str!("../../shaders/unary.wgsl"));

/// The functions of [`Unary`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum UnaryFunction {
    /// `x * Phi(x)`, by the error function.
    Gelu,
    /// The tanh approximation of Gelu.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`, ONNX's Swish.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// `c * tanh(x / c)`, as Attention caps its scores.
    Softcap(f32),
    /// `c * x`, ONNX's Mul by a constant.
    Scale(f32),
}

/// An elementwise function of one input.
///
/// | | |
/// |---|---|
/// | rule | `b s k -> b s k`, any number of dimensions |
/// | inputs | `x` f32 |
/// | output | the shape of `x`, f32 |
/// | may be cut | every dimension; Scale also passes partial sums, since it is linear |
/// | ONNX | Gelu (`approximate` none or tanh), Relu, Swish, Sigmoid, Tanh; Softcap is Div, Tanh and Mul, Scale is Mul by a constant |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Unary {
    /// The function.
    pub function: UnaryFunction,
}

impl Unary {
    pub(super) const SAMPLES: &'static Samples = &[
        ("Gelu", |r| sample(r, UnaryFunction::Gelu)),
        ("GeluTanh", |r| sample(r, UnaryFunction::GeluTanh)),
        ("Relu", |r| sample(r, UnaryFunction::Relu)),
        ("Silu", |r| sample(r, UnaryFunction::Silu)),
        ("Sigmoid", |r| sample(r, UnaryFunction::Sigmoid)),
        ("Tanh", |r| sample(r, UnaryFunction::Tanh)),
        ("Softcap", |r| sample(r, UnaryFunction::Softcap(30.0))),
        ("Scale", |r| sample(r, UnaryFunction::Scale(-1.7))),
    ];
}

/// The error function, to f64 precision: its Taylor series, or for large `x` the continued fraction of erfc
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    if x < 0.0 {
        return -erf(-x);
    }
    if x > 6.0 {
        return 1.0;
    }
    if x < 3.0 {
        let (mut sum, mut term, mut n) = (x, x, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    } else {
        let fraction = (1..=60).rev().fold(0.0, |f, n| n as f64 / 2.0 / (x + f));
        1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction)
    }
}

impl Unary {
    /// The function of the shader that computes it, and the constant that the function reads.
    fn kernel(&self) -> (&'static str, f32) {
        match self.function {
            UnaryFunction::Gelu => ("gelu", 0.0),
            UnaryFunction::GeluTanh => ("gelu_tanh", 0.0),
            UnaryFunction::Relu => ("relu", 0.0),
            UnaryFunction::Silu => ("silu", 0.0),
            UnaryFunction::Sigmoid => ("sigmoid", 0.0),
            UnaryFunction::Tanh => ("hyperbolic_tangent", 0.0),
            UnaryFunction::Softcap(cap) => ("softcap", cap),
            UnaryFunction::Scale(scale) => ("scale", scale),
        }
    }
}

impl Operator for Unary {
    fn family(&self) -> &'static str {
        "Unary"
    }

    fn name(&self) -> &'static str {
        match self.function {
            UnaryFunction::Gelu => "Gelu",
            UnaryFunction::GeluTanh => "GeluTanh",
            UnaryFunction::Relu => "Relu",
            UnaryFunction::Silu => "Silu",
            UnaryFunction::Sigmoid => "Sigmoid",
            UnaryFunction::Tanh => "Tanh",
            UnaryFunction::Softcap(_) => "Softcap",
            UnaryFunction::Scale(_) => "Scale",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity(self.name(), inputs, 1..2, "1")?;
        let dims = leading(inputs[0].len().saturating_sub(1));
        let rule = ShardingRule::of(self.name(), &format!("{dims} k -> {dims} k"));
        Ok(match self.function {
            UnaryFunction::Scale(_) => rule.linear(&[0]),
            _ => rule,
        }
        .bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        8
    }

    fn step(&self) -> Option<Step> {
        Some(match self.function {
            UnaryFunction::Softcap(_) => Step::Softcap,
            UnaryFunction::Scale(_) => Step::Scale,
            _ => Step::Map(self.kernel().0),
        })
    }

    fn step_words(&self, _context: &LaunchContext<'_>) -> Vec<u32> {
        match self.function {
            UnaryFunction::Softcap(constant) | UnaryFunction::Scale(constant) => vec![constant.to_bits()],
            _ => Vec::new(),
        }
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        context.fill(|i| {
            let x = x[i] as f64;
            match self.function {
                UnaryFunction::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
                UnaryFunction::GeluTanh => {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                    0.5 * x * (1.0 + inner.tanh())
                }
                UnaryFunction::Relu => x.max(0.0),
                UnaryFunction::Silu => x / (1.0 + (-x).exp()),
                UnaryFunction::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                UnaryFunction::Tanh => x.tanh(),
                UnaryFunction::Softcap(cap) => cap as f64 * (x / cap as f64).tanh(),
                UnaryFunction::Scale(scale) => scale as f64 * x,
            }
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let n = context.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let (function, constant) = self.kernel();
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "map").function(function),
            params: vec![n as u32, constant.to_bits()],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: linear_grid(n, 64),
        }])
    }
}

fn sample(random: &mut Random, function: UnaryFunction) -> Sample {
    let shape: Vec<usize> = (0..random.range(1, 4)).map(|_| random.range(1, 9)).collect();
    let mut x = random.tensor(DType::F32, &shape);
    let spread = random.pick(&[1.0, 10.0, 100.0]);
    bytemuck::cast_slice_mut::<u8, f32>(x.bytes_mut()).iter_mut().for_each(|x| *x *= spread);
    Sample::new(Unary { function }, vec![(Role::Input, x)]).mixed(random)
}

#[cfg(test)]
mod tests {
    #[test]
    fn erf_meets_its_table() {
        // Abramowitz and Stegun, table 7.1.
        for (x, y) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
            assert!((super::erf(x) - y).abs() < 1e-10, "erf({x})");
            assert!((super::erf(-x) + y).abs() < 1e-10, "erf(-{x})");
        }
        assert!((super::erf(2.999_999) - super::erf(3.000_001)).abs() < 1e-9);
    }
}
