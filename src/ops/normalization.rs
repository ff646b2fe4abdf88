//! RMSNormalization and LayerNormalization over the last dimension.
//!
//! The normalised dimension is whole: its mean divides by the global length and needs every element. The file does
//! not know whether the dimension is a hidden state or a head. Read `shaders/normalization.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples, weight};

use crate::kernel::{Binding, Kernel, Launch, Numerics, Shader, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("normalization", include_str!("../../shaders/normalization.wgsl"));

/// The kinds of [`Normalization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum NormalizationKind {
    /// `x / rms(x) * (offset + weight)`.
    Rms,
    /// `(x - mean(x)) / std(x) * (offset + weight) + bias`.
    Layer,
}

/// A normalisation over the last dimension, scaled by a weight and, for LayerNormalization, shifted by a bias.
///
/// | | |
/// |---|---|
/// | rule | `b s d, d -> b s d`, for LayerNormalization `b s d, d, d -> b s d` |
/// | inputs | `x` `[.., D]` f32; `weight` `[D]`; for LayerNormalization `bias` `[D]` |
/// | output | the shape of `x`, f32 |
/// | may be cut | the leading dimensions; not `d`, since every element needs the mean over all of it |
/// | ONNX | RMSNormalization, LayerNormalization, with `axis = -1`; `offset` is an extension |
/// | source | Zhang and Sennrich 2019 (RMS), Ba et al. 2016 (Layer) |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Normalization {
    /// Whether this normalises by RMS or by mean and variance.
    pub kind: NormalizationKind,
    /// Added to the mean square (or variance) before its root.
    pub epsilon: f32,
    /// Added to the weight: 1 when files hold the difference of the weight from one (Gemma), else 0.
    pub offset: f32,
}

impl Normalization {
    pub(super) const SAMPLES: &'static Samples = &[
        ("RMSNormalization", |r| sample(r, NormalizationKind::Rms)),
        ("LayerNormalization", |r| sample(r, NormalizationKind::Layer)),
    ];
}

impl Operator for Normalization {
    fn family(&self) -> &'static str {
        "Normalization"
    }

    fn name(&self) -> &'static str {
        match self.kind {
            NormalizationKind::Rms => "RMSNormalization",
            NormalizationKind::Layer => "LayerNormalization",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        let lead = leading(inputs.first().map_or(0, |x| x.len().saturating_sub(1)));
        let pattern = match self.kind {
            NormalizationKind::Rms => {
                arity(self.name(), inputs, 2..3, "2")?;
                format!("{lead} d, d -> {lead} d")
            }
            NormalizationKind::Layer => {
                arity(self.name(), inputs, 3..4, "3")?;
                format!("{lead} d, d, d -> {lead} d")
            }
        };
        Ok(ShardingRule::of(self.name(), &pattern).whole("d").bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        6
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (x, weight) = (context.inputs[0].as_f32()?, context.inputs[1].as_f32()?);
        let bias = context.inputs.get(2).map(|b| b.as_f32()).transpose()?;
        let d = context.extent("d").global;
        let statistics: Vec<(f64, f64)> = x
            .chunks_exact(d.max(1))
            .map(|row| {
                let mean = match self.kind {
                    NormalizationKind::Rms => 0.0,
                    NormalizationKind::Layer => row.iter().map(|&x| x as f64).sum::<f64>() / d as f64,
                };
                let square: f64 = row.iter().map(|&x| (x as f64 - mean).powi(2)).sum();
                (mean, 1.0 / (square / d as f64 + self.epsilon as f64).sqrt())
            })
            .collect();
        context.fill(|i| {
            let ((mean, scale), column) = (statistics[i / d], i % d);
            (x[i] as f64 - mean) * scale * (self.offset as f64 + weight[column] as f64)
                + bias.map_or(0.0, |b| b[column] as f64)
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let d = context.extent("d").len;
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let rows = context.numel() / d;
        let mut bindings = vec![Binding::input(0), Binding::input(1), Binding::Output];
        if self.kind == NormalizationKind::Layer {
            bindings.push(Binding::input(2));
        }
        let entry = match (self.kind, context.numerics) {
            (NormalizationKind::Rms, Numerics::Sequential) => "rms",
            (NormalizationKind::Rms, Numerics::Lanes) => "rms_lanes",
            (NormalizationKind::Layer, Numerics::Sequential) => "layer",
            (NormalizationKind::Layer, Numerics::Lanes) => "layer_lanes",
        };
        let params = vec![rows as u32, d as u32, self.epsilon.to_bits(), self.offset.to_bits()];
        Ok(vec![Launch { kernel: Kernel::new(SHADER, entry), params, bindings, groups: linear_grid(rows, 1) }])
    }
}

fn sample(random: &mut Random, kind: NormalizationKind) -> Sample {
    let mut shape: Vec<usize> = (0..random.range(2, 4)).map(|_| random.range(1, 6)).collect();
    let d = if random.range(0, 5) == 0 { random.range(250, 800) } else { random.range(1, 70) };
    let rank = shape.len();
    shape[rank - 1] = d;
    let mut inputs = vec![(Role::Input, random.tensor(DType::F32, &shape)), weight(random.tensor(DType::F32, &[d]))];
    if kind == NormalizationKind::Layer {
        inputs.push(weight(random.tensor(DType::F16, &[d])));
    }
    Sample::new(Normalization { kind, epsilon: 1e-5, offset: random.pick(&[0.0, 1.0]) }, inputs).mixed(random)
}
