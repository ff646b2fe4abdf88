//! Attention: scaled dot products of query heads with the keys and values they share (ONNX Attention, 3-D form).
//!
//! KV heads are the image of the query heads under `head / group`, so a rank reads just those its queries need, and one
//! KV head serves any number of ranks. The file does not know where keys come from: a projection, or a state that holds
//! the past. Read `shaders/attention.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity};
use super::sample::{Role, Sample, Samples};
use crate::kernel::{Binding, Kernel, Launch, Numerics, Shader, linear_grid};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("attention", include_str!("../../shaders/attention.wgsl"));

/// Queries of a call, over all sequences, up to which attention is computed in parts: with more there is work for every lane
/// anyway.
const FEW: usize = 16;

/// Positions of a part where one invocation adds up all terms, and where the lanes of a workgroup share them. Both are
/// multiples of the blocks in which the kernels read keys, and the first is the smaller one.
const SPAN: usize = 128;
const LANES_SPAN: usize = 256;

/// The most parts: those of a state with room for more positions are longer, so that what they need of memory stays small.
const MOST_PARTS: usize = 64;

/// The positions of a part, and the number of parts, of a state with room for `t` positions, where parts have at least `least`
/// positions.
fn parts(t: usize, least: usize) -> (usize, usize) {
    let span = least * t.div_ceil(least * MOST_PARTS).max(1);
    (span, t.div_ceil(span))
}

/// Scaled dot-product attention: `softmax(mask(cap(q k^T * scale))) v` per head, over the first `past + seq` positions of `k` and
/// `v`. Several query heads may share a KV head (grouped-query attention). A query that may attend to no position gives zeros.
///
/// | | |
/// |---|---|
/// | rule | `b s (h d), b t (g d), b t (g e) -> b s (h e)`, with `g` the image of `h`; with the fourth input `.., b r -> ..` |
/// | inputs | `q` `[batch, seq, heads * d]`, `k` `[batch, t, kv_heads * d]`, `v` `[batch, t, kv_heads * e]`, all f32; optionally `key_range` `[batch, 2]` u32: the positions `start..end` of each sequence that are not padding |
/// | output | `[batch, seq, heads * e]` f32 |
/// | may be cut | `h` (each rank holds the KV heads that its query heads read) and `b`; not `s`, `t`, `d`, `e`, since every query needs all keys and whole heads |
/// | ONNX | Attention (opset 23), in its 3-D form; `window` is an extension |
/// | source | Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries) |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Attention {
    /// Query heads of the whole model, not of a rank.
    pub heads: usize,
    /// KV heads of the whole model; divides `heads`.
    pub kv_heads: usize,
    /// The factor of query-key products.
    pub scale: f32,
    /// Whether a query attends to no later position than its own.
    pub causal: bool,
    /// Sliding window: a query attends to this many positions, its own included. `None`: to all before it.
    pub window: Option<usize>,
    /// Scores are capped as `softcap * tanh(score / softcap)` before the mask. `None`: not capped.
    pub softcap: Option<f32>,
}

impl Attention {
    pub(super) const SAMPLES: &'static Samples = &[("Attention", sample)];
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Attention", inputs, 3..5, "3 or 4 (q, k, v, key range)")?;
        if self.heads == 0 || self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let reason = format!("{} query heads do not divide over {} KV heads", self.heads, self.kv_heads);
            return Err(OpError::Attribute { op: "Attention", reason });
        }
        let ranged = if inputs.len() == 4 { ", b r" } else { "" };
        let rule = ShardingRule::of("Attention", &format!("b s (h d), b t (g d), b t (g e){ranged} -> b s (h e)"))
            .size("h", self.heads)
            .size("g", self.kv_heads)
            .image("g", "h", self.heads / self.kv_heads)
            .whole("s t d e");
        Ok(if inputs.len() == 4 { rule.size("r", 2).whole("r") } else { rule }.bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        4
    }

    fn operand(&self, input: usize) -> Operand {
        match input {
            3 => Operand::Indices,
            _ => Operand::Numbers,
        }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (q, k, v) = (context.inputs[0].as_f32()?, context.inputs[1].as_f32()?, context.inputs[2].as_f32()?);
        let ranges = context.inputs.get(3).map(|ranges| ranges.as_u32()).transpose()?;
        let (s, t) = (context.extent("s").len, context.extent("t").len);
        let (h, g, d, e) = (context.extent("h"), context.extent("g"), context.extent("d").len, context.extent("e").len);
        let past = context.env.past;
        let mut out = Tensor::zeros(DType::F32, context.output);
        let rows = context.output.iter().product::<usize>() / e.max(1);
        let mut values = Vec::with_capacity(rows * e);
        for row in 0..rows {
            let (batch, position, head) = (row / (s * h.len), row / h.len % s, row % h.len);
            // The group is of the whole's heads; what is read is the rank's part of the KV heads.
            let kv = (h.offset + head) / (self.heads / self.kv_heads) - g.offset;
            let here = past + position;
            let (first, last) = ranges.map_or((0, t), |r| (r[2 * batch] as usize, r[2 * batch + 1] as usize));
            let end = if self.causal { here + 1 } else { past + s };
            let start = self.window.map_or(0, |w| (here + 1).saturating_sub(w)).max(first);
            let query = &q[row * d..][..d];
            let scores: Vec<f64> = (start..end.min(t).min(last))
                .map(|j| {
                    let key = &k[((batch * t + j) * g.len + kv) * d..][..d];
                    let dot: f64 = query.iter().zip(key).map(|(&q, &k)| q as f64 * k as f64).sum();
                    let score = dot * self.scale as f64;
                    self.softcap.map_or(score, |cap| cap as f64 * (score / cap as f64).tanh())
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for dim in 0..e {
                let at = |j: usize| v[((batch * t + start + j) * g.len + kv) * e + dim] as f64;
                let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * at(j)).sum();
                values.push(if scores.is_empty() { 0.0 } else { (sum / total) as f32 });
            }
        }
        out.bytes_mut().copy_from_slice(bytemuck::cast_slice(&values));
        Ok(out)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let [b, s, t, d, e] = ["b", "s", "t", "d", "e"].map(|name| context.extent(name).len);
        let (h, g) = (context.extent("h"), context.extent("g"));
        if context.numel() == 0 {
            return Ok(Vec::new());
        }
        let element = |len: usize| if len.is_multiple_of(4) { "vec4<f32>" } else { "f32" };
        // The lanes of the second kernel hold values of up to 256 elements.
        let by_lanes = context.numerics == Numerics::Lanes && e <= 256;
        // Numbers of the whole call decide on parts, so that a rank's share leaves the order of sums as it is.
        let queries = context.extent("b").global * context.extent("s").global;
        let (span, parts) = match parts(context.extent("t").global, if by_lanes { LANES_SPAN } else { SPAN }) {
            (span, parts) if queries <= FEW && parts > 1 => (span, parts),
            _ => (0, 1),
        };
        let kernel = |entry: &'static str, (key, value): (usize, usize)| {
            Kernel::new(SHADER, entry)
                .alias("Key", element(key))
                .alias("Value", element(value))
                .constant("SCALAR_D", !key.is_multiple_of(4) as u32)
                .constant("SCALAR_E", !value.is_multiple_of(4) as u32)
        };
        let group = self.heads / self.kv_heads;
        let blocks = (s * group.min(h.len)).div_ceil(4);
        let counts = [b, s, t, h.len, h.offset, g.len, g.offset, group, blocks, d, e];
        let mut params: Vec<u32> = counts.iter().map(|&word| word as u32).collect();
        let ranged = context.inputs.len() == 4;
        params.extend([self.causal as u32, ranged as u32, self.window.unwrap_or(0) as u32]);
        params.extend([self.softcap.unwrap_or(0.0).to_bits(), self.scale.to_bits(), span as u32, parts as u32]);
        let output = if span > 0 { Binding::Scratch { written: true } } else { Binding::Output };
        let inputs = [0, 1, 2].map(Binding::input);
        let mut launches = vec![Launch {
            kernel: kernel(if by_lanes { "attend_lanes" } else { "attend" }, (d, e)),
            params: params.clone(),
            bindings: [&[output, Binding::input(if ranged { 3 } else { 0 }), Binding::Run], &inputs[..]].concat(),
            groups: linear_grid(parts * b * g.len * blocks, if by_lanes { 1 } else { 8 }),
        }];
        if span > 0 {
            launches.push(Launch {
                // It reads neither keys nor values, so their shapes make no other kernel of it.
                kernel: kernel("merge", (4, 4)),
                params,
                bindings: vec![Binding::Output, Binding::Scratch { written: false }, Binding::Run],
                groups: linear_grid(context.numel(), 64),
            });
        }
        Ok(launches)
    }

    fn scratch(&self, len: &dyn Fn(&str) -> usize) -> usize {
        // Longer parts are fewer.
        let (_, parts) = parts(len("t"), SPAN);
        let rows = len("b").saturating_mul(len("s")).min(FEW).saturating_mul(len("h"));
        if parts > 1 { rows.saturating_mul(parts).saturating_mul(len("e").saturating_add(2)) } else { 0 }
    }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, g, group) = (random.range(1, 2), random.range(1, 9), random.range(1, 4), random.range(1, 4));
    // Some values are wider than the lanes of a workgroup that stand side by side.
    let wide = if random.range(0, 5) == 0 { 140 } else { 20 };
    let (d, e) = (random.range(1, wide), random.range(1, wide));
    let causal = random.range(0, 3) > 0;
    // Some states are long enough to be attended to in several parts.
    let longest = if random.range(0, 2) == 0 { 600 } else { 150 };
    let past = if causal { random.range(0, longest) } else { 0 };
    // Keys lie in a state that may hold more positions than are filled, or come straight from a projection.
    let (role, t) = if causal { (Role::State, past + s + random.range(0, 5)) } else { (Role::Input, s) };
    let op = Attention {
        heads: g * group,
        kv_heads: g,
        scale: 1.0 / (d as f32).sqrt(),
        causal,
        window: (causal && random.range(0, 2) == 0).then(|| random.range(1, if past > 150 { 300 } else { 12 })),
        softcap: (random.range(0, 2) == 0).then_some(2.0),
    };
    let mut inputs = vec![
        (Role::Input, random.tensor(DType::F32, &[b, s, g * group * d])),
        (role, random.tensor(DType::F32, &[b, t, g * d])),
        (role, random.tensor(DType::F32, &[b, t, g * e])),
    ];
    if random.range(0, 1) == 0 {
        // Some sequences hold nothing that some of their queries see.
        inputs.push((Role::Input, random.indices(past + s + 2, &[b, 2])));
    }
    Sample { past, ..Sample::new(op, inputs).mixed(random) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_and_cover_every_position() {
        for t in [1, 127, 128, 129, 4096, 8192, 8193, 16_384, 16_385, 131_072, 1 << 30] {
            let of = |least: usize| {
                let (span, count) = parts(t, least);
                assert!(span % least == 0 && count <= MOST_PARTS && span * count >= t && span * (count - 1) < t, "{t}");
                count
            };
            assert!(of(LANES_SPAN) <= of(SPAN), "{t}");
        }
        // One KV head for 32 query heads of 128 and a context of 131,072: far below any adapter's largest binding.
        let op = Attention { heads: 32, kv_heads: 1, scale: 1.0, causal: true, window: None, softcap: None };
        let sizes = [("b", 1), ("s", 256), ("h", 32), ("t", 131_072), ("e", 128)];
        let len = |name: &str| sizes.iter().find(|(known, _)| *known == name).map_or(1, |(_, n)| *n);
        assert_eq!(op.scratch(&len) * 4, 16 * 32 * 64 * 130 * 4);
    }
}
