//! llama.cpp through the crate llama-cpp-2: on its Vulkan backend, or on the processor.
//!
//! The same build has both backends, and llama.cpp silently falls back to the processor, so what it computes on is checked. The
//! race hides all Vulkan drivers from the process that is to use the processor. Read `mod.rs` next.

use super::{Engine, contend};
use crate::Options;
use crate::model::{Sizes, gguf};
use anyhow::{Result, anyhow, bail};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use std::num::NonZeroU32;
use std::path::Path;

/// A context, and the number of tokens that it holds.
struct Held<'a> {
    context: LlamaContext<'a>,
    past: usize,
}

impl Engine for Held<'_> {
    fn reset(&mut self) -> Result<()> {
        self.context.clear_kv_cache();
        self.past = 0;
        Ok(())
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut batch = LlamaBatch::new(tokens.len(), 1);
        for (i, &token) in tokens.iter().enumerate() {
            batch.add(LlamaToken(token as i32), (self.past + i) as i32, &[0], i + 1 == tokens.len())?;
        }
        self.context.decode(&mut batch)?;
        self.past += tokens.len();
        Ok(self.context.get_logits_ith(tokens.len() as i32 - 1).to_vec())
    }
}

pub fn run(folder: &Path, options: &Options, vulkan: bool) -> Result<()> {
    let mut backend = LlamaBackend::init()?;
    backend.void_logs();
    let devices = list_llama_ggml_backend_devices();
    let gpu = devices.iter().find(|device| device.backend == "Vulkan");
    let processor = devices.iter().find(|device| matches!(device.device_type, LlamaBackendDeviceType::Cpu));
    let (device, layers) = match (vulkan, gpu, processor) {
        (true, Some(gpu), _) => (gpu, 999),
        (true, None, _) => {
            bail!("llama.cpp finds no Vulkan device; GGML_VK_VISIBLE_DEVICES=0 lets it take a software one")
        }
        (false, Some(gpu), _) => bail!("llama.cpp finds {}, and would compute a prompt on it", gpu.description),
        (false, None, processor) => (processor.ok_or_else(|| anyhow!("llama.cpp finds no processor"))?, 0),
    };
    let what = format!("llama.cpp (llama-cpp-2 0.1.160), {}: {}", device.backend, device.description);
    let mut model_options = LlamaModelParams::default().with_n_gpu_layers(layers);
    if vulkan {
        model_options = model_options.with_devices(&[device.index])?;
    }
    let model = LlamaModel::load_from_file(&backend, gguf(folder), &model_options)?;
    let positions = (options.prompt + options.decode + 1) as u32;
    let context_options = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(positions.next_multiple_of(256)))
        .with_n_batch(options.prompt as u32)
        .with_n_ubatch(options.prompt as u32)
        .with_n_threads(options.threads as i32)
        .with_n_threads_batch(options.threads as i32);
    let context = model.new_context(&backend, context_options)?;
    contend(&mut Held { context, past: 0 }, what, options, Sizes::named(&options.size)?.vocabulary)
}
