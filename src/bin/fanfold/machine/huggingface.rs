//! What the environment says of Hugging Face's cache and hub, by the rules of Hugging Face's own tools.
//!
//! The library takes paths, addresses and tokens as values; this file reads them from variables and files, and asks no hub.
//! Read `commands/pull.rs` for who uses them.

use super::folders::caches;
use fanfold::hub::Cache;
use std::env;
use std::path::PathBuf;

/// The value of a variable, unless it is empty.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
}

/// Whether a variable is switched on.
#[cfg(feature = "hub")]
fn yes(name: &str) -> bool {
    set(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

/// The folder of everything that Hugging Face's tools keep.
fn home() -> PathBuf {
    set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| caches().join("huggingface"))
}

/// The cache of models: `HF_HUB_CACHE`, or the folder `hub` in `HF_HOME`, or in `~/.cache/huggingface`.
pub fn cache() -> Cache {
    let named = set("HF_HUB_CACHE").or(set("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
    Cache::new(named.unwrap_or_else(|| home().join("hub")))
}

/// The address of the hub.
#[cfg(feature = "hub")]
pub fn endpoint() -> String {
    set("HF_ENDPOINT").unwrap_or_else(|| fanfold::hub::ENDPOINT.to_string())
}

/// Whether the person forbids any use of the network.
#[cfg(feature = "hub")]
pub fn offline() -> bool {
    yes("HF_HUB_OFFLINE")
}

/// The token that proves to the hub who asks: from `HF_TOKEN`, or from the file that a login left.
#[cfg(feature = "hub")]
pub fn token() -> Option<String> {
    if yes("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let file = || set("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| home().join("token"));
    let left = || std::fs::read_to_string(file()).ok().map(|text| text.trim().to_string());
    // The token becomes part of an HTTP header, which a line end or a space would end.
    set("HF_TOKEN").or_else(left).filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
}
