//! A communicator between threads of one process, over crossbeam channels.
//!
//! There is one unbounded channel per ordered pair of ranks, so a sender never waits and the messages of a pair keep their
//! order. It deliberately knows nothing of what ranks do; a rank that drops its end ends every wait for it at once. Read
//! [`crate::session`] for who holds the ends.

use super::{CommError, Communicator, add, check, keep_own, same_length};
use crate::wait::{Progress, Wait};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::sync::Arc;
use std::time::Duration;

/// A message, in 32-bit words so that numbers in it are aligned, and its length in bytes. Ranks that receive the same bytes
/// share one copy.
#[derive(Clone, Debug, Default)]
struct Packet {
    words: Vec<u32>,
    bytes: usize,
}

type Message = Arc<Packet>;

impl Packet {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// Replaces the message by `bytes`. Allocates only when it was never as long before.
    fn fill(&mut self, bytes: &[u8]) {
        self.bytes = bytes.len();
        self.words.resize(bytes.len().div_ceil(4), 0);
        bytemuck::cast_slice_mut(&mut self.words)[..bytes.len()].copy_from_slice(bytes);
    }
}

/// One rank's end of the channels to all ranks.
pub struct ChannelCommunicator {
    rank: usize,
    deadline: Duration,
    progress: Progress,
    /// Messages that were sent; those that every receiver has dropped are filled again.
    sent: Vec<Message>,
    senders: Vec<Sender<Message>>,
    receivers: Vec<Receiver<Message>>,
}

/// The communicators of `world_size` connected ranks, in the order of ranks. A wait for a message ends with an error
/// when no rank has made progress for `deadline`.
pub fn channels(world_size: usize, deadline: Duration) -> Vec<ChannelCommunicator> {
    let progress = Progress::default();
    let end = |rank| {
        let (progress, sent, senders, receivers) = (progress.clone(), Vec::new(), Vec::new(), Vec::new());
        ChannelCommunicator { rank, deadline, progress, sent, senders, receivers }
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
    /// A message with these bytes.
    fn message(&mut self, bytes: &[u8]) -> Message {
        let free = self.sent.iter().position(|message| Arc::strong_count(message) == 1).unwrap_or_else(|| {
            self.sent.push(Message::default());
            self.sent.len() - 1
        });
        Arc::make_mut(&mut self.sent[free]).fill(bytes);
        self.sent[free].clone()
    }

    /// Sends `parts[q]` to each other rank `q`. A part that goes to several ranks is copied once.
    fn send_all<'a>(&mut self, parts: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), CommError> {
        let mut last: Option<(&[u8], Message)> = None;
        let rank = self.rank;
        for (to, part) in parts.enumerate().filter(|(to, _)| *to != rank) {
            let Some(part) = part else { continue };
            let message = match &last {
                Some((known, message)) if std::ptr::eq(*known, part) => message.clone(),
                _ => self.message(part),
            };
            self.put(to, message.clone())?;
            last = Some((part, message));
        }
        Ok(())
    }

    /// Fills `sum` with the sum of `mine` and of what all other ranks send, added in the order of ranks.
    fn fold(&mut self, mine: &[f32], sum: &mut [f32]) -> Result<(), CommError> {
        for from in 0..self.receivers.len() {
            if from == self.rank {
                same_length(self.rank, from, std::mem::size_of_val(mine), std::mem::size_of_val(sum))?;
                add(from, mine, sum);
            } else {
                let message = self.take(from)?;
                same_length(self.rank, from, message.bytes, std::mem::size_of_val(sum))?;
                add(from, bytemuck::cast_slice(&message.words), sum);
            }
        }
        Ok(())
    }

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
        let message = self.message(bytes);
        self.put(to, message)
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let message = self.take(from)?;
        same_length(self.rank, from, message.bytes, bytes.len())?;
        bytes.copy_from_slice(message.bytes());
        Ok(())
    }

    // A send never waits here, so each collective sends everything first and receives then.

    fn all_to_all(&mut self, parts: &[Option<&[u8]>], received: &mut [Option<&mut [u8]>]) -> Result<(), CommError> {
        check(self, "all_to_all", parts.len(), received.len())?;
        keep_own(self.rank, parts, received)?;
        self.send_all(parts.iter().copied())?;
        for (from, bytes) in received.iter_mut().enumerate() {
            if let Some(bytes) = bytes
                && from != self.rank
            {
                self.receive(from, bytes)?;
            }
        }
        Ok(())
    }

    fn reduce_scatter(&mut self, parts: &[&[f32]], sum: &mut [f32]) -> Result<(), CommError> {
        check(self, "reduce_scatter", parts.len(), parts.len())?;
        self.send_all(parts.iter().map(|part| Some(bytemuck::cast_slice(part))))?;
        self.fold(parts[self.rank], sum)
    }

    fn all_reduce(&mut self, mine: &[f32], sum: &mut [f32]) -> Result<(), CommError> {
        self.send_all((0..self.senders.len()).map(|_| Some(bytemuck::cast_slice(mine))))?;
        self.fold(mine, sum)
    }
}
