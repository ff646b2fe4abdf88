//! Fixture models against what transformers computed, on one device and on several.

mod common;

use common::{Expected, adapters, engine, fixture, gpus, hosts, mixed, ratios, values};
use fanfold::import::Model;
use fanfold::plan::Strategy;
use fanfold::tensor::relative_error;
use fanfold::verify::argmax;
use std::sync::Arc;

const DECODERS: [&str; 4] = ["llama-uneven", "qwen2-bias-tied", "qwen3-qknorm", "gpt2"];
const STRATEGIES: [Strategy; 3] = [Strategy::Tensor, Strategy::Column, Strategy::Row];

/// Logits within 1e-4 and the greedy continuation identical.
fn check_decoder(name: &str, strategy: Strategy, world: usize, devices: Vec<Box<dyn fanfold::device::Device>>) {
    let model = Arc::new(Model::open(fixture(name)).unwrap());
    let expected = Expected::of(name);
    let mut engine = engine(&model, strategy, &ratios(world), devices);
    for prompt in 0..2 {
        engine.reset();
        let logits = engine.feed(&expected.u32(&format!("ids_{prompt}"))).unwrap();
        let error = relative_error(values(&logits), &expected.f32(&format!("logits_{prompt}")));
        assert!(error <= 1e-4, "{name} {strategy} on {world}: error {error:e}");
        let width = logits.shape()[1];
        let mut last = values(&logits)[values(&logits).len() - width..].to_vec();
        for (step, wanted) in expected.u32(&format!("greedy_{prompt}")).into_iter().enumerate() {
            let token = argmax(&last) as u32;
            assert_eq!(token, wanted, "{name} {strategy} on {world}, step {step}");
            last = values(&engine.feed(&[token]).unwrap()).to_vec();
        }
    }
}

fn check_encoder(strategy: Strategy, world: usize, devices: Vec<Box<dyn fanfold::device::Device>>) {
    let model = Arc::new(Model::open(fixture("bert")).unwrap());
    let expected = Expected::of("bert");
    let mut engine = engine(&model, strategy, &ratios(world), devices);
    for text in 0..2 {
        let hidden = engine.embed(&expected.u32(&format!("ids_{text}"))).unwrap();
        let error = relative_error(values(&hidden), &expected.f32(&format!("hidden_{text}")));
        assert!(error <= 1e-4, "bert {strategy} on {world}: error {error:e}");
    }
}

#[test]
fn decoders_match_transformers_on_host() {
    for name in DECODERS {
        for strategy in STRATEGIES {
            for world in [1, 2, 3, 5] {
                check_decoder(name, strategy, world, hosts(world));
            }
        }
    }
}

/// Any strategy, any ratios with zeros among them, any number of ranks, and any nodes taken back to run whole.
#[test]
fn random_plans_match_transformers() {
    use fanfold::ops::sample::Random;
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let name = DECODERS[seed as usize % DECODERS.len()];
        let model = Arc::new(Model::open(fixture(name)).unwrap());
        let mut ratios: Vec<f64> = (0..random.range(2, 8)).map(|_| random.range(0, 5) as f64).collect();
        ratios[0] += 1.0;
        let mut plan = fanfold::plan::plan(model.graph(), random.pick(&STRATEGIES), &ratios).unwrap();
        // A state has one cut: its writers and readers are taken back only together, which this leaves alone.
        let stateful = |node: &str| node.ends_with("append") || node.ends_with("attn");
        plan.nodes.retain(|entry| stateful(&entry.node) || random.range(0, 4) > 0);
        let expected = Expected::of(name);
        let mut engine = common::engine_of(&model, &plan, hosts(ratios.len()));
        let logits = engine.feed(&expected.u32("ids_0")).unwrap();
        let error = relative_error(values(&logits), &expected.f32("logits_0"));
        assert!(error <= 1e-4, "{name}, seed {seed}: error {error:e} under {}", plan.to_json());
    }
}

#[test]
fn encoders_match_transformers_on_host() {
    for strategy in STRATEGIES {
        for world in [1, 2, 3, 5] {
            check_encoder(strategy, world, hosts(world));
        }
    }
}

#[test]
fn decoders_match_transformers_on_gpus() {
    let adapters = adapters();
    for name in DECODERS.iter().filter(|_| !adapters.is_empty()) {
        for world in [1, 2, 3, 5] {
            check_decoder(name, Strategy::Tensor, world, mixed(&adapters, world));
        }
        check_decoder(name, Strategy::Column, 3, gpus(&adapters[0], 3));
        check_decoder(name, Strategy::Row, 2, mixed(&adapters, 2));
    }
}

#[test]
fn encoders_match_transformers_on_gpus() {
    let adapters = adapters();
    for world in [1, 2, 3, 5].into_iter().filter(|_| !adapters.is_empty()) {
        check_encoder(Strategy::Tensor, world, mixed(&adapters, world));
    }
}

/// Every driver by itself, so that no fixture runs on one alone.
#[test]
fn every_adapter_matches_transformers() {
    for adapter in adapters() {
        check_decoder("llama-uneven", Strategy::Tensor, 2, gpus(&adapter, 2));
        check_decoder("qwen2-bias-tied", Strategy::Single, 1, gpus(&adapter, 1));
    }
}

/// Column plans give one device's bits, whatever the ranks.
#[test]
fn column_plans_are_exact() {
    for adapter in adapters() {
        for name in DECODERS {
            let model = Arc::new(Model::open(fixture(name)).unwrap());
            let ids = Expected::of(name).u32("ids_1");
            let mut single = engine(&model, Strategy::Single, &[1.0], gpus(&adapter, 1));
            for world in [2, 3, 5] {
                let mut sharded = engine(&model, Strategy::Column, &ratios(world), gpus(&adapter, world));
                let comparison = fanfold::verify::verify(&mut sharded, &mut single, &ids, 8, |_| ()).unwrap();
                assert!(comparison.bits_equal, "{name} on {world} of {adapter}: {comparison:?}");
            }
        }
    }
}

/// What a decode step may do once it is warm.
#[test]
fn a_warm_decode_step_makes_nothing_new() {
    let adapters = adapters();
    if adapters.is_empty() {
        return;
    }
    let model = Arc::new(Model::demo().unwrap());
    let mut engine = engine(&model, Strategy::Tensor, &[5.0, 2.0, 1.0], gpus(&adapters[0], 3));
    engine.feed(&[1, 2, 3, 4, 5]).unwrap();
    engine.feed(&[1]).unwrap();
    engine.feed(&[2]).unwrap();
    let mut before = engine.report().unwrap();
    let mut steps = Vec::new();
    for token in 3..6 {
        engine.feed(&[token]).unwrap();
        let after = engine.report().unwrap();
        for (a, b) in after.iter().zip(&before) {
            let (a, b, exchanges) = (&a.counters, &b.counters, a.exchanges - b.exchanges);
            assert_eq!((a.host_ops, a.pipelines, a.buffers), (0, b.pipelines, b.buffers));
            assert_eq!(a.weight_bytes, b.weight_bytes);
            // The token, its position, and where the state ends.
            assert_eq!((a.uploads - b.uploads, a.upload_bytes - b.upload_bytes), (3, 4 + 4 + 16));
            steps.push((a.dispatches - b.dispatches, exchanges, a.exchange_writes - b.exchange_writes));
        }
        before = after;
    }
    println!("dispatches, exchanges, exchange writes per rank and token: {:?}", &steps[..3]);
    assert!(steps.chunks(3).all(|step| step == &steps[..3]), "{steps:?}");
    // One all_reduce for the embedding, two per layer.
    assert_eq!(steps[0].1, 13);
}

/// Each rank holds its share of what is cut, at most a granule more, plus what is replicated.
#[test]
fn weight_bytes_are_each_ranks_share() {
    let model = Arc::new(Model::demo().unwrap());
    let ratios = [5.0, 2.0, 1.0];
    let plan = fanfold::plan::plan(model.graph(), Strategy::Tensor, &ratios).unwrap();
    let program = fanfold::program::lower(model.graph(), &plan).unwrap();
    let env = fanfold::tensor::Env::prompt(1);
    let mut replicated = Vec::new();
    for rank in &program.ranks {
        for shard in &rank.weights {
            let whole = fanfold::tensor::resolve(&shard.shape, &env);
            let local = shard.local_shape(&env);
            let Some(dim) = (0..whole.len()).find(|&d| whole[d] != local[d]) else {
                if rank.rank == 0 {
                    replicated.push(shard.name.clone());
                }
                continue;
            };
            // Heads of 32 are the coarsest granule; a KV head may be read by two ranks.
            let granule = if shard.name.contains("self_attn") { 64.0 } else { 1.0 };
            let share = whole[dim] as f64 * ratios[rank.rank] / 8.0;
            assert!((local[dim] as f64 - share).abs() <= granule, "{}: {} of {share}", shard.name, local[dim]);
        }
    }
    replicated.retain(|name| !name.contains("norm"));
    assert_eq!(replicated, ["rope.cos", "rope.sin"], "only norms and the rotary tables are whole on every rank");
    // What is read from the files is what the programs say, no byte more.
    let engine = engine(&model, Strategy::Tensor, &ratios, hosts(3));
    let expected: usize = program
        .ranks
        .iter()
        .flat_map(|rank| &rank.weights)
        .filter(|shard| !shard.name.starts_with("rope."))
        .map(|shard| shard.local_shape(&env).iter().product::<usize>() * shard.dtype.size())
        .sum();
    assert_eq!(model.bytes_read(), expected as u64);
    drop(engine);
}

/// A text longer than a chunk is pooled whole, for decoders too.
#[test]
fn pooling_does_not_depend_on_the_chunk() {
    use fanfold::import::{Folder, Head, Pooling};
    let ids = Expected::of("llama-uneven").u32("ids_1");
    let pooled = |pooling, chunk| {
        let folder = Folder::open(fixture("llama-uneven")).unwrap();
        let model = Arc::new(Model::from_folder(folder, Head::Hidden(pooling)).unwrap());
        let plan = fanfold::plan::plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
        let options = fanfold::generate::EngineOptions { chunk, ..common::all_logits() };
        let mut engine = fanfold::generate::Engine::open(model, &plan, hosts(2), options, Arc::new(|_| ())).unwrap();
        engine.embed(&ids).unwrap()
    };
    let each = pooled(Pooling::None, 7);
    assert_eq!(each.shape(), [ids.len(), 96]);
    let mean: Vec<f32> =
        (0..96).map(|d| values(&each).iter().skip(d).step_by(96).sum::<f32>() / ids.len() as f32).collect();
    for chunk in [7, 128] {
        let found = pooled(Pooling::Mean, chunk);
        assert_eq!(found.shape(), [1, 96]);
        assert!(relative_error(values(&found), &mean) <= 1e-5, "chunks of {chunk}");
    }
    assert_eq!(values(&pooled(Pooling::Cls, 7)), &values(&each)[..96]);
}
