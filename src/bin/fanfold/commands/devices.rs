//! `fanfold devices`: lists the devices that models can run on.
//!
//! It opens none of them. Read `doctor.rs` for the command that tests them.

use crate::exit::message;
use crate::terminal::print::{say, tell};
use anyhow::Result;
use fanfold::device::DeviceError;
use fanfold::device::gpu::adapters;

#[derive(clap::Args)]
#[command(after_help = "Example:\n  fanfold devices")]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Result<()> {
    let adapters = adapters();
    if args.json {
        say(serde_json::to_string_pretty(&adapters)?)?;
    } else {
        for adapter in &adapters {
            say(adapter)?;
        }
        say("host: the reference evaluation, slow and exact")?;
    }
    if adapters.is_empty() {
        tell(message(&DeviceError::NoAdapter.into()));
    }
    Ok(())
}
