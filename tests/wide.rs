//! A vocabulary of a real model's size, 152,064 x 1024 in f16: 297 MiB, more than the 128 MiB that lavapipe can bind.
//! It is split over several bindings on one device, and also over two devices. The logits of a whole chunk are as
//! wide, so chunks become shorter. A model that no shorter chunk makes fit is refused before anything is loaded.

mod common;

use common::{adapters, aloud, gpus};
use fanfold::generate::GenerateError;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::graph::Graph;
use fanfold::import::Head;
use fanfold::model::Model;
use fanfold::ops::{Gather, Linear};
use fanfold::plan::{Strategy, plan};
use fanfold::program::ProgramError;
use fanfold::program::lower;
use fanfold::session::{Options, Session};
use fanfold::shape::{Env, Symbol};
use fanfold::tensor::{DType, Region, Tensor, relative_error};
use fanfold::weights::Weights;
use half::f16;
use std::sync::Arc;
use std::time::Duration;

const ROWS: usize = 152_064;
const WIDTH: usize = 1024;

/// A table that is never whole in memory: each element is computed from its position.
struct Synthetic;

fn element(row: usize, column: usize) -> f32 {
    let hash = (row as u32).wrapping_mul(0x9E37_79B9) ^ (column as u32).wrapping_mul(0x85EB_CA6B);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    f16::from_f32(((hash >> 16) as f32 / 65_536.0) - 0.5).to_f32()
}

impl Weights for Synthetic {
    fn read(&self, _name: &str, _shape: &[usize], region: &Region) -> Result<Tensor, fanfold::weights::SourceError> {
        let rows = region.0[0].clone();
        let values = rows.flat_map(|row| region.0[1].clone().map(move |column| f16::from_f32(element(row, column))));
        let values: Vec<f16> = values.collect();
        Ok(Tensor::from_bytes(DType::F16, region.shape(), bytemuck::cast_slice(&values))?)
    }
}

#[test]
fn a_real_vocabulary_fits_small_bindings() {
    let Some(adapter) = adapters().into_iter().min_by_key(|adapter| adapter.max_binding) else { return };
    let mut graph = Graph::new();
    let ids = graph.input("ids", [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32).unwrap();
    let table = graph.weight("table", [ROWS.into(), WIDTH.into()], DType::F16).unwrap();
    let rows = graph.node("embed", Gather, &[table, ids]).unwrap();
    let logits = graph.node("head", Linear, &[rows, table]).unwrap();
    graph.output("logits", logits).unwrap();
    // One row of each piece, and the first and last row.
    let tokens: Vec<u32> = vec![0, 70_000, 152_063];
    for ratios in [vec![1.0], vec![2.0, 1.0]] {
        let plan = plan(&graph, Strategy::Tensor, &ratios).unwrap();
        let program = lower(&graph, &plan).unwrap();
        let options = Options::new(Env::prompt(tokens.len())).deadline(Duration::from_secs(60));
        let devices = gpus(&adapter, ratios.len());
        let mut session = Session::open(program, devices, Arc::new(Synthetic), options, Arc::new(|_| ())).unwrap();
        let input = Tensor::u32([1, tokens.len()], tokens.clone()).unwrap();
        let outputs = session.run(Env::prompt(tokens.len()), [("ids".to_string(), input)].into()).unwrap();
        let logits = outputs["logits"].as_f32().unwrap();
        let columns: Vec<usize> = (0..ROWS).step_by(997).chain([65_535, 65_536, ROWS - 1]).collect();
        for (i, &token) in tokens.iter().enumerate() {
            let dot =
                |n: usize| (0..WIDTH).map(|k| element(token as usize, k) as f64 * element(n, k) as f64).sum::<f64>();
            let expected: Vec<f32> = columns.iter().map(|&n| dot(n) as f32).collect();
            let found: Vec<f32> = columns.iter().map(|&n| logits[i * ROWS + n]).collect();
            let error = relative_error(&found, &expected);
            assert!(error <= 1e-5, "token {token} on {} ranks: error {error:e}", ratios.len());
        }
    }
}

/// A model with a vocabulary of `words` that is otherwise small.
fn wordy(words: usize) -> (tempfile::TempDir, Arc<Model>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": words,
        "max_position_embeddings": 1 << 26, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "hidden_act": "silu",
        "tie_word_embeddings": true
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let model = Model::random(&path, DType::F16, 0, Head::Default).unwrap();
    (folder, Arc::new(model))
}

#[test]
fn logits_wider_than_a_binding_come_in_shorter_chunks() {
    let Some(adapter) = adapters().into_iter().min_by_key(|adapter| adapter.max_binding) else { return };
    // Slightly more than 256 rows of f32 take in one binding.
    let words = adapter.largest_tensor() as usize / (256 * 4) + 10;
    if words > 1 << 19 {
        return aloud("skipped: no adapter has small bindings");
    }
    let (_folder, model) = wordy(words);
    let tokens: Vec<u32> = (0..140).map(|i| (i * 7919 % words) as u32).collect();
    let logits = |strategy, ranks: usize, chunk: usize| {
        let plan = plan(model.graph(), strategy, &vec![1.0; ranks]).unwrap();
        let options = EngineOptions::default().chunk(chunk).all_logits(true);
        let devices = gpus(&adapter, ranks);
        let mut engine = Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ())).unwrap();
        let seq = engine.limits().seq;
        (seq, engine.feed(&tokens).unwrap())
    };
    let (full, expected) = logits(Strategy::Single, 1, 40);
    assert_eq!((full, expected.shape()), (40, [140, words].as_slice()));
    let (chunk, found) = logits(Strategy::Single, 1, 256);
    assert!((128..256).contains(&chunk) && chunk.is_multiple_of(8), "{chunk}");
    assert!(found.bytes() == expected.bytes(), "other chunks give other bits");
    // With rows cut, the parts of two ranks are added on the host: no device holds more than one of them.
    let (cut, found) = logits(Strategy::Row, 2, 256);
    assert_eq!(cut, chunk);
    let error = relative_error(found.as_f32().unwrap(), expected.as_f32().unwrap());
    assert!(error <= 1e-5, "error {error:e}");
}

#[test]
fn what_no_shorter_chunk_makes_fit_is_refused_before_it_is_loaded() {
    // On an adapter with larger tensors, the model's context would be reached first.
    let Some(adapter) = adapters().into_iter().min_by_key(|adapter| adapter.largest_tensor()) else { return };
    let (_folder, model) = wordy(64);
    let plan = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    // Keys of four numbers each.
    let context = (adapter.largest_tensor() / 16) as usize + 1;
    let options = EngineOptions::default().context(context);
    let opened = Engine::open(model, &plan, gpus(&adapter, 1), options, Arc::new(|_| panic!("a weight was loaded")));
    let error = opened.map(|_| ()).unwrap_err();
    let GenerateError::Program(ProgramError::TooWide { tensors }) = &error else { panic!("{error:?}") };
    assert!(tensors[0].tensor.contains("state") && tensors[0].bytes == context as u64 * 16, "{error}");
    assert!(tensors[0].advice.contains("smaller context") && error.to_string().contains("does not fit"), "{error}");
}
