//! Reshape, Transpose and Slice: the same values under another shape, order or window.
//!
//! They are linear, so Partial passes; Reshape moves nothing at all. None knows what the dimensions mean: a reshape
//! states its compound factors, so a cut of `(h d)` becomes a cut of `h`. Read `shaders/layout.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples};
use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::shape::{Dim, Shape};
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Region, Tensor};

const SHADER: Shader = Shader::built_in("layout", include_str!("../../shaders/layout.wgsl"));

/// Another shape for the same elements in the same order, as an einops rearrangement: `b s (h d) -> b s h d`. Nothing moves.
///
/// | | |
/// |---|---|
/// | rule | the pattern itself |
/// | inputs | `x`, f32 or u32 |
/// | output | the pattern's right side, in the type of `x` |
/// | may be cut | every factor that leads its dimension on both sides, such as `h` above and not `d`; passes partial sums |
/// | ONNX | Reshape |
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reshape {
    /// The rearrangement.
    pub pattern: String,
    /// Lengths of factors that the input's shape does not determine.
    pub sizes: Vec<(String, usize)>,
}

/// The dimensions in another order: `y.shape[i] = x.shape[order[i]]`.
///
/// | | |
/// |---|---|
/// | rule | for `order = [0, 2, 1]`: `b s h -> b h s` |
/// | inputs | `x`, f32 or u32 |
/// | output | in the type of `x` |
/// | may be cut | every dimension; passes partial sums |
/// | ONNX | Transpose with `perm = order` |
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Transpose {
    /// For each output dimension the input dimension that it is.
    pub order: Vec<usize>,
}

/// A contiguous part of one dimension, such as the last positions of a sequence.
///
/// | | |
/// |---|---|
/// | rule | for `axis = 1`: `b s h -> b w h` |
/// | inputs | `x`, f32 or u32 |
/// | output | in the type of `x` |
/// | may be cut | every dimension but the sliced one; passes partial sums |
/// | ONNX | Slice with one axis and step 1 |
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Slice {
    /// The dimension that is sliced, from 0.
    pub axis: usize,
    /// The first element taken; `None` takes the last `len` elements.
    pub start: Option<usize>,
    /// How many elements are taken.
    pub len: Dim,
}

impl Reshape {
    pub(super) const SAMPLES: &'static Samples = &[("Reshape", sample_reshape)];

    /// The rearrangement `pattern`, with the lengths in `sizes`.
    pub fn new(pattern: &str, sizes: &[(&str, usize)]) -> Reshape {
        let sizes = sizes.iter().map(|&(name, n)| (name.to_string(), n)).collect();
        Reshape { pattern: pattern.to_string(), sizes }
    }
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Reshape", inputs, 1..2, "1")?;
        let names = |side: &str| {
            side.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_string).collect()
        };
        let (from, to): (Vec<String>, Vec<String>) =
            self.pattern.split_once("->").map(|(a, b)| (names(a), names(b))).unwrap_or_default();
        if from != to {
            let reason = format!("{:?} does not keep the order of the factors", self.pattern);
            return Err(OpError::Attribute { op: "Reshape", reason });
        }
        let rule = ShardingRule::of("Reshape", &self.pattern).linear(&[0]);
        Ok(self.sizes.iter().fold(rule, |rule, (name, n)| rule.size(name, *n)).bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Either
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        Ok(context.inputs[0].clone().reshaped(context.output)?)
    }

    fn launches(&self, _: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        Ok(Vec::new())
    }

    fn is_view(&self) -> bool {
        true
    }
}

impl Transpose {
    pub(super) const SAMPLES: &'static Samples = &[("Transpose", sample_transpose)];
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Transpose", inputs, 1..2, "1")?;
        let rank = inputs[0].len();
        let mut sorted = self.order.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() || rank > MAX_RANK {
            let reason = format!("{:?} does not reorder {rank} dimensions (at most {MAX_RANK})", self.order);
            return Err(OpError::Attribute { op: "Transpose", reason });
        }
        let dims = leading(rank);
        let letters: Vec<&str> = dims.split(' ').collect();
        let to: Vec<&str> = self.order.iter().map(|&d| letters[d]).collect();
        Ok(ShardingRule::of("Transpose", &format!("{dims} -> {}", to.join(" "))).linear(&[0]).bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Either
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let strides = row_major(context.inputs[0].shape());
        let strides: Vec<usize> = self.order.iter().map(|&d| strides[d]).collect();
        strided(context, 0, &strides)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let strides = row_major(&context.inputs[0]);
        let strides: Vec<usize> = self.order.iter().map(|&d| strides[d]).collect();
        Ok(strided_launch(context, 0, &strides))
    }
}

impl Slice {
    pub(super) const SAMPLES: &'static Samples = &[("Slice", sample_slice)];

    /// Where the window starts in a dimension of `n`.
    fn start_in(&self, n: usize, len: usize) -> usize {
        self.start.unwrap_or_else(|| n.saturating_sub(len))
    }
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Slice", inputs, 1..2, "1")?;
        let rank = inputs[0].len();
        let too_long = match (inputs[0].get(self.axis), self.len) {
            (Some(Dim::Fixed(n)), Dim::Fixed(len)) => {
                self.start_in(*n, len).checked_add(len).is_none_or(|end| end > *n)
            }
            (Some(_), _) => false,
            (None, _) => true,
        };
        if too_long || rank > MAX_RANK {
            let reason = format!("{self:?} leaves a tensor of rank {rank} (at most {MAX_RANK})");
            return Err(OpError::Attribute { op: "Slice", reason });
        }
        let dims = leading(rank);
        let letters: Vec<&str> = dims.split(' ').collect();
        let mut to = letters.clone();
        to[self.axis] = "w";
        Ok(ShardingRule::of("Slice", &format!("{dims} -> {}", to.join(" ")))
            .size("w", self.len)
            .whole("w")
            .whole(letters[self.axis])
            .linear(&[0])
            .bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        0
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Either
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let mut region = Region::whole(context.inputs[0].shape());
        let len = context.output[self.axis];
        let start = self.start_in(region.0[self.axis].end, len);
        region.0[self.axis] = start..start.saturating_add(len);
        Ok(context.inputs[0].slice(&region)?)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let strides = row_major(&context.inputs[0]);
        let (n, len) = (context.inputs[0][self.axis], context.output[self.axis]);
        let start = self.start_in(n, len);
        // Lengths that only the call knows: the host evaluation refuses the same window.
        if start.saturating_add(len) > n {
            let reason = format!("a window of {len} from {start} leaves a dimension of {n}");
            return Err(OpError::Attribute { op: "Slice", reason });
        }
        Ok(strided_launch(context, start * strides[self.axis], &strides))
    }
}

/// The most dimensions the strided copy takes.
const MAX_RANK: usize = 4;

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (0..shape.len().saturating_sub(1)).rev() {
        strides[d] = strides[d + 1] * shape[d + 1];
    }
    strides
}

/// The output read from the input at `offset` with one stride per output dimension.
fn strided(context: &EvalContext<'_>, offset: usize, strides: &[usize]) -> Result<Tensor, OpError> {
    let x = context.inputs[0];
    let own = row_major(context.output);
    let mut out = Tensor::zeros(x.dtype(), context.output);
    // Elements of four bytes, whatever they are: indices pass as numbers do.
    let from = x.bytes().as_chunks::<4>().0;
    for (i, to) in out.bytes_mut().as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let at: usize = (0..own.len()).map(|d| i / own[d] % context.output[d] * strides[d]).sum();
        *to = from[offset + at];
    }
    Ok(out)
}

/// The same as a launch.
fn strided_launch(context: &LaunchContext<'_>, offset: usize, strides: &[usize]) -> Vec<Launch> {
    let n = context.numel();
    if n == 0 {
        return Vec::new();
    }
    let missing = MAX_RANK - context.output.len();
    let padded = |dims: &[usize]| [&vec![1; missing], dims].concat();
    let words = [padded(context.output), padded(strides), vec![n, offset]].concat();
    vec![Launch {
        kernel: Kernel::new(SHADER, "strided"),
        params: words.into_iter().map(|word| word as u32).collect(),
        bindings: vec![Binding::input(0), Binding::Output],
        groups: linear_grid(n, 64),
    }]
}

fn sample_reshape(random: &mut Random) -> Sample {
    let (b, s, h, d) = (random.range(1, 3), random.range(1, 6), random.range(1, 7), random.range(1, 6));
    if random.range(0, 1) == 0 {
        let x = random.tensor(DType::F32, &[b, s, h * d]);
        Sample::new(Reshape::new("b s (h d) -> b s h d", &[("d", d)]), vec![(Role::Input, x)]).mixed(random)
    } else {
        let x = random.tensor(DType::F32, &[b, s, h, d]);
        Sample::new(Reshape::new("b s h d -> b s (h d)", &[]), vec![(Role::Input, x)]).mixed(random)
    }
}

fn sample_transpose(random: &mut Random) -> Sample {
    let rank = random.range(2, MAX_RANK);
    let shape: Vec<usize> = (0..rank).map(|_| random.range(1, 6)).collect();
    let mut order: Vec<usize> = (0..rank).collect();
    for i in (1..rank).rev() {
        order.swap(i, random.range(0, i));
    }
    Sample::new(Transpose { order }, vec![(Role::Input, random.tensor(DType::F32, &shape))]).mixed(random)
}

fn sample_slice(random: &mut Random) -> Sample {
    let rank = random.range(2, MAX_RANK);
    let shape: Vec<usize> = (0..rank).map(|_| random.range(1, 7)).collect();
    let axis = random.range(0, rank - 1);
    let len = random.range(1, shape[axis]);
    let start = (random.range(0, 1) == 0).then(|| random.range(0, shape[axis] - len));
    let x = random.tensor(DType::F32, &shape);
    Sample::new(Slice { axis, start, len: Dim::Fixed(len) }, vec![(Role::Input, x)]).mixed(random)
}
