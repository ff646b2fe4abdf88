//! The arithmetic of T. Dettmers' post: activations 128x1000, weight 1000x500, two devices. Cutting the weight's input
//! dimension moves 128x500 elements per device, cutting its output dimension 128x250. The elements that are sent are
//! counted.

mod common;

use common::hosts;
use fanfold::graph::Graph;
use fanfold::ops::{Linear, Softmax};
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::random::Random;
use fanfold::report::sent_bytes;
use fanfold::session::{Options, Session};
use fanfold::shape::Env;
use fanfold::tensor::{DType, Tensor, relative_error};
use std::collections::HashMap;
use std::sync::Arc;

/// The elements that each device sends, and the output.
fn run(factor: Option<&str>) -> (Vec<u64>, Tensor) {
    let mut random = Random::new(1);
    let (x, w) = (random.tensor(DType::F32, &[128, 1000]), random.tensor(DType::F32, &[500, 1000]));
    let mut graph = Graph::new();
    let input = graph.input("x", [128.into(), 1000.into()], DType::F32).unwrap();
    let weight = graph.weight("w", [500.into(), 1000.into()], DType::F32).unwrap();
    let y = graph.node("layer", Linear, &[input, weight]).unwrap();
    // An output is stacked on the host. An op that needs all of it on every device makes the devices exchange it.
    let y = graph.node("next", Softmax, &[y]).unwrap();
    graph.output("y", y).unwrap();
    let world_size = if factor.is_some() { 2 } else { 1 };
    let plan = Plan::whole(&graph, world_size);
    let plan = factor.into_iter().fold(plan, |plan, factor| plan.cut("layer", factor, [1.0, 1.0])).build().unwrap();
    let program = lower(&graph, &plan).unwrap();
    let env = Env::prompt(1);
    let told: Vec<u64> = (0..world_size).map(|rank| sent_bytes(&program, rank, &env)).collect();
    let weights = HashMap::from([("w".to_string(), w)]);
    let options = Options::new(env);
    let mut session = Session::open(program, hosts(world_size), Arc::new(weights), options, Arc::new(|_| ())).unwrap();
    let y = session.run(env, [("x".to_string(), x)].into()).unwrap().remove("y").unwrap();
    let counted: Vec<u64> = session.report().unwrap().iter().map(|rank| rank.sent_bytes).collect();
    assert_eq!(counted, told, "what the plan says is what is sent");
    (counted.iter().map(|bytes| bytes / 4).collect(), y)
}

#[test]
fn both_cuts_move_what_the_post_says() {
    let (none, whole) = run(None);
    assert_eq!(none, [0]);
    let whole = whole.as_f32().unwrap();
    let (added, y) = run(Some("k"));
    assert_eq!(added, [64_000, 64_000]);
    assert!(relative_error(y.as_f32().unwrap(), whole) <= 1e-5);
    let (stacked, y) = run(Some("n"));
    assert_eq!(stacked, [32_000, 32_000]);
    assert_eq!(y.as_f32().unwrap(), whole);
}
