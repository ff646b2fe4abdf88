//! What an op is: the trait that every op implements, what it is given to compute, and an op as a value.
//!
//! It deliberately knows no op. Read `softmax.rs` for one of a plain kind, and [`crate::sharding::ShardingRule`] for the rule that
//! an op states.

use super::error::OpError;
use crate::format::Format;
use crate::kernel::{Launch, Layout, Numerics, Rows, Schedules, Step};
use crate::shape::{Env, Shape};
use crate::sharding::{Extent, ShardingRule};
use crate::tensor::{DType, Tensor};
use serde::Serialize;
use serde_json::value::RawValue;
use std::any::Any;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

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
            Operand::Matrix => Layout::Rows,
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

/// The attributes of an op as JSON text, by which programs and fingerprints tell ops of one name apart.
///
/// Every type that implements [`serde::Serialize`] has it: an op derives `Serialize` and writes nothing more. The text is what
/// serde_json writes, fields in the order of the struct, so that it is the same in every build; a field that is a map should be
/// a `BTreeMap`, whose order is its own. A number that is not finite is written `null`.
#[doc(hidden)]
pub trait Attributes {
    /// The text: `null` for an op that has no attributes, else an object.
    ///
    /// Errors when serde_json cannot write them, for example a map whose keys are no texts.
    fn attributes(&self) -> Result<Box<RawValue>, serde_json::Error>;
}

impl<T: Serialize> Attributes for T {
    fn attributes(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }
}

/// What an op states about itself. Shapes, legal cuts and the lowering of every cut are derived from
/// [`Operator::rule`].
///
/// An op of one's own derives `Debug` and `serde::Serialize`, implements this trait, and goes into a graph by
/// [`Graph::node`](crate::graph::Graph::node); `examples/own_op.rs` is one, and [`crate::proof::check_op`] tests it.
pub trait Operator: Attributes + fmt::Debug + Send + Sync + Any {
    /// The name of its type, which tags it where a program is serialised. It differs from the name where one type is several
    /// ops, as Unary is Gelu, Relu and others.
    fn family(&self) -> &'static str {
        self.name()
    }

    /// Its name, by which programs, plans and messages know it; of the crate's own mostly ONNX's.
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

    /// The dispatches that evaluate its part on a GPU. Of an op with several schedules they are those of the first.
    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError>;

    /// The ways to launch its part, which all give the same bits; a device picks one. An op that has one way only states
    /// [`Operator::launches`].
    #[doc(hidden)]
    fn schedules(&self, context: &LaunchContext<'_>) -> Result<Schedules, OpError> {
        Ok(Schedules::only(self.launches(context)?))
    }

    /// How the op is computed element by element on one of its inputs, inside the kernel of the op that makes that input;
    /// `None` for an op that needs a kernel of its own. Only for inputs of the output's own shape.
    #[doc(hidden)]
    fn step(&self) -> Option<Step> {
        None
    }

    /// The words that [`Operator::step`] reads, in a part of the op of which `context` tells.
    #[doc(hidden)]
    fn step_words(&self, _context: &LaunchContext<'_>) -> Vec<u32> {
        Vec::new()
    }

    /// Whether its kernels store through `#import put`, so that an op whose step is `first` may be joined to them.
    #[doc(hidden)]
    fn takes_tail(&self, _first: Step) -> bool {
        false
    }

    /// The inputs that two ops of this type must have in common to run side by side, in one dispatch; `None` where its kernels
    /// cannot.
    #[doc(hidden)]
    fn beside(&self) -> Option<&'static [usize]> {
        None
    }

    /// The most 32-bit words that a launch of the op needs in [`Binding::Scratch`](crate::kernel::Binding::Scratch), whichever
    /// kernels a device runs. `len` gives the rank's length of the factor of a name in the largest call; smaller calls must need
    /// no more.
    #[doc(hidden)]
    fn scratch(&self, _len: &dyn Fn(&str) -> usize) -> usize {
        0
    }

    /// The input that the output overwrites in place, if any.
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// Whether the output is the first input's bytes under another shape.
    fn is_view(&self) -> bool {
        false
    }
}

/// Any op, the crate's or one's own. Two are equal when they are of one type and their names and attributes are equal.
///
/// It is serialised as its family and its attributes: `{"Softmax":null}`, `{"Unary":{"function":"Gelu"}}`.
#[derive(Clone, Debug)]
pub struct Op(Arc<dyn Operator>);

impl Op {
    /// Its attributes as JSON text. Errors as [`Attributes::attributes`]; of an op in a graph never.
    pub fn attributes(&self) -> Result<Box<RawValue>, serde_json::Error> {
        // Not of `self`: an Op is Serialize too, and its own text is made of this one.
        self.0.as_ref().attributes()
    }
}

impl<T: Operator> From<T> for Op {
    fn from(op: T) -> Op {
        Op(Arc::new(op))
    }
}

impl Deref for Op {
    type Target = dyn Operator;

    fn deref(&self) -> &(dyn Operator + 'static) {
        self.0.as_ref()
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        let kind = |op: &Op| (Any::type_id(op.0.as_ref()), op.name());
        let attributes = || match (self.attributes(), other.attributes()) {
            (Ok(one), Ok(two)) => one.get() == two.get(),
            _ => false,
        };
        Arc::ptr_eq(&self.0, &other.0) || kind(self) == kind(other) && attributes()
    }
}

impl Serialize for Op {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = self.attributes().map_err(serde::ser::Error::custom)?;
        serializer.collect_map([(self.family(), attributes)])
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
    /// The formats of the inputs as they lie on the device; f32 or u32 for all but weights that the op reads as a matrix.
    pub formats: &'a [Format],
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
    /// The order in which the device adds up sums. An op that has no kernel for it may launch another one, as long as the
    /// choice depends on the whole op alone and never on a shard.
    pub numerics: Numerics,
    /// The fewest lanes of a subgroup, which can exchange values without memory; 0 where the device has no subgroup operations.
    /// It may decide how a kernel loads, and never the order of its sums.
    pub subgroup: u32,
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

    /// How the rows of the matrix at input number `input` lie, which have `len` elements: for [`Kernel::weight`].
    ///
    /// [`Kernel::weight`]: crate::kernel::Kernel::weight
    #[doc(hidden)]
    pub fn rows(&self, input: usize, len: usize) -> Rows {
        match self.layouts[input] {
            Layout::Dense if !len.is_multiple_of(4) => Rows::Loose,
            Layout::Dense | Layout::Rows => Rows::Stored(self.formats[input]),
        }
    }

    /// As [`LaunchContext::rows`], eight elements at a time where the format and the length allow it.
    #[doc(hidden)]
    pub fn wide_rows(&self, input: usize, len: usize) -> Rows {
        match self.rows(input, len) {
            Rows::Stored(format) if format.is_wide(len) => Rows::Wide(format),
            rows => rows,
        }
    }

    /// The lanes that may share what they load, for [`Kernel::spread`]; 0 for none. Only where one invocation adds up a sum: a GPU
    /// gives neighbouring lanes that load one address the same transaction.
    ///
    /// [`Kernel::spread`]: crate::kernel::Kernel::spread
    #[doc(hidden)]
    pub fn sharing_lanes(&self) -> u32 {
        match self.numerics {
            Numerics::Sequential => self.subgroup,
            Numerics::Lanes => 0,
        }
    }

    /// Elements of the output.
    pub fn numel(&self) -> usize {
        self.output.iter().product()
    }
}

/// The letters of `n` leading dimensions: `b s h i j`, so that the same dimension has the same letter in every rule.
pub(super) fn leading(n: usize) -> String {
    ["b", "s", "h", "i", "j"].iter().take(n).copied().collect::<Vec<_>>().join(" ")
}

/// Checks that `inputs` are `expected` in number, or one of them when it is a range.
pub(super) fn arity(
    op: &'static str,
    inputs: &[Shape],
    allowed: Range<usize>,
    expected: &'static str,
) -> Result<(), OpError> {
    if allowed.contains(&inputs.len()) { Ok(()) } else { Err(OpError::Arity { op, expected, found: inputs.len() }) }
}
