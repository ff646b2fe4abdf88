//! sentence-transformers folders: how `modules.json` says that hidden states become one vector.
//!
//! It deliberately knows nothing of the model inside. Modules it does not know are an error, never skipped: a skipped
//! projection would change every embedding silently. Read `model.rs` next.

use super::model::{Pooling, Sentence};
use super::{Config, Folder};
use crate::error::{ImportError, Result};

/// Reads `modules.json` and the pooling it points to; a folder without one is not pooled.
pub(super) fn read(folder: &Folder) -> Result<Sentence> {
    let mut sentence = Sentence { pooling: Pooling::None, normalize: false };
    let Some(modules) = folder.json_list("modules.json")? else { return Ok(sentence) };
    for module in &modules {
        let class = module.str("type")?;
        match class.rsplit('.').next().unwrap_or(class) {
            "Transformer" => {}
            "Normalize" => sentence.normalize = true,
            "Pooling" => {
                let file = format!("{}/config.json", module.str("path")?);
                let config = folder.json(&file)?.ok_or_else(|| module.error("path", format!("{file} is missing")))?;
                sentence.pooling = pooling(&config)?;
            }
            _ => {
                return Err(ImportError::Unsupported {
                    what: "sentence-transformers module",
                    name: class.to_string(),
                    supported: "Transformer, Pooling, Normalize".to_string(),
                }
                .into());
            }
        }
    }
    Ok(sentence)
}

/// The one pooling that a Pooling module's settings name: by `pooling_mode` (since sentence-transformers 5.4) or by a
/// truth value per mode (before). Several would be concatenated, which is not supported.
fn pooling(config: &Config) -> Result<Pooling> {
    const MODES: [(&str, &str, Option<Pooling>); 6] = [
        ("mean", "pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("cls", "pooling_mode_cls_token", Some(Pooling::Cls)),
        ("max", "pooling_mode_max_tokens", None),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Some(Pooling::MeanSqrt)),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Some(Pooling::WeightedMean)),
        ("lasttoken", "pooling_mode_lasttoken", Some(Pooling::Last)),
    ];
    let mut modes: Vec<&str> = config.opt_str("pooling_mode")?.into_iter().collect();
    if modes.is_empty() {
        for (mode, field, _) in MODES {
            if config.bool_or(field, false)? {
                modes.push(mode);
            }
        }
    }
    let known = |name: &str| MODES.iter().find(|(mode, ..)| *mode == name).and_then(|(.., pooling)| *pooling);
    match modes.as_slice() {
        [] => return Err(config.error("pooling_mode", "is missing")),
        [mode] => known(mode),
        _ => None,
    }
    .ok_or_else(|| {
        let supported: Vec<&str> = MODES.iter().filter(|(.., p)| p.is_some()).map(|(mode, ..)| *mode).collect();
        let (name, supported) = (modes.join(" and "), supported.join(", "));
        ImportError::Unsupported { what: "pooling", name, supported }.into()
    })
}
