//! One layer split over two devices, both ways, with the bytes each way exchanges.
//!
//! The example is from T. Dettmers' "How to Parallelize Deep Learning on GPUs, part 2: Model Parallelism": activations
//! of 128 x 1000, a weight of 1000 x 500, two devices. If the weight is cut along its columns, the partial outputs are
//! stacked; if it is cut along its rows, they are added. Run it with `cargo run --release --no-default-features
//! --example split_layer`.

use fanfold::device::{Device, host::HostDevice};
use fanfold::graph::Graph;
use fanfold::ops::{Linear, Softmax};
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::random::Random;
use fanfold::session::{Options, Session};
use fanfold::shape::Env;
use fanfold::tensor::{DType, Tensor, relative_error};
use fanfold::{Result, report};
use std::collections::HashMap;
use std::sync::Arc;

const ROWS: usize = 128;
const K: usize = 1000;
const N: usize = 500;

/// `x [128, 1000]` times a weight, optionally followed by a softmax, which needs whole rows on every device.
fn layer(whole_after: bool) -> Result<Graph> {
    let mut graph = Graph::new();
    let x = graph.input("x", [ROWS.into(), K.into()], DType::F32)?;
    // Weights are stored as [N, K], transposed as in model files.
    let w = graph.weight("w", [N.into(), K.into()], DType::F32)?;
    let mut y = graph.node("linear", Linear, &[x, w])?;
    if whole_after {
        y = graph.node("softmax", Softmax, &[y])?;
    }
    graph.output("y", y)?;
    Ok(graph)
}

/// Runs `graph` as `plan` says; returns the output and the bytes that each rank sent.
fn run(graph: &Graph, plan: &Plan, x: &Tensor, w: &Tensor) -> Result<(Tensor, Vec<u64>)> {
    let (program, ranks) = (lower(graph, plan)?, plan.world_size);
    let env = Env::prompt(1);
    // The bytes are counted before anything runs; the session's own count must agree.
    let counted: Vec<u64> = (0..ranks).map(|rank| report::sent_bytes(&program, rank, &env)).collect();
    let devices = (0..ranks).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect();
    let options = Options::new(env);
    let weights = Arc::new(HashMap::from([("w".to_string(), w.clone())]));
    let mut session = Session::open(program, devices, weights, options, Arc::new(|_bytes| ()))?;
    let mut outputs = session.run(env, HashMap::from([("x".to_string(), x.clone())]))?;
    let sent: Vec<u64> = session.report()?.iter().map(|rank| rank.sent_bytes).collect();
    assert_eq!(sent, counted);
    let y = outputs.remove("y").expect("the graph has an output y");
    Ok((y, sent))
}

pub fn main() -> Result<()> {
    let mut random = Random::new(1);
    let (x, w) = (random.tensor(DType::F32, &[ROWS, K]), random.tensor(DType::F32, &[N, K]));
    println!("activations {ROWS} x {K}, weight {K} x {N}, two devices, forward:");
    for (factor, whole_after, what) in [
        ("n", true, "columns cut, outputs stacked (all_gather)"),
        ("k", true, "rows cut, outputs added (all_reduce)"),
        ("n", false, "columns cut, every device keeps its part"),
    ] {
        let graph = layer(whole_after)?;
        let (whole, _) = run(&graph, &Plan::whole(&graph, 1).build()?, &x, &w)?;
        let halves = Plan::whole(&graph, 2).cut("linear", factor, [1.0, 1.0]).build()?;
        let (split, sent) = run(&graph, &halves, &x, &w)?;
        let error = relative_error(split.as_f32()?, whole.as_f32()?);
        // With two devices, each receives what the other one sends.
        println!("  {what:<42} {:>6} elements per device, error {error:.1e}", sent[0] / 4);
        assert!(error < 1e-5 && sent[0] == sent[1]);
    }
    Ok(())
}
