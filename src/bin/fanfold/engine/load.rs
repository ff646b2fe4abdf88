//! From a decision to an engine: opens the devices and loads the weights, with a progress bar.
//!
//! It decides nothing. Read [`fanfold::generate::Engine`] for what an engine does.

use super::decision::Decision;
use crate::machine::tuned::Tuned;
use crate::terminal::progress::progress_bar;
use anyhow::Result;
use fanfold::device::Device;
use fanfold::device::gpu::{GpuOptions, Picks};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::generate::Engine;
use fanfold::model::Model;
use std::sync::Arc;

/// Opens the devices and loads the model onto them, with a progress bar.
pub fn open(model: &Arc<Model>, decision: &Decision) -> Result<Engine> {
    let tuned = Tuned::read();
    let devices = decision.choices.iter().map(|choice| select::open(choice, &options(choice, decision, &tuned)));
    open_on(model, decision, devices.collect::<Result<_, _>>()?)
}

/// The options of a device: it runs the kernels that `fanfold tune` found to be the fastest on its adapter.
fn options(choice: &DeviceChoice, decision: &Decision, tuned: &Tuned) -> GpuOptions {
    let schedules = match choice {
        DeviceChoice::Gpu(info) => Picks::Measured(Arc::new(tuned.of(&info.name, &info.driver))),
        DeviceChoice::Host => Picks::Guess,
    };
    GpuOptions { deadline: decision.options.deadline, schedules, ..GpuOptions::default() }
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
