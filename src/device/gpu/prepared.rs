//! Prepared calls: for given sizes of a call, the dispatches of every instruction with their pipelines and bind
//! groups.
//!
//! What changes from call to call without changing a size, above all `past`, is deliberately not part of a prepared
//! call, so that one serves every decode step. Read `recorder` next for how dispatches run.

use super::context::{Context, aligned};
use super::memory::Memory;
use super::params::Blocks;
use super::pipeline::{Pipeline, Pipelines};
use super::site::{Site, resource};
use super::tuned::{Case, Picker};
use crate::device::DeviceError;
use crate::kernel::{Binding, Launch, Schedules, Tail};
use crate::ops::{Op, OpError};
use crate::program::{Instr, RankProgram};
use crate::shape::{Env, resolve};
use crate::sharding::Extent;

/// Number of prepared calls that are kept.
const KEPT: usize = 8;

/// One dispatch: pipeline, bind group and size.
pub(super) struct Dispatch {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bindings: wgpu::BindGroup,
    pub(super) groups: [u32; 3],
}

/// One prepared instruction.
#[derive(Default)]
pub(super) struct Step {
    /// The dispatches of a `Compute` instruction; other instructions have none.
    pub(super) dispatches: Vec<Dispatch>,
    /// About how many arithmetic operations it performs.
    pub(super) operations: u64,
}

/// A prepared call.
pub(super) struct Prepared {
    /// The batch, the tokens and the positions kept of a call, and whether joined instructions run in one kernel.
    sizes: (usize, usize, usize, bool),
    pub(super) steps: Vec<Step>,
}

/// The prepared calls, the last used first.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Prepared>,
    pub(super) pipelines: Pipelines,
    picker: Picker,
}

/// What the preparation of a call reads: the rank's program and its memory.
#[derive(Clone, Copy)]
pub(super) struct Rank<'a> {
    pub(super) program: &'a RankProgram,
    pub(super) memory: &'a Memory,
    pub(super) run: &'a wgpu::Buffer,
}

impl Calls {
    /// The call that was begun last.
    pub(super) fn current(&self) -> Option<&Prepared> {
        self.calls.first()
    }

    /// Makes the prepared call for the sizes in `env` the current one; prepares it if it is not kept.
    pub(super) fn begin(
        &mut self,
        context: &mut Context,
        rank: Rank<'_>,
        env: &Env,
        join: bool,
    ) -> Result<(), DeviceError> {
        let sizes = (env.batch, env.seq, env.keep, join);
        let call = match self.calls.iter().position(|call| call.sizes == sizes) {
            Some(at) => self.calls.remove(at),
            None => self.prepare(context, rank, env, join)?,
        };
        self.calls.insert(0, call);
        if self.calls.len() > KEPT {
            // The call that decodes one token is never evicted: decoding resumes after any number of prompts.
            let last = self.calls.iter().rposition(|call| call.sizes != (1, 1, 1, true)).unwrap_or(KEPT);
            self.calls.remove(last);
        }
        Ok(())
    }
}

/// A launch whose parameters are collected, before the parameter buffer of its call exists.
struct Planned {
    instr: usize,
    launch: Launch,
    params: u64,
    /// Where the words of its tail are, and how many.
    tail: (u64, usize),
}

/// The launches of a call and their parameters, which lie in one buffer.
pub(super) struct Plans {
    blocks: Blocks,
    planned: Vec<Planned>,
}

impl Plans {
    pub(super) fn new(context: &Context) -> Plans {
        Plans { blocks: Blocks::new(context), planned: Vec::new() }
    }

    /// Adds a launch of instruction `instr`, whose tail reads `words`. Errors when it exceeds a limit of the adapter.
    pub(super) fn add(
        &mut self,
        context: &Context,
        instr: usize,
        launch: Launch,
        words: &[u32],
    ) -> Result<(), DeviceError> {
        check(context, &launch)?;
        if !launch.groups.contains(&0) {
            let params = self.blocks.add(&launch.params);
            let tail = if words.is_empty() { 0 } else { self.blocks.add(words) };
            self.planned.push(Planned { instr, launch, params, tail: (tail, words.len()) });
        }
        Ok(())
    }

    /// The dispatches in order, each with its instruction: uploads the parameters, compiles kernels and binds buffers.
    pub(super) fn dispatches(
        self,
        context: &mut Context,
        pipelines: &mut Pipelines,
        rank: Rank<'_>,
        env: &Env,
    ) -> Result<Vec<(usize, Dispatch)>, DeviceError> {
        let params = self.blocks.upload(context)?;
        let mut dispatches = Vec::with_capacity(self.planned.len());
        for planned in &self.planned {
            let Instr::Compute { node, op, .. } = &rank.program.instrs[planned.instr] else { continue };
            let bound = bind(context, pipelines, rank, env, &params, planned);
            dispatches.push((planned.instr, bound.map_err(|cause| of_node(node, op, cause))?));
        }
        context.check()?;
        Ok(dispatches)
    }
}

impl Calls {
    fn prepare(
        &mut self,
        context: &mut Context,
        rank: Rank<'_>,
        env: &Env,
        join: bool,
    ) -> Result<Prepared, DeviceError> {
        // Kernels read `past` from the run uniform. An op that put it into its parameters would be wrong from the next
        // step on; passing 0 here makes that fail in the first test.
        let env = Env { past: 0, ..*env };
        let program = rank.program;
        let mut steps: Vec<Step> = program.instrs.iter().map(|_| Step::default()).collect();
        let mut plans = Plans::new(context);
        for (instr, step) in steps.iter_mut().enumerate() {
            if let Instr::Compute { node, op, inputs, output, extents, joined } = &program.instrs[instr] {
                let space = extents.iter().fold(1u64, |n, e| n.saturating_mul(e.resolve(&env).1 as u64));
                step.operations = op.operations().saturating_mul(space);
                if *joined && join {
                    // The kernels of an instruction before it compute it too.
                    continue;
                }
                let tail = if join { program.joined(instr) } else { 0 };
                let (tail, words) = tail_of(context, rank, &env, instr, tail);
                let in_node = |cause| of_node(node, op, cause);
                let offered = schedules(context, rank, &env, op, inputs, *output, extents).map_err(in_node)?;
                let formats = Site::new(rank, &env, inputs, *output).formats;
                let case = Case::new(op, &formats, context.numerics, offered.class);
                let number = self.picker.pick(context, case, &offered);
                for mut launch in offered.offered.into_iter().nth(number).into_iter().flat_map(|s| s.launches) {
                    launch.kernel.tail.clone_from(&tail);
                    if !op.is_built_in() {
                        launch.kernel.shader.distrust();
                    }
                    plans.add(context, instr, launch, &words).map_err(in_node)?;
                }
            }
        }
        for (instr, dispatch) in plans.dispatches(context, &mut self.pipelines, rank, &env)? {
            steps[instr].dispatches.push(dispatch);
        }
        Ok(Prepared { sizes: (env.batch, env.seq, env.keep, join), steps })
    }
}

/// Wraps `cause` with the node, and with the op when the device refused a launch.
pub(super) fn of_node(node: &str, op: &Op, cause: DeviceError) -> DeviceError {
    let cause = match cause {
        DeviceError::Refused { device, reason } => {
            DeviceError::Refused { device, reason: format!("op {}: {reason}", op.name()) }
        }
        other => other,
    };
    DeviceError::Node { node: node.to_string(), cause: Box::new(cause) }
}

/// Gets the pipeline of a launch's kernel and creates the bind group of its buffers.
fn bind(
    context: &mut Context,
    pipelines: &mut Pipelines,
    rank: Rank<'_>,
    env: &Env,
    params: &wgpu::Buffer,
    planned: &Planned,
) -> Result<Dispatch, DeviceError> {
    let Planned { instr, launch, params: offset, tail } = planned;
    let inputs = match &rank.program.instrs[*instr] {
        Instr::Compute { inputs, .. } => inputs.as_slice(),
        _ => &[],
    };
    // A kernel with a tail writes the output of the last instruction that it computes.
    let steps = launch.kernel.tail.as_ref().map_or(0, |tail| tail.0.len());
    let output = match &rank.program.instrs[instr + steps] {
        Instr::Compute { output, .. } => Some(*output),
        _ => None,
    };
    let Pipeline { pipeline, layout, .. } = pipelines.get(context, launch)?.clone();
    let block = |offset: u64, words: usize| {
        let size = wgpu::BufferSize::new(aligned(words as u64 * 4));
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: params, offset, size })
    };
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: block(*offset, launch.params.len()) }];
    for (at, binding) in launch.numbered() {
        let resource = match binding {
            Binding::Run => Some(rank.run.as_entire_binding()),
            Binding::TailWords => Some(block(tail.0, tail.1)),
            Binding::TailValue(step) => {
                other_operand(rank.program, instr + 1 + step).and_then(|v| resource(rank, env, v, 0))
            }
            Binding::Output => output.and_then(|v| resource(rank, env, v, 0)),
            Binding::Scratch { .. } => rank.memory.scratch.as_ref().map(wgpu::Buffer::as_entire_binding),
            Binding::Input { input, piece } => inputs.get(input).and_then(|&v| resource(rank, env, v, piece)),
        };
        let missing = || context.refused(format!("{}: {binding:?} does not exist", launch.kernel.shader.name()));
        entries.push(wgpu::BindGroupEntry { binding: at, resource: resource.ok_or_else(missing)? });
    }
    let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
    let refused = |error: wgpu::Error| context.refused(format!("kernel {}: {error}", launch.kernel.shader.name()));
    let bindings = context.scoped(|| context.device.create_bind_group(&descriptor)).map_err(refused)?;
    let dispatch = Dispatch { pipeline, bindings, groups: launch.groups };
    if !launch.kernel.shader.is_trusted() {
        context.scoped(|| rehearse(context, &dispatch)).map_err(refused)?;
    }
    Ok(dispatch)
}

/// Records a dispatch of zero workgroups and drops the recording, to have wgpu validate it.
///
/// wgpu checks only while a dispatch is recorded whether a shader's types fit the bound buffers, and whether it reads
/// a buffer that it also writes. In a call that error would name neither node nor op, and would end the device.
fn rehearse(context: &Context, dispatch: &Dispatch) {
    let mut encoder = context.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&dispatch.pipeline);
    pass.set_bind_group(0, &dispatch.bindings, &[]);
    pass.dispatch_workgroups(0, 0, 0);
    drop(pass);
    drop(encoder.finish());
}

/// The operand that a joined instruction reads beside the result of the one before it.
fn other_operand(program: &RankProgram, instr: usize) -> Option<usize> {
    let (Instr::Compute { output, .. }, Instr::Compute { inputs, .. }) =
        (program.instrs.get(instr.checked_sub(1)?)?, program.instrs.get(instr)?)
    else {
        return None;
    };
    inputs.iter().copied().find(|input| input != output)
}

/// The tail that computes the `count` instructions that are joined to instruction `first`, and the words that it reads.
fn tail_of(device: &Context, rank: Rank<'_>, env: &Env, first: usize, count: usize) -> (Option<Tail>, Vec<u32>) {
    let (mut steps, mut words) = (Vec::new(), Vec::new());
    for instr in &rank.program.instrs[first + 1..][..count] {
        if let Instr::Compute { op, inputs, output, extents, .. } = instr {
            let site = Site::new(rank, env, inputs, *output);
            steps.extend(op.step());
            words.extend(op.step_words(&site.context(device, env, extents)));
        }
    }
    ((!steps.is_empty()).then_some(Tail(steps)), words)
}

/// The schedules of an op for the rank's shard; one without launches if the shard is empty.
pub(super) fn schedules(
    device: &Context,
    rank: Rank<'_>,
    env: &Env,
    op: &Op,
    inputs: &[usize],
    output: usize,
    extents: &[Extent],
) -> Result<Schedules, DeviceError> {
    let value = |v: usize| &rank.program.values[v];
    let shape = resolve(&value(output).shape, env);
    let alias = op.is_view() && inputs.first().is_some_and(|&v| value(v).place == value(output).place);
    if alias || shape.iter().product::<usize>() == 0 {
        return Ok(Schedules::only(Vec::new()));
    }
    let site = Site::new(rank, env, inputs, output);
    let schedules = op.schedules(&site.context(device, env, extents))?;
    for (input, pieces) in site.pieces.iter().enumerate().filter(|(_, pieces)| pieces.len() > 1) {
        let last = Binding::Input { input, piece: pieces.len() - 1 };
        // An op that launched nothing on the last buffer of a split weight would be silently wrong.
        let reads = |launches: &[Launch]| launches.iter().any(|launch| launch.bindings.contains(&last));
        if !schedules.offered.iter().all(|schedule| reads(&schedule.launches)) {
            let reason = format!("{} does not read {} in several bindings", op.name(), value(inputs[input]).name);
            return Err(OpError::Attribute { op: op.name(), reason }.into());
        }
    }
    Ok(schedules)
}

/// Errors when a launch exceeds a limit of the adapter.
fn check(context: &Context, launch: &Launch) -> Result<(), DeviceError> {
    let uniform = |binding: &Binding| matches!(binding, Binding::Run | Binding::TailWords);
    let storage = launch.numbered().iter().filter(|(_, binding)| !uniform(binding)).count();
    let (max, groups) =
        (context.limits.max_storage_buffers_per_shader_stage, context.limits.max_compute_workgroups_per_dimension);
    let reason = if storage as u64 > max as u64 {
        format!("needs {storage} storage buffers, the adapter binds {max}")
    } else if let Some(n) = launch.groups.iter().find(|&&n| n > groups) {
        format!("needs {n} workgroups in one dimension, the adapter runs {groups}")
    } else {
        return Ok(());
    };
    Err(context.refused(reason))
}
