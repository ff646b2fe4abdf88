//! Finds the subfolder with the model's own files (config.json, weights, tokenizer) in a sentence-transformers folder.
//!
//! modules.json names it. This module deliberately reads nothing else from that file; read `sentence.rs` for how the
//! modules it lists treat texts and vectors.

use crate::import::ImportError;
use crate::import::files::config::Config;

/// The list of a model's modules. A folder that has this file is a sentence-transformers folder.
pub(crate) const MODULES: &str = "modules.json";

/// The subfolder with the model's own files, with a trailing slash, such as `0_Transformer/`: the `path` of the first
/// entry of modules.json, if that is a Transformer. Empty when the files are next to modules.json.
pub(crate) fn inner_folder(modules: &[Config]) -> Result<String, ImportError> {
    let Some(first) = modules.first() else { return Ok(String::new()) };
    let class = first.opt_str("type")?.unwrap_or_default();
    let path = first.opt_str("path")?.unwrap_or_default().trim_matches('/');
    Ok(if class.ends_with(".Transformer") && !path.is_empty() { format!("{path}/") } else { String::new() })
}
