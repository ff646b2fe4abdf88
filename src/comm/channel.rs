//! A communicator between threads of one process, over crossbeam channels.
//!
//! One unbounded channel per ordered pair of ranks, so a sender never waits and messages of a pair keep their order. It
//! knows nothing of what ranks do; a rank that drops its end ends every wait for it at once. Read [`crate::session`]
//! for who holds the ends.

use super::{Bytes, Communicator};
use crate::error::{CommError, Result};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::time::Duration;

/// One rank's end.
pub struct ChannelCommunicator {
    rank: usize,
    deadline: Duration,
    senders: Vec<Sender<Bytes>>,
    receivers: Vec<Receiver<Bytes>>,
}

/// The ends of `world_size` connected ranks, each waiting at most `deadline` for a message.
pub fn channels(world_size: usize, deadline: Duration) -> Vec<ChannelCommunicator> {
    let mut ends: Vec<ChannelCommunicator> = (0..world_size)
        .map(|rank| ChannelCommunicator { rank, deadline, senders: Vec::new(), receivers: Vec::new() })
        .collect();
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

    fn send(&self, to: usize, bytes: Bytes) -> Result<()> {
        let ended = CommError::PeerEnded { rank: self.rank, peer: to };
        self.senders.get(to).and_then(|sender| sender.send(bytes).ok()).ok_or(ended.into())
    }

    fn receive(&self, from: usize) -> Result<Bytes> {
        let (rank, peer, deadline) = (self.rank, from, self.deadline);
        let Some(receiver) = self.receivers.get(from) else {
            return Err(CommError::PeerEnded { rank, peer }.into());
        };
        receiver.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => CommError::Deadline { rank, peer, deadline }.into(),
            RecvTimeoutError::Disconnected => CommError::PeerEnded { rank, peer }.into(),
        })
    }
}
