//! A communicator between threads of one process, over crossbeam channels.
//!
//! There is one unbounded channel per ordered pair of ranks, so a sender never waits and the messages of a pair keep their
//! order. It deliberately knows nothing of what ranks do; a rank that drops its end ends every wait for it at once. Read
//! [`crate::session`] for who holds the ends.

use super::{CommError, Communicator, check, keep_own};
use crate::wait::{Progress, Wait};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::sync::Arc;
use std::time::Duration;

/// A message; ranks that receive the same bytes share one copy.
type Message = Arc<[u8]>;

/// One rank's end of the channels to all ranks.
pub struct ChannelCommunicator {
    rank: usize,
    deadline: Duration,
    progress: Progress,
    senders: Vec<Sender<Message>>,
    receivers: Vec<Receiver<Message>>,
}

/// The communicators of `world_size` connected ranks, in the order of ranks. A wait for a message ends with an error
/// when no rank has made progress for `deadline`.
pub fn channels(world_size: usize, deadline: Duration) -> Vec<ChannelCommunicator> {
    let progress = Progress::default();
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

impl ChannelCommunicator {
    fn put(&self, to: usize, message: Message) -> Result<(), CommError> {
        let ended = CommError::PeerEnded { rank: self.rank, peer: to };
        self.senders.get(to).and_then(|sender| sender.send(message).ok()).ok_or(ended)
    }

    fn take(&self, from: usize) -> Result<Message, CommError> {
        let (rank, peer, deadline) = (self.rank, from, self.deadline);
        let Some(receiver) = self.receivers.get(from) else {
            return Err(CommError::PeerEnded { rank, peer });
        };
        let mut wait = Wait::new(&self.progress, deadline);
        loop {
            match receiver.recv_timeout(wait.slice()) {
                Ok(message) => {
                    self.progress.step();
                    return Ok(message);
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

impl Communicator for ChannelCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.senders.len()
    }

    fn share_progress(&mut self, progress: &Progress) {
        self.progress = progress.clone();
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError> {
        self.put(to, bytes.into())
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let message = self.take(from)?;
        if message.len() != bytes.len() {
            let (rank, peer, expected, found) = (self.rank, from, bytes.len(), message.len());
            return Err(CommError::Length { rank, peer, expected, found });
        }
        bytes.copy_from_slice(&message);
        Ok(())
    }

    /// Sends everything first, then receives: a send never waits. A part that goes to several ranks is copied once.
    fn all_to_all(&mut self, parts: &[Option<&[u8]>], received: &mut [Option<&mut [u8]>]) -> Result<(), CommError> {
        check(self, "all_to_all", parts.len(), received.len())?;
        keep_own(self.rank, parts, received)?;
        let mut last: Option<(&[u8], Message)> = None;
        for (to, part) in parts.iter().enumerate().filter(|(to, _)| *to != self.rank) {
            let Some(part) = *part else { continue };
            let message = match &last {
                Some((known, message)) if std::ptr::eq(*known, part) => message.clone(),
                _ => Message::from(part),
            };
            self.put(to, message.clone())?;
            last = Some((part, message));
        }
        for (from, bytes) in received.iter_mut().enumerate() {
            if let Some(bytes) = bytes
                && from != self.rank
            {
                self.receive(from, bytes)?;
            }
        }
        Ok(())
    }
}
