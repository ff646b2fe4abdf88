//! modules.json, as far as it is needed to find the model's own files: the name of the folder that holds them.
//!
//! It deliberately reads nothing else of the modules. Read `sentence.rs` for what the modules do to texts and vectors.

use crate::import::ImportError;
use crate::import::files::config::Config;

/// The file by which a folder is recognised as one of sentence-transformers.
pub(crate) const MODULES: &str = "modules.json";

/// The subfolder of the model's own files, as modules.json states it; empty when they are beside modules.json.
pub(crate) fn inner_folder(modules: &[Config]) -> Result<String, ImportError> {
    let Some(first) = modules.first() else { return Ok(String::new()) };
    let class = first.opt_str("type")?.unwrap_or_default();
    let path = first.opt_str("path")?.unwrap_or_default().trim_matches('/');
    Ok(if class.ends_with(".Transformer") && !path.is_empty() { format!("{path}/") } else { String::new() })
}
