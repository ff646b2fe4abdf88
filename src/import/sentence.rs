//! sentence-transformers folders: how `modules.json` says that hidden states become one vector.
//!
//! It deliberately knows nothing of the model inside. Modules it does not know are an error, never skipped: a skipped
//! projection would change every embedding silently. Read `model.rs` next.

use super::Folder;
use super::model::{Pooling, Sentence};
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
                let pooling = folder.json(&file)?.ok_or_else(|| module.error("path", format!("{file} is missing")))?;
                let modes = [
                    ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
                    ("pooling_mode_cls_token", Some(Pooling::Cls)),
                    ("pooling_mode_max_tokens", None),
                    ("pooling_mode_mean_sqrt_len_tokens", None),
                    ("pooling_mode_weightedmean_tokens", None),
                    ("pooling_mode_lasttoken", None),
                ];
                for (field, mode) in modes {
                    if pooling.bool_or(field, false)? {
                        sentence.pooling = mode.ok_or_else(|| ImportError::Unsupported {
                            what: "pooling",
                            name: field.to_string(),
                            supported: "pooling_mode_mean_tokens, pooling_mode_cls_token".to_string(),
                        })?;
                    }
                }
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
