//! The loss on a text against transformers' result, on one device and on three.

mod common;

use common::{adapters, fixture, gpus, hosts, mixed};
use fanfold::device::Device;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::measure::{Perplexity, perplexity};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::text::Tokenizer;
use serde_json::Value;
use std::sync::Arc;

/// A row of expected.json with its tokens.
struct Case {
    ids: Vec<u32>,
    window: usize,
    stride: usize,
    tokens: u64,
    nats: f64,
}

fn cases(model: &Model) -> Vec<Case> {
    let folder = fixture("tinyshakespeare");
    let text = std::fs::read_to_string(folder.join("heldout.txt")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let tokenizer = model.file("tokenizer.json").unwrap().unwrap();
    let tokenizer = Tokenizer::from_bytes("tokenizer.json", &tokenizer).unwrap();
    let case = |row: &Value| {
        let characters = row["characters"].as_u64().map_or(usize::MAX, |n| n as usize);
        let part: String = text.chars().take(characters).collect();
        let ids = tokenizer.encode(&part, true).unwrap();
        assert_eq!(ids.len() as u64, row["ids"]);
        let size = |name: &str| row[name].as_u64().unwrap();
        let (window, stride) = (size("window") as usize, size("stride") as usize);
        Case { ids, window, stride, tokens: size("tokens"), nats: row["nats"].as_f64().unwrap() }
    };
    rows.iter().map(case).collect()
}

fn score(model: &Arc<Model>, case: &Case, ratios: &[f64], devices: Vec<Box<dyn Device>>) -> Perplexity {
    let strategy = if ratios.len() == 1 { Strategy::Single } else { Strategy::Tensor };
    let plan = plan(model.graph(), strategy, ratios).unwrap();
    let options = EngineOptions::default().context(case.window).chunk(96).all_logits(true);
    let mut engine = Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ())).unwrap();
    let found = perplexity(&mut engine, &case.ids, case.window, case.stride, |_| ()).unwrap();
    let nats = found.nats_per_token();
    assert!((nats - case.nats).abs() < 1e-3, "{nats}, transformers {}", case.nats);
    assert_eq!(found.tokens as u64, case.tokens);
    assert_eq!(found.windows.iter().map(|window| window.tokens).sum::<usize>(), found.tokens);
    found
}

#[track_caller]
fn alike(a: &Perplexity, b: &Perplexity) {
    let (a, b) = (a.nats_per_token(), b.nats_per_token());
    assert!((a - b).abs() < 1e-5, "{a} on one device, {b} on three");
}

#[test]
fn parts_of_the_text_on_hosts_and_on_all_adapters_together() {
    let model = Arc::new(Model::demo().unwrap());
    let adapters = adapters();
    for case in cases(&model).iter().filter(|case| case.ids.len() < 5000) {
        let one = score(&model, case, &[1.0], hosts(1));
        alike(&one, &score(&model, case, &[3.0, 2.0, 1.0], hosts(3)));
        if !adapters.is_empty() {
            alike(&one, &score(&model, case, &[3.0, 2.0, 1.0], mixed(&adapters, 3)));
        }
    }
}

/// 24,706 tokens, on one device: three devices are compared on a part of the text. Of the software adapters only
/// lavapipe is fast enough.
#[test]
fn the_whole_text_is_predicted_as_transformers_predicts_it() {
    let model = Arc::new(Model::demo().unwrap());
    let found = adapters();
    let Some(adapter) = found.iter().find(|a| a.name.contains("llvmpipe")).or(found.first()) else { return };
    let case = cases(&model).into_iter().find(|case| case.ids.len() == 24_706).unwrap();
    assert!((case.nats - 3.5318).abs() < 1e-4, "{}", case.nats);
    score(&model, &case, &[1.0], gpus(adapter, 1));
}

#[test]
fn an_engine_that_cannot_score_says_why() {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    let open = |all_logits| {
        let options = EngineOptions::default().context(16).all_logits(all_logits);
        Engine::open(model.clone(), &plan, hosts(1), options, Arc::new(|_| ())).unwrap()
    };
    let refused = |engine: &mut Engine, ids: &[u32], window| {
        perplexity(engine, ids, window, window, |_| ()).unwrap_err().to_string()
    };
    assert!(refused(&mut open(false), &[1, 2, 3], 3).contains("logits of the last position only"));
    assert!(refused(&mut open(true), &[1], 4).contains("there is none with another before it"));
    assert!(refused(&mut open(true), &[1; 40], 32).contains("do not fit the context of 16"));
    assert!(refused(&mut open(true), &[1, 5000], 4).contains("outside the vocabulary"));
}
