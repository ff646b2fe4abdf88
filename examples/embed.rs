//! Compares texts by their embeddings, made by a model split over this machine's devices.
//!
//! `cargo run --release --example embed [MODEL]`: MODEL is a BERT or sentence-transformers folder. Without one, a
//! small test model with random weights runs; its vectors mean nothing, but are computed in the same way.

use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::generate::{Preparer, Prompt};
use fanfold::import::{Folder, Head};
use fanfold::plan::plan;
use fanfold::text::Tokenizer;
use fanfold::{Engine, EngineOptions, Model, Result, Strategy};
use std::sync::Arc;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert");
const TEXTS: [&str; 3] = ["A cat sleeps on the sofa.", "The kitten naps on a couch.", "Stocks fell sharply on Monday."];

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| x as f64 * y as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| FIXTURE.to_string());
    // The folder says how hidden states are pooled. A plain BERT folder does not, and the mean is then used, as in most
    // sentence models.
    let model = Arc::new(Model::from_folder(Folder::open(&path)?, Head::Embedding)?);

    // One rank per GPU. If there is no GPU, two ranks on the host device.
    let choices = select::default_choice(&adapters()).map_or(vec![DeviceChoice::Host; 2], |(choices, _)| choices);
    let devices = choices.iter().map(|choice| select::open(choice, &GpuOptions::default()));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let plan = plan(model.graph(), Strategy::Tensor, &vec![1.0; devices.len()])?;
    let mut engine = Engine::open(model.clone(), &plan, devices, EngineOptions::default(), Arc::new(|_bytes| ()))?;

    let file = model.file("tokenizer.json")?.unwrap_or_default();
    let tokenizer = Tokenizer::from_bytes(model.file_path("tokenizer.json"), &file)?;
    // Prepares texts with the folder's prompt, maximum length and other settings.
    let preparer = Preparer::new(&model.info().texts, tokenizer, Prompt::Default, None)?;
    let texts = TEXTS.iter().map(|text| preparer.text(text).map(|prepared| prepared.text));
    let vectors = engine.embed_all(&texts.collect::<Result<Vec<_>, _>>()?, |_done| ())?;
    let vectors =
        vectors.iter().map(|vector| Ok(vector.as_f32()?.to_vec())).collect::<fanfold::Result<Vec<Vec<f32>>>>()?;
    for (text, vector) in TEXTS.iter().zip(&vectors) {
        println!("{:.3}  {text}", cosine(vector, &vectors[0]));
    }
    Ok(())
}
