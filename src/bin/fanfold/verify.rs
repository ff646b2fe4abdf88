//! `fanfold verify`: the sharded answer against the single-device answer.

use crate::common::{
    Decision, SEED, Target, check_tokens, decide, open, open_compared, open_on, progress_bar, random_config, say, tell,
    tokenizer, waiting,
};
use crate::memory;
use anyhow::Result;
use fanfold::device::host::HostDevice;
use fanfold::device::select::{DeviceChoice, rooms};
use fanfold::generate::{Engine, prepare};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Holding, Room, check};
use fanfold::proof::{Comparison, verify, verify_embedding, verify_layers};
use fanfold::random::Random;
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
    /// The text to compare on [default: a sentence about a fox; random tokens for random:CONFIG.json]
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What the sharded answer is compared with.
pub enum Reference {
    /// One device, the first that holds the model.
    Device(DeviceChoice),
    /// The host, with weights streamed: no device holds the model.
    Streamed,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::Device(choice) => choice.fmt(f),
            Reference::Streamed => f.write_str(
                "host, layer by layer with streamed weights: beside its shards the model fits no single device",
            ),
        }
    }
}

/// The model whole on one rank, and where that fits beside what is sharded: both are held at once.
pub fn decide_single(model: &Model, decision: &Decision, target: &Target) -> Result<(Decision, Reference)> {
    let plan = plan(model.graph(), Strategy::Single, &[1.0])?;
    let sharded = decision.program.tenants(&decision.limits, &decision.rooms);
    let whole = |choice: &DeviceChoice, room: Room| -> Result<Decision> {
        let rooms = vec![room];
        let (program, limits) = prepare(model, &plan, &decision.options, &rooms)?;
        let choices = vec![choice.clone()];
        Ok(Decision {
            plan: plan.clone(),
            program,
            limits,
            choices,
            rooms,
            options: decision.options,
            made_for: decision.made_for,
        })
    };
    let together = |single: &Decision| {
        check(&[sharded.as_slice(), single.program.tenants(&single.limits, &single.rooms).as_slice()].concat())
    };
    for (choice, room) in decision.choices.iter().zip(&decision.rooms) {
        let single = whole(choice, room.clone())?;
        if together(&single).is_ok() {
            return Ok((single, Reference::Device(choice.clone())));
        }
    }
    // The reference takes the machine's memory, as the shards do unless a person says how much each device has.
    let others = if target.placing.memory.is_empty() { decision.choices.as_slice() } else { &[] };
    let all = [others, &[DeviceChoice::Host]].concat();
    let room = rooms(&all, &[], memory::free()).pop().unwrap_or(Room::new("host", None, 0));
    let pool = if others.is_empty() { decision.rooms.len() } else { room.pool };
    let single = whole(&DeviceChoice::Host, Room { holding: Holding::Streamed, pool, ..room })?;
    together(&single)?;
    Ok((single, Reference::Streamed))
}

/// Opens what [`decide_single`] decided.
pub fn open_single(model: &Arc<Model>, single: &Decision, reference: &Reference) -> Result<Engine> {
    match reference {
        Reference::Device(_) => open(model, single),
        Reference::Streamed => open_on(model, single, vec![Box::new(HostDevice::streaming())]),
    }
}

/// Compares the two engines on `ids`, with a progress bar.
pub fn compare(sharded: &mut Engine, single: &mut Engine, ids: &[u32]) -> Result<Comparison> {
    if !sharded.model().info().generates {
        let bar = waiting("comparing");
        let comparison = verify_embedding(sharded, single, ids);
        bar.finish_and_clear();
        return Ok(comparison?);
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
    let Comparison { positions, measure, error, tolerance, .. } = comparison;
    format!(
        "{verdict}: {positions} positions, error of {measure} {error:.1e} (tolerance {tolerance:.0e}), {tokens}, {bits}"
    )
}

/// As many tokens as the default text is of a small vocabulary, the same in every process.
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
