//! A rank that fails ends the others promptly with one clear error; a session refuses what it cannot run and lives on.

mod common;

use common::{Fault, Faulty, hosts, values};
use fanfold::device::host::HostDevice;
use fanfold::error::{DeviceError, Error, SessionError};
use fanfold::generate::{Engine, EngineOptions};
use fanfold::import::Model;
use fanfold::plan::{Strategy, plan};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn engine(fault: Fault, deadline: Duration) -> Engine {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 4]).unwrap();
    let mut devices = hosts(4);
    devices[2] = Box::new(Faulty { host: HostDevice::new(), at: 30, fault });
    let options = EngineOptions { deadline, context: 64, ..EngineOptions::default() };
    Engine::open(model, &plan, devices, options, Arc::new(|_| ())).unwrap()
}

#[test]
fn a_lost_device_is_the_one_error() {
    let mut engine = engine(Fault::Lost, Duration::from_secs(30));
    let started = Instant::now();
    let error = engine.feed(&[1, 2, 3]).unwrap_err();
    let Error::Session(SessionError::Rank { rank, device, node, source }) = &error else { panic!("{error}") };
    assert_eq!((*rank, device.as_str()), (2, "faulty"));
    assert!(node.as_ref().is_some_and(|n| n.starts_with("model.layers.")), "{node:?}");
    assert!(matches!(**source, Error::Device(DeviceError::Lost { .. })), "{source}");
    assert!(started.elapsed() < Duration::from_secs(10), "the others waited for their deadlines");
    assert!(matches!(engine.feed(&[1]), Err(Error::Session(SessionError::Ended))));
}

#[test]
fn a_hanging_device_meets_the_deadline() {
    let mut engine = engine(Fault::Hangs(Duration::from_secs(4)), Duration::from_millis(300));
    let started = Instant::now();
    engine.feed(&[1, 2, 3]).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "nobody may wait for the hanging one");
}

#[test]
fn a_panic_in_a_rank_ends_the_call() {
    let mut engine = engine(Fault::Panics, Duration::from_secs(30));
    let started = Instant::now();
    engine.feed(&[1, 2, 3]).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_cannot_run_is_refused_and_the_session_lives() {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let options = EngineOptions { context: 16, chunk: 5, ..EngineOptions::default() };
    let mut engine = Engine::open(model, &plan, hosts(2), options, Arc::new(|_| ())).unwrap();
    assert!(matches!(engine.feed(&[]), Err(Error::Session(SessionError::EmptyPrompt))));
    assert!(matches!(engine.feed(&[1024]), Err(Error::Session(SessionError::Token { token: 1024, vocabulary: 1024 }))));
    let context = engine.feed(&[1; 17]);
    assert!(matches!(context, Err(Error::Session(SessionError::Context { tokens: 17, capacity: 16, .. }))));
    assert!(matches!(engine.embed(&[1]), Err(Error::Session(SessionError::Model { .. }))));
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
