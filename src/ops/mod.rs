//! The ops: one file per family, each with its sharding rule, cost, host evaluation and kernel choice.
//!
//! Names and semantics are those of the ONNX operator set. An op deliberately knows nothing of the graph around it and
//! nothing of devices; what it is asked to compute is a part of the whole that its [`crate::sharding::ShardingRule`]
//! describes. Read one family (`unary.rs` is the shortest), then [`crate::graph`].

mod error;

pub use error::OpError;

mod attention;
mod binary;
mod cache;
mod experts;
mod gather;
mod layout;
mod linear;
mod normalization;
mod reduce;
mod rotary;
mod routing;
pub mod sample;
mod softmax;
mod unary;

pub use attention::Attention;
pub use binary::{Binary, BinaryFunction};
pub use cache::TensorScatter;
pub use experts::{Experts, ExpertsKind};
pub use gather::Gather;
pub use layout::{Reshape, Slice, Transpose};
pub use linear::Linear;
pub use normalization::{Normalization, NormalizationKind};
pub use reduce::{Reduce, ReduceKind};
pub use rotary::RotaryEmbedding;
pub use routing::Routing;
pub use softmax::Softmax;
pub use unary::{Unary, UnaryFunction};

use crate::kernel::{Launch, Layout, Rows};
use crate::shape::{Env, Shape};
use crate::sharding::{Extent, ShardingRule};
use crate::tensor::{DType, Tensor};
use std::ops::Range;

/// What an op reads at one of its inputs. It decides which values may stand there, and how a weight lies that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Numbers: f32 on the device. A weight of another type is widened.
    Numbers,
    /// The rows of a matrix: f32, or a weight in its own type, perhaps split over several buffers.
    Matrix,
    /// Positions and token ids: u32.
    Indices,
    /// Either numbers or indices, copied as they are.
    Either,
}

impl Operand {
    /// How a weight lies that stands here.
    pub fn layout(self) -> Layout {
        match self {
            Operand::Matrix => Layout::Padded,
            Operand::Numbers | Operand::Indices | Operand::Either => Layout::Dense,
        }
    }

    /// What may not stand here is an error that says what may: `Err` holds those words.
    pub fn check(self, found: DType) -> Result<(), &'static str> {
        match (self, found) {
            (Operand::Numbers | Operand::Matrix, DType::U32) => Err("numbers, not u32"),
            (Operand::Indices, DType::F32 | DType::F16 | DType::BF16) => Err("u32"),
            _ => Ok(()),
        }
    }
}

/// What an op states about itself. Shapes, legal cuts and the lowering of every cut are derived from
/// [`Operator::rule`].
pub trait Operator {
    /// Its ONNX name.
    fn name(&self) -> &'static str;

    /// Its sharding rule, bound to the inputs' shapes. Errors when they do not fit.
    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError>;

    /// How the op reads input number `input`: as numbers, as indices or as the rows of a matrix.
    fn operand(&self, input: usize) -> Operand;

    /// Arithmetic operations per point of the space that its factors span.
    fn operations(&self) -> u64 {
        1
    }

    /// Evaluates its part on the host: naive, obviously right, accumulating in f64. The oracle of every property test.
    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError>;

    /// The dispatches that evaluate its part on a GPU.
    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError>;

    /// The input that the output overwrites in place, if any.
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// Whether the output is the first input's bytes under another shape.
    fn is_view(&self) -> bool {
        false
    }
}

/// One part of an op to evaluate on the host.
#[derive(Clone, Copy, Debug)]
pub struct EvalContext<'a> {
    /// The rank's part of every input; weights widened to f32.
    pub inputs: &'a [&'a Tensor],
    /// The rank's part of every factor.
    pub extents: &'a [Extent],
    /// What the symbols stand for.
    pub env: &'a Env,
    /// The shape of the rank's part of the output.
    pub output: &'a [usize],
}

/// One part of an op to launch on a GPU.
#[derive(Clone, Copy, Debug)]
pub struct LaunchContext<'a> {
    /// The shapes of the rank's part of every input.
    pub inputs: &'a [Vec<usize>],
    /// The element types of the inputs as they lie on the device.
    pub dtypes: &'a [DType],
    /// For each input how it lies: dense unless it is a weight that the op reads as a matrix.
    pub layouts: &'a [Layout],
    /// For each input the row ranges by which it is split over buffers: one range unless it is a wide weight.
    pub pieces: &'a [Vec<Range<usize>>],
    /// The rank's part of every factor.
    pub extents: &'a [Extent],
    /// What the symbols stand for. `past` is not to be baked into a launch: read it from [`crate::kernel::Binding::Run`].
    pub env: &'a Env,
    /// The shape of the rank's part of the output.
    pub output: &'a [usize],
}

/// The rank's part of one factor, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedExtent {
    /// Where it starts in the whole.
    pub offset: usize,
    /// Its length.
    pub len: usize,
    /// The whole's length.
    pub global: usize,
}

fn extent(extents: &[Extent], env: &Env, name: &str) -> ResolvedExtent {
    let (offset, len, global) = extents.iter().find(|e| e.name == name).map_or((0, 1, 1), |extent| extent.resolve(env));
    ResolvedExtent { offset, len, global }
}

impl EvalContext<'_> {
    /// The rank's part of the factor called `name`; a factor the rule lacks has length 1.
    pub fn extent(&self, name: &str) -> ResolvedExtent {
        extent(self.extents, self.env, name)
    }

    /// The output filled by `value`, called with each index in row-major order.
    pub fn fill(&self, value: impl FnMut(usize) -> f64) -> Result<Tensor, OpError> {
        let n = self.output.iter().product();
        let mut value = value;
        Ok(Tensor::f32(self.output, (0..n).map(|i| value(i) as f32).collect())?)
    }
}

impl LaunchContext<'_> {
    /// The rank's part of the factor called `name`; a factor the rule lacks has length 1.
    pub fn extent(&self, name: &str) -> ResolvedExtent {
        extent(self.extents, self.env, name)
    }

    /// How the rows of a matrix lie that have `len` elements.
    fn rows(&self, input: usize, len: usize) -> Rows {
        match self.layouts[input] {
            Layout::Dense if !len.is_multiple_of(4) => Rows::Loose,
            Layout::Dense | Layout::Padded => Rows::Padded(self.dtypes[input]),
        }
    }

    /// Elements of the output.
    pub fn numel(&self) -> usize {
        self.output.iter().product()
    }
}

/// The letters of `n` leading dimensions: `b s h i j`, so that the same dimension has the same letter in every rule.
fn leading(n: usize) -> String {
    ["b", "s", "h", "i", "j"].iter().take(n).copied().collect::<Vec<_>>().join(" ")
}

/// Checks that `inputs` are `expected` in number, or one of them when it is a range.
fn arity(op: &'static str, inputs: &[Shape], allowed: Range<usize>, expected: &'static str) -> Result<(), OpError> {
    if allowed.contains(&inputs.len()) { Ok(()) } else { Err(OpError::Arity { op, expected, found: inputs.len() }) }
}

macro_rules! operators {
    ($($family:ident),* $(,)?) => {
        /// Any op: its family and attributes, as plain data.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub enum Op {
            $(#[allow(missing_docs)] $family($family),)*
        }

        $(impl From<$family> for Op {
            fn from(op: $family) -> Op {
                Op::$family(op)
            }
        })*

        impl std::ops::Deref for Op {
            type Target = dyn Operator;

            fn deref(&self) -> &(dyn Operator + 'static) {
                match self {
                    $(Op::$family(op) => op,)*
                }
            }
        }

        /// Random cases of every op, for tests, benches and self-tests: `(op's name, maker of a case)`.
        pub fn samples() -> Vec<(&'static str, fn(&mut crate::random::Random) -> sample::Sample)> {
            [$($family::SAMPLES),*].concat()
        }
    };
}

operators! {
    Linear, Gather, Normalization, RotaryEmbedding, Attention, TensorScatter, Unary, Binary, Softmax, Reshape,
    Transpose, Slice, Reduce, Routing, Experts,
}
