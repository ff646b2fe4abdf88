//! The reference device: it evaluates every instruction by the ops' host evaluation, which computes in f64.
//!
//! It deliberately shares no code with the GPU but the program, so that their agreement proves something. Read
//! [`crate::ops`] next.

use super::{Counters, Device};
use crate::device::DeviceError;
use crate::format::Stored;
use crate::ops::{EvalContext, Op};
use crate::program::{Instr, LocalValue, Place, RankProgram, WeightPart, WeightShard};
use crate::shape::{Env, Limits, resolve};
use crate::tensor::TensorError;
use crate::tensor::{DType, Region, Tensor, copy_region};
use crate::wait::Progress;
use crate::weights::{SourceError, Weights};
use std::borrow::Cow;
use std::sync::Arc;

/// Evaluates programs on the host.
#[derive(Default)]
pub struct HostDevice {
    program: Option<Arc<RankProgram>>,
    env: Option<Env>,
    capacity: usize,
    /// The source of weights when they are read at every use; `None` when they are held in memory.
    streamed: Option<Arc<dyn Weights>>,
    streams: bool,
    buffers: Vec<Tensor>,
    weights: Vec<Tensor>,
    states: Vec<Tensor>,
    counters: Counters,
    progress: Progress,
}

impl HostDevice {
    /// A device with no program.
    pub fn new() -> HostDevice {
        HostDevice::default()
    }

    /// A device that reads each weight again whenever an op needs it, so that it runs models which fit in no memory.
    #[doc(hidden)]
    pub fn streaming() -> HostDevice {
        HostDevice { streams: true, ..HostDevice::default() }
    }

    fn tensor(&self, place: Place) -> Result<Cow<'_, Tensor>, DeviceError> {
        Ok(match (place, &self.streamed) {
            (Place::Weight(i), Some(weights)) => {
                let (program, env) = self.loaded()?;
                Cow::Owned(
                    read(&program.weights[i], &env, weights.as_ref())?
                        .values()
                        .map_err(|cause| SourceError::unstored(&program.weights[i].name, cause))?,
                )
            }
            (Place::Weight(i), None) => Cow::Borrowed(&self.weights[i]),
            (Place::Buffer(i), _) => Cow::Borrowed(&self.buffers[i]),
            (Place::State(i), _) => Cow::Borrowed(&self.states[i]),
        })
    }

    /// The tensor of a value, in the value's own shape. A view, such as a reshaped state, shares its place with the
    /// value that it views but not its shape.
    fn shaped(&self, value: &LocalValue, env: &Env) -> Result<Cow<'_, Tensor>, DeviceError> {
        let (mut tensor, shape) = (self.tensor(value.place)?, resolve(&value.shape, env));
        if let Place::State(i) = value.place {
            // A state is allocated for the largest batch; a call may have fewer sequences.
            let part = resolve(&self.loaded()?.0.states[i], env);
            if tensor.shape() != part {
                tensor = Cow::Owned(tensor.slice(&Region::whole(&part))?);
            }
        }
        Ok(if tensor.shape() == shape { tensor } else { Cow::Owned(tensor.into_owned().reshaped(shape)?) })
    }

    fn store(&mut self, place: Place, tensor: Tensor) {
        match place {
            Place::Buffer(i) => self.buffers[i] = tensor,
            Place::Weight(i) => self.weights[i] = tensor,
            Place::State(i) if self.states[i].shape() == tensor.shape() => self.states[i] = tensor,
            Place::State(i) => {
                let (region, shape) = (Region::whole(tensor.shape()), self.states[i].shape().to_vec());
                let target = (self.states[i].bytes_mut(), shape.as_slice(), &region);
                copy_region(4, (tensor.bytes(), tensor.shape(), &region), target);
            }
        }
    }

    fn loaded(&self) -> Result<(Arc<RankProgram>, Env), DeviceError> {
        match (&self.program, self.env) {
            (Some(program), Some(env)) => Ok((program.clone(), env)),
            _ => Err(DeviceError::Refused { device: "host".into(), reason: "no program is loaded".into() }),
        }
    }
}

/// Whether an op is a view of a weight or a state. Nothing is stored for it: [`HostDevice::shaped`] gives each reader
/// the shape that it wants.
fn views_what_is_kept(op: &Op, inputs: &[usize], output: usize, values: &[LocalValue]) -> bool {
    let place = values[output].place;
    op.is_view() && !matches!(place, Place::Buffer(_)) && inputs.iter().all(|&input| values[input].place == place)
}

/// A rank's shard of a weight, in its format.
fn read(shard: &WeightShard, env: &Env, weights: &dyn Weights) -> Result<Stored, DeviceError> {
    let shape = resolve(&shard.shape, env);
    match &shard.part {
        WeightPart::Zero => Ok(Tensor::try_zeros(DType::F32, shape)?.into()),
        WeightPart::Region(window) => {
            Ok(weights.read_stored(&shard.name, &shape, &window.resolve(&shape), shard.format)?)
        }
    }
}

/// Turns a refusal of memory into the device's own error, which says for what the memory was.
fn no_room(what: &str, error: impl Into<DeviceError>) -> DeviceError {
    match error.into() {
        DeviceError::Tensor(TensorError::Memory { bytes }) => {
            let reason = "the system refuses the memory; use more devices or a smaller context".to_string();
            DeviceError::OutOfMemory { device: "host".into(), what: what.to_string(), bytes, reason }
        }
        other => other,
    }
}

impl Device for HostDevice {
    fn name(&self) -> &str {
        "host"
    }

    fn share_progress(&mut self, progress: &Progress) {
        self.progress = progress.clone();
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError> {
        self.capacity = limits.capacity;
        // States first, so that a lack of memory is known before any weight is read.
        let state = |shape| Tensor::try_zeros(DType::F32, resolve(shape, limits)).map_err(|e| no_room("state", e));
        self.states = program.states.iter().map(|shape| state(shape)).collect::<Result<_, DeviceError>>()?;
        if self.streams {
            self.streamed = Some(weights.clone());
        } else {
            for shard in &program.weights {
                let stored = read(shard, limits, weights.as_ref()).map_err(|error| no_room(&shard.name, error))?;
                progress(stored.bytes().len() as u64);
                self.counters.weight_bytes += stored.bytes().len() as u64;
                let values =
                    stored.values().map_err(|cause| no_room(&shard.name, SourceError::unstored(&shard.name, cause)))?;
                self.weights.push(values);
            }
        }
        self.buffers = program.buffers.iter().map(|_| Tensor::zeros(DType::F32, [0])).collect();
        self.program = Some(program);
        Ok(())
    }

    fn begin(&mut self, env: &Env) -> Result<(), DeviceError> {
        self.env = Some(Env { capacity: self.capacity, ..*env });
        Ok(())
    }

    fn execute(&mut self, index: usize) -> Result<(), DeviceError> {
        let (program, env) = self.loaded()?;
        // One op of a large model may take minutes here, and always ends: that counts as progress.
        let _computing = self.progress.computing();
        let value = |v: usize| &program.values[v];
        match &program.instrs[index] {
            Instr::Zero { output } => {
                let zeros = Tensor::zeros(value(*output).dtype, resolve(&value(*output).shape, &env));
                self.store(value(*output).place, zeros);
            }
            Instr::Compute { op, inputs, output, .. } if views_what_is_kept(op, inputs, *output, &program.values) => {
                self.counters.host_ops += 1;
            }
            Instr::Compute { op, inputs, output, extents, .. } => {
                let shape = resolve(&value(*output).shape, &env);
                let inputs: Vec<Cow<'_, Tensor>> =
                    inputs.iter().map(|&v| self.shaped(value(v), &env)).collect::<Result<_, DeviceError>>()?;
                let inputs: Vec<&Tensor> = inputs.iter().map(|tensor| tensor.as_ref()).collect();
                let result = op.evaluate(&EvalContext { inputs: &inputs, extents, env: &env, output: &shape })?;
                self.counters.host_ops += 1;
                self.store(value(*output).place, result);
            }
            Instr::Input { .. } | Instr::Exchange { .. } | Instr::Output { .. } => {}
        }
        Ok(())
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let (program, env) = self.loaded()?;
        let value = &program.values[value];
        let tensor = Tensor::from_bytes(value.dtype, resolve(&value.shape, &env), bytes)?;
        self.store(value.place, tensor);
        Ok(())
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        let (program, env) = self.loaded()?;
        with(self.shaped(&program.values[value], &env)?.bytes());
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
