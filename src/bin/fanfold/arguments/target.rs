//! The arguments that nearly every command takes: a model, its context, and the devices it runs on.
//!
//! They are only parsed here. Read `engine/models.rs` for how the model is found and `devices.rs` for the devices.

use super::devices::Placing;
use super::numbers::context;
use super::words::format;
use fanfold::format::Format;
use fanfold::generate::EngineOptions;
use std::path::PathBuf;

/// A model and the devices it runs on.
#[derive(clap::Args, Clone)]
pub struct Target {
    /// A model's folder, its OWNER/NAME in the cache (see `fanfold pull`), `demo` for the embedded model, or
    /// random:CONFIG.json for random weights
    pub model: PathBuf,
    /// Positions the KV cache holds; 0: as many as the model was made for
    #[arg(short, long, default_value_t = 2048, value_parser = context, value_name = "N")]
    pub context: usize,
    /// Make sure first that no weight is NaN or infinite
    #[arg(long)]
    pub check: bool,
    /// Fields that are read as if they were not there: of config.json by name, of another file as FILE:FIELD
    #[arg(long, value_delimiter = ',', value_name = "FIELD,..")]
    pub ignore_config: Vec<String>,
    /// Stores the matrices in this format on the devices, whatever their files hold; without it they stay as they are
    #[arg(long, value_parser = format(), value_name = "FORMAT")]
    pub weights: Option<Format>,
    #[command(flatten)]
    pub placing: Placing,
}

impl Target {
    /// The options that an engine for this target is opened with. With `all_logits`, every position's logits are computed
    /// and not only the last one's.
    pub fn options(&self, all_logits: bool) -> EngineOptions {
        EngineOptions::default().context(self.context).all_logits(all_logits)
    }
}
