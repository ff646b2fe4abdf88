//! Sessions over a user's own communicators, and a rank by itself: the same bits, and bad calls are refused before any
//! work.

mod common;

use common::hosts;
use fanfold::Model;
use fanfold::comm::channel::{ChannelCommunicator, channels};
use fanfold::comm::{CommError, Communicator};
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Program, lower};
use fanfold::session::{Options, Rank, Session, SessionError};
use fanfold::shape::{Env, Limits};
use fanfold::tensor::Tensor;
use fanfold::wait::Progress;
use fanfold::weights::Weights;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A communicator with only send and receive. Its collectives are the trait's default ones.
struct Plain(ChannelCommunicator);

impl Communicator for Plain {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn world_size(&self) -> usize {
        self.0.world_size()
    }
    fn share_progress(&mut self, progress: &Progress) {
        self.0.share_progress(progress);
    }
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError> {
        self.0.send(to, bytes)
    }
    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        self.0.receive(from, bytes)
    }
}

fn ends(world: usize) -> Vec<Box<dyn Communicator>> {
    let ends = channels(world, Duration::from_secs(20)).into_iter();
    ends.map(|end| Box::new(Plain(end)) as Box<dyn Communicator>).collect()
}

fn env() -> Env {
    Env { capacity: 16, ..Env::prompt(4) }
}

fn inputs() -> HashMap<String, Tensor> {
    HashMap::from([
        ("input_ids".to_string(), Tensor::u32([1, 4], vec![50, 47, 45, 1]).unwrap()),
        ("position_ids".to_string(), Tensor::u32([1, 4], vec![0, 1, 2, 3]).unwrap()),
        ("key_range".to_string(), Tensor::u32([1, 2], vec![0, 16]).unwrap()),
    ])
}

fn program(shares: &[f64]) -> (Arc<Model>, Program) {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, shares).unwrap();
    let program = lower(model.graph(), &plan).unwrap();
    (model, program)
}

fn open(shares: &[f64], ends: Vec<Box<dyn Communicator>>) -> Result<Session, SessionError> {
    let (model, program) = program(shares);
    let devices = hosts(shares.len());
    Session::with_communicators(program, devices, ends, model, Options::new(env()), Arc::new(|_| ()))
}

#[test]
fn a_session_over_own_communicators_gives_the_bits_of_one_over_channels() {
    let shares = [3.0, 2.0, 1.0];
    let (model, program) = program(&shares);
    let mut session = Session::open(program, hosts(3), model, Options::new(env()), Arc::new(|_| ())).unwrap();
    let expected = session.run(env(), inputs()).unwrap();
    assert_eq!(open(&shares, ends(3)).unwrap().run(env(), inputs()).unwrap(), expected);
}

#[test]
fn communicators_that_do_not_fit_the_plan_are_refused() {
    let refused = |ends| open(&[1.0, 1.0], ends).err().unwrap();
    assert!(matches!(refused(ends(3)), SessionError::Communicators { plan: 2, given: 3 }));
    let two_of_three = ends(3).into_iter().take(2).collect();
    assert!(matches!(refused(two_of_three), SessionError::Communicators { plan: 2, given: 3 }));
    let swapped = ends(2).into_iter().rev().collect();
    assert!(matches!(refused(swapped), SessionError::WrongRank { program: 0, communicator: 1 }));
}

#[test]
fn a_rank_by_itself_refuses_a_bad_call_and_lives_on() {
    let (model, program) = program(&[1.0]);
    let weights: Arc<dyn Weights> = model;
    let mut rank = Rank::new(program.ranks[0].clone(), hosts(1).remove(0), ends(1).remove(0)).unwrap();
    assert!(matches!(rank.run(&env(), &inputs()), Err(SessionError::NotLoaded)));
    rank.load(&Limits::from(env()), &weights, &|_| ()).unwrap();
    let long = Env { past: 14, ..env() };
    assert!(matches!(rank.run(&long, &inputs()), Err(SessionError::Context { tokens: 18, capacity: 16 })));
    let keeps_too_many = Env { keep: 5, ..env() };
    assert!(matches!(rank.run(&keeps_too_many, &inputs()), Err(SessionError::Input { .. })));
    let mut missing = inputs();
    missing.remove("key_range");
    assert!(matches!(rank.run(&env(), &missing), Err(SessionError::Input { name, .. }) if name == "key_range"));
    let mut floats = inputs();
    floats.insert("input_ids".to_string(), Tensor::f32([1, 4], vec![1.0; 4]).unwrap());
    assert!(matches!(rank.run(&env(), &floats), Err(SessionError::Input { name, .. }) if name == "input_ids"));
    assert!(!rank.run(&env(), &inputs()).unwrap().is_empty());
}
