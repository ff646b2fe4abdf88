//! An op of one's own, with a shader of its own: stated once, and split over any devices.
//!
//! `Clamp` limits every element to an interval. Its sharding rule says which dimensions may be cut, and everything about
//! splitting follows from it; the last lines hold the op against the tests that the crate's own ops pass.

use fanfold::device::Device;
use fanfold::device::gpu::{self, GpuDevice, GpuOptions};
use fanfold::graph::Graph;
use fanfold::kernel::{Binding, Kernel, Launch, Shader};
use fanfold::ops::sample::{Role, Sample};
use fanfold::ops::{EvalContext, LaunchContext, Linear, OpError, Operand, Operator};
use fanfold::plan::Plan;
use fanfold::tensor::{DType, Tensor};
use fanfold::{proof::check_op, random::Random, shape::Shape, sharding::ShardingRule};

const SOURCE: &str = "
struct Params { n: u32, low: f32, high: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn limit(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.n) { y[id.x] = clamp(x[id.x], params.low, params.high); }
}";

#[derive(Debug, serde::Serialize)]
struct Clamp {
    low: f32,
    high: f32,
}

impl Operator for Clamp {
    fn name(&self) -> &'static str {
        "Clamp"
    }
    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        // Every element stands for itself, so any dimension may be cut.
        Ok(ShardingRule::of("Clamp", "b s k -> b s k").bind(inputs)?)
    }
    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }
    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        context.fill(|i| f64::from(x[i].clamp(self.low, self.high)))
    }
    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let n = context.numel();
        let launch = Launch {
            kernel: Kernel::new(Shader::new("clamp", SOURCE), "limit"),
            params: vec![n as u32, self.low.to_bits(), self.high.to_bits()],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: [n.div_ceil(64) as u32, 1, 1],
        };
        Ok(if n == 0 { Vec::new() } else { vec![launch] })
    }
}

pub fn main() -> fanfold::Result<()> {
    // In a graph, behind a product whose columns are cut 2 : 1, so is the op.
    let mut graph = Graph::new();
    let x = graph.input("x", [1.into(), 4.into(), 8.into()], DType::F32)?;
    let w = graph.weight("w", [6.into(), 8.into()], DType::F32)?;
    let product = graph.node("product", Linear, &[x, w])?;
    let limited = graph.node("limited", Clamp { low: -0.5, high: 0.5 }, &[product])?;
    graph.output("y", limited)?;
    let plan = Plan::whole(&graph, 2).cut("product", "n", [2.0, 1.0]).cut("limited", "k", [2.0, 1.0]).build()?;
    print!("{}", fanfold::program::lower(&graph, &plan)?.ranks[1]);
    // The rule theorem and, where there is a GPU, the shader against the host.
    let case = |random: &mut Random| {
        let shape = [random.range(1, 3), random.range(1, 5), random.range(1, 9)];
        Sample::new(Clamp { low: -0.25, high: 0.5 }, vec![(Role::Input, random.tensor(DType::F32, &shape))])
    };
    let mut cuts = check_op(&case, 10, None).expect("the parts make the whole");
    if let Some(adapter) = gpu::adapters().first() {
        let open = || Ok(Box::new(GpuDevice::open(adapter, &GpuOptions::default())?) as Box<dyn Device>);
        cuts += check_op(&case, 3, Some(&open)).expect("the shader gives what the host gives");
    }
    println!("{cuts} cuts of Clamp are right");
    Ok(())
}
