//! The proof that `verify` and `demo` show: the sharded answer against the answer of a single device.
//!
//! The comparison itself is the library's; this file finds a device that can hold the whole model. Read [`fanfold::proof`]
//! for what is compared.

use super::decision::Decision;
use super::load::{open, open_on};
use crate::arguments::target::Target;
use crate::machine::memory;
use crate::terminal::progress::{progress_bar, waiting};
use anyhow::Result;
use fanfold::device::host::HostDevice;
use fanfold::device::select::{DeviceChoice, rooms};
use fanfold::generate::{Engine, prepare};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Holding, Room, check};
use fanfold::proof::{Comparison, verify, verify_embedding};
use std::sync::Arc;

/// The prompt of a comparison where none is given. It is long enough to be fed in two chunks.
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

/// How many tokens are decoded and compared after the prompt.
const STEPS: usize = 16;

/// What computes the answer that the sharded answer is compared with.
pub enum Reference {
    /// One device: the first one that can hold the whole model.
    Device(DeviceChoice),
    /// The host, which streams the weights from their files, because no device can hold the model.
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

/// A plan with the whole model on one rank, and the device for it. That device holds its shard at the same time, so both must
/// fit.
pub fn decide_single(model: &Model, decision: &Decision, target: &Target) -> Result<(Decision, Reference)> {
    let plan = plan(model.graph(), Strategy::Single, &[1.0])?;
    let sharded = decision.program.tenants(&decision.limits, &decision.rooms);
    let whole = |choice: &DeviceChoice, room: Room| -> Result<Decision> {
        let rooms = vec![room];
        let (program, limits) = prepare(model, &plan, &decision.options, &rooms)?;
        let choices = vec![choice.clone()];
        Ok(Decision {
            given: plan.clone(),
            plan: plan.clone(),
            program,
            limits,
            choices,
            rooms,
            memory: Vec::new(),
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
    // The host's memory is shared with the shards that lie in it, unless a person says how much each device has.
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

/// Compares the answers of the two engines to the prompt `ids`. Shows progress.
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

/// The result of a comparison as one line of text.
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
