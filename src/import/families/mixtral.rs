//! Mixtral: Mistral whose MLP is a mixture of experts.
//!
//! It states only that difference. Read `decoder.rs` for the block, `mixture.rs` for the experts.

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::Decoder;
use crate::import::blocks::family::Family;
use crate::import::blocks::mixture::{ExpertNames, Mixture};

const NAMES: ExpertNames = ExpertNames { mixture: "block_sparse_moe", parts: ["w1", "w3", "w2"] };

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    let config = b.config;
    let mut decoder = Decoder::read(b, config)?;
    let window = config.opt_usize("sliding_window")?;
    decoder.layers.iter_mut().for_each(|layer| layer.window = window);
    // The noise is added to the router's input in training only, so any number is accepted.
    config.f64("router_jitter_noise")?;
    let mixture = Mixture::read(b, config, NAMES, config.usize("intermediate_size")?, true)?;
    decoder.mlp = Box::new(move |b, block, x| mixture.build(b, block, x));
    decoder.build(b)
}
