//! A short test of one device against the host: ops, matrix products, exactness and exchange. Each result is reported
//! as it comes.
//!
//! The cases come from the ops themselves. This file deliberately knows no adapter: the caller passes a function that
//! opens the device. Read [`crate::proof`] for the proof on your own model.

use crate::device::host::HostDevice;
use crate::device::{Device, DeviceError};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::generate::{Engine, EngineOptions};
use crate::graph::{Graph, ValueId};
use crate::model::Model;
use crate::ops::sample::{Role, Sample, weight};
use crate::ops::{Linear, Unary, UnaryFunction, samples};
use crate::plan::{Plan, Strategy, plan};
use crate::program::lower;
use crate::proof::verify;
use crate::random::Random;
use crate::session::{Options, Session, Tensors};
use crate::shape::{Dim, Env, Shape};
use crate::tensor::{DType, Tensor, relative_error};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest `||a - b|| / ||b||` allowed between an op's result on the device and on the host. f32 sums in another
/// order differ a little.
const TOLERANCE: f64 = 1e-5;

/// The deadline of every wait within a check.
const DEADLINE: Duration = Duration::from_secs(10);

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[doc(hidden)]
pub struct Check {
    /// The check's name.
    pub name: String,
    /// Whether the check passed.
    pub passed: bool,
    /// The figures found, or what is wrong.
    pub detail: String,
    /// The time that the check took.
    pub seconds: f64,
}

/// Opens the device under test; called once for every device that a check needs.
pub type Open<'a> = dyn Fn() -> Result<Box<dyn Device>, DeviceError> + 'a;

/// Whether the check passed, and its detail text.
type Finding = (bool, String);

/// A check; it may repeat itself until the given time.
type Run = fn(&Open<'_>, Instant) -> Result<Finding>;

/// The checks in order, each with its share of the time budget.
const CHECKS: &[(&str, f64, Run)] =
    &[("ops", 0.4, ops), ("products", 0.2, products), ("exactness", 0.2, exactness), ("exchange", 0.2, exchange)];

/// The number of checks.
#[doc(hidden)]
pub fn checks() -> usize {
    CHECKS.len()
}

/// Tests the device that `open` opens, in about `budget`, and calls `tell` with each check's result. Returns whether
/// all passed.
///
/// A check that returns an error or panics has failed, and the next one begins.
#[doc(hidden)]
pub fn selftest(open: &Open<'_>, budget: Duration, tell: &mut dyn FnMut(Check)) -> bool {
    let mut all = true;
    for (name, part, run) in CHECKS {
        let started = Instant::now();
        let (passed, detail) = match catch_unwind(AssertUnwindSafe(|| run(open, started + budget.mul_f64(*part)))) {
            Ok(Ok(finding)) => finding,
            Ok(Err(error)) => (false, error.to_string()),
            Err(panic) => (false, format!("panicked: {}", words(&*panic))),
        };
        all &= passed;
        tell(Check { name: name.to_string(), passed, detail, seconds: started.elapsed().as_secs_f64() });
    }
    all
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// A graph under test, with the inputs to run it on.
#[derive(Default)]
struct Trial {
    graph: Graph,
    weights: HashMap<String, Tensor>,
    inputs: Tensors,
    past: usize,
}

impl Trial {
    fn value(&mut self, name: String, role: Role, tensor: Tensor) -> Result<ValueId> {
        let shape: Shape = tensor.shape().iter().map(|&n| Dim::Fixed(n)).collect();
        let dtype = tensor.dtype();
        match role {
            Role::Weight(format) => {
                let id = self.graph.weight(&name, shape, format);
                self.weights.insert(name, tensor);
                Ok(id?)
            }
            // A KV cache starts as zeros. A case needs random contents, so it passes them as an input.
            Role::Input | Role::State => {
                let id = self.graph.input(&name, shape, dtype);
                self.inputs.insert(name, tensor);
                Ok(id?)
            }
        }
    }

    /// Adds a case as a node called `name`, whose result is an output of the graph.
    fn add(&mut self, name: &str, sample: Sample) -> Result<()> {
        let inputs = sample.inputs.into_iter().enumerate();
        let ids = inputs.map(|(i, (role, tensor))| self.value(format!("{name}.{i}"), role, tensor));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let output = self.graph.node(name, sample.op, &ids)?;
        Ok(self.graph.output(name, output)?)
    }

    fn env(&self) -> Env {
        Env { past: self.past, capacity: self.past + 1, ..Env::prompt(1) }
    }

    fn session(&self, plan: &Plan, devices: Vec<Box<dyn Device>>) -> Result<Session> {
        let options = Options::new(self.env()).deadline(DEADLINE);
        Ok(Session::open(
            lower(&self.graph, plan)?,
            devices,
            Arc::new(self.weights.clone()),
            options,
            Arc::new(|_| ()),
        )?)
    }

    /// A session of the graph on one device.
    fn single(&self, device: Box<dyn Device>) -> Result<Session> {
        self.session(&plan(&self.graph, Strategy::Single, &[1.0])?, vec![device])
    }

    fn run(&self, session: &mut Session) -> Result<Tensors> {
        Ok(session.run(self.env(), self.inputs.clone())?)
    }
}

/// The relative difference of two results: 0 when all bits are equal, infinite when their shapes differ.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    match (found.as_f32(), expected.as_f32()) {
        _ if found == expected => 0.0,
        (Ok(a), Ok(b)) if a.len() == b.len() => {
            Some(relative_error(a, b)).filter(|e| !e.is_nan()).unwrap_or(f64::INFINITY)
        }
        _ => f64::INFINITY,
    }
}

/// Runs random cases of every op until the time is up, each op at least once.
fn ops(open: &Open<'_>, until: Instant) -> Result<Finding> {
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    let mut cases = 0;
    for seed in 0..16 {
        // All cases with the same `past` run in one session, because opening a device takes longer than running a
        // case.
        let mut trials: BTreeMap<usize, Trial> = BTreeMap::new();
        for (name, make) in samples() {
            let sample = make(&mut Random::new(seed));
            let past = sample.past;
            let trial = trials.entry(past).or_insert_with(|| Trial { past, ..Trial::default() });
            trial.add(name, sample)?;
            cases += 1;
        }
        for trial in trials.values() {
            let expected = trial.run(&mut trial.single(Box::new(HostDevice::new()))?)?;
            let found = trial.run(&mut trial.single(open()?)?)?;
            for (name, _) in samples() {
                if let (Some(found), Some(expected)) = (found.get(name), expected.get(name)) {
                    let error = worst.entry(name).or_default();
                    *error = error.max(difference(found, expected));
                }
            }
        }
        if Instant::now() > until {
            break;
        }
    }
    let wrong: Vec<String> = worst
        .iter()
        .filter(|(_, error)| **error > TOLERANCE)
        .map(|(name, error)| format!("{name} {error:.1e}"))
        .collect();
    if !wrong.is_empty() {
        return Ok((false, format!("not the host's results, error of {}", wrong.join(", "))));
    }
    let (name, error) =
        worst.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(("", 0.0), |(name, error)| (*name, *error));
    Ok((true, format!("{} ops in {cases} cases, largest error {error:.1e} ({name})", worst.len())))
}

fn product(random: &mut Random, dtype: DType, rows: usize, n: usize, k: usize) -> Sample {
    let x = random.tensor(DType::F32, &[1, rows, k]);
    Sample::new(Linear, vec![(Role::Input, x), weight(random.tensor(dtype, &[n, k]))])
}

/// Runs matrix products of every weight dtype and several shapes, and measures the speed of a large one.
fn products(open: &Open<'_>, until: Instant) -> Result<Finding> {
    let (mut random, mut trial) = (Random::new(1), Trial::default());
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        // One row, a few rows and many rows use different kernels; 301 columns of f16 do not fill a whole number of
        // 32-bit words.
        for (rows, n, k) in [(1, 257, 512), (3, 65, 301), (33, 130, 256)] {
            trial.add(&format!("{dtype}, {rows} x {k} by {n}"), product(&mut random, dtype, rows, n, k))?;
        }
    }
    let expected = trial.run(&mut trial.single(Box::new(HostDevice::new()))?)?;
    let found = trial.run(&mut trial.single(open()?)?)?;
    let mut largest = 0f64;
    for (name, expected) in &expected {
        let error = found.get(name).map_or(f64::INFINITY, |found| difference(found, expected));
        if error > TOLERANCE {
            return Ok((false, format!("{name}: error {error:.1e}")));
        }
        largest = largest.max(error);
    }
    let count = expected.len();
    let rate = rate(open()?, until)?;
    Ok((true, format!("{count} products, largest error {largest:.1e}; f32 at {rate:.1} GFLOP/s or more")))
}

/// The best rate of a few runs, in operations per second. Each run chains many products, so that copies take little
/// of its time.
fn rate(device: Box<dyn Device>, until: Instant) -> Result<f64> {
    const DEPTH: usize = 4;
    let (rows, width) = (64, 1024);
    let (mut random, mut trial) = (Random::new(2), Trial::default());
    let mut x = trial.value("x".into(), Role::Input, random.tensor(DType::F32, &[1, rows, width]))?;
    let weight = trial.value("w".into(), Role::Weight(Format::F32), random.tensor(DType::F32, &[width, width]))?;
    for layer in 0..DEPTH {
        x = trial.graph.node(&format!("product {layer}"), Linear, &[x, weight])?;
    }
    trial.graph.output("y", x)?;
    let mut session = trial.single(device)?;
    // The first run compiles the kernels.
    trial.run(&mut session)?;
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let started = Instant::now();
        trial.run(&mut session)?;
        best = best.min(started.elapsed().as_secs_f64());
        if Instant::now() > until {
            break;
        }
    }
    Ok((2 * DEPTH * rows * width * width) as f64 / best / 1e9)
}

/// Runs the demo model under a column plan on two devices and on one, and compares all bits.
fn exactness(open: &Open<'_>, _: Instant) -> Result<Finding> {
    let model = Arc::new(Model::demo()?);
    let options = EngineOptions::default().context(64).chunk(16).all_logits(true).deadline(DEADLINE);
    let engine = |strategy, ratios: &[f64]| {
        let devices = ratios.iter().map(|_| open()).collect::<Result<Vec<_>, _>>()?;
        let plan = plan(model.graph(), strategy, ratios)?;
        Ok::<_, Error>(Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ()))?)
    };
    let (mut sharded, mut single) = (engine(Strategy::Column, &[3.0, 2.0])?, engine(Strategy::Single, &[1.0])?);
    let tokens: Vec<u32> = (0..24).map(|i| (i * 37 + 11) % 256).collect();
    let found = verify(&mut sharded, &mut single, &tokens, 8, |_| ())?;
    let positions = found.positions;
    Ok(match (found.passed() && found.bits_equal, found.error) {
        (true, _) => (true, format!("{positions} positions of the demo model over two devices: one device's bits")),
        (false, error) => {
            (false, format!("{positions} positions over two devices differ from one's, error {error:.1e}"))
        }
    })
}

/// Runs a sum cut over two devices: checks the result and measures the time of its exchange.
fn exchange(open: &Open<'_>, until: Instant) -> Result<Finding> {
    const FLOATS: usize = 16 << 10;
    let (mut random, mut trial) = (Random::new(3), Trial::default());
    let x = trial.value("x".into(), Role::Input, random.tensor(DType::F32, &[1, 1, 8]))?;
    let weight = trial.value("w".into(), Role::Weight(Format::F32), random.tensor(DType::F32, &[FLOATS, 8]))?;
    let sum = trial.graph.node("product", Linear, &[x, weight])?;
    // Relu is not linear, so the partial sums must be exchanged and added before it.
    let output = trial.graph.node("after", Unary { function: UnaryFunction::Relu }, &[sum])?;
    trial.graph.output("y", output)?;
    let plan = Plan::whole(&trial.graph, 2).cut("product", "k", [0..5, 5..8]).build()?;
    let expected = trial.run(&mut trial.single(Box::new(HostDevice::new()))?)?;
    let mut session = trial.session(&plan, vec![open()?, open()?])?;
    let found = trial.run(&mut session)?;
    let error = match (found.get("y"), expected.get("y")) {
        (Some(found), Some(expected)) => difference(found, expected),
        _ => f64::INFINITY,
    };
    if error > TOLERANCE {
        return Ok((false, format!("the sum over two devices is wrong, error {error:.1e}")));
    }
    let mut times = Vec::new();
    for _ in 0..100 {
        let before = session.report()?;
        trial.run(&mut session)?;
        let after = session.report()?;
        let ranks = after.iter().zip(&before);
        // A rank's time includes waiting for the slower one; the smaller of the two is closest to the exchange
        // itself.
        let time =
            ranks.map(|(a, b)| (a.exchange_time - b.exchange_time) / (a.exchanges - b.exchanges).max(1) as u32).min();
        times.extend(time);
        if Instant::now() > until {
            break;
        }
    }
    times.sort();
    let median = times.get(times.len() / 2).map_or(0, Duration::as_micros);
    Ok((true, format!("all_reduce of {} KiB between two devices in {median} us", FLOATS * 4 / 1024)))
}
