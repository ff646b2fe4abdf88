//! fanfold, as a library: one device, or two opened on the same adapter, and the weights as they are or stored in another format.
//!
//! It deliberately has no settings of its own: it runs what `fanfold bench` runs, with the prompt in one call. Read `mod.rs` next.

use super::{Engine, contend};
use crate::Options;
use anyhow::{Result, anyhow};
use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{DeviceChoice, open};
use fanfold::format::Format;
use fanfold::plan::{Strategy, plan};
use fanfold::{EngineOptions, Model};
use std::path::Path;
use std::sync::Arc;

impl Engine for fanfold::Engine {
    fn reset(&mut self) -> Result<()> {
        fanfold::Engine::reset(self);
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        Ok(fanfold::Engine::feed(self, tokens)?.as_f32()?.to_vec())
    }
}

pub fn run(folder: &Path, options: &Options, devices: usize, format: Option<Format>) -> Result<()> {
    let model = Model::open(folder)?;
    let model = Arc::new(match format {
        Some(format) => model.with_weights(format),
        None => model,
    });
    let named = |name: &str| name.to_lowercase().contains(&options.adapter.to_lowercase());
    let info = adapters().into_iter().find(|info| named(&info.name));
    let info = info.ok_or_else(|| anyhow!("no adapter is called {}", options.adapter))?;
    let stored = format.unwrap_or(Format::F16);
    let what = format!("fanfold of this checkout, weights in {stored}, {devices} x {}", info.name);
    let choice = DeviceChoice::Gpu(info);
    let opened = (0..devices).map(|_| open(&choice, &GpuOptions::default()));
    let plan = plan(model.graph(), Strategy::Tensor, &vec![1.0; devices])?;
    let engine_options = EngineOptions::default().context(options.prompt + options.decode + 1).chunk(options.prompt);
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    let vocabulary = model.info().vocabulary;
    let mut engine = fanfold::Engine::open(model, &plan, opened, engine_options, Arc::new(|_| ()))?;
    contend(&mut engine, what, options, vocabulary)
}
