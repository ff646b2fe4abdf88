//! Every collective against a naive version that sees all ranks at once, with uneven sizes, on 1 to 8 ranks: in the
//! native version of the channels, and in the default version made of send and receive, over a transport without
//! buffers.

use crossbeam::channel::{Receiver, Sender, bounded};
use fanfold::comm::channel::channels;
use fanfold::comm::{CommError, Communicator};
use fanfold::random::Random;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A transport with only the two functions that must be written, whose `send` waits for the receiver.
struct Unbuffered {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl Communicator for Unbuffered {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.to.len()
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError> {
        let (rank, peer, deadline) = (self.rank, to, Duration::from_secs(20));
        let sent = self.to[to].send_timeout(bytes.to_vec(), deadline);
        sent.map_err(|_| CommError::Deadline { rank, peer, deadline })
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let (rank, peer, deadline) = (self.rank, from, Duration::from_secs(20));
        let message = self.from[from].recv_timeout(deadline);
        bytes.copy_from_slice(&message.map_err(|_| CommError::Deadline { rank, peer, deadline })?);
        Ok(())
    }
}

fn unbuffered(world: usize) -> Vec<Box<dyn Communicator>> {
    let mut ends: Vec<Unbuffered> =
        (0..world).map(|rank| Unbuffered { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..world {
        for to in 0..world {
            let (sender, receiver) = bounded(0);
            ends[from].to.push(sender);
            ends[to].from.push(receiver);
        }
    }
    ends.into_iter().map(|end| Box::new(end) as Box<dyn Communicator>).collect()
}

fn native(world: usize) -> Vec<Box<dyn Communicator>> {
    let ends = channels(world, Duration::from_secs(30)).into_iter();
    ends.map(|end| Box::new(end) as Box<dyn Communicator>).collect()
}

/// Runs `body` for every rank on a thread of its own, and returns the results.
fn on_ranks<T: Send>(ends: Vec<Box<dyn Communicator>>, body: impl Fn(&mut dyn Communicator) -> T + Sync) -> Vec<T> {
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ends.into_iter().map(|mut end| scope.spawn(move || body(end.as_mut()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn some(random: &mut Random, n: usize) -> Vec<u8> {
    (0..n).map(|_| random.word() as u8).collect()
}

fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.unit()).collect()
}

fn buffers(lengths: &[Option<usize>]) -> Vec<Option<Vec<u8>>> {
    lengths.iter().map(|length| length.map(|n| vec![0xEE; n])).collect()
}

/// The sum in the order of ranks, element by element.
fn sums<'a>(parts: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    parts.cloned().reduce(|sum, part| sum.iter().zip(&part).map(|(a, b)| a + b).collect()).unwrap()
}

fn check(make: fn(usize) -> Vec<Box<dyn Communicator>>, seed: u64, world: usize) -> Result<(), TestCaseError> {
    let mut random = Random::new(seed);
    // given[r][q] is the message of rank r to rank q: any number of bytes, or none.
    let given: Vec<Vec<Option<Vec<u8>>>> = (0..world)
        .map(|_| {
            (0..world)
                .map(|_| {
                    let n = random.range(0, 40);
                    (n > 5).then(|| some(&mut random, n - 6))
                })
                .collect()
        })
        .collect();
    let exchanged = on_ranks(make(world), |end| {
        let mine: Vec<Option<&[u8]>> = given[end.rank()].iter().map(Option::as_deref).collect();
        let lengths: Vec<_> = given.iter().map(|parts| parts[end.rank()].as_ref().map(Vec::len)).collect();
        let mut received = buffers(&lengths);
        let mut slices: Vec<Option<&mut [u8]>> = received.iter_mut().map(Option::as_deref_mut).collect();
        end.all_to_all(&mine, &mut slices).unwrap();
        received
    });
    for (q, received) in exchanged.iter().enumerate() {
        for (r, part) in received.iter().enumerate() {
            prop_assert_eq!(part, &given[r][q]);
        }
    }
    let gathered = on_ranks(make(world), |end| {
        let mine = given[end.rank()][0].as_deref();
        let lengths: Vec<_> = given.iter().map(|parts| parts[0].as_ref().map(Vec::len)).collect();
        let mut received = buffers(&lengths);
        let mut slices: Vec<Option<&mut [u8]>> = received.iter_mut().map(Option::as_deref_mut).collect();
        end.all_gather(mine, &mut slices).unwrap();
        received
    });
    for received in &gathered {
        for (r, part) in received.iter().enumerate() {
            prop_assert_eq!(part, &given[r][0]);
        }
    }
    // The data to be summed have one length per receiver, and the lengths differ between receivers.
    let lengths: Vec<usize> = (0..world).map(|_| random.range(0, 9)).collect();
    let addends: Vec<Vec<Vec<f32>>> =
        (0..world).map(|_| lengths.iter().map(|&n| floats(&mut random, n)).collect()).collect();
    let scattered = on_ranks(make(world), |end| {
        let parts: Vec<&[f32]> = addends[end.rank()].iter().map(Vec::as_slice).collect();
        let mut sum = vec![f32::NAN; lengths[end.rank()]];
        end.reduce_scatter(&parts, &mut sum).unwrap();
        sum
    });
    for (q, sum) in scattered.iter().enumerate() {
        prop_assert_eq!(sum, &sums(addends.iter().map(|parts| &parts[q])));
    }
    let reduced = on_ranks(make(world), |end| {
        let mut sum = vec![f32::NAN; lengths[0]];
        end.all_reduce(&addends[end.rank()][0], &mut sum).unwrap();
        sum
    });
    for sum in &reduced {
        let naive = sums(addends.iter().map(|parts| &parts[0]));
        prop_assert_eq!(sum, &naive, "folds in rank order give every rank the same bits");
    }
    let root = random.range(0, world - 1);
    let words = some(&mut random, 17);
    let told = on_ranks(make(world), |end| {
        let mut bytes = if end.rank() == root { words.clone() } else { vec![0; 17] };
        end.broadcast(root, &mut bytes).unwrap();
        bytes
    });
    prop_assert!(told.iter().all(|bytes| *bytes == words));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn collectives_over_channels_equal_the_naive_ones(seed: u64, world in 1usize..=8) {
        check(native, seed, world)?;
    }

    #[test]
    fn collectives_made_of_send_and_receive_equal_the_naive_ones(seed: u64, world in 1usize..=8) {
        check(unbuffered, seed, world)?;
    }
}

#[test]
fn a_rank_that_ends_ends_the_waits_for_it() {
    let started = Instant::now();
    let results = on_ranks(native(3), |end| {
        let mut bytes = [[0u8; 4]; 3];
        let mut received: Vec<Option<&mut [u8]>> = bytes.iter_mut().map(|part| Some(part.as_mut_slice())).collect();
        match end.rank() {
            1 => Ok(()),
            _ => end.all_gather(Some(&[1, 2, 3, 4]), &mut received),
        }
    });
    assert!(matches!(results[0], Err(CommError::PeerEnded { rank: 0, peer: 1 })));
    assert!(matches!(results[2], Err(CommError::PeerEnded { rank: 2, peer: 0 | 1 })));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_silent_rank_meets_the_deadline() {
    let mut ends = channels(2, Duration::from_millis(50));
    let result = ends[0].receive(1, &mut [0]);
    assert!(matches!(result, Err(CommError::Deadline { rank: 0, peer: 1, .. })));
}

#[test]
fn misuse_is_an_error_of_its_own_type() {
    let mut ends = channels(2, Duration::from_millis(50));
    assert!(matches!(ends[0].all_to_all(&[None], &mut [None, None]), Err(CommError::Parts { found: 1, .. })));
    assert!(matches!(ends[0].all_gather(None, &mut [None]), Err(CommError::Parts { found: 1, .. })));
    assert!(matches!(ends[0].send(7, &[]), Err(CommError::PeerEnded { peer: 7, .. })));
    assert!(matches!(ends[0].broadcast(2, &mut []), Err(CommError::PeerEnded { peer: 2, .. })));
    ends[1].send(0, &[1, 2, 3]).unwrap();
    let expected = CommError::Length { rank: 0, peer: 1, expected: 2, found: 3 };
    assert_eq!(ends[0].receive(1, &mut [0; 2]).unwrap_err().to_string(), expected.to_string());
    let own = ends[0].all_to_all(&[Some(&[1]), None], &mut [Some(&mut [0, 0]), None]);
    assert!(matches!(own, Err(CommError::Length { peer: 0, .. })));
    let own = ends[0].all_reduce(&[1.0], &mut [0.0; 2]);
    assert!(matches!(own, Err(CommError::Length { peer: 0, .. })));
    assert!(matches!(ends[0].reduce_scatter(&[&[]], &mut []), Err(CommError::Parts { found: 1, .. })));
}
