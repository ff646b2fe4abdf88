//! Two ranks in two processes, over loopback sockets, with a communicator that this test defines.
//!
//! The test starts itself again as the second process. Both processes lower the same plan and run one rank each. The
//! parts of the outputs, put together, have the bits of a session in one process.

mod common;

use common::hosts;
use fanfold::Model;
use fanfold::comm::{CommError, Communicator};
use fanfold::device::host::HostDevice;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Program, lower};
use fanfold::session::{Options, OutputShard, Rank, Session, SessionError, stack};
use fanfold::shape::{Env, Limits};
use fanfold::tensor::{SymbolicRegion, Tensor};
use fanfold::weights::Weights;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The environment variable that marks the second process and holds the address on which the first one listens.
const ADDRESS: &str = "FANFOLD_TEST_ADDRESS";

/// How long a rank waits for the other one.
const DEADLINE: Duration = Duration::from_secs(20);

/// A rank's end of one connection; each message is its length and its bytes.
struct Socket {
    rank: usize,
    stream: TcpStream,
}

impl Socket {
    fn new(rank: usize, stream: TcpStream) -> Socket {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Socket { rank, stream }
    }

    fn failed(&self, error: &std::io::Error) -> CommError {
        let (rank, peer) = (self.rank, 1 - self.rank);
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => CommError::Deadline { rank, peer, deadline: DEADLINE },
            _ => CommError::PeerEnded { rank, peer },
        }
    }
}

impl Communicator for Socket {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        2
    }

    fn send(&mut self, _: usize, bytes: &[u8]) -> Result<(), CommError> {
        let length = (bytes.len() as u64).to_le_bytes();
        let sent = self.stream.write_all(&length).and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|error| self.failed(&error))
    }

    fn receive(&mut self, peer: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let mut length = [0; 8];
        self.stream.read_exact(&mut length).map_err(|error| self.failed(&error))?;
        let found = u64::from_le_bytes(length) as usize;
        if found != bytes.len() {
            return Err(CommError::Length { rank: self.rank, peer, expected: bytes.len(), found });
        }
        self.stream.read_exact(bytes).map_err(|error| self.failed(&error))
    }
}

/// A call on six tokens with all logits kept: larger than what a socket buffers.
fn env() -> Env {
    Env { capacity: 64, ..Env::prompt(48) }
}

fn inputs() -> HashMap<String, Tensor> {
    let ids = (0..48).map(|i| 1 + i * 5 % 380).collect();
    HashMap::from([
        ("input_ids".to_string(), Tensor::u32([1, 48], ids).unwrap()),
        ("position_ids".to_string(), Tensor::u32([1, 48], (0..48).collect()).unwrap()),
        ("key_range".to_string(), Tensor::u32([1, 2], vec![0, 64]).unwrap()),
    ])
}

fn model() -> (Arc<Model>, Program) {
    let model = Arc::new(Model::demo().unwrap());
    let plan = plan(model.graph(), Strategy::Tensor, &[3.0, 2.0]).unwrap();
    let program = lower(model.graph(), &plan).unwrap();
    (model, program)
}

/// Runs one rank of the demo model over `stream`.
fn run(rank: usize, stream: TcpStream) -> Result<Vec<OutputShard>, SessionError> {
    let (model, program) = model();
    let socket = Box::new(Socket::new(rank, stream));
    let mut rank = Rank::new(program.ranks[rank].clone(), Box::new(HostDevice::new()), socket)?;
    let weights: Arc<dyn Weights> = model;
    rank.load(&Limits::from(env()), &weights, &|_| ())?;
    let shards = rank.run(&env(), &inputs())?;
    assert!(rank.report().sent_bytes > 100_000, "{:?}", rank.report());
    Ok(shards)
}

/// Starts this program again as the second process, to run the test called `test`.
fn second(test: &str, listener: &TcpListener) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ADDRESS, listener.local_addr().unwrap().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The second process's connection; `None` in the first one.
fn connection() -> Option<TcpStream> {
    Some(TcpStream::connect(std::env::var(ADDRESS).ok()?).unwrap())
}

/// The second process's connection, as the first one sees it. Panics when there is none within the deadline.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && started.elapsed() < DEADLINE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("no second process: {error}"),
        }
    }
}

/// The work of the second process: it runs rank 1 and sends its parts of the outputs to the first process, as JSON.
fn be_second(stream: TcpStream) {
    let mut back = stream.try_clone().unwrap();
    let shards = run(1, stream).unwrap();
    let parts: Vec<_> = shards.iter().map(|shard| (&shard.name, &shard.region, &shard.bytes)).collect();
    let text = serde_json::to_vec(&parts).unwrap();
    back.write_all(&(text.len() as u64).to_le_bytes()).unwrap();
    back.write_all(&text).unwrap();
}

#[test]
fn two_processes_give_the_bits_of_one() {
    if let Some(stream) = connection() {
        return be_second(stream);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = second("two_processes_give_the_bits_of_one", &listener);
    let stream = accept(&listener);
    let mut more = stream.try_clone().unwrap();
    let mut shards = run(0, stream).unwrap();
    let mut length = [0; 8];
    more.read_exact(&mut length).unwrap();
    let mut text = vec![0; u64::from_le_bytes(length) as usize];
    more.read_exact(&mut text).unwrap();
    let parts: Vec<(String, SymbolicRegion, Vec<u8>)> = serde_json::from_slice(&text).unwrap();
    assert!(!parts.is_empty(), "the second rank holds a part of the vocabulary");
    shards.extend(parts.into_iter().map(|(name, region, bytes)| OutputShard { name, region, bytes }));
    assert!(child.wait().unwrap().success());
    let (model, program) = model();
    let mut session = Session::open(program.clone(), hosts(2), model, Options::new(env()), Arc::new(|_| ())).unwrap();
    let expected = session.run(env(), inputs()).unwrap();
    assert_eq!(stack(&program, &env(), shards.clone()).unwrap(), expected);
    let message = |shards: Vec<OutputShard>| stack(&program, &env(), shards).unwrap_err().to_string();
    let found = message(shards[1..].to_vec());
    assert!(found.contains("pass those of every rank, once"), "a shard is missing: {found}");
    let found = message([shards.clone(), shards[..1].to_vec()].concat());
    assert!(found.contains("pass those of every rank, once"), "a shard is passed twice: {found}");
    let mut torn = shards.clone();
    torn[0].bytes.pop();
    assert!(message(torn).contains("bytes, its region"), "a shard is cut short");
    let mut outside = shards.clone();
    outside[0].region = SymbolicRegion(vec![(7, 0..1)]);
    assert!(message(outside).contains("is not a region of"), "a shard has a dimension that the output lacks");
    let mut other = shards;
    other[0].name = "another".to_string();
    assert!(message(other).contains("no output of this name"), "a shard is of another program");
}

#[test]
fn a_process_that_is_killed_ends_the_other_ones_wait() {
    if let Some(_stream) = connection() {
        // This process keeps the connection open and sends nothing, until it is killed.
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = second("a_process_that_is_killed_ends_the_other_ones_wait", &listener);
    let stream = accept(&listener);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        child.wait().unwrap()
    });
    let started = Instant::now();
    let error = run(0, stream).unwrap_err();
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    let SessionError::Rank { rank: 0, cause, node: Some(_), .. } = &error else { panic!("{error}") };
    assert!(matches!(**cause, SessionError::Comm(CommError::PeerEnded { rank: 0, peer: 1 })), "{error}");
    assert!(!killer.join().unwrap().success());
}
