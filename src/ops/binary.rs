//! Elementwise functions of two inputs: Add and Mul, the second of the first's shape, a row of its last dimension, or one
//! element for each of its rows.
//!
//! Add is linear in both together, Mul in each alone; where the second is repeated, Partial passes only as that allows.
//! The file does not know residuals from gates. Read `shaders/binary.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples};

use crate::format::Format;
use crate::kernel::{Binding, Kernel, Launch, Shader, Step, linear_grid};
use crate::shape::{Dim, Shape};
use crate::sharding::{Extent, ShardingRule};
use crate::tensor::{DType, Tensor};

const SHADER: Shader = Shader::built_in("binary", include_str!("../../shaders/binary.wgsl"));

/// The functions of [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum BinaryFunction {
    /// `a + b`.
    Add,
    /// `a * b`.
    Mul,
}

/// An elementwise function of two inputs. The second has the shape of the first, or is a row of its last dimension, or holds
/// one element for each of its rows.
///
/// | | |
/// |---|---|
/// | rule | `b s k, b s k -> b s k`; `b s k, k -> b s k`; `b s k, b s one -> b s k` |
/// | inputs | `a` f32; `b` f32 |
/// | output | the shape of `a`, f32 |
/// | may be cut | every dimension but `one`. Add passes partial sums when both inputs are partial, Mul when one is |
/// | ONNX | Add, Mul |
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Binary {
    /// Whether this adds or multiplies.
    pub function: BinaryFunction,
}

impl Binary {
    pub(super) const SAMPLES: &'static Samples =
        &[("Add", |r| sample(r, BinaryFunction::Add)), ("Mul", |r| sample(r, BinaryFunction::Mul))];
}

/// How the second input is broadcast to the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Of the same shape.
    None,
    /// A row for all of the first's rows.
    Row,
    /// A column: one element for each of the first's rows.
    Column,
}

impl Repeat {
    /// How the second input is broadcast. Decided by the rule and not by the local shape: on a rank that holds a single column
    /// of a matrix, a full-size input and a broadcast column have the same shape.
    fn of(first: &[usize], second: &[usize], extents: &[Extent]) -> Repeat {
        match extents.iter().any(|factor| factor.name == "one") {
            true => Repeat::Column,
            false if second.len() < first.len() => Repeat::Row,
            false => Repeat::None,
        }
    }
}

impl Operator for Binary {
    fn family(&self) -> &'static str {
        "Binary"
    }

    fn name(&self) -> &'static str {
        match self.function {
            BinaryFunction::Add => "Add",
            BinaryFunction::Mul => "Mul",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity(self.name(), inputs, 2..3, "2")?;
        let dims = leading(inputs[0].len().saturating_sub(1));
        let single = |shape: &Shape| shape.last() == Some(&Dim::Fixed(1));
        let rule = |second: &str| ShardingRule::of(self.name(), &format!("{dims} k, {second} -> {dims} k"));
        let rule = match () {
            () if inputs[1].len() < inputs[0].len() => rule("k"),
            () if single(&inputs[1]) && !single(&inputs[0]) => rule(&format!("{dims} one")).whole("one"),
            () => rule(&format!("{dims} k")),
        };
        Ok(match self.function {
            BinaryFunction::Add => rule.linear(&[0, 1]),
            BinaryFunction::Mul => rule.linear(&[0]).linear(&[1]),
        }
        .bind(inputs)?)
    }

    fn step(&self) -> Option<Step> {
        Some(match self.function {
            BinaryFunction::Add => Step::Add,
            BinaryFunction::Mul => Step::Mul,
        })
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (a, b) = (context.inputs[0].as_f32()?, context.inputs[1].as_f32()?);
        let repeat = Repeat::of(context.inputs[0].shape(), context.inputs[1].shape(), context.extents);
        let width = context.extent("k").len;
        context.fill(|i| {
            let at = match repeat {
                Repeat::None => i,
                Repeat::Row => i % width,
                Repeat::Column => i / width,
            };
            let (a, b) = (a[i] as f64, b[at] as f64);
            match self.function {
                BinaryFunction::Add => a + b,
                BinaryFunction::Mul => a * b,
            }
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let n = context.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let entry = match self.function {
            BinaryFunction::Add => "add",
            BinaryFunction::Mul => "mul",
        };
        let repeat = match Repeat::of(&context.inputs[0], &context.inputs[1], context.extents) {
            Repeat::None => 0,
            Repeat::Row => 1,
            Repeat::Column => 2,
        };
        Ok(vec![Launch {
            kernel: Kernel::new(SHADER, entry).constant("REPEAT", repeat),
            params: vec![n as u32, context.extent("k").len as u32],
            bindings: vec![Binding::input(0), Binding::input(1), Binding::Output],
            groups: linear_grid(n, 64),
        }])
    }
}

fn sample(random: &mut Random, function: BinaryFunction) -> Sample {
    let shape: Vec<usize> = (0..random.range(2, 4)).map(|_| random.range(1, 9)).collect();
    let (lead, last) = shape.split_at(shape.len() - 1);
    let (role, second) = match random.range(0, 3) {
        0 => (Role::Weight(Format::F32), last.to_vec()),
        1 => (Role::Input, [lead, &[1]].concat()),
        _ => (Role::Input, shape.clone()),
    };
    let inputs = vec![(Role::Input, random.tensor(DType::F32, &shape)), (role, random.tensor(DType::F32, &second))];
    Sample::new(Binary { function }, inputs).mixed(random)
}
