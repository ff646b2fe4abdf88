//! A rank that fails ends the others promptly with one clear error; a session refuses what it cannot run and lives on.

mod common;

use common::{Fault, Faulty, fixture, hosts, values};
use fanfold::device::DeviceError;
use fanfold::device::host::HostDevice;
use fanfold::device::{Counters, Device};
use fanfold::error::Error;
use fanfold::generate::GenerateError;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::graph::Graph;
use fanfold::model::Model;
use fanfold::ops::{Linear, Softmax};
use fanfold::plan::{NodeCut, Strategy, plan};
use fanfold::program::{Instr, Program, RankProgram, lower};
use fanfold::session::SessionError;
use fanfold::session::{Options, Session};
use fanfold::shape::{Env, Limits};
use fanfold::sharding::Cut;
use fanfold::tensor::{DType, Region, Tensor};
use fanfold::weights::Weights;
use std::collections::{HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn engine(fault: Fault, deadline: Duration) -> Engine {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 4]).unwrap();
    let mut devices = hosts(4);
    devices[2] = Box::new(Faulty { host: HostDevice::new(), at: 30, fault });
    let options = EngineOptions::default().deadline(deadline).context(64);
    Engine::open(model, &plan, devices, options, Arc::new(|_| ())).unwrap()
}

#[test]
fn a_lost_device_is_the_one_error() {
    let mut engine = engine(Fault::Lost, Duration::from_secs(30));
    let started = Instant::now();
    let error = engine.feed(&[1, 2, 3]).unwrap_err();
    let GenerateError::Session(SessionError::Rank { rank, device, node, cause }) = &error else { panic!("{error}") };
    assert_eq!((*rank, device.as_str()), (2, "faulty"));
    assert!(node.as_ref().is_some_and(|n| n.starts_with("model.layers.")), "{node:?}");
    assert!(matches!(**cause, SessionError::Device(DeviceError::Lost { .. })), "{cause}");
    assert!(started.elapsed() < Duration::from_secs(10), "the others waited for their deadlines");
    assert!(matches!(engine.feed(&[1]), Err(GenerateError::Session(SessionError::Ended))));
}

#[test]
fn a_hanging_device_meets_the_deadline_and_is_named() {
    let mut engine = engine(Fault::Hangs(Duration::from_secs(20)), Duration::from_secs(1));
    let started = Instant::now();
    let error = engine.feed(&[1, 2, 3]).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10), "nobody may wait for the hanging one");
    let GenerateError::Session(SessionError::Stalled { rank, device, node, waiting, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((*rank, device.as_str()), (2, "faulty"), "{error}");
    assert!(node.as_ref().is_some_and(|n| n.starts_with("model.layers.")), "{error}");
    assert!(!waiting.is_empty() && !waiting.contains(&2), "{error}");
    assert!(error.to_string().contains("waited for by rank"), "{error}");
    assert!(matches!(engine.feed(&[1]), Err(GenerateError::Session(SessionError::Ended))));
}

/// The other ranks wait for longer than the deadline, which limits only waits without progress.
#[test]
fn a_slow_device_is_waited_for() {
    let mut engine = engine(Fault::Slow(Duration::from_millis(200), 12), Duration::from_secs(1));
    let started = Instant::now();
    engine.feed(&[1, 2, 3]).unwrap();
    assert!(started.elapsed() > Duration::from_millis(2400));
}

/// A panic of a rank, wherever it occurs: the error names the rank, the device, the node and the panic's message.
#[track_caller]
fn panics(opened: fanfold::Result<Engine>, rank_and_device: (usize, &str), at: Option<&str>, says: &str) {
    let started = Instant::now();
    let error = opened.and_then(|mut engine| Ok(engine.feed(&[1, 2, 3])?)).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10), "the others waited for their deadlines");
    let Error::Session(SessionError::Rank { rank, device, node, cause }) = &error else { panic!("{error}") };
    assert_eq!((*rank, device.as_str()), rank_and_device, "{error}");
    assert_eq!(at.is_some(), node.is_some(), "{error}");
    assert!(node.iter().zip(at).all(|(node, start)| node.starts_with(start)), "{error}");
    let SessionError::Panicked { words } = &**cause else { panic!("{error}") };
    assert!(words.contains(says) && error.to_string().contains(says), "{error}");
}

#[test]
fn a_panic_in_a_rank_is_told_with_its_words() {
    panics(Ok(engine(Fault::Panics, Duration::from_secs(30))), (2, "faulty"), Some("model."), "a defect in a driver");
}

/// Weights whose reader has a defect.
struct Unreadable;

impl Weights for Unreadable {
    fn read(&self, name: &str, _shape: &[usize], _region: &Region) -> Result<Tensor, fanfold::weights::SourceError> {
        panic!("cannot read {name}");
    }
}

#[test]
fn a_panic_while_loading_is_told_with_its_words() {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let options = EngineOptions::default().context(64);
    let opened = Engine::with_weights(model, Arc::new(Unreadable), &plan, hosts(2), options, Arc::new(|_| ()));
    panics(opened.map_err(Error::from), (0, "host"), None, "cannot read ");
}

/// A device that is lost at one instruction of its program: when it executes the instruction, or reads or writes its
/// value.
struct LostAt {
    host: HostDevice,
    instr: usize,
    program: Option<Arc<RankProgram>>,
}

impl LostAt {
    fn lose(&self, here: impl Fn(&Instr) -> bool) -> Result<(), DeviceError> {
        match self.program.as_ref().is_some_and(|program| here(&program.instrs[self.instr])) {
            true => Err(DeviceError::Lost { device: "lost".into(), reason: "unplugged".into() }),
            false => Ok(()),
        }
    }
}

impl Device for LostAt {
    fn name(&self) -> &str {
        "lost"
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), fanfold::device::DeviceError> {
        self.program = Some(program.clone());
        self.host.load(program, limits, weights, progress)
    }

    fn begin(&mut self, env: &Env) -> Result<(), fanfold::device::DeviceError> {
        self.host.begin(env)
    }

    fn execute(&mut self, index: usize) -> Result<(), fanfold::device::DeviceError> {
        self.lose(|_| index == self.instr)?;
        self.host.execute(index)
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), fanfold::device::DeviceError> {
        self.lose(|instr| match instr {
            Instr::Input { value: v, .. } | Instr::Exchange { to: v, .. } => *v == value,
            _ => false,
        })?;
        self.host.write(value, bytes)
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), fanfold::device::DeviceError> {
        self.lose(|instr| matches!(instr, Instr::Output { value: v, .. } if *v == value))?;
        self.host.read(value, with)
    }

    fn counters(&self) -> Counters {
        self.host.counters()
    }
}

/// Every instruction of the second rank has the name of the value that it makes: in the program, in its printed form,
/// and in the error of a rank that fails there. `run` opens devices and runs the program on them. Returns the kinds of
/// instructions.
fn check_names(
    program: &Program,
    run: impl Fn(Vec<Box<dyn Device>>) -> fanfold::Result<()>,
) -> HashSet<Discriminant<Instr>> {
    let rank = &program.ranks[1];
    let printed = rank.to_string();
    let lines: Vec<&str> = printed.lines().skip(rank.weights.len()).collect();
    assert_eq!(lines.len(), rank.instrs.len());
    let mut tried = HashSet::new();
    for (i, instr) in rank.instrs.iter().enumerate() {
        let node = rank.node(i).unwrap();
        let made = match instr {
            Instr::Input { value: v, .. } | Instr::Compute { output: v, .. } | Instr::Zero { output: v } => Some(v),
            Instr::Exchange { to, .. } => Some(to),
            Instr::Output { .. } => None,
        };
        assert!(made.is_none_or(|&v| rank.values[v].name == node), "instruction {i}: {node}");
        assert!(lines[i].split(' ').any(|word| word == node), "{node} is not in {}", lines[i]);
        // One layer is tested for all, and one instruction of each kind and node.
        if node.contains(".1.") || !tried.insert((discriminant(instr), node)) {
            continue;
        }
        let mut devices = hosts(2);
        devices[1] = Box::new(LostAt { host: HostDevice::new(), instr: i, program: None });
        match run(devices) {
            Err(Error::Session(SessionError::Rank { rank: 1, node: Some(found), .. })) => {
                assert_eq!(found, node, "instruction {i}: {instr:?}");
            }
            other => panic!("instruction {i} of {node}: {other:?}"),
        }
    }
    tried.into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn instructions_are_called_by_what_they_make() {
    let mut kinds = HashSet::new();
    for (name, strategy) in [("llama-uneven", Strategy::Tensor), ("gpt2", Strategy::Row), ("mixtral", Strategy::Column)]
    {
        let model = Arc::new(Model::open(fixture(name)).unwrap());
        let plan = plan(model.graph(), strategy, &[2.0, 1.0]).unwrap();
        kinds.extend(check_names(&lower(model.graph(), &plan).unwrap(), |devices| {
            let options = EngineOptions::default().context(16);
            let mut engine = Engine::open(model.clone(), &plan, devices, options, Arc::new(|_| ()))?;
            engine.feed(&[1, 2, 3])?;
            Ok(())
        }));
    }
    // A bias that is an input of the call, under a contracted cut: the second rank uses zeros instead.
    let mut graph = Graph::new();
    let ids = [("x", [1.into(), 4.into()].to_vec()), ("bias", vec![6.into()])]
        .map(|(name, shape)| graph.input(name, shape, DType::F32).unwrap());
    let weight = graph.weight("w", [6.into(), 4.into()], DType::F32).unwrap();
    let sum = graph.node("product", Linear, &[ids[0], weight, ids[1]]).unwrap();
    let whole = graph.node("shares", Softmax, &[sum]).unwrap();
    graph.output("y", whole).unwrap();
    let cut = NodeCut { node: "product".into(), factor: "k".into(), cut: Cut::by_ratio(4, &[1.0; 2]).unwrap() };
    let program = lower(&graph, &common::plan_of(&graph, Some(cut), 2)).unwrap();
    kinds.extend(check_names(&program, |devices| {
        let env = Env::prompt(1);
        let options = Options::new(env);
        let weights = HashMap::from([("w".to_string(), Tensor::f32([6, 4], vec![0.5; 24])?)]);
        let mut session = Session::open(program.clone(), devices, Arc::new(weights), options, Arc::new(|_| ()))?;
        let inputs = [
            ("x".to_string(), Tensor::f32([1, 4], vec![1.0; 4])?),
            ("bias".to_string(), Tensor::f32([6], vec![0.0; 6])?),
        ];
        session.run(env, inputs.into())?;
        Ok(())
    }));
    assert_eq!(kinds.len(), 5, "all kinds of instructions are met");
}

#[test]
fn what_cannot_run_is_refused_and_the_session_lives() {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let options = EngineOptions::default().context(16).chunk(5);
    let mut engine = Engine::open(model, &plan, hosts(2), options, Arc::new(|_| ())).unwrap();
    assert!(matches!(engine.feed(&[]), Err(GenerateError::EmptyPrompt)));
    assert!(matches!(engine.feed(&[1024]), Err(GenerateError::Token { token: 1024, vocabulary: 1024 })));
    let context = engine.feed(&[1; 17]);
    assert!(matches!(context, Err(GenerateError::Context { tokens: 17, capacity: 16, .. })));
    assert!(matches!(engine.embed(&[1]), Err(GenerateError::Model { .. })));
    let logits = engine.feed(&[1; 16]).unwrap();
    assert_eq!((logits.shape(), values(&logits).iter().all(|x| x.is_finite())), (&[1, 1024][..], true));
    assert!(engine.feed(&[1]).is_err());
}

#[test]
fn devices_must_be_as_many_as_ranks() {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    assert!(Engine::open(model, &plan, hosts(3), EngineOptions::default(), Arc::new(|_| ())).is_err());
}
