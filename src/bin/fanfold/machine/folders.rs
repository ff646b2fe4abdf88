//! The person's folders: where caches lie, and where a program keeps its state.
//!
//! It names folders and deliberately creates none. Read `huggingface.rs` and `terminal/lines.rs` for what lies in them.

use etcetera::base_strategy::{BaseStrategy, choose_base_strategy};
use std::env;
use std::path::PathBuf;

/// The folder of caches: `XDG_CACHE_HOME`, or else `~/.cache` on every system.
///
/// Hugging Face's tools use this folder on macOS and Windows as well, so the system's own folder of caches would not do. They
/// also take a relative `XDG_CACHE_HOME` at its word.
pub fn caches() -> PathBuf {
    let named = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    // Without a home folder nothing is kept for longer than the system keeps temporary files.
    named.unwrap_or_else(|| etcetera::home_dir().unwrap_or_else(|_| env::temp_dir()).join(".cache"))
}

/// The folder that fanfold keeps its state in, by the system's convention: `~/.local/state/fanfold` on Linux and macOS.
/// `None` where the person has no home folder.
pub fn state() -> Option<PathBuf> {
    let folders = choose_base_strategy().ok()?;
    Some(folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("fanfold"))
}
