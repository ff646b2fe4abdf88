//! From a decision to an engine: opens the devices and loads the weights, with a progress bar.
//!
//! It decides nothing. Read [`fanfold::generate::Engine`] for what an engine does.

use super::decision::Decision;
use crate::terminal::progress::progress_bar;
use anyhow::Result;
use fanfold::device::Device;
use fanfold::device::gpu::GpuOptions;
use fanfold::device::select;
use fanfold::generate::Engine;
use fanfold::model::Model;
use std::sync::Arc;

/// Opens the devices and loads the model onto them, with a progress bar.
pub fn open(model: &Arc<Model>, decision: &Decision) -> Result<Engine> {
    let (deadline, numerics) = (decision.options.deadline, decision.numerics);
    let options = GpuOptions { deadline, numerics, ..GpuOptions::default() };
    let devices = decision.choices.iter().map(|choice| select::open(choice, &options));
    open_on(model, decision, devices.collect::<Result<_, _>>()?)
}

/// Loads the model onto devices that are open already, with a progress bar.
pub fn open_on(model: &Arc<Model>, decision: &Decision, devices: Vec<Box<dyn Device>>) -> Result<Engine> {
    let total: u64 = decision.program.ranks.iter().map(|rank| rank.memory(&decision.limits).weights).sum();
    let bar = progress_bar(total, "loading {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let told = bar.clone();
    let progress = Arc::new(move |bytes| told.inc(bytes));
    let engine = Engine::open(model.clone(), &decision.plan, devices, decision.options, progress);
    bar.finish_and_clear();
    Ok(engine?)
}
