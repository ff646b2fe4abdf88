//! RotaryEmbedding: rotates each head's leading dimensions by an angle that grows with the position.
//!
//! Angles come as tables of cosines and sines, because a GPU's own sine is too coarse for long contexts. The file does
//! not know how frequencies are scaled: an importer makes the tables. Read `shaders/rotary.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity};
use super::sample::{Role, Sample, Samples, weight};
use crate::kernel::{Binding, Kernel, Launch, PerSide, Shader, Step, linear_grid};
use crate::shape::{Dim, Shape};
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("rotary", include_str!("../../shaders/rotary.wgsl"));

/// Rotary position embedding: rotates pairs of each head's dimensions by an angle that depends on the position.
///
/// Dimension `i` is paired with `i + rotated / 2`; dimensions from `rotated` on pass unchanged.
///
/// | | |
/// |---|---|
/// | rule | `b s (h d), c r, c r, b s -> b s (h d)` |
/// | inputs | `x` `[batch, seq, heads * d]` f32; cosines and sines `[positions, rotated / 2]` f32; positions `[batch, seq]` u32 |
/// | output | the shape of `x`, f32 |
/// | may be cut | `h`, `b`, `s`; not `d`, whose elements are rotated in pairs, nor the tables |
/// | ONNX | RotaryEmbedding with `interleaved = 0` |
/// | source | Su et al. 2021, "RoFormer" |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RotaryEmbedding {
    /// Heads of the whole model, not of a rank.
    pub heads: usize,
}

impl RotaryEmbedding {
    pub(super) const SAMPLES: &'static Samples = &[("RotaryEmbedding", sample)];
}

impl Operator for RotaryEmbedding {
    fn name(&self) -> &'static str {
        "RotaryEmbedding"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("RotaryEmbedding", inputs, 4..5, "4 (x, cosines, sines, positions)")?;
        let rule = ShardingRule::of("RotaryEmbedding", "b s (h d), c r, c r, b s -> b s (h d)")
            .size("h", self.heads)
            .whole("d c r")
            .linear(&[0])
            .bind(inputs)?;
        let extent = |name: &str| rule.factor(name).map(|f| rule.factors()[f].extent);
        let refuse = |reason: String| Err(OpError::Attribute { op: "RotaryEmbedding", reason });
        if extent("c") == Some(Dim::Fixed(0)) {
            return refuse("the tables hold no position".to_string());
        }
        match (extent("d"), extent("r")) {
            (Some(Dim::Fixed(d)), Some(Dim::Fixed(r))) if d / 2 >= r => {}
            (Some(d), Some(r)) => return refuse(format!("tables rotate 2 * {r} dimensions of heads that have {d}")),
            _ => return refuse("the rule has no heads".to_string()),
        }
        Ok(rule)
    }

    fn operations(&self) -> u64 {
        3
    }

    fn takes_tail(&self, first: Step) -> bool {
        // Not an addition: a rotation ends in products.
        first == Step::Scatter
    }

    fn beside(&self) -> Option<&'static [usize]> {
        Some(&[1, 2, 3])
    }

    fn operand(&self, input: usize) -> Operand {
        match input {
            3 => Operand::Indices,
            _ => Operand::Numbers,
        }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        let (cosines, sines) = (context.inputs[1].as_f32()?, context.inputs[2].as_f32()?);
        let positions = context.inputs[3].as_u32()?;
        let (h, d, r, c) =
            (context.extent("h").len, context.extent("d").len, context.extent("r").len, context.extent("c").len);
        context.fill(|i| {
            let (row, dim) = (i / (h * d), i % d);
            // A position past the tables has no angle; a session refuses it before a call, so this only bounds.
            let angle = (positions[row] as usize).min(c.saturating_sub(1)) * r + dim % r.max(1);
            match dim {
                _ if dim < r => x[i] as f64 * cosines[angle] as f64 - x[i + r] as f64 * sines[angle] as f64,
                _ if dim < 2 * r => x[i] as f64 * cosines[angle] as f64 + x[i - r] as f64 * sines[angle] as f64,
                _ => x[i] as f64,
            }
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let (h, d, r, c) =
            (context.extent("h").len, context.extent("d").len, context.extent("r").len, context.extent("c").len);
        let n = context.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let groups = linear_grid(n, 64);
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, "rotate").sides(&[PerSide::read(1, "x", "f32"), PerSide::output(5)]),
            params: [d, r, c, 0, n, h * d, 0, groups[0] as usize].map(|word| word as u32).to_vec(),
            bindings: [0, 1, 2, 3].map(Binding::input).into_iter().chain([Binding::Output]).collect(),
            groups,
        }])
    }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, h, r, c) =
        (random.range(1, 3), random.range(1, 9), random.range(1, 7), random.range(1, 9), random.range(1, 20));
    let d = 2 * r + random.range(0, 3);
    Sample::new(
        RotaryEmbedding { heads: h },
        vec![
            (Role::Input, random.tensor(DType::F32, &[b, s, h * d])),
            weight(random.tensor(DType::F32, &[c, r])),
            weight(random.tensor(DType::F32, &[c, r])),
            (Role::Input, random.indices(c, &[b, s])),
        ],
    )
    .mixed(random)
}
