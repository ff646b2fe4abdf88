//! A model of your own, built node by node with weights in memory. It generates tokens and is verified over two ranks.
//!
//! The model is minimal: an embedding, one MLP and a head. Its weights are a map; `StoredWeights` reads them from
//! safetensors, in memory or in files.

use fanfold::device::{Device, host::HostDevice};
use fanfold::generate::GenerateOptions;
use fanfold::graph::Graph;
use fanfold::model::ModelInfo;
use fanfold::ops::{Binary, BinaryFunction, Gather, Linear, Slice, Unary, UnaryFunction};
use fanfold::plan::Plan;
use fanfold::shape::Symbol::{Batch, Keep, Seq};
use fanfold::tensor::DType::{F32, U32};
use fanfold::{Engine, EngineOptions, Model, Sampler, Sampling, proof, random::Random};
use std::{collections::HashMap, sync::Arc};

const VOCABULARY: usize = 32;
const WIDTH: usize = 16;
const INNER: usize = 24;

fn graph() -> fanfold::Result<Graph> {
    let mut graph = Graph::new();
    let ids = graph.input("input_ids", [Batch.into(), Seq.into()], U32)?;
    let table = graph.weight("table", [VOCABULARY.into(), WIDTH.into()], F32)?;
    let x = graph.node("embedding", Gather, &[table, ids])?;
    let up = graph.weight("up", [INNER.into(), WIDTH.into()], F32)?;
    let down = graph.weight("down", [WIDTH.into(), INNER.into()], F32)?;
    let inner = graph.node("l0.up", Linear, &[x, up])?;
    let inner = graph.node("l0.act", Unary { function: UnaryFunction::Silu }, &[inner])?;
    let inner = graph.node("l0.down", Linear, &[inner, down])?;
    let x = graph.node("l0.residual", Binary { function: BinaryFunction::Add }, &[x, inner])?;
    // Logits are needed for the last positions only. The head uses the embedding's table.
    let last = graph.node("last", Slice { axis: 1, start: None, len: Keep.into() }, &[x])?;
    let logits = graph.node("head", Linear, &[last, table])?;
    graph.output("logits", logits)?;
    Ok(graph)
}

pub fn main() -> fanfold::Result<()> {
    let mut random = Random::new(7);
    let shapes = [("table", [VOCABULARY, WIDTH]), ("up", [INNER, WIDTH]), ("down", [WIDTH, INNER])];
    let weights: HashMap<_, _> =
        shapes.into_iter().map(|(name, shape)| (name.to_string(), random.tensor(F32, &shape))).collect();
    let model = Arc::new(Model::from_graph(graph()?, Arc::new(weights), ModelInfo::decoder(VOCABULARY, 64))?);
    // The MLP's inner dimension is cut 2 : 1 over two ranks: `up` along its columns, `down` along its rows.
    let plan = Plan::whole(model.graph(), 2)
        .cut("l0.up", "n", [2.0, 1.0])
        .cut("l0.act", "k", [2.0, 1.0])
        .cut("l0.down", "k", [2.0, 1.0])
        .build()?;
    let whole = Plan::whole(model.graph(), 1).build()?;
    let options = EngineOptions::default().context(64).all_logits(true);
    let open = |plan: &Plan| {
        let devices = (0..plan.world_size).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect();
        Engine::open(model.clone(), plan, devices, options, Arc::new(|_bytes| ()))
    };
    let (mut sharded, mut single) = (open(&plan)?, open(&whole)?);
    let greedy = Sampler::new(Sampling::greedy())?;
    let tokens: Result<Vec<u32>, _> =
        sharded.generate(&[3, 1, 4], greedy, &GenerateOptions::new(8).ignore_end())?.collect();
    println!("{:?}", tokens?);
    sharded.reset();
    let comparison = proof::verify(&mut sharded, &mut single, &[3, 1, 4, 1, 5], 8, |_| ())?;
    println!("largest error of two ranks against one: {:.1e}", comparison.error);
    assert!(comparison.passed());
    Ok(())
}
