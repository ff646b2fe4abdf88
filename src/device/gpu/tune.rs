//! Measures the schedules of a loaded program's ops, so that later devices on the same adapter run the fastest ones.
//!
//! It deliberately chooses nothing and writes no file. Read `tuned` for how what was measured is used.

use super::context::Context;
use super::prepared::{self, Dispatch, Plans};
use super::site::{Rank, Site};
use super::tuned::{Case, Measured, Timed, shaders};
use super::{GpuDevice, Loaded, parts};
use crate::device::DeviceError;
use crate::kernel::{Schedule, Schedules};
use crate::program::{Instr, Place};
use crate::random::Random;
use crate::shape::Env;
use crate::tensor::DType;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often each schedule is timed. The schedules take turns, so that a change of the clock affects all alike.
const ROUNDS: usize = 5;

/// A schedule that takes more than this many times as long as the fastest is timed once.
const BEHIND: u32 = 2;

/// The least time of one measurement: what a submission costs is then a small part of it.
const LEAST: Duration = Duration::from_millis(4);

/// The most dispatches of one measurement.
const MOST: usize = 1000;

/// The most instructions over which a measurement goes. Each has a weight of its own, so that the caches of a GPU do not hold
/// what a model's step would have to read.
const INSTRUCTIONS: usize = 8;

/// The instructions of one case in a call of the sizes `env`, each with the schedules that it offers.
struct Group {
    env: Env,
    instrs: Vec<(usize, Schedules)>,
}

impl GpuDevice {
    /// Times every schedule of the ops of the loaded program, in calls of the sizes `calls`, and checks that the schedules of an
    /// op give the same bits. Afterwards the contents of states and activations are undefined.
    ///
    /// `progress` is called with the cases done and their number. Errors when nothing is loaded, when a call exceeds what was
    /// loaded for, when the device fails, and when two schedules of one op give different bits.
    pub fn tune(
        &mut self,
        calls: &[Env],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Measured>, DeviceError> {
        let (loaded, context) = parts(&mut self.loaded, &mut self.context)?;
        let mut cases: BTreeMap<Case, Group> = BTreeMap::new();
        for env in calls {
            let env = loaded.admit(context, env)?;
            for (case, instr, schedules) in offers(loaded, context, &env)? {
                let group = cases.entry(case).or_insert(Group { env, instrs: Vec::new() });
                // Another call of the same class would measure the same instructions again.
                if group.instrs.len() < INSTRUCTIONS && group.env == env {
                    group.instrs.push((instr, schedules));
                }
            }
        }
        let (count, mut done) = (cases.len(), Vec::new());
        for (case, group) in cases {
            done.push(measure(loaded, context, case, &group)?);
            progress(done.len(), count);
        }
        Ok(done)
    }
}

/// The instructions that leave a device a choice in a call of the sizes `env`.
fn offers(loaded: &Loaded, context: &Context, env: &Env) -> Result<Vec<(Case, usize, Schedules)>, DeviceError> {
    let rank = Rank { program: &loaded.program, memory: &loaded.memory, run: &loaded.run };
    let mut found = Vec::new();
    for (number, instr) in loaded.program.instrs.iter().enumerate() {
        let Instr::Compute { node, op, inputs, output, .. } = instr else { continue };
        let site = Site::new(rank, env, inputs, *output);
        let schedules = prepared::schedules(context, rank, env, &site, instr);
        let schedules = schedules.map_err(|cause| prepared::of_node(node, op, cause))?;
        if schedules.offered.len() > 1 && op.in_place().is_none() {
            found.push((Case::new(op, &site.formats, context.numerics, schedules.class), number, schedules));
        }
    }
    Ok(found)
}

/// Times the schedules of one case.
fn measure(loaded: &mut Loaded, context: &mut Context, case: Case, group: &Group) -> Result<Measured, DeviceError> {
    loaded.env = Some(group.env);
    let (first, offered) = &group.instrs[0];
    let count = offered.offered.len();
    for (instr, _) in &group.instrs {
        fill(loaded, context, *instr)?;
    }
    let mut bits: Option<Vec<u8>> = None;
    let mut once = Duration::MAX;
    for number in 0..count {
        let dispatches = dispatches(loaded, context, &group.instrs[..1], &group.env, number)?;
        let found = result(loaded, context, *first, &dispatches)?;
        if bits.get_or_insert_with(|| found.clone()) != &found {
            let (one, other) = (&offered.offered[0].name, &offered.offered[number].name);
            return Err(context.refused(format!("{case}: the schedules {one:?} and {other:?} give different bits")));
        }
        once = once.min(time(loaded, context, &dispatches, 1)?);
    }
    // A long op is timed over one instruction, a short one over several.
    let most = LEAST.div_duration_f64(once.max(Duration::from_micros(1)));
    let group = Group { env: group.env, instrs: group.instrs[..(most as usize).clamp(1, group.instrs.len())].to_vec() };
    let mut trials = Vec::new();
    for number in 0..count {
        let dispatches = dispatches(loaded, context, &group.instrs, &group.env, number)?;
        let once = time(loaded, context, &dispatches, 1)?;
        trials.push(Trial { dispatches, once, times: Vec::new() });
    }
    let best = trials.iter().map(|trial| trial.once).min().unwrap_or_default();
    for _ in 0..ROUNDS {
        for trial in &mut trials {
            // What is far behind is not timed again: its time only has to be known to be long.
            let repetitions =
                if trial.once > best * BEHIND && !trial.times.is_empty() { 0 } else { trial.repetitions() };
            if repetitions > 0 {
                let taken = time(loaded, context, &trial.dispatches, repetitions)?;
                trial.times.push(taken.as_nanos() / (repetitions * group.instrs.len()) as u128);
            }
        }
    }
    let shaders = shaders(offered).map_err(|reason| context.refused(reason))?;
    let timed =
        |(schedule, trial): (&Schedule, Trial)| Timed { name: schedule.name.clone(), nanoseconds: trial.median() };
    Ok(Measured { case, shaders, schedules: offered.offered.iter().zip(trials).map(timed).collect() })
}

/// The measurement of one schedule.
struct Trial {
    dispatches: Vec<Dispatch>,
    /// How long the dispatches took once, with what a submission costs.
    once: Duration,
    /// The nanoseconds of an op in each round.
    times: Vec<u128>,
}

impl Trial {
    /// How often the dispatches are repeated: to fill the least time, but no more than are recorded quickly.
    fn repetitions(&self) -> usize {
        let most = (MOST / self.dispatches.len().max(1)).max(1);
        (LEAST.div_duration_f64(self.once.max(Duration::from_micros(1))) as usize).clamp(1, most)
    }

    fn median(mut self) -> u64 {
        self.times.sort_unstable();
        self.times.get(self.times.len() / 2).map_or(u64::MAX, |&time| u64::try_from(time).unwrap_or(u64::MAX))
    }
}

/// The dispatches of schedule `number` of every one of `instrs`.
fn dispatches(
    loaded: &mut Loaded,
    context: &mut Context,
    instrs: &[(usize, Schedules)],
    env: &Env,
    number: usize,
) -> Result<Vec<Dispatch>, DeviceError> {
    let rank = Rank { program: &loaded.program, memory: &loaded.memory, run: &loaded.run };
    let mut plans = Plans::default();
    for (instr, schedules) in instrs {
        for launch in schedules.offered.get(number).into_iter().flat_map(|schedule| &schedule.launches) {
            plans.add(context, *instr, launch.clone(), Vec::new(), false)?;
        }
    }
    let env = Env { past: 0, ..*env };
    let dispatches = plans.dispatches(context, &mut loaded.calls.pipelines, rank, &env)?;
    Ok(dispatches.into_iter().map(|(_, dispatch)| dispatch).collect())
}

/// Fills the activations that an instruction reads with random numbers, since sums of zeros would be equal in any order.
fn fill(loaded: &mut Loaded, context: &mut Context, instr: usize) -> Result<(), DeviceError> {
    let Instr::Compute { inputs, .. } = &loaded.program.instrs[instr] else { return Ok(()) };
    let mut random = Random::new(1);
    for &input in inputs {
        let value = &loaded.program.values[input];
        if matches!(value.place, Place::Buffer(_)) && value.dtype == DType::F32 {
            let count = (loaded.bytes(context, input)? / 4) as usize;
            let numbers = random.tensor(DType::F32, &[count]);
            let source = context.filled("random numbers", wgpu::BufferUsages::COPY_SRC, numbers.bytes())?;
            let buffer = loaded.buffer(context, input)?.clone();
            loaded.recorder.copy(context, &source, &buffer, numbers.bytes().len() as u64);
        }
    }
    Ok(())
}

/// The bytes that instruction `instr` gives when `dispatches` run.
fn result(
    loaded: &mut Loaded,
    context: &mut Context,
    instr: usize,
    dispatches: &[Dispatch],
) -> Result<Vec<u8>, DeviceError> {
    let Instr::Compute { output, .. } = loaded.program.instrs[instr] else { return Ok(Vec::new()) };
    let (size, buffer) = (loaded.bytes(context, output)?, loaded.buffer(context, output)?.clone());
    loaded.recorder.zero(context, &buffer, size);
    loaded.recorder.dispatch(context, dispatches, 0)?;
    let mut bytes = Vec::new();
    loaded.recorder.read(context, &buffer, size, &mut |found| bytes = found.to_vec())?;
    Ok(bytes)
}

/// How long the device takes for `dispatches`, one after another, `repetitions` times.
fn time(
    loaded: &mut Loaded,
    context: &mut Context,
    dispatches: &[Dispatch],
    repetitions: usize,
) -> Result<Duration, DeviceError> {
    loaded.recorder.finish(context)?;
    let started = Instant::now();
    for _ in 0..repetitions {
        loaded.recorder.dispatch(context, dispatches, 0)?;
    }
    loaded.recorder.finish(context)?;
    Ok(started.elapsed())
}
