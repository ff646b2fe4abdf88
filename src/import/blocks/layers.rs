//! Reads the number of a model's layers and which ones use sliding-window attention, from fields that families share.
//!
//! It deliberately knows no block: it reads `layer_types`, or applies the family's rule when that field is missing.
//! Read `decoder.rs` for the layers themselves.

use crate::import::ImportError;
use crate::import::blocks::rope::Rope;
use crate::import::files::config::{Config, FieldNames};

/// The settings of attention that differ from layer to layer.
#[derive(Clone)]
pub(crate) struct Layer {
    /// Sliding window: a query attends to this many positions, its own included. `None`: to all before it.
    pub(crate) window: Option<usize>,
    /// The rotary embedding of queries and keys, if the layer has one.
    pub(crate) rope: Option<Rope>,
}

/// The most layers that are accepted. The graph is built before a missing weight is noticed, so a number such as 10^9
/// has to be refused here.
const MAX_LAYERS: usize = 1024;

/// The number of layers that `field` states. Errors when it is missing, 0 or above 1024.
pub(crate) fn count(config: &Config, field: impl FieldNames) -> Result<usize, ImportError> {
    let count = config.usize(field.names())?;
    if count > MAX_LAYERS {
        return Err(config.error(field, format!("{count} layers; there may be {MAX_LAYERS}")));
    }
    Ok(count)
}

/// Sets `window` for the layers with sliding-window attention. `layer_types` says which those are, or, when that field
/// is missing, `otherwise`, given the layer's number. Errors when there is such a layer and `window` is `None`.
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

/// Sets the sliding windows of the Qwen families. `use_sliding_window` turns them on, for the layers that `layer_types`
/// marks, or, when that field is missing, for all from number `max_window_layers` on.
pub(crate) fn qwen(config: &Config, layers: &mut [Layer]) -> Result<(), ImportError> {
    let (window, first) = (window(config)?, config.whole("max_window_layers")?);
    slide(config, layers, window, |layer| window.is_some() && layer >= first)
}

/// The window of sliding layers in families with the switch `use_sliding_window`; `None` when it is off.
pub(crate) fn window(config: &Config) -> Result<Option<usize>, ImportError> {
    match config.flag("use_sliding_window")? {
        true => config.opt_usize("sliding_window"),
        // When the switch is off, files hold null or 0 here.
        false => config.whole_or("sliding_window", 0).map(|_| None),
    }
}

/// For each of `count` layers, whether its attention has a sliding window.
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
