//! A GPU driven by wgpu over Vulkan, Metal, DX12 or GL. Only this folder uses wgpu.
//!
//! It deliberately knows no op and no peer: it compiles and runs the launches that ops choose, and copies bytes when
//! the session asks for it. Read `adapter` for which GPUs there are, then `memory`, `prepared` and `recorder` in the
//! order of a call.

mod adapter;
mod context;
mod memory;
mod options;
mod params;
mod pipeline;
mod prepared;
mod recorder;
mod site;
mod staging;
mod tune;
mod tuned;

pub use adapter::{AdapterInfo, AdapterKind, Backend, adapters};
pub use options::GpuOptions;
#[doc(hidden)]
pub use tuned::{Case, Measured, Picks, Timed};

use super::{Counters, Device};
use crate::device::DeviceError;

use crate::program::{Instr, RankProgram, Size};
use crate::shape::{Env, Limits, resolve};
use crate::wait::Progress;
use crate::weights::Weights;
use context::Context;
use memory::Memory;
use options::ALIGNMENT;
use prepared::Calls;
use recorder::Recorder;
use site::Rank;
use staging::{Reader, Writer};
use std::sync::Arc;

/// Size in bytes of the uniform that every call writes: `past`, padded to 16 bytes.
const RUN: u64 = 16;

/// A GPU that holds one rank.
pub struct GpuDevice {
    // Declared before the context, so that buffers are dropped before the device that holds them.
    loaded: Option<Loaded>,
    context: Context,
}

/// What a device holds once a program is loaded.
struct Loaded {
    program: Arc<RankProgram>,
    limits: Limits,
    env: Option<Env>,
    memory: Memory,
    run: wgpu::Buffer,
    calls: Calls,
    recorder: Recorder,
    /// For every value, whether an exchange writes it.
    exchanged: Vec<bool>,
    /// Whether every value may be read.
    observed: bool,
}

impl GpuDevice {
    /// Opens the adapter `info` on a wgpu instance of its own. Errors when the adapter is no longer there, or refuses
    /// to open a device.
    pub fn open(info: &AdapterInfo, options: &GpuOptions) -> Result<GpuDevice, DeviceError> {
        Ok(GpuDevice { loaded: None, context: Context::open(info, options)? })
    }
}

/// The loaded program and the opened device. Errors when no program is loaded.
fn parts<'a>(
    loaded: &'a mut Option<Loaded>,
    context: &'a mut Context,
) -> Result<(&'a mut Loaded, &'a mut Context), DeviceError> {
    context.check()?;
    match loaded {
        Some(loaded) => Ok((loaded, context)),
        None => Err(context.refused("no program is loaded")),
    }
}

impl Loaded {
    /// The sizes of a call, with the capacity of the states. Errors when they exceed what was loaded for.
    fn admit(&self, context: &Context, env: &Env) -> Result<Env, DeviceError> {
        let max = self.limits;
        let env = Env { capacity: max.capacity, ..*env };
        let tokens = env.batch.saturating_mul(env.seq);
        if env.batch > max.batch || env.seq > max.seq || env.keep > max.keep || tokens > max.tokens {
            return Err(context.refused(format!("the call {env:?} exceeds what was loaded for, {max:?}")));
        }
        Ok(env)
    }

    /// The size of a value in the current call, in bytes.
    fn bytes(&self, context: &Context, value: usize) -> Result<u64, DeviceError> {
        let env = self.env.ok_or_else(|| context.refused("no call has begun"))?;
        let value = self.program.values.get(value).ok_or_else(|| context.refused(format!("no value {value}")))?;
        Ok(resolve(&value.shape, &env).iter().product::<usize>() as u64 * 4)
    }

    fn buffer(&self, context: &Context, value: usize) -> Result<&wgpu::Buffer, DeviceError> {
        let value = &self.program.values[value];
        let weight = || context.refused(format!("{} is a weight that only ops read", value.name));
        self.memory.tensor(value.place).ok_or_else(weight)
    }
}

impl Device for GpuDevice {
    fn name(&self) -> &str {
        &self.context.name
    }

    fn largest_tensor(&self) -> Option<u64> {
        Some(self.context.largest_binding())
    }

    fn share_progress(&mut self, progress: &Progress) {
        self.context.progress = progress.clone();
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError> {
        let context = &mut self.context;
        context.check()?;
        if let Some(numerics) = program.numerics {
            if !context.offered.contains(&numerics) {
                return Err(context.refused(format!("its kernels cannot add up sums in the order {numerics}")));
            }
            context.numerics = numerics;
        }
        let memory = Memory::load(context, &program, limits, weights.as_ref(), progress)?;
        let run = context.buffer("run", RUN, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, false)?;
        let size = |v: usize| {
            let bytes = Size::of(&program.values[v].shape).max(limits) as u64 * 4;
            bytes.next_multiple_of(ALIGNMENT)
        };
        // A staging slot holds the inputs of a call and the values of one exchange, so that the work between two
        // reads is one submission.
        let (mut inputs, mut received, mut sent) = (RUN, 0, 0);
        let mut exchanged = vec![false; program.values.len()];
        for instr in &program.instrs {
            match instr {
                Instr::Input { value, .. } => inputs += size(*value),
                Instr::Output { value, .. } => sent = sent.max(size(*value)),
                Instr::Exchange { from, to, .. } => {
                    exchanged[*to] = true;
                    (received, sent) = (received.max(size(*to)), sent.max(size(*from)));
                }
                Instr::Compute { .. } | Instr::Zero { .. } => {}
            }
        }
        // If a buffer of that size is not allowed, a full slot is submitted early.
        let capacity =
            (inputs + received).min(context.limits.max_buffer_size - context.limits.max_buffer_size % ALIGNMENT);
        let writer = Writer::new(context, 2, capacity)?;
        let reader = Reader::new(context, sent)?;
        let recorder = Recorder::new(context, writer, reader);
        let (limits, calls) = (*limits, Calls::default());
        self.loaded =
            Some(Loaded { program, limits, env: None, memory, run, calls, recorder, exchanged, observed: false });
        Ok(())
    }

    fn observe(&mut self, every_value: bool) {
        if let Some(loaded) = &mut self.loaded {
            loaded.observed = every_value;
        }
    }

    fn begin(&mut self, env: &Env) -> Result<(), DeviceError> {
        let (loaded, context) = parts(&mut self.loaded, &mut self.context)?;
        let env = loaded.admit(context, env)?;
        let rank = Rank { program: &loaded.program, memory: &loaded.memory, run: &loaded.run };
        let join = context.join && !loaded.observed;
        loaded.calls.begin(context, rank, &env, join)?;
        loaded.env = Some(env);
        let past = u32::try_from(env.past).map_err(|_| context.refused("past exceeds 32 bits"))?;
        loaded.recorder.write(context, &loaded.run, bytemuck::cast_slice(&[past, 0, 0, 0]))?;
        context.counters.uploads += 1;
        context.counters.upload_bytes += RUN;
        Ok(())
    }

    fn execute(&mut self, index: usize) -> Result<(), DeviceError> {
        let (loaded, context) = parts(&mut self.loaded, &mut self.context)?;
        match &loaded.program.instrs[index] {
            Instr::Zero { output } => {
                let bytes = loaded.bytes(context, *output)?;
                let buffer = loaded.buffer(context, *output)?.clone();
                loaded.recorder.zero(context, &buffer, bytes);
                Ok(())
            }
            Instr::Compute { .. } => {
                let call = loaded.calls.current().ok_or_else(|| context.refused("no call has begun"))?;
                let step = &call.steps[index];
                loaded.recorder.dispatch(context, &step.dispatches, step.operations)
            }
            Instr::Input { .. } | Instr::Exchange { .. } | Instr::Output { .. } => Ok(()),
        }
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let (loaded, context) = parts(&mut self.loaded, &mut self.context)?;
        let expected = loaded.bytes(context, value)?;
        if expected != bytes.len() as u64 {
            let name = &loaded.program.values[value].name;
            return Err(context.refused(format!("{} bytes written to {name}, expected {expected}", bytes.len())));
        }
        let buffer = loaded.buffer(context, value)?.clone();
        loaded.recorder.write(context, &buffer, bytes)?;
        if loaded.exchanged[value] {
            context.counters.exchange_writes += 1;
        } else {
            context.counters.uploads += 1;
            context.counters.upload_bytes += expected;
        }
        Ok(())
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        let (loaded, context) = parts(&mut self.loaded, &mut self.context)?;
        let size = loaded.bytes(context, value)?;
        let buffer = loaded.buffer(context, value)?.clone();
        loaded.recorder.read(context, &buffer, size, with)?;
        context.counters.reads += 1;
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.context.counters
    }
}
