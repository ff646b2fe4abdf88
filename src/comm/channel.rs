//! A communicator between threads of one process, over crossbeam channels.
//!
//! One unbounded channel per ordered pair of ranks, so a sender never waits and messages of a pair keep their order. It
//! knows nothing of what ranks do; a rank that drops its end ends every wait for it at once. Read [`crate::session`]
//! for who holds the ends.

use super::{Bytes, Communicator};
use crate::comm::CommError;

use crate::wait::{Progress, Wait};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::time::Duration;

/// One rank's end.
pub struct ChannelCommunicator {
    rank: usize,
    deadline: Duration,
    progress: Progress,
    senders: Vec<Sender<Bytes>>,
    receivers: Vec<Receiver<Bytes>>,
}

/// The ends of `world_size` connected ranks, each waiting for a message until nobody has received one for `deadline`.
pub fn channels(world_size: usize, deadline: Duration) -> Vec<ChannelCommunicator> {
    channels_with(world_size, deadline, &Progress::default())
}

/// As [`channels`], between ranks that also count what else they do in `progress`.
pub fn channels_with(world_size: usize, deadline: Duration, progress: &Progress) -> Vec<ChannelCommunicator> {
    let end = |rank| {
        let (progress, senders, receivers) = (progress.clone(), Vec::new(), Vec::new());
        ChannelCommunicator { rank, deadline, progress, senders, receivers }
    };
    let mut ends: Vec<ChannelCommunicator> = (0..world_size).map(end).collect();
    for from in 0..world_size {
        for to in 0..world_size {
            let (sender, receiver) = unbounded();
            ends[from].senders.push(sender);
            ends[to].receivers.push(receiver);
        }
    }
    ends
}

impl Communicator for ChannelCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.senders.len()
    }

    fn send(&self, to: usize, bytes: Bytes) -> Result<(), CommError> {
        let ended = CommError::PeerEnded { rank: self.rank, peer: to };
        self.senders.get(to).and_then(|sender| sender.send(bytes).ok()).ok_or(ended)
    }

    fn receive(&self, from: usize) -> Result<Bytes, CommError> {
        let (rank, peer, deadline) = (self.rank, from, self.deadline);
        let Some(receiver) = self.receivers.get(from) else {
            return Err(CommError::PeerEnded { rank, peer });
        };
        let mut wait = Wait::new(&self.progress, deadline);
        loop {
            match receiver.recv_timeout(wait.slice()) {
                Ok(bytes) => {
                    self.progress.step();
                    return Ok(bytes);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(CommError::PeerEnded { rank, peer }),
                Err(RecvTimeoutError::Timeout) if wait.expired() => {
                    return Err(CommError::Deadline { rank, peer, deadline });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
