//! Elementwise functions of two inputs: Add and Mul, the second of the first's shape or a row of its last dimension.
//!
//! Add is linear in both together, Mul in each alone; where a row is added or multiplied, Partial passes only as that
//! allows. The file does not know residuals from gates. Read `shaders/binary.wgsl` next.

use super::sample::{Random, Role, Sample, Samples};
use super::{Call, Operator, Site, arity, leading};
use crate::error::Result;
use crate::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Shape, Tensor};

const SHADER: Shader = Shader { name: "binary", source: include_str!("../../shaders/binary.wgsl") };

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum BinaryFunction {
    /// `a + b`.
    Add,
    /// `a * b`.
    Mul,
}

/// An elementwise function of two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Binary {
    /// Which.
    pub function: BinaryFunction,
}

impl Binary {
    pub(super) const SAMPLES: &'static Samples =
        &[("Add", |r| sample(r, BinaryFunction::Add)), ("Mul", |r| sample(r, BinaryFunction::Mul))];
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self.function {
            BinaryFunction::Add => "Add",
            BinaryFunction::Mul => "Mul",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule> {
        arity(self.name(), inputs, 2..3, "2")?;
        let dims = leading(inputs[0].len().saturating_sub(1));
        let second = if inputs[1].len() < inputs[0].len() { "k".to_string() } else { format!("{dims} k") };
        let rule = ShardingRule::of(self.name(), &format!("{dims} k, {second} -> {dims} k"));
        match self.function {
            BinaryFunction::Add => rule.linear(&[0, 1]),
            BinaryFunction::Mul => rule.linear(&[0]).linear(&[1]),
        }
        .bind(inputs)
    }

    fn evaluate(&self, call: &Call<'_>) -> Result<Tensor> {
        let (a, b) = (call.inputs[0].as_f32()?, call.inputs[1].as_f32()?);
        call.fill(|i| {
            let (a, b) = (a[i] as f64, b[i % b.len()] as f64);
            match self.function {
                BinaryFunction::Add => a + b,
                BinaryFunction::Mul => a * b,
            }
        })
    }

    fn launches(&self, site: &Site<'_>) -> Result<Vec<Launch>> {
        let n = site.numel();
        if n == 0 {
            return Ok(Vec::new());
        }
        let entry = match self.function {
            BinaryFunction::Add => "add",
            BinaryFunction::Mul => "mul",
        };
        let row = site.inputs[1].len() < site.inputs[0].len();
        Ok(vec![Launch {
            kernel: Kernel { constants: vec![("ROW", row as u32)], ..Kernel::new(SHADER, entry) },
            params: vec![n as u32, site.part("k").len as u32],
            bindings: vec![Binding::input(0), Binding::input(1), Binding::Output],
            groups: linear_grid(n, 64),
        }])
    }
}

fn sample(random: &mut Random, function: BinaryFunction) -> Sample {
    let shape: Vec<usize> = (0..random.range(2, 4)).map(|_| random.range(1, 9)).collect();
    let row = random.range(0, 2) == 0;
    let (role, second) = if row { (Role::Weight, &shape[shape.len() - 1..]) } else { (Role::Input, &shape[..]) };
    let inputs = vec![(Role::Input, random.tensor(DType::F32, &shape)), (role, random.tensor(DType::F32, second))];
    Sample::new(Binary { function }, inputs)
}
