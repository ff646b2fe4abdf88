//! `fanfold verify`: compares the sharded answer with the answer of a single device.
//!
//! What is compared, and on which device, `demo` does as well: it is shared. Read `engine/proof.rs` for it.

use crate::arguments::target::Target;
use crate::engine::decision::{check_tokens, decide};
use crate::engine::load::open;
use crate::engine::models::{SEED, open_compared, random_config, tokenizer};
use crate::engine::proof::{PROMPT, Reference, compare, decide_single, open_single, sentence};
use crate::terminal::print::{say, tell};
use crate::terminal::progress::waiting;
use anyhow::Result;
use fanfold::proof::verify_layers;
use fanfold::random::Random;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold verify MODEL --devices 0,1 --ratios 3,2")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The text to compare on [default: a sentence about a fox; random tokens for random:CONFIG.json]
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Random tokens, as many as the default prompt has with a small vocabulary. They are the same in every run.
fn random_tokens(vocabulary: usize) -> Vec<u32> {
    let mut random = Random::new(SEED);
    (0..40).map(|_| random.range(0, vocabulary - 1) as u32).collect()
}

pub fn main(args: &Args) -> Result<()> {
    let mut model = open_compared(&args.target, false)?;
    let ids = match &args.prompt {
        None if random_config(&args.target.model).is_some() => random_tokens(model.info().vocabulary),
        given => tokenizer(&model)?.encode(given.as_deref().unwrap_or(PROMPT), true)?,
    };
    let decision = decide(&model, &args.target, true)?;
    check_tokens(&ids, &decision)?;
    let (whole, reference) = decide_single(&model, &decision, &args.target)?;
    if matches!(reference, Reference::Streamed) {
        model = open_compared(&args.target, true)?;
    }
    let mut sharded = open(&model, &decision)?;
    let mut single = open_single(&model, &whole, &reference)?;
    if matches!(reference, Reference::Streamed) {
        let bar = waiting("comparing layer by layer");
        let layers = verify_layers(&mut sharded, &mut single, &ids);
        bar.finish_and_clear();
        for (layer, error) in layers?.into_iter().enumerate() {
            tell(format_args!("after layer {layer}: error {error:.1e}"));
        }
    }
    let comparison = compare(&mut sharded, &mut single, &ids)?;
    let exact = args.target.placing.exact;
    let passed = comparison.passed() && (comparison.bits_equal || !exact);
    if args.json {
        say(serde_json::to_string_pretty(&comparison)?)?;
    } else {
        say(sentence(&comparison))?;
    }
    let names: Vec<String> = decision.choices.iter().map(ToString::to_string).collect();
    let (names, strategy) = (names.join(", "), decision.plan.strategy);
    tell(format_args!("sharded: {names}, strategy {strategy}; single: {reference}"));
    if passed {
        return Ok(());
    }
    if exact && comparison.passed() {
        return Err(anyhow::anyhow!("--exact was asked for and the bits differ"));
    }
    Err(anyhow::anyhow!("the sharded answer is not the single-device answer"))
}
