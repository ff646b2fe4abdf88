//! An op of your own, with its own shader: defined once, tested by one call, and split over any devices.
//!
//! `Clamp` limits every element to an interval. Its sharding rule says which dimensions may be cut, and the library
//! derives from it how the op is split. Run it with `cargo run --release --no-default-features --example own_op`.

use fanfold::device::gpu::{self, GpuOptions};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use fanfold::ops::sample::{Role, Sample};
use fanfold::ops::{EvalContext, LaunchContext, Linear, OpError, Operand, Operator};
use fanfold::session::{Options, Session};
use fanfold::tensor::{DType::F32, Tensor};
use fanfold::{graph::Graph, plan::Plan, program::lower, proof::check_op, random::Random};
use fanfold::{shape::Env, shape::Shape, sharding::ShardingRule};
use std::{collections::HashMap, error::Error, sync::Arc};

const SOURCE: &str = "
struct Params { n: u32, low: f32, high: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#import grid
@compute @workgroup_size(64) fn limit(@builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = number_of(group, groups, lane);
    if (i < params.n) { y[i] = clamp(x[i], params.low, params.high); }
}";

#[derive(Debug, serde::Serialize)]
struct Clamp(f32, f32);

impl Operator for Clamp {
    fn name(&self) -> &'static str {
        "Clamp"
    }
    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        // Every output element depends on one input element only, so any dimension may be cut.
        Ok(ShardingRule::of("Clamp", "s k -> s k").bind(inputs)?)
    }
    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }
    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        context.fill(|i| x[i].max(self.0).min(self.1).into())
    }
    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let (n, kernel) = (context.numel(), Kernel::new(Shader::new("clamp", SOURCE), "limit"));
        let (params, groups) = (vec![n as u32, self.0.to_bits(), self.1.to_bits()], linear_grid(n, 64));
        Ok(vec![Launch { kernel, params, bindings: vec![Binding::input(0), Binding::Output], groups }])
    }
}

pub fn main() -> Result<(), Box<dyn Error>> {
    // The columns of the product before it are cut 2 : 1, and the op is cut in the same way: there is no exchange
    // between them.
    let (mut graph, mut random) = (Graph::new(), Random::new(1));
    let (x, w) = (graph.input("x", [4.into(), 8.into()], F32)?, graph.weight("w", [6.into(), 8.into()], F32)?);
    let product = graph.node("product", Linear, &[x, w])?;
    let limited = graph.node("limited", Clamp(-0.5, 0.5), &[product])?;
    graph.output("y", limited)?;
    let plan = Plan::whole(&graph, 2).cut("product", "n", [2.0, 1.0]).cut("limited", "k", [2.0, 1.0]).build()?;
    let (x, w) = (random.tensor(F32, &[4, 8]), random.tensor(F32, &[6, 8]));

    // Runs on the host device, which calls `evaluate` and needs no shader, and on a GPU if there is one.
    let gpu = gpu::adapters().into_iter().take(1).map(DeviceChoice::Gpu);
    for choice in std::iter::once(DeviceChoice::Host).chain(gpu) {
        let open = || select::open(&choice, &GpuOptions::default());
        let case = |r: &mut Random| Sample::new(Clamp(-0.25, 0.5), vec![(Role::Input, r.tensor(F32, &[5, 9]))]);
        println!("{} cuts of Clamp give what the whole gives", check_op(&case, 0..5, Some(&open))?);
        let (options, weights) = (Options::new(Env::prompt(1)), HashMap::from([("w".to_string(), w.clone())]));
        let (devices, program) = (vec![open()?, open()?], lower(&graph, &plan)?);
        let mut session = Session::open(program, devices, Arc::new(weights), options, Arc::new(|_bytes| ()))?;
        let y = session.run(Env::prompt(1), HashMap::from([("x".to_string(), x.clone())]))?;
        assert!(y["y"].as_f32()?.iter().all(|y| (-0.5..=0.5).contains(y)));
        assert!(session.report()?.iter().all(|rank| rank.exchanges == 0));
    }
    Ok(())
}
