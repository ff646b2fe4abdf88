//! A transport of your own: two ranks of one model over TCP, each with only its rank, its device and a socket.
//!
//! Here the ranks are threads; in two processes or on two hosts, each would run the same `rank` function. The transport
//! implements only `send` and `receive`, and the trait makes the collectives of them.

use fanfold::comm::{CommError, Communicator};
use fanfold::device::host::HostDevice;
use fanfold::plan::{Strategy, plan};
use fanfold::session::{Options, OutputShard, Rank, Session, SessionError, stack};
use fanfold::shape::{Env, Limits};
use fanfold::{Model, program::Program, program::lower, tensor::Tensor, weights::Weights};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{collections::HashMap, sync::Arc, time::Duration};

struct Socket(usize, TcpStream);

impl Communicator for Socket {
    fn rank(&self) -> usize {
        self.0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn send(&mut self, peer: usize, bytes: &[u8]) -> Result<(), CommError> {
        self.1.write_all(bytes).map_err(|_| CommError::PeerEnded { rank: self.0, peer })
    }
    fn receive(&mut self, peer: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        self.1.read_exact(bytes).map_err(|_| CommError::PeerEnded { rank: self.0, peer })
    }
}

/// The inputs of a call with four tokens, which every rank is given.
fn inputs() -> fanfold::Result<HashMap<String, Tensor>> {
    Ok(HashMap::from([
        ("input_ids".into(), Tensor::u32([1, 4], vec![50, 47, 45, 1])?),
        ("position_ids".into(), Tensor::u32([1, 4], vec![0, 1, 2, 3])?),
        ("key_range".into(), Tensor::u32([1, 2], vec![0, 16])?),
    ]))
}

/// Rank `r`: loads its part of the program and runs it once.
fn rank(
    r: usize,
    program: &Program,
    model: Arc<dyn Weights>,
    socket: TcpStream,
) -> Result<Vec<OutputShard>, SessionError> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out is not zero");
    let mut rank = Rank::new(program.ranks[r].clone(), Box::new(HostDevice::new()), Box::new(Socket(r, socket)))?;
    let env = Env { capacity: 16, keep: 1, ..Env::prompt(4) };
    rank.load(&Limits::from(env), &model, &|_bytes| ())?;
    rank.run(&env, &inputs().expect("shapes fit"))
}

pub fn main() -> fanfold::Result<()> {
    let model = Arc::new(Model::demo()?);
    let program = lower(model.graph(), &plan(model.graph(), Strategy::Tensor, &[2.0, 1.0])?)?;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound listener");
    let shards = std::thread::scope(|scope| {
        let (model, program) = (&model, &program);
        let first = scope.spawn(move || rank(0, program, model.clone(), listener.accept().expect("a peer").0));
        let second = TcpStream::connect(address).expect("a listener");
        let second = rank(1, program, model.clone(), second);
        [first.join().expect("no panic"), second]
    });
    let shards: Vec<OutputShard> = shards.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let env = Env { capacity: 16, keep: 1, ..Env::prompt(4) };
    let outputs = stack(&program, &env, shards)?;
    let devices = (0..2).map(|_| Box::new(HostDevice::new()) as Box<dyn fanfold::device::Device>).collect();
    let mut session = Session::open(program, devices, model, Options::new(env), Arc::new(|_| ()))?;
    assert_eq!(outputs, session.run(env, inputs()?)?, "the same bits as in a session over channels");
    println!("two ranks over TCP give {} logits", outputs["logits"].numel());
    Ok(())
}
