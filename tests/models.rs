//! Fixture models against the results of transformers, on one device and on several.

mod common;

use common::{Expected, adapters, engine, fixture, gpus, hosts, mixed, ratios, values};
use fanfold::model::Model;
use fanfold::plan::Strategy;
use fanfold::proof::argmax;
use fanfold::tensor::relative_error;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The kind of a fixture's expected outputs.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Logits of every prompt position, and the greedy continuation.
    Decoder,
    /// Hidden states of every position.
    Encoder,
    /// Logits of a classification head, for a text and for a pair.
    Classifier,
}
use Kind::{Classifier, Decoder, Encoder};

/// Every fixture has a module of its own, so that families run in parallel and one can be run alone.
macro_rules! families {
    ($($family:ident: $fixture:literal, $kind:ident;)*) => {
        const FAMILIES: &[(&str, Kind)] = &[$(($fixture, $kind)),*];
        $(mod $family {
            #[test]
            fn matches_transformers_on_host() {
                super::check_on_host($fixture, super::$kind);
            }

            #[test]
            fn matches_transformers_on_gpus() {
                super::check_on_gpus($fixture, super::$kind);
            }
        })*
    };
}

families! {
    llama: "llama-uneven", Decoder;
    qwen2: "qwen2-bias-tied", Decoder;
    qwen3: "qwen3-qknorm", Decoder;
    gpt2: "gpt2", Decoder;
    mistral: "mistral", Decoder;
    llama3: "llama3", Decoder;
    llama_linear: "llama-linear", Decoder;
    llama_yarn: "llama-yarn", Decoder;
    llama_dynamic: "llama-dynamic", Decoder;
    qwen2_window: "qwen2-window", Decoder;
    qwen3_window: "qwen3-window", Decoder;
    gemma2: "gemma2", Decoder;
    gemma3: "gemma3", Decoder;
    phi3: "phi3", Decoder;
    phi3_short: "phi3-short", Decoder;
    olmo2: "olmo2", Decoder;
    starcoder2: "starcoder2", Decoder;
    gpt_neox: "gpt-neox", Decoder;
    gpt_neox_serial: "gpt-neox-serial", Decoder;
    falcon: "falcon", Decoder;
    falcon_grouped: "falcon-grouped", Decoder;
    mixtral: "mixtral", Decoder;
    qwen2_moe: "qwen2-moe", Decoder;
    qwen3_moe: "qwen3-moe", Decoder;
    bert: "bert", Encoder;
    roberta: "roberta", Encoder;
    distilbert: "distilbert", Encoder;
    bert_rerank: "bert-rerank", Classifier;
    roberta_labels: "roberta-labels", Classifier;
    xlm_roberta_rerank: "xlm-roberta-rerank", Classifier;
    distilbert_labels: "distilbert-labels", Classifier;
}

const STRATEGIES: [Strategy; 3] = [Strategy::Tensor, Strategy::Column, Strategy::Row];

fn decoders() -> Vec<&'static str> {
    FAMILIES.iter().filter(|(_, kind)| *kind == Decoder).map(|(fixture, _)| *fixture).collect()
}

fn check_on_host(fixture: &str, kind: Kind) {
    for world in [1, 2, 3, 5] {
        for strategy in if world == 1 { &[Strategy::Single][..] } else { &STRATEGIES } {
            check(fixture, kind, *strategy, world, hosts(world));
        }
    }
}

fn check_on_gpus(fixture: &str, kind: Kind) {
    let adapters = adapters();
    for world in [1, 2, 3, 5].into_iter().filter(|_| !adapters.is_empty()) {
        check(fixture, kind, Strategy::Tensor, world, mixed(&adapters, world));
    }
}

/// Outputs are within 1e-4 of transformers', and a decoder's greedy continuation is identical. Prints a line of the
/// table of families, which `cargo test --test models matches_transformers -- --nocapture` shows.
fn check(name: &str, kind: Kind, strategy: Strategy, world: usize, devices: Vec<Box<dyn fanfold::device::Device>>) {
    let model = Arc::new(Model::open(fixture(name)).unwrap());
    let expected = Expected::of(name);
    let on: BTreeSet<String> = devices.iter().map(|device| device.name().to_string()).collect();
    let mut engine = engine(&model, strategy, &ratios(world), devices);
    let mut worst = 0f64;
    for prompt in 0..2 {
        let ids = expected.u32(&format!("ids_{prompt}"));
        engine.reset();
        let (found, output) = match kind {
            Decoder => (engine.feed(&ids).unwrap(), "logits"),
            Encoder => (engine.embed(&ids).unwrap(), "hidden"),
            Classifier => {
                let types =
                    if model.info().token_types > 0 { expected.u32(&format!("types_{prompt}")) } else { vec![] };
                (engine.scores(&ids, &types).unwrap(), "scores")
            }
        };
        let error = relative_error(values(&found), &expected.f32(&format!("{output}_{prompt}")));
        assert!(error <= 1e-4, "{name} {strategy} on {world}: error {error:e}");
        worst = worst.max(error);
        if kind == Decoder {
            let width = found.shape()[1];
            let mut last = values(&found)[values(&found).len() - width..].to_vec();
            for (step, wanted) in expected.u32(&format!("greedy_{prompt}")).into_iter().enumerate() {
                let token = argmax(&last) as u32;
                assert_eq!(token, wanted, "{name} {strategy} on {world}, step {step}");
                last = values(&engine.feed(&[token]).unwrap()).to_vec();
            }
        }
    }
    println!("{name:<18} {strategy:<8} {world} {worst:.1e}  {}", Vec::from_iter(on).join(" + "));
}

/// Any strategy, any ratios (zeros included), any number of ranks, and any set of nodes that are left whole.
#[test]
fn random_plans_match_transformers() {
    use fanfold::random::Random;
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let name = decoders()[seed as usize % decoders().len()];
        let model = Arc::new(Model::open(fixture(name)).unwrap());
        let mut ratios: Vec<f64> = (0..random.range(2, 8)).map(|_| random.range(0, 5) as f64).collect();
        ratios[0] += 1.0;
        let mut plan = fanfold::plan::plan(model.graph(), random.pick(&STRATEGIES), &ratios).unwrap();
        // A state has one cut: the nodes that write and read it can only be left whole together, so this test does
        // not.
        let stateful = |node: &str| ["append", "attn", "attention"].iter().any(|end| node.ends_with(end));
        plan.nodes.retain(|entry| stateful(&entry.node) || random.range(0, 4) > 0);
        let expected = Expected::of(name);
        let mut engine = common::engine_of(&model, &plan, hosts(ratios.len()));
        let logits = engine.feed(&expected.u32("ids_0")).unwrap();
        let error = relative_error(values(&logits), &expected.f32("logits_0"));
        assert!(error <= 1e-4, "{name}, seed {seed}: error {error:e} under {}", plan.to_json());
    }
}

/// Settings of the fixtures that change the model. If one were ignored, no fixture would show it.
#[test]
fn every_setting_matters() {
    for (name, changed) in [
        ("mistral", r#"{"sliding_window": 8}"#),
        ("mistral", r#"{"rms_norm_eps": 0.01}"#),
        ("qwen2-window", r#"{"sliding_window": null, "use_sliding_window": false, "layer_types": null}"#),
        ("qwen2-window", r#"{"layer_types": null, "max_window_layers": 2}"#),
        ("qwen3-window", r#"{"sliding_window": 7}"#),
        ("gemma2", r#"{"sliding_window": 6}"#),
        ("gemma2", r#"{"query_pre_attn_scalar": 12}"#),
        ("gemma2", r#"{"attn_logit_softcapping": null}"#),
        ("gemma2", r#"{"final_logit_softcapping": 2.1}"#),
        ("gemma2", r#"{"hidden_activation": "silu"}"#),
        (
            "gemma3",
            r#"{"rope_parameters": {"full_attention": {"rope_theta": 50000.0},
            "sliding_attention": {"rope_theta": 1000.0}}}"#,
        ),
        (
            "gemma3",
            r#"{"rope_parameters": {"sliding_attention": {"rope_theta": 1100.0},
            "full_attention": {"rope_theta": 50000.0, "rope_type": "linear", "factor": 8.0}}}"#,
        ),
        (
            "gemma3",
            r#"{"layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]}"#,
        ),
        ("llama3", r#"{"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}"#),
        ("llama-linear", r#"{"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.9}}"#),
        (
            "llama-yarn",
            r#"{"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0,
            "beta_fast": 8.0, "beta_slow": 2.0, "original_max_position_embeddings": 32}}"#,
        ),
        ("phi3", r#"{"original_max_position_embeddings": 128}"#),
        ("phi3-short", r#"{"original_max_position_embeddings": 16}"#),
    ] {
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture(name).join("config.json")).unwrap()).unwrap();
        let changed_fields: serde_json::Map<_, _> = serde_json::from_str(changed).unwrap();
        config.as_object_mut().unwrap().extend(changed_fields);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        std::fs::copy(fixture(name).join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
        let model = Arc::new(Model::open(dir.path()).unwrap());
        let mut engine = engine(&model, Strategy::Single, &[1.0], hosts(1));
        let expected = Expected::of(name);
        let logits = engine.feed(&expected.u32("ids_1")).unwrap();
        let error = relative_error(values(&logits), &expected.f32("logits_1"));
        assert!(error > 1e-3, "{name} with {changed}: error {error:e}");
    }
}

/// Every driver by itself, so that each fixture runs on more than one driver.
#[test]
fn every_adapter_matches_transformers() {
    for adapter in adapters() {
        check("llama-uneven", Decoder, Strategy::Tensor, 2, gpus(&adapter, 2));
        check("qwen2-bias-tied", Decoder, Strategy::Single, 1, gpus(&adapter, 1));
    }
}

/// Column plans give the bits of one device, on any number of ranks. Of fixtures that differ only in weights and
/// tables, one is tested.
#[test]
fn column_plans_are_exact() {
    for adapter in adapters() {
        for name in ["llama-uneven", "qwen2-bias-tied", "qwen3-qknorm", "gpt2", "gemma2", "phi3"] {
            let model = Arc::new(Model::open(fixture(name)).unwrap());
            let ids = Expected::of(name).u32("ids_1");
            let mut single = engine(&model, Strategy::Single, &[1.0], gpus(&adapter, 1));
            for world in [2, 3, 5] {
                let mut sharded = engine(&model, Strategy::Column, &ratios(world), gpus(&adapter, world));
                let comparison = fanfold::proof::verify(&mut sharded, &mut single, &ids, 8, |_| ()).unwrap();
                assert!(comparison.bits_equal, "{name} on {world} of {adapter}: {comparison:?}");
            }
        }
    }
}

/// What a decode step may do when it is warm.
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
            // The token, its position, the range of positions of its sequence, and the end of the state.
            assert_eq!((a.uploads - b.uploads, a.upload_bytes - b.upload_bytes), (4, 4 + 4 + 8 + 16));
            steps.push((a.dispatches - b.dispatches, exchanges, a.exchange_writes - b.exchange_writes));
        }
        before = after;
    }
    println!("dispatches, exchanges, exchange writes per rank and token: {:?}", &steps[..3]);
    assert!(steps.chunks(3).all(|step| step == &steps[..3]), "{steps:?}");
    // One all_reduce for the embedding, and two per layer.
    assert_eq!(steps[0].1, 13);
}

/// Each rank holds its share of the cut weights, at most one granule more, and the replicated weights.
#[test]
fn weight_bytes_are_each_ranks_share() {
    let model = Arc::new(Model::demo().unwrap());
    let ratios = [5.0, 2.0, 1.0];
    let plan = fanfold::plan::plan(model.graph(), Strategy::Tensor, &ratios).unwrap();
    let program = fanfold::program::lower(model.graph(), &plan).unwrap();
    let env = fanfold::shape::Env::prompt(1);
    let mut replicated = Vec::new();
    for rank in &program.ranks {
        for shard in &rank.weights {
            let whole = fanfold::shape::resolve(&shard.shape, &env);
            let local = shard.local_shape(&env);
            let Some(dim) = (0..whole.len()).find(|&d| whole[d] != local[d]) else {
                if rank.rank == 0 {
                    replicated.push(shard.name.clone());
                }
                continue;
            };
            // A head of 32 columns is the coarsest granule. Two ranks may read one KV head.
            let granule = if shard.name.contains("self_attn") { 64.0 } else { 1.0 };
            let share = whole[dim] as f64 * ratios[rank.rank] / 8.0;
            assert!((local[dim] as f64 - share).abs() <= granule, "{}: {} of {share}", shard.name, local[dim]);
        }
    }
    replicated.retain(|name| !name.contains("norm"));
    assert_eq!(replicated, ["rope.cos", "rope.sin"], "only norms and the rotary tables are whole on every rank");
    // Exactly the bytes that the programs state are read from the files.
    let engine = engine(&model, Strategy::Tensor, &ratios, hosts(3));
    let expected: usize = program
        .ranks
        .iter()
        .flat_map(|rank| &rank.weights)
        .filter(|shard| !shard.name.starts_with("rope."))
        .map(|shard| shard.format.bytes(shard.local_shape(&env).iter().product::<usize>()) as usize)
        .sum();
    assert_eq!(model.bytes_read(), expected as u64);
    drop(engine);
}

/// A text longer than a chunk is pooled as a whole, for decoders as well.
#[test]
fn pooling_does_not_depend_on_the_chunk() {
    use fanfold::import::{Folder, Head};
    use fanfold::model::Pooling;
    let ids = Expected::of("llama-uneven").u32("ids_1");
    let pooled = |pooling, chunk| {
        let folder = Folder::open(fixture("llama-uneven")).unwrap();
        let model = Arc::new(Model::from_folder(folder, Head::Hidden(pooling)).unwrap());
        let plan = fanfold::plan::plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
        let options = common::all_logits().chunk(chunk);
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
