//! modules.json, as far as finding the model's own files needs it: the name of the folder that they are in.
//!
//! It deliberately reads nothing else of the modules. Read `sentence.rs` for what they do to texts and vectors.

use crate::import::ImportError;
use crate::import::files::config::Config;

/// The file that makes a folder one of sentence-transformers.
pub(crate) const MODULES: &str = "modules.json";

/// Where modules.json says that the model's own files lie: below the folder of this name, or beside it.
pub(crate) fn inner_folder(modules: &[Config]) -> Result<String, ImportError> {
    let Some(first) = modules.first() else { return Ok(String::new()) };
    let class = first.opt_str("type")?.unwrap_or_default();
    let path = first.opt_str("path")?.unwrap_or_default().trim_matches('/');
    Ok(if class.ends_with(".Transformer") && !path.is_empty() { format!("{path}/") } else { String::new() })
}
