//! Fused ops: what one dispatch computes together has the bits of dispatches of their own, in every family and however a model is
//! cut, and a layer takes few dispatches.

mod common;

use common::{adapters, all_logits, fixture, ratios};
use fanfold::device::Device;
use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions};
use fanfold::generate::Engine;
use fanfold::kernel::Numerics;
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Fused, Instr, RankProgram, lower};
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
