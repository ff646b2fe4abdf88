//! The arguments that choose devices and say how a model is divided over them.
//!
//! They are only parsed here: which devices there are is found out by `engine/decision.rs`. Read `target.rs` for the model.

use super::numbers::share;
use super::size::size;
use super::words::{numerics, strategy};
use fanfold::kernel::Numerics;
use fanfold::plan::Strategy;
use std::path::PathBuf;

/// The devices, and how the model is divided over them.
#[derive(clap::Args, Clone)]
pub struct Placing {
    /// Devices: indices or parts of names from `fanfold devices`, `host`, or `0x3` for adapter 0 three times
    #[arg(long, value_name = "LIST")]
    pub devices: Option<String>,
    /// Each device's share, such as 3,2,1; equal if not given
    // A list that begins with a negative number is a value, whose parser refuses it, and not an unknown option.
    #[arg(long, value_delimiter = ',', value_name = "N,N,..", value_parser = share, allow_hyphen_values = true)]
    pub ratios: Vec<f64>,
    /// How layers are cut [default: tensor, or column with --exact]
    #[arg(long, value_parser = strategy(), value_name = "STRATEGY")]
    pub strategy: Option<Strategy>,
    /// A plan from `fanfold plan -o`, perhaps edited
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ratios", "strategy"])]
    pub plan: Option<PathBuf>,
    /// Each device's memory, such as 24G,500M, where the driver does not tell or less is to be used: G and GiB are 1024^3
    /// bytes, GB is 1000^3, B bytes
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "SIZE,..")]
    pub memory: Vec<u64>,
    /// Refuse any plan whose answer is not bit for bit that of one device
    #[arg(long)]
    pub exact: bool,
    /// In which order kernels add up sums [default: what suits each adapter]
    #[arg(long, value_parser = numerics(), value_name = "ORDER")]
    pub numerics: Option<Numerics>,
    /// Seconds any wait may last without progress
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    pub timeout: u64,
}
