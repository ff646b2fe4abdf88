//! What the environment says of Hugging Face's cache and hub, by the rules of Hugging Face's own tools.
//!
//! The library takes paths and addresses; this is where they are read. Read `pull.rs` for who uses them.

use fanfold::hub::Cache;
use std::env;
use std::path::PathBuf;

/// A variable that is set to something.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_string()).filter(|value| !value.is_empty())
}

#[cfg(feature = "hub")]
fn yes(name: &str) -> bool {
    set(name).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

/// Where people's caches are.
pub fn caches() -> PathBuf {
    let home = || set("HOME").or(set("USERPROFILE")).map(PathBuf::from).unwrap_or_else(env::temp_dir);
    set("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| home().join(".cache"))
}

fn home() -> PathBuf {
    set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| caches().join("huggingface"))
}

/// The cache of models.
pub fn cache() -> Cache {
    let named = set("HF_HUB_CACHE").or(set("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
    Cache::new(named.unwrap_or_else(|| home().join("hub")))
}

/// The hub.
#[cfg(feature = "hub")]
pub fn endpoint() -> String {
    set("HF_ENDPOINT").unwrap_or_else(|| fanfold::hub::ENDPOINT.to_string())
}

/// Whether no network is to be used.
#[cfg(feature = "hub")]
pub fn offline() -> bool {
    yes("HF_HUB_OFFLINE")
}

/// What proves who asks: given in the environment, or left by a login.
#[cfg(feature = "hub")]
pub fn token() -> Option<String> {
    if yes("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let file = || set("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| home().join("token"));
    let left = || std::fs::read_to_string(file()).ok().map(|text| text.trim().to_string());
    // A line end or a space in a token would end the header that it stands in.
    set("HF_TOKEN").or_else(left).filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
}
