//! Gemma 3: Gemma 2 with normalised queries and keys instead of the cap on attention scores, and with different rotary
//! bases for layers with a sliding window and layers that attend to all positions.
//!
//! It reads text models, and of multimodal models the part that reads text. Read `gemma2.rs` for what it shares.

use super::gemma2::gemma;
use crate::import::ImportError;

use crate::import::blocks::builder::{Builder, Heads};
use crate::import::blocks::decoder::QkNorm;
use crate::import::blocks::family::Family;
use crate::import::blocks::layers;
use crate::import::blocks::rope::Rope;
use crate::import::files::config::Config;

/// `gemma3_text`: the configuration is that of the text model.
pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    text(b, b.config, &["model."], true)
}

/// `gemma3`: the text model's configuration is a nested object, and its tensors have other names.
pub(crate) fn build_within(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    const SIGHT: [&str; 8] = [
        "vision_config",
        "mm_tokens_per_image",
        "boi_token_index",
        "boi_token_id",
        "eoi_token_index",
        "eoi_token_id",
        "image_token_index",
        "image_token_id",
    ];
    // The part that turns images into embeddings is not built, so its settings do not matter.
    SIGHT.iter().for_each(|field| _ = b.config.value(*field));
    let config = b.config.object_or_empty("text_config")?.of_family("gemma3_text");
    let tied = b.config.flag("tie_word_embeddings")?;
    let family = text(b, &config, &["model.language_model.", "language_model.model.", "language_model."], tied)?;
    Ok(Family { end_tokens: config.ids("eos_token_id")?, ..family })
}

fn text(b: &mut Builder<'_>, config: &Config, prefixes: &[&'static str], tied: bool) -> Result<Family, ImportError> {
    let heads = Heads::read(config, config.usize("hidden_size")?)?;
    let [global, local] = ropes(config, heads.head_dim)?;
    let mut decoder = gemma(b, config, heads, global.clone())?;
    decoder.names.prefix = b.prefix(prefixes, "embed_tokens.weight").to_string();
    // Older files keep the head among the tensors of the text model.
    if decoder.names.prefix == "language_model.model." {
        decoder.names.head = "language_model.lm_head";
    }
    decoder.qk_norm = QkNorm::Heads;
    decoder.tied &= tied;
    if config.opt_f64("attn_logit_softcapping")?.is_some() {
        return Err(config.error("attn_logit_softcapping", "only null is supported: transformers applies none either"));
    }
    let window = config.opt_usize("sliding_window")?;
    // The pattern counts only if `layer_types` does not list each layer's kind. A file with both may state null.
    let pattern = match config.has("layer_types") {
        true => config.value("sliding_window_pattern").and(None),
        false => Some(config.usize("sliding_window_pattern")?),
    };
    layers::slide(config, &mut decoder.layers, window, |layer| pattern.is_some_and(|every| (layer + 1) % every != 0))?;
    for layer in &mut decoder.layers {
        layer.rope = Some(if layer.window.is_some() { local.clone() } else { global.clone() });
    }
    decoder.build(b)
}

/// The rotary settings of layers that attend to all positions, and of layers with a sliding window: from
/// `rope_parameters`, which has an object for each kind of layer, or from the older `rope_theta`, `rope_scaling` and
/// `rope_local_base_freq`.
fn ropes(config: &Config, head_dim: usize) -> Result<[Rope; 2], ImportError> {
    let parameters = config.object("rope_parameters")?;
    let of = |kind| parameters.as_ref().map_or(Ok(None), |p| p.object(kind));
    let scaling = match config.object("rope_scaling")?.filter(|scaling| !scaling.is_empty()) {
        Some(scaling) => Some(scaling),
        None => of("full_attention")?,
    };
    let names = |theta| [theta, "partial_rotary_factor"];
    let ropes = [
        Rope::read(config, scaling.as_ref(), "rope", names("rope_theta"), head_dim)?,
        Rope::read(config, of("sliding_attention")?.as_ref(), "rope.local", names("rope_local_base_freq"), head_dim)?,
    ];
    if ropes.iter().any(|rope| rope.part != 1.0) {
        return Err(config.error("partial_rotary_factor", "only 1 is supported in this family"));
    }
    Ok(ropes)
}
