//! candle's Llama on the processor, in f32, which is what its kernels for a processor are made for.
//!
//! Read `mod.rs` next.

use super::{Engine, contend};
use crate::Options;
use crate::model::Sizes;
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use std::path::Path;

struct Held {
    model: Llama,
    config: Config,
    cache: Cache,
    past: usize,
}

impl Engine for Held {
    fn reset(&mut self) -> Result<()> {
        self.cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu)?;
        self.past = 0;
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&input, self.past, &mut self.cache)?;
        self.past += tokens.len();
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

pub fn run(folder: &Path, options: &Options) -> Result<()> {
    let config: LlamaConfig = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let config = config.into_config(false);
    let file = std::fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(file, DType::F32, &Device::Cpu)?;
    let model = Llama::load(weights, &config)?;
    let cache = Cache::new(true, DType::F32, &config, &Device::Cpu)?;
    let what = "candle 0.11.1, processor, f32".to_string();
    contend(&mut Held { model, config, cache, past: 0 }, what, options, Sizes::named(&options.size)?.vocabulary)
}
