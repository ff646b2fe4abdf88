//! Continues a text with a model split over this machine's devices.
//!
//! `cargo run --release --example generate [MODEL [PROMPT]]`: MODEL is a folder as Hugging Face lays it out. Without
//! one, the embedded demo model runs.

use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::generate::GenerateOptions;
use fanfold::plan::plan;
use fanfold::text::Tokenizer;
use fanfold::{Engine, EngineOptions, Model, Result, Sampler, Sampling, Strategy};
use std::io::Write;
use std::sync::Arc;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let model = Arc::new(match args.next() {
        Some(folder) => Model::open(folder)?,
        None => Model::demo()?,
    });
    let prompt = args.next().unwrap_or_else(|| "ROMEO:\n".to_string());

    // One rank per GPU. If there is no GPU, two ranks on the host device.
    let choices = select::default_choice(&adapters()).map_or(vec![DeviceChoice::Host; 2], |(choices, _)| choices);
    let devices = choices.iter().map(|choice| select::open(choice, &GpuOptions::default()));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let plan = plan(model.graph(), Strategy::Tensor, &vec![1.0; devices.len()])?;
    let mut engine = Engine::open(model.clone(), &plan, devices, EngineOptions::default(), Arc::new(|_bytes| ()))?;

    let file = model.file("tokenizer.json")?.unwrap_or_default();
    let tokenizer = Tokenizer::from_bytes(model.file_path("tokenizer.json"), &file)?;
    let ids = tokenizer.encode(&prompt, true)?;
    let mut stream = tokenizer.stream_after(&ids, true)?;
    print!("{prompt}");
    for token in engine.generate(&ids, Sampler::new(Sampling::default())?, &GenerateOptions::new(64))? {
        // A piece of text is returned only when no later token can change it.
        print!("{}", stream.push(token?)?.unwrap_or_default());
        let _ = std::io::stdout().flush();
    }
    println!("{}", stream.finish()?.unwrap_or_default());
    Ok(())
}
