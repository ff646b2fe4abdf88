//! Helpers that tests share: fixture models with their expected outputs, and engines over them.
#![allow(dead_code)]

use fanfold::device::DeviceError;
use fanfold::device::gpu::{AdapterInfo, GpuOptions};
use fanfold::device::host::HostDevice;
use fanfold::device::select::{DeviceChoice, open};
use fanfold::device::{Counters, Device};
use fanfold::generate::{Engine, EngineOptions};
use fanfold::graph::Graph;
use fanfold::model::Model;
use fanfold::ops::sample::{Role, Sample};
use fanfold::plan::{NodeCut, Plan, Strategy, plan};
use fanfold::program::{RankProgram, lower};
use fanfold::session::{Options, Session};
use fanfold::shape::{Dim, Env, Limits};
use fanfold::tensor::Tensor;
use fanfold::weights::Weights;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a fixture with other settings; `null` removes one.
pub fn altered(name: &str, settings: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(name).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let config = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (field, value) in settings {
        config[field] = value.clone();
    }
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// Checks that opening such a copy fails with a message that contains all of `says`.
#[track_caller]
pub fn refused(name: &str, settings: &[(&str, Value)], says: &[&str]) {
    let message = match Model::open(altered(name, settings).path()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{settings:?} are accepted"),
    };
    for word in says {
        assert!(message.contains(word), "{message} lacks {word:?}");
    }
}

/// The tensors of a fixture's expected.safetensors.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn of(name: &str) -> Expected {
        Expected(std::fs::read(fixture(name).join("expected.safetensors")).unwrap())
    }

    pub fn f32(&self, tensor: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        bytemuck::pod_collect_to_vec(file.tensor(tensor).unwrap().data())
    }

    pub fn u32(&self, tensor: &str) -> Vec<u32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        bytemuck::pod_collect_to_vec(file.tensor(tensor).unwrap().data())
    }
}

pub fn hosts(n: usize) -> Vec<Box<dyn Device>> {
    (0..n).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect()
}

pub fn all_logits() -> EngineOptions {
    EngineOptions::default().context(128).chunk(13).all_logits(true)
}

/// Uneven ratios for `n` devices.
pub fn ratios(n: usize) -> Vec<f64> {
    [[3.0, 2.0, 1.0, 1.0, 2.0].as_slice(), &[1.0; 11]].concat()[..n].to_vec()
}

pub fn engine(model: &Arc<Model>, strategy: Strategy, ratios: &[f64], devices: Vec<Box<dyn Device>>) -> Engine {
    let strategy = if ratios.len() == 1 { Strategy::Single } else { strategy };
    engine_of(model, &plan(model.graph(), strategy, ratios).unwrap(), devices)
}

pub fn engine_of(model: &Arc<Model>, plan: &Plan, devices: Vec<Box<dyn Device>>) -> Engine {
    Engine::open(model.clone(), plan, devices, all_logits(), Arc::new(|_| ())).unwrap()
}

pub fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_f32().unwrap()
}

/// A graph of one node, its weights, its inputs and the call.
pub fn one_node(sample: &Sample) -> (Graph, HashMap<String, Tensor>, HashMap<String, Tensor>, Env) {
    let mut graph = Graph::new();
    let (mut weights, mut inputs) = (HashMap::new(), HashMap::new());
    let mut ids = Vec::new();
    for (i, (role, tensor)) in sample.inputs.iter().enumerate() {
        let name = format!("in{i}");
        let shape: Vec<Dim> = tensor.shape().iter().map(|&n| n.into()).collect();
        ids.push(match role {
            Role::Weight(format) => {
                weights.insert(name.clone(), tensor.clone());
                graph.weight(&name, shape, *format).unwrap()
            }
            // A state starts as zeros, so the test passes its contents with the call.
            Role::Input | Role::State => {
                inputs.insert(name.clone(), tensor.clone());
                graph.input(&name, shape, tensor.dtype()).unwrap()
            }
        });
    }
    let output = graph.node("node", sample.op.clone(), &ids).unwrap();
    graph.output("out", output).unwrap();
    (graph, weights, inputs, Env { past: sample.past, ..Env::prompt(1) })
}

pub fn run_graph(
    graph: &Graph,
    weights: &HashMap<String, Tensor>,
    inputs: &HashMap<String, Tensor>,
    env: Env,
    cut: Option<NodeCut>,
    world: usize,
    devices: Vec<Box<dyn Device>>,
) -> Tensor {
    run_plan(graph, weights, inputs, env, &plan_of(graph, cut, world), devices)
}

/// A plan that cuts one node, or none.
pub fn plan_of(graph: &Graph, cut: Option<NodeCut>, world: usize) -> Plan {
    Plan {
        fanfold: 1,
        model: graph.fingerprint(),
        world_size: world,
        ratios: vec![1.0; world],
        strategy: Strategy::Tensor,
        nodes: cut.into_iter().collect(),
    }
}

pub fn run_plan(
    graph: &Graph,
    weights: &HashMap<String, Tensor>,
    inputs: &HashMap<String, Tensor>,
    env: Env,
    plan: &Plan,
    devices: Vec<Box<dyn Device>>,
) -> Tensor {
    let program = lower(graph, plan).unwrap();
    let limits = Env { capacity: env.past + env.seq, ..env };
    let options = Options::new(limits);
    let mut session = Session::open(program, devices, Arc::new(weights.clone()), options, Arc::new(|_| ())).unwrap();
    session.run(env, inputs.clone()).unwrap().into_values().next().unwrap()
}

/// All adapters. If there are none, prints that; with `FANFOLD_REQUIRE_GPU=1` that is a failure.
pub fn adapters() -> Vec<AdapterInfo> {
    let found = fanfold::device::gpu::adapters();
    if found.is_empty() {
        assert!(
            std::env::var_os("FANFOLD_REQUIRE_GPU").is_none(),
            "FANFOLD_REQUIRE_GPU is set and there is no adapter"
        );
        aloud("skipped: no GPU adapter");
    }
    found
}

/// `n` devices on one adapter, each on an instance of its own.
pub fn gpus(adapter: &AdapterInfo, n: usize) -> Vec<Box<dyn Device>> {
    let open = |_| open(&DeviceChoice::Gpu(adapter.clone()), &GpuOptions::default()).unwrap();
    (0..n).map(open).collect()
}

/// `n` devices on all adapters in turn.
pub fn mixed(adapters: &[AdapterInfo], n: usize) -> Vec<Box<dyn Device>> {
    (0..n).flat_map(|i| gpus(&adapters[i % adapters.len()], 1)).collect()
}

/// Prints that something is skipped, around the test runner, which hides the output of a test that passes.
pub fn aloud(what: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// What goes wrong at the `at`-th instruction of a [`Faulty`] device.
#[derive(Clone, Copy)]
pub enum Fault {
    Lost,
    Hangs(Duration),
    Panics,
    /// From then on, the given number of instructions take the given time each.
    Slow(Duration, usize),
    /// Every value that is read begins with another number.
    Lies,
}

/// A host device that fails on purpose.
pub struct Faulty {
    pub host: HostDevice,
    pub at: usize,
    pub fault: Fault,
}

impl Device for Faulty {
    fn name(&self) -> &str {
        "faulty"
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), fanfold::device::DeviceError> {
        self.host.load(program, limits, weights, progress)
    }

    fn begin(&mut self, env: &Env) -> Result<(), fanfold::device::DeviceError> {
        self.host.begin(env)
    }

    fn execute(&mut self, index: usize) -> Result<(), fanfold::device::DeviceError> {
        if self.at == 0 {
            match self.fault {
                Fault::Lost => {
                    return Err(DeviceError::Lost { device: "faulty".into(), reason: "unplugged".into() });
                }
                Fault::Hangs(time) => std::thread::sleep(time),
                Fault::Panics => panic!("a defect in a driver"),
                Fault::Slow(_, 0) => {}
                Fault::Slow(time, left) => {
                    std::thread::sleep(time);
                    self.fault = Fault::Slow(time, left - 1);
                }
                Fault::Lies => {}
            }
        }
        self.at = self.at.saturating_sub(1);
        self.host.execute(index)
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), fanfold::device::DeviceError> {
        self.host.write(value, bytes)
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), fanfold::device::DeviceError> {
        let lies = matches!(self.fault, Fault::Lies);
        self.host.read(value, &mut |found| {
            let mut bytes = found.to_vec();
            if let (true, Some(first)) = (lies, bytes.first_chunk_mut::<4>()) {
                *first = 7f32.to_le_bytes();
            }
            with(&bytes);
        })
    }

    fn counters(&self) -> Counters {
        self.host.counters()
    }
}

/// What a [`Hooked`] device is about to do.
pub enum Hook<'a> {
    /// Takes this program and loads its weights.
    Load(&'a RankProgram),
    /// Begins a call.
    Begin,
    /// Executes the instruction of this number.
    Execute(usize),
    /// Writes the value of this number.
    Write(usize),
    /// Reads the value of this number.
    Read(usize),
}

/// A host device with a function that is called before everything it does and may refuse it.
pub struct Hooked<F> {
    host: HostDevice,
    name: &'static str,
    hook: F,
}

impl<F: FnMut(Hook<'_>) -> Result<(), DeviceError> + Send> Hooked<F> {
    pub fn new(name: &'static str, hook: F) -> Hooked<F> {
        Hooked { host: HostDevice::new(), name, hook }
    }
}

impl<F: FnMut(Hook<'_>) -> Result<(), DeviceError> + Send> Device for Hooked<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), DeviceError> {
        (self.hook)(Hook::Load(&program))?;
        self.host.load(program, limits, weights, progress)
    }

    fn begin(&mut self, env: &Env) -> Result<(), DeviceError> {
        (self.hook)(Hook::Begin)?;
        self.host.begin(env)
    }

    fn execute(&mut self, index: usize) -> Result<(), DeviceError> {
        (self.hook)(Hook::Execute(index))?;
        self.host.execute(index)
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        (self.hook)(Hook::Write(value))?;
        self.host.write(value, bytes)
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), DeviceError> {
        (self.hook)(Hook::Read(value))?;
        self.host.read(value, with)
    }

    fn counters(&self) -> Counters {
        self.host.counters()
    }
}
