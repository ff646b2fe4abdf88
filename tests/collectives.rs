//! Every collective against a naive version that sees all ranks at once, with ragged sizes, on 1 to 8 ranks.

use fanfold::comm::CommError;
use fanfold::comm::channel::{ChannelCommunicator, channels};
use fanfold::comm::{Bytes, Communicator, add_f32};
use fanfold::random::Random;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// What every rank returns from `body`, each on a thread of its own.
fn on_ranks<T: Send>(world: usize, body: impl Fn(&ChannelCommunicator) -> T + Sync) -> Vec<T> {
    let ends = channels(world, Duration::from_secs(30));
    let body = &body;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ends.into_iter().map(|end| scope.spawn(move || body(&end))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.unit()).collect()
}

fn bytes(values: &[f32]) -> Bytes {
    Bytes::from(bytemuck::cast_slice::<f32, u8>(values))
}

fn sums(parts: &[&Vec<f32>]) -> Vec<f32> {
    let mut sum = parts[0].clone();
    for part in &parts[1..] {
        sum.iter_mut().zip(part.iter()).for_each(|(s, p)| *s += p);
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn collectives_equal_the_naive_ones(seed: u64, world in 1usize..=8) {
        let mut random = Random::new(seed);
        // given[r][q] is what rank r gives to rank q; any may be empty.
        let given: Vec<Vec<Vec<f32>>> = (0..world)
            .map(|_| (0..world).map(|_| { let n = random.range(0, 9); floats(&mut random, n) }).collect())
            .collect();
        let exchanged = on_ranks(world, |end| {
            end.all_to_all(given[end.rank()].iter().map(|part| bytes(part)).collect()).unwrap()
        });
        for (q, received) in exchanged.iter().enumerate() {
            for (r, part) in received.iter().enumerate() {
                prop_assert_eq!(&part[..], &bytes(&given[r][q])[..]);
            }
        }
        let gathered = on_ranks(world, |end| end.all_gather(bytes(&given[end.rank()][0])).unwrap());
        for received in &gathered {
            for (r, part) in received.iter().enumerate() {
                prop_assert_eq!(&part[..], &bytes(&given[r][0])[..]);
            }
        }
        // What is summed has one length for each receiver, other lengths for other receivers.
        let lengths: Vec<usize> = (0..world).map(|_| random.range(0, 9)).collect();
        let addends: Vec<Vec<Vec<f32>>> =
            (0..world).map(|_| lengths.iter().map(|&n| floats(&mut random, n)).collect()).collect();
        let scattered = on_ranks(world, |end| {
            end.reduce_scatter(addends[end.rank()].iter().map(|part| bytes(part)).collect(), &add_f32).unwrap()
        });
        for (q, sum) in scattered.iter().enumerate() {
            let naive = sums(&addends.iter().map(|parts| &parts[q]).collect::<Vec<_>>());
            prop_assert_eq!(&sum[..], &bytes(&naive)[..]);
        }
        let reduced = on_ranks(world, |end| end.all_reduce(bytes(&addends[end.rank()][0]), &add_f32).unwrap());
        let naive = sums(&addends.iter().map(|parts| &parts[0]).collect::<Vec<_>>());
        for sum in &reduced {
            prop_assert_eq!(&sum[..], &bytes(&naive)[..], "folds in rank order give every rank the same bits");
        }
        let root = random.range(0, world - 1);
        let told = on_ranks(world, |end| {
            end.broadcast(root, (end.rank() == root).then(|| bytes(&given[root][0]))).unwrap()
        });
        prop_assert!(told.iter().all(|part| part[..] == bytes(&given[root][0])[..]));
    }
}

#[test]
fn a_rank_that_ends_ends_the_waits_for_it() {
    let started = Instant::now();
    let results = on_ranks(3, |end| match end.rank() {
        1 => Ok(Vec::new()),
        _ => end.all_gather(bytes(&[1.0])),
    });
    assert!(matches!(results[0], Err(CommError::PeerEnded { rank: 0, peer: 1 })));
    assert!(matches!(results[2], Err(CommError::PeerEnded { rank: 2, peer: 0 | 1 })));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_silent_rank_meets_the_deadline() {
    let ends = channels(2, Duration::from_millis(50));
    let result = ends[0].receive(1);
    assert!(matches!(result, Err(CommError::Deadline { rank: 0, peer: 1, .. })));
}

#[test]
fn parts_must_be_one_per_rank() {
    let ends = channels(2, Duration::from_millis(50));
    assert!(matches!(ends[0].all_to_all(vec![bytes(&[])]), Err(CommError::Parts { found: 1, .. })));
    assert!(ends[0].broadcast(0, None).is_err());
    assert!(matches!(ends[0].send(7, bytes(&[])), Err(CommError::PeerEnded { .. })));
}
