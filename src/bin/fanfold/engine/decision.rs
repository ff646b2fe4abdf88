//! From a model and arguments to a decision: which devices, which plan, and whether the model fits.
//!
//! No device is opened here, so that everything that can be refused is refused at once. Read `load.rs` for what comes next.

use super::models::check_weights;
use crate::arguments::devices::Placing;
use crate::arguments::target::Target;
use crate::files::input::text_within;
use crate::machine::memory;
use crate::terminal::print::tell;
use crate::usage::usage;
use anyhow::Result;
use fanfold::device::gpu::adapters;
use fanfold::device::select::{self, DeviceChoice};
use fanfold::generate::{EngineOptions, GenerateError, prepare};
use fanfold::kernel::Numerics;
use fanfold::model::Model;
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::{Program, Room};
use fanfold::session::SessionError;
use fanfold::shape::Limits;
use std::time::Duration;

/// The longest plan that is read, in bytes. Plans have a few MB, so a longer file was given in error.
const LONGEST_PLAN: usize = 64 << 20;

/// Everything that is decided before a device is opened.
pub struct Decision {
    /// The plan for the devices as they were listed.
    pub given: Plan,
    /// The plan that is run: `given` without the ranks that have no share of any layer.
    pub plan: Plan,
    /// The plan lowered to instructions, a list per rank.
    pub program: Program,
    /// How many sequences, tokens and positions the program has buffers for.
    pub limits: Limits,
    /// The device of each rank.
    pub choices: Vec<DeviceChoice>,
    /// The memory of each rank's device, as far as it is known.
    pub rooms: Vec<Room>,
    /// The memory of each rank's device as a person gave it; empty when nobody did.
    pub memory: Vec<u64>,
    /// The options that the engine is opened with.
    pub options: EngineOptions,
    /// The largest context that the model was made for, in positions.
    pub made_for: usize,
}

/// The memory of the chosen devices: as `--memory` gives it, or else as the drivers and the system tell it.
fn rooms(choices: &[DeviceChoice], given: &[u64]) -> Vec<Room> {
    // With the strategy `single` only the first of the listed devices is used, and sizes may be given for all of them.
    let given = &given[..given.len().min(choices.len())];
    select::rooms(choices, given, memory::free())
}

/// Chooses devices and a plan for `model`. Errors where the model does not fit a device whose memory is known, and, with
/// `--check`, where a weight is NaN or infinite.
pub fn decide(model: &Model, target: &Target, all_logits: bool) -> Result<Decision> {
    decide_as(model, target, target.options(all_logits))
}

/// As [`decide`], for an engine that is opened with `options`.
pub fn decide_as(model: &Model, target: &Target, options: EngineOptions) -> Result<Decision> {
    let decision = decide_unchecked(model, &target.placing, options)?;
    decision.program.check(&decision.limits, &decision.rooms)?;
    if target.check {
        check_weights(model)?;
    }
    Ok(decision)
}

/// As [`decide`], without checking memory or weights.
pub fn decide_unchecked(model: &Model, placing: &Placing, options: EngineOptions) -> Result<Decision> {
    let mut choices = choose(placing)?;
    let listed = choices.len();
    // An error about a plan that was read from a file names the file.
    let of_plan = |error: fanfold::Error| match (&placing.plan, &error) {
        (Some(file), fanfold::Error::Plan(_) | fanfold::Error::Session(SessionError::WorldSize { .. })) => {
            anyhow::Error::from(error).context(file.display().to_string())
        }
        _ => error.into(),
    };
    let given = match &placing.plan {
        Some(file) => {
            let plan = Plan::from_json(&text_within(file, LONGEST_PLAN)?).map_err(|error| of_plan(error.into()))?;
            if plan.world_size != choices.len() {
                let (plan, devices) = (plan.world_size, choices.len());
                return Err(of_plan(SessionError::WorldSize { plan, devices }.into()));
            }
            plan
        }
        None => {
            let default = if placing.exact { Strategy::Column } else { Strategy::Tensor };
            let strategy = placing.strategy.unwrap_or(default);
            if strategy == Strategy::Single && choices.len() > 1 {
                tell(format_args!("strategy single: only the first of {listed} devices is used"));
                choices.truncate(1);
            }
            one_each("--ratios", "numbers", placing.ratios.len(), listed, choices.len())?;
            let mut ratios = placing.ratios.clone();
            ratios.resize(choices.len(), 1.0);
            plan(model.graph(), strategy, &ratios)?
        }
    };
    one_each("--memory", "sizes", placing.memory.len(), listed, choices.len())?;
    if placing.exact {
        given.check_exact(model.graph()).map_err(|error| of_plan(error.into()))?;
        if let Some(other) = choices.iter().find(|choice| *choice != &choices[0]) {
            let reason = format!("{} and {other} are different adapters, whose arithmetic may differ", choices[0]);
            return Err(usage(format!("--exact cannot be promised: {reason}")));
        }
    }
    let deadline = Duration::from_secs(placing.timeout);
    let options = options.deadline(deadline).numerics(numerics(&choices, placing)?);
    let rooms = rooms(&choices, &placing.memory);
    let (plan, ranks) = given.taking_part(model.graph()).map_err(|error| of_plan(error.into()))?;
    for (idle, choice) in choices.iter().enumerate().filter(|(rank, _)| !ranks.contains(rank)) {
        tell(format_args!("device {idle} ({choice}) has no share of the model and takes no part"));
    }
    let choices: Vec<DeviceChoice> = ranks.iter().map(|&rank| choices[rank].clone()).collect();
    let rooms: Vec<Room> = ranks.iter().map(|&rank| rooms[rank].clone()).collect();
    let memory = ranks.iter().filter_map(|&rank| placing.memory.get(rank).copied()).collect();
    let (program, limits) = prepare(model, &plan, &options, &rooms).map_err(|error| of_plan(error.into()))?;
    let made_for = model.info().context;
    Ok(Decision { given, plan, program, limits, choices, rooms, memory, options, made_for })
}

/// The order of sums in the program: what a person asks for, and with `--exact` one that all devices offer. Without either, each
/// device adds up in the order that suits it. Errors where a device does not offer it.
fn numerics(choices: &[DeviceChoice], placing: &Placing) -> Result<Option<Numerics>> {
    let adapters = || {
        choices.iter().filter_map(|choice| match choice {
            DeviceChoice::Gpu(info) => Some(info),
            DeviceChoice::Host => None,
        })
    };
    let lacking = |numerics: Numerics| adapters().find(|info| !info.numerics.contains(&numerics));
    if let Some(asked) = placing.numerics {
        return match lacking(asked) {
            Some(info) => {
                Err(usage(format!("--numerics {asked}: the kernels of {} cannot add up in that order", info.name)))
            }
            None => Ok(Some(asked)),
        };
    }
    let Some(first) = adapters().next().filter(|_| placing.exact) else { return Ok(None) };
    // Every adapter offers the sequential order.
    Ok(first.numerics.iter().copied().find(|&numerics| lacking(numerics).is_none()))
}

/// Refuses a list of numbers that is neither empty nor has one entry per device. Devices may be counted as listed or as used:
/// the strategy `single` uses the first one only.
fn one_each(flag: &str, entries: &str, given: usize, listed: usize, used: usize) -> Result<()> {
    if given == 0 || given == listed || given == used {
        return Ok(());
    }
    Err(usage(format!("{flag} has {given} {entries} for {listed} devices")))
}

/// The devices that `--devices` names, or else the default choice.
pub fn choose(placing: &Placing) -> Result<Vec<DeviceChoice>> {
    if let Some(list) = &placing.devices {
        // Loading drivers takes time, and a list of hosts alone does not need them.
        return Ok(select::parse(list, &[]).or_else(|_| select::parse(list, &adapters()))?);
    }
    let (choices, software) = select::default_choice(&adapters())?;
    if software {
        tell(format_args!("no GPU found: running on the software adapter {}, slowly", choices[0]));
    }
    Ok(choices)
}

/// Refuses a text that the context cannot hold. Called before the weights are loaded, which may take minutes.
pub fn check_tokens(ids: &[u32], decision: &Decision) -> Result<()> {
    let (tokens, capacity, limit) = (ids.len(), decision.limits.capacity, Some(decision.made_for));
    let refused = match tokens {
        0 => GenerateError::EmptyPrompt,
        _ if tokens > capacity => GenerateError::Context { tokens, capacity, limit },
        _ => return Ok(()),
    };
    Err(refused.into())
}
