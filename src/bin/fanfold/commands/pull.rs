//! `fanfold pull`: fetches a model by its name into the cache.
//!
//! The fetching itself is the library's. Read `machine/huggingface.rs` for where the cache is and which hub is asked.

use anyhow::Result;
use fanfold::hub::ModelId;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold pull OWNER/NAME
  fanfold run OWNER/NAME -p \"Once upon a time\"

Only what fanfold reads is fetched: safetensors, tokenizer, configuration. What was interrupted goes on where it
stopped. The cache is that of Hugging Face's own tools (HF_HOME, HF_HUB_CACHE); HF_ENDPOINT names another hub, and
HF_TOKEN or the file that a login left holds the token for models that are not for everyone.")]
pub struct Args {
    /// The model's name on the hub, perhaps with a branch, tag or commit
    #[arg(value_name = "OWNER/NAME[@REVISION]", value_parser = str::parse::<ModelId>)]
    id: ModelId,
    /// Seconds any wait for the hub may last
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    timeout: u64,
}

#[cfg(feature = "hub")]
pub fn main(args: &Args) -> Result<()> {
    use crate::machine::huggingface::{cache, endpoint, offline, token};
    use crate::terminal::print::say;
    use crate::terminal::{interrupt, progress::progress_bar};
    use crate::usage::usage;
    use fanfold::hub::{Access, Event, Proxy, pull};
    use std::time::Duration;

    if offline() {
        return Err(usage("HF_HUB_OFFLINE is set: nothing is fetched"));
    }
    let access = Access {
        endpoint: endpoint(),
        token: token(),
        proxy: Proxy::try_from_env(),
        deadline: Duration::from_secs(args.timeout),
        ..Access::default()
    };
    // Ctrl-C stops the fetching in good order: what was fetched is kept, and a later call goes on from there.
    interrupt::stoppable();
    let bar = progress_bar(0, "fetching {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let folder = pull(&cache(), &args.id, &access, &interrupt::flag(), &mut |event| match event {
        Event::Files { bytes, .. } => bar.set_length(bytes),
        Event::At(bytes) => bar.set_position(bytes),
    });
    bar.finish_and_clear();
    say(folder?.display())
}

/// Says how a model can be fetched, in a build that cannot fetch.
#[cfg(not(feature = "hub"))]
pub fn main(args: &Args) -> Result<()> {
    let Args { id, timeout: _ } = args;
    Err(crate::usage::usage(format!(
        "this fanfold was built without the feature `hub`, which fetches models: build it with `--features hub`, or \
         fetch {id} by another tool into the cache {}",
        crate::machine::huggingface::cache().root().display()
    )))
}
