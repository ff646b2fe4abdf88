//! `fanfold verify`: the sharded answer against the single-device answer.

use crate::common::{Decision, Target, check_tokens, decide, open, open_model, open_on, progress_bar, say, tokenizer};
use anyhow::Result;
use fanfold::device::host::HostDevice;
use fanfold::device::select::DeviceChoice;
use fanfold::generate::{Engine, prepare};
use fanfold::import::{Head, Model};
use fanfold::plan::{Strategy, plan};
use fanfold::verify::{Comparison, verify, verify_embedding};
use std::sync::Arc;

/// Decode steps after the prompt.
pub const STEPS: usize = 16;

/// What is compared when nothing is given: long enough to be fed in two chunks.
pub const PROMPT: &str = "The quick brown fox jumps over the lazy dog, and the dog, who had seen many foxes, slept on.";

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold verify MODEL --devices 0,1 --ratios 3,2")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text to compare on [default: a sentence about a fox]
    #[arg(short, long, default_value = PROMPT, value_name = "TEXT", hide_default_value = true)]
    prompt: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Opens `model` whole on one device: the first that holds it, else the host with weights streamed.
pub fn open_single(model: &Arc<Model>, decision: &Decision, target: &Target) -> Result<(Engine, String)> {
    let plan = plan(model.graph(), Strategy::Single, &[1.0])?;
    let (program, limits) = prepare(model, &plan, &decision.options)?;
    let devices = decision.devices(&target.placing)?;
    let fits = |i: &usize| program.check_memory(&limits, &devices[*i..=*i]).is_ok();
    let Some(rank) = (0..devices.len()).find(fits) else {
        let single = Decision { plan, program, limits, choices: vec![DeviceChoice::Host], options: decision.options };
        let name = "host, layer by layer with streamed weights: the model fits no single device".to_string();
        return Ok((open_on(model, &single, vec![Box::new(HostDevice::streaming())])?, name));
    };
    let choice = decision.choices[rank].clone();
    let name = choice.to_string();
    let single = Decision { plan, program, limits, choices: vec![choice], options: decision.options };
    Ok((open(model, &single)?, name))
}

/// Compares the two engines on `ids`, with a progress bar.
pub fn compare(sharded: &mut Engine, single: &mut Engine, ids: &[u32]) -> Result<Comparison> {
    if !sharded.model().info().generates {
        return Ok(verify_embedding(sharded, single, ids)?);
    }
    let bar = progress_bar((ids.len() + STEPS) as u64, "comparing {bar:30} {pos}/{len} positions");
    let comparison = verify(sharded, single, ids, STEPS, |at| bar.set_position(at as u64));
    bar.finish_and_clear();
    Ok(comparison?)
}

/// One line a person can read.
pub fn sentence(comparison: &Comparison) -> String {
    let tokens = match comparison.first_differing_token {
        None => "every token the same".to_string(),
        Some(at) => format!("first differing token at position {at}"),
    };
    let bits = if comparison.bits_equal { "bits equal" } else { "bits differ" };
    let verdict = if comparison.passed() { "verified" } else { "FAILED" };
    let Comparison { positions, error, tolerance, .. } = comparison;
    format!("{verdict}: {positions} positions, error {error:.1e} (tolerance {tolerance:.0e}), {tokens}, {bits}")
}

pub fn main(args: &Args) -> Result<()> {
    let model = open_model(&args.target.model, Head::Default)?;
    let ids = tokenizer(&model)?.encode(&args.prompt, true)?;
    let decision = decide(&model, &args.target, true)?;
    check_tokens(&ids, &decision)?;
    let mut sharded = open(&model, &decision)?;
    let (mut single, reference) = open_single(&model, &decision, &args.target)?;
    let comparison = compare(&mut sharded, &mut single, &ids)?;
    let exact = args.target.placing.exact;
    let passed = comparison.passed() && (comparison.bits_equal || !exact);
    if args.json {
        say(serde_json::to_string_pretty(&comparison)?)?;
    } else {
        say(sentence(&comparison))?;
    }
    let names: Vec<String> = decision.choices.iter().map(ToString::to_string).collect();
    eprintln!("sharded: {}, strategy {}; single: {reference}", names.join(", "), decision.plan.strategy);
    if passed {
        return Ok(());
    }
    if exact && comparison.passed() {
        return Err(anyhow::anyhow!("--exact was asked for and the bits differ"));
    }
    Err(anyhow::anyhow!("the sharded answer is not the single-device answer"))
}
