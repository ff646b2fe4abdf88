//! Fused ops: what one dispatch computes together has the bits of dispatches of their own, in every family and however a model is
//! cut, and a layer takes few dispatches.

mod common;

use common::{adapters, all_logits, fixture, ratios};
use fanfold::device::Device;
use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions};
use fanfold::format::Format;
use fanfold::generate::Engine;
use fanfold::graph::{Graph, ValueId};
use fanfold::kernel::Numerics;
use fanfold::model::Model;
use fanfold::ops::{Binary, BinaryFunction, Linear};
use fanfold::plan::{NodeCut, Strategy, plan};
use fanfold::program::{Fused, Instr, RankProgram, lower};
use fanfold::random::Random;
use fanfold::shape::Env;
use fanfold::sharding::Cut;
use fanfold::tensor::{DType, relative_error};
use std::collections::HashMap;
use std::sync::Arc;

/// Decoders with gated and plain MLPs, biases, caps and factors.
const MODELS: [&str; 2] = ["gemma2", "gpt2"];

fn engine(model: &Arc<Model>, strategy: Strategy, n: usize, info: &AdapterInfo, options: &GpuOptions) -> Engine {
    let plan = plan(model.graph(), strategy, &ratios(n)).unwrap();
    let devices = (0..n).map(|_| Box::new(GpuDevice::open(info, options).unwrap()) as Box<dyn Device>).collect();
    Engine::open(model.clone(), &plan, devices, all_logits(), Arc::new(|_| ())).unwrap()
}

/// The logits of a prompt in two chunks and of two decode steps, one after another.
fn logits(engine: &mut Engine, vocabulary: usize) -> Vec<f32> {
    let token = |i: usize| (i * 37 + 5) as u32 % vocabulary as u32;
    let calls = [(0..17).map(token).collect::<Vec<_>>(), vec![token(17)], vec![token(18)]];
    calls.iter().flat_map(|tokens| engine.feed(tokens).unwrap().as_f32().unwrap().to_vec()).collect()
}

#[test]
fn joined_ops_have_the_bits_of_single_ones() {
    let models: Vec<Arc<Model>> = MODELS.iter().map(|name| Arc::new(Model::open(fixture(name)).unwrap())).collect();
    for (at, info) in adapters().iter().enumerate() {
        // The first adapter shows every family and cut, each further one a family: compiling takes most of the time.
        for model in if at == 0 { models.as_slice() } else { &models[..1] } {
            let vocabulary = model.info().vocabulary;
            for (numerics, strategy, n) in [
                (Numerics::Sequential, Strategy::Single, 1),
                (Numerics::Sequential, Strategy::Tensor, 2),
                (Numerics::Lanes, Strategy::Single, 1),
            ] {
                let of = |join: bool| {
                    let options = GpuOptions { numerics: Some(numerics), join: Some(join), ..GpuOptions::default() };
                    logits(&mut engine(model, strategy, n, info, &options), vocabulary)
                };
                let family = &model.info().family;
                assert!(of(true) == of(false), "{family}, {strategy} over {n}, {numerics} on {info}");
            }
        }
    }
}

/// Instructions that a device runs for one layer of the demo model by themselves, and with those that are joined to them.
fn per_layer(program: &RankProgram) -> (usize, usize) {
    let of = |layer: &str, alone: bool| {
        let computed = |instr: &&Instr| match instr {
            Instr::Compute { node, fused, .. } => node.starts_with(layer) && !(alone && *fused != Fused::Alone),
            _ => false,
        };
        program.instrs.iter().filter(computed).count()
    };
    (of("model.layers.1.", true), of("model.layers.1.", false))
}

#[test]
fn a_layer_takes_nine_dispatches() {
    let model = Model::demo().unwrap();
    let single = lower(model.graph(), &plan(model.graph(), Strategy::Single, &[1.0]).unwrap()).unwrap();
    assert_eq!(per_layer(&single.ranks[0]), (9, 18));
    // Cut, the two residuals stand behind exchanges, and cannot be computed by the products before those.
    let cut = lower(model.graph(), &plan(model.graph(), Strategy::Tensor, &[1.0, 1.0]).unwrap()).unwrap();
    assert_eq!(per_layer(&cut.ranks[1]), (11, 18));
}

/// The dispatches of one decode step are the instructions that are not fused with another.
#[test]
fn a_step_dispatches_what_is_not_fused() {
    let model = Arc::new(Model::demo().unwrap());
    for info in adapters() {
        let options = GpuOptions { join: Some(true), ..GpuOptions::default() };
        let mut engine = engine(&model, Strategy::Single, 1, &info, &options);
        engine.feed(&[5, 6, 7]).unwrap();
        engine.feed(&[8]).unwrap();
        let before = engine.report().unwrap()[0].counters.dispatches;
        engine.feed(&[9]).unwrap();
        let dispatches = engine.report().unwrap()[0].counters.dispatches - before;
        let program = lower(model.graph(), &plan(model.graph(), Strategy::Single, &[1.0]).unwrap()).unwrap();
        let alone = |instr: &&Instr| matches!(instr, Instr::Compute { op, fused: Fused::Alone, .. } if !op.is_view());
        assert_eq!(dispatches as usize, program.ranks[0].instrs.iter().filter(alone).count(), "{info}");
    }
}

/// A product runs beside others of its own input only, also on a rank whose share of the first of them is empty.
#[test]
fn a_product_never_runs_beside_one_of_another_input() {
    let mut random = Random::new(4);
    let mut graph = Graph::new();
    let (mut inputs, mut weights) = (HashMap::new(), HashMap::new());
    let mut product = |graph: &mut Graph, name: &str, x: ValueId| {
        let w = graph.weight(&format!("{name}.w"), [8.into(), 8.into()], Format::F32).unwrap();
        weights.insert(format!("{name}.w"), random.tensor(DType::F32, &[8, 8]));
        graph.node(name, Linear, &[x, w]).unwrap()
    };
    let mut random = Random::new(5);
    let [x, z] = ["x", "z"].map(|name| {
        inputs.insert(name.to_string(), random.tensor(DType::F32, &[1, 2, 8]));
        graph.input(name, [1.into(), 2.into(), 8.into()], DType::F32).unwrap()
    });
    let products = [("alone", x), ("first", z), ("second", z)].map(|(name, x)| product(&mut graph, name, x));
    let add = Binary { function: BinaryFunction::Add };
    let sum = graph.node("sum", add, &products[..2]).unwrap();
    let sum = graph.node("whole", add, &[sum, products[2]]).unwrap();
    graph.output("y", sum).unwrap();
    let cut = NodeCut { node: "first".into(), factor: "n".into(), cut: Cut::new(vec![0..0, 0..8]) };
    let plan = common::plan_of(&graph, Some(cut), 2);
    let run = |devices| common::run_plan(&graph, &weights, &inputs, Env::prompt(1), &plan, devices);
    let expected = run(common::hosts(2));
    for info in adapters() {
        let options = GpuOptions { join: Some(true), ..GpuOptions::default() };
        let open = || Box::new(GpuDevice::open(&info, &options).unwrap()) as Box<dyn Device>;
        let error = relative_error(common::values(&run(vec![open(), open()])), common::values(&expected));
        assert!(error <= 1e-5, "{info}: {error:e}");
    }
}
