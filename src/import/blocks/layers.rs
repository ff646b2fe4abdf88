//! How many layers there are, and which look back without end and which a limited way, in the spellings that families
//! share.
//!
//! It deliberately knows no block: it says what `layer_types` says, and what families take in its place. Read
//! `decoder.rs` for what a layer is.

use crate::import::ImportError;
use crate::import::blocks::rope::Rope;
use crate::import::files::config::{Config, FieldNames};

/// What differs from layer to layer.
#[derive(Clone)]
pub(crate) struct Layer {
    /// A query sees only this many positions up to its own.
    pub(crate) window: Option<usize>,
    /// How positions turn queries and keys.
    pub(crate) rope: Option<Rope>,
}

/// More layers than this are a mistake, and would be built before any weight is missed.
const MAX_LAYERS: usize = 1024;

/// How many layers `field` says there are.
pub(crate) fn count(config: &Config, field: impl FieldNames) -> Result<usize, ImportError> {
    let count = config.usize(field.names())?;
    if count > MAX_LAYERS {
        return Err(config.error(field, format!("{count} layers; there may be {MAX_LAYERS}")));
    }
    Ok(count)
}

/// Gives layers `window` where `layer_types`, or else `otherwise`, has them slide.
pub(crate) fn slide(
    config: &Config,
    layers: &mut [Layer],
    window: Option<usize>,
    otherwise: impl Fn(usize) -> bool,
) -> Result<(), ImportError> {
    let sliding = sliding(config, layers.len(), otherwise)?;
    if sliding.contains(&true) && window.is_none() {
        return Err(config.error("sliding_window", "is missing, and there are layers that slide"));
    }
    for (layer, _) in layers.iter_mut().zip(sliding).filter(|(_, slides)| *slides) {
        layer.window = window;
    }
    Ok(())
}

/// The windows of Qwen's families: `use_sliding_window` turns them on, for layers from `max_window_layers` up unless
/// `layer_types` says which.
pub(crate) fn qwen(config: &Config, layers: &mut [Layer]) -> Result<(), ImportError> {
    let (window, first) = (window(config)?, config.whole("max_window_layers")?);
    slide(config, layers, window, |layer| window.is_some() && layer >= first)
}

/// The window of the layers that slide, in families where `use_sliding_window` says whether any may.
pub(crate) fn window(config: &Config) -> Result<Option<usize>, ImportError> {
    match config.flag("use_sliding_window")? {
        true => config.opt_usize("sliding_window"),
        // Where none may, files say null or 0.
        false => config.whole_or("sliding_window", 0).map(|_| None),
    }
}

/// For each of `count` layers, whether its attention slides.
fn sliding(config: &Config, count: usize, otherwise: impl Fn(usize) -> bool) -> Result<Vec<bool>, ImportError> {
    if !config.has("layer_types") {
        return Ok((0..count).map(otherwise).collect());
    }
    let types = config.strings("layer_types")?;
    if types.len() != count {
        return Err(config.error("layer_types", format!("has {} entries, and there are {count} layers", types.len())));
    }
    let slides = |name: &str| match name {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        _ => {
            let (name, supported) = (name.to_string(), "full_attention, sliding_attention".to_string());
            Err(ImportError::Unsupported { what: "layer type", name, supported })
        }
    };
    types.into_iter().map(slides).collect()
}
