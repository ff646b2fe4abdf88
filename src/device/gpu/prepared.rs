//! Prepared calls: for given sizes of a call, the dispatches of every instruction with their pipelines and bind
//! groups.
//!
//! What changes from call to call without changing a size, above all `past`, is deliberately not part of a prepared
//! call, so that one serves every decode step. Read `recorder` next for how dispatches run.

use super::context::{Context, aligned};
use super::params::Blocks;
use super::pipeline::{Pipeline, Pipelines};
use super::site::{Rank, Site, resource};
use super::tuned::{Case, Picker};
use crate::device::DeviceError;
use crate::kernel::{Binding, Dispatched, Launch, Schedules, Tail};
use crate::ops::{Op, OpError};
use crate::program::{Fused, Instr, RankProgram};
use crate::shape::Env;

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
    /// The batch, the tokens and the positions kept of a call, and whether fused instructions run together.
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

/// A dispatch in the making.
struct Planned {
    dispatched: Dispatched,
    /// The instruction of each side, and the words that its tail reads.
    sides: Vec<(usize, Vec<u32>)>,
}

/// The dispatches of a call in the making.
#[derive(Default)]
pub(super) struct Plans(Vec<Planned>);

impl Plans {
    /// Adds a launch of instruction `instr`, whose tail reads `words`. It becomes a dispatch of its own, unless `beside` says that it
    /// can run beside the one that was added last and their kernels are one. Errors when it exceeds a limit of the adapter.
    pub(super) fn add(
        &mut self,
        context: &Context,
        instr: usize,
        launch: Launch,
        words: Vec<u32>,
        beside: bool,
    ) -> Result<(), DeviceError> {
        if launch.groups.contains(&0) {
            return Ok(());
        }
        if beside
            && let Some(last) = self.0.last_mut()
            && let Some(both) = last.dispatched.clone().with(&launch)
            && check(context, &both).is_ok()
        {
            last.dispatched = both;
            last.sides.push((instr, words));
            return Ok(());
        }
        let dispatched = Dispatched::alone(launch);
        check(context, &dispatched)?;
        self.0.push(Planned { dispatched, sides: vec![(instr, words)] });
        Ok(())
    }

    /// The dispatches in order, each with its first instruction: uploads the parameters, compiles kernels and binds buffers.
    pub(super) fn dispatches(
        self,
        context: &mut Context,
        pipelines: &mut Pipelines,
        rank: Rank<'_>,
        env: &Env,
    ) -> Result<Vec<(usize, Dispatch)>, DeviceError> {
        // The parameters of all of them lie in one buffer.
        let mut blocks = Blocks::new(context);
        let mut placed = Vec::with_capacity(self.0.len());
        for planned in &self.0 {
            let params = blocks.add(&planned.dispatched.params);
            let words = planned.sides.iter().map(|(_, words)| if words.is_empty() { 0 } else { blocks.add(words) });
            placed.push((params, words.collect::<Vec<u64>>()));
        }
        let params = blocks.upload(context)?;
        let mut dispatches = Vec::with_capacity(self.0.len());
        for (planned, (offset, tails)) in self.0.iter().zip(&placed) {
            let instr = planned.sides.first().map_or(0, |(instr, _)| *instr);
            let Instr::Compute { node, op, .. } = &rank.program.instrs[instr] else { continue };
            let bound = bind(context, pipelines, rank, env, planned, (&params, *offset, tails));
            dispatches.push((instr, bound.map_err(|cause| of_node(node, op, cause))?));
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
        let mut plans = Plans::default();
        for (instr, step) in steps.iter_mut().enumerate() {
            if let Instr::Compute { op, extents, fused, .. } = &program.instrs[instr] {
                let space = extents.iter().fold(1u64, |n, e| n.saturating_mul(e.resolve(&env).1 as u64));
                step.operations = op.operations().saturating_mul(space);
                if join && *fused == Fused::Alone {
                    self.plan(context, rank, &env, &mut plans, &program.sides(instr), true)?;
                } else if !join {
                    self.plan(context, rank, &env, &mut plans, &[instr], false)?;
                }
            }
        }
        for (instr, dispatch) in plans.dispatches(context, &mut self.pipelines, rank, &env)? {
            steps[instr].dispatches.push(dispatch);
        }
        Ok(Prepared { sizes: (env.batch, env.seq, env.keep, join), steps })
    }

    /// Plans the launches of the instructions `sides`, which can run as one dispatch, and with `join` of what is joined to each.
    fn plan(
        &mut self,
        context: &Context,
        rank: Rank<'_>,
        env: &Env,
        plans: &mut Plans,
        sides: &[usize],
        join: bool,
    ) -> Result<(), DeviceError> {
        let (mut picked, before) = (None, plans.0.len());
        for &instr in sides {
            let Instr::Compute { node, op, inputs, output, .. } = &rank.program.instrs[instr] else {
                continue;
            };
            let in_node = |cause| of_node(node, op, cause);
            let tail = if join { rank.program.tail(instr) } else { 0 };
            let (tail, words) = tail_of(context, rank, env, instr, tail);
            let site = Site::new(rank, env, inputs, *output);
            let offered = schedules(context, rank, env, &site, &rank.program.instrs[instr]).map_err(in_node)?;
            // All sides run the kernel that suits the first.
            let number = picked.unwrap_or_else(|| {
                let case = || Case::new(op, &site.formats, context.numerics, offered.class);
                self.picker.pick(&context.options.schedules, case, &offered)
            });
            let launches =
                offered.offered.into_iter().nth(number).map(|schedule| schedule.launches).unwrap_or_default();
            // Not beside what was planned before this group, which may read another input.
            let beside = plans.0.len() > before && launches.len() == 1;
            picked = Some(number);
            for mut launch in launches {
                launch.kernel.tail.clone_from(&tail);
                if !op.is_built_in() {
                    launch.kernel.shader.distrust();
                }
                plans.add(context, instr, launch, words.clone(), beside).map_err(in_node)?;
            }
        }
        Ok(())
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

/// Gets the pipeline of a dispatch's kernel and creates the bind group of its buffers. The parameters of all sides begin at
/// `offset` of the buffer `params`, the words of each side's tail at the offset of its own.
fn bind(
    context: &mut Context,
    pipelines: &mut Pipelines,
    rank: Rank<'_>,
    env: &Env,
    planned: &Planned,
    (params, offset, tails): (&wgpu::Buffer, u64, &[u64]),
) -> Result<Dispatch, DeviceError> {
    let Dispatched { kernel, params: words, groups, .. } = &planned.dispatched;
    let Pipeline { pipeline, layout, .. } = pipelines.get(context, &planned.dispatched)?.clone();
    let block = |offset: u64, words: usize| {
        let size = wgpu::BufferSize::new(aligned(words as u64 * 4));
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: params, offset, size })
    };
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: block(offset, words.len()) }];
    let sides = planned.sides.iter().zip(&planned.dispatched.bindings).zip(kernel.tails()).zip(tails);
    for ((((instr, words), bindings), tail), words_at) in sides {
        let inputs = match &rank.program.instrs[*instr] {
            Instr::Compute { inputs, .. } => inputs.as_slice(),
            _ => &[],
        };
        // A kernel with a tail writes the output of the last instruction that it computes.
        let steps = tail.map_or(0, |tail| tail.0.len());
        let output = match &rank.program.instrs[instr + steps] {
            Instr::Compute { output, .. } => Some(*output),
            _ => None,
        };
        for &(at, binding) in bindings {
            let resource = match binding {
                Binding::Run => Some(rank.run.as_entire_binding()),
                Binding::TailWords => Some(block(*words_at, words.len())),
                Binding::TailValue(step) => {
                    other_operand(rank.program, instr + 1 + step).and_then(|v| resource(rank, env, v, 0))
                }
                Binding::Output => output.and_then(|v| resource(rank, env, v, 0)),
                Binding::Scratch { .. } => rank.memory.scratch.as_ref().map(wgpu::Buffer::as_entire_binding),
                Binding::Input { input, piece } => inputs.get(input).and_then(|&v| resource(rank, env, v, piece)),
            };
            let missing = || context.refused(format!("{}: {binding:?} does not exist", kernel.shader.name()));
            entries.push(wgpu::BindGroupEntry { binding: at, resource: resource.ok_or_else(missing)? });
        }
    }
    let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
    let refused = |error: wgpu::Error| context.refused(format!("kernel {}: {error}", kernel.shader.name()));
    let bindings = context.scoped(|| context.device.create_bind_group(&descriptor)).map_err(refused)?;
    let dispatch = Dispatch { pipeline, bindings, groups: *groups };
    if !kernel.shader.is_trusted() {
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

/// The schedules of instruction `instr`, an op at `site`, for the rank's shard; one without launches if the shard is empty.
pub(super) fn schedules(
    device: &Context,
    rank: Rank<'_>,
    env: &Env,
    site: &Site,
    instr: &Instr,
) -> Result<Schedules, DeviceError> {
    let Instr::Compute { op, inputs, output, extents, .. } = instr else { return Ok(Schedules::only(Vec::new())) };
    let value = |v: usize| &rank.program.values[v];
    let alias = op.is_view() && inputs.first().is_some_and(|&v| value(v).place == value(*output).place);
    if alias || site.output.iter().product::<usize>() == 0 {
        return Ok(Schedules::only(Vec::new()));
    }
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

/// Errors when a dispatch exceeds a limit of the adapter.
fn check(context: &Context, dispatched: &Dispatched) -> Result<(), DeviceError> {
    let uniform = |binding: &Binding| matches!(binding, Binding::Run | Binding::TailWords);
    let uniforms = 1 + dispatched.numbered().filter(|(_, binding)| uniform(binding)).count() as u32;
    let storage = 1 + dispatched.numbered().count() as u32 - uniforms;
    let limits = &context.limits;
    let (max, uniforms_max, groups) = (
        limits.max_storage_buffers_per_shader_stage,
        limits.max_uniform_buffers_per_shader_stage,
        limits.max_compute_workgroups_per_dimension,
    );
    let reason = if storage > max {
        format!("needs {storage} storage buffers, the adapter binds {max}")
    } else if uniforms > uniforms_max {
        format!("needs {uniforms} uniform buffers, the adapter binds {uniforms_max}")
    } else if let Some(n) = dispatched.groups.iter().find(|&&n| n > groups) {
        format!("needs {n} workgroups in one dimension, the adapter runs {groups}")
    } else {
        return Ok(());
    };
    Err(context.refused(reason))
}
