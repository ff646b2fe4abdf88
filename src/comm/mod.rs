//! How one rank exchanges bytes with the others: point to point, and by collectives.
//!
//! A communicator deliberately knows neither devices nor programs: it moves bytes into buffers that it is given, and
//! adds f32s. Read [`channel`] for the one between threads, and [`crate::session::Rank`] for who calls it. Users can
//! implement it over MPI, NCCL or sockets; `examples/own_transport.rs` does.

pub mod channel;
mod error;

pub use error::CommError;

use crate::wait::Progress;

/// One rank's end of the connections to all ranks.
///
/// Every rank calls the same collectives in the same order. Only [`send`](Communicator::send) and
/// [`receive`](Communicator::receive) have to be written; each collective is made of them, and an implementation replaces the
/// ones that it can do better.
///
/// # What an implementation promises
///
/// - Messages of one rank to another arrive in the order in which they were sent.
/// - `send` may wait until the receiver takes the message, but for nothing else. The collectives here let the ranks of a pair
///   send one after the other, because with a naive "all send, then all receive" every rank would wait in `send` as soon as a
///   message is longer than a socket's buffer.
/// - Every wait has a deadline, after which there was no progress; the communicator is made with it. When a peer has ended, the
///   waits for it end at once.
/// - Sums are folded in the order of ranks, so that every rank holds the same bits. An `MPI_Allreduce` need not keep that
///   order: an implementation whose native sums do not must not replace [`reduce_scatter`](Communicator::reduce_scatter) and [`all_reduce`](Communicator::all_reduce).
pub trait Communicator: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world_size(&self) -> usize;

    /// Takes the counter in which the ranks of one process count their steps. A rank calls this before it loads its
    /// weights, so before anything is sent.
    ///
    /// An implementation that keeps a clone calls [`Progress::step`] for every message that it receives, and for
    /// every piece of a long one: the session then does not give up on a rank whose transport is slow but moving. A
    /// transport between processes cannot see its peers compute. It may ignore the counter, but then its own deadline
    /// must be longer than the longest time that a peer computes between two exchanges.
    fn share_progress(&mut self, _progress: &Progress) {}

    /// Sends `bytes` to rank `to`. Errors when it has ended, or does not take them within the deadline.
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError>;

    /// Fills `bytes` with the next message of rank `from`. Errors when the message is of another length, when the rank has
    /// ended, or when it sends nothing within the deadline.
    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CommError>;

    /// Sends `parts[q]` to each rank `q` and fills `received[r]` with the part that rank `r` sends to this one.
    ///
    /// Both slices have one entry per rank. An entry is `None` where nothing is sent or received; sender and receiver
    /// must agree on that. A rank's part for itself is copied. Errors when the number of entries is not the number of
    /// ranks, and as [`send`](Communicator::send) and [`receive`](Communicator::receive).
    fn all_to_all(&mut self, parts: &[Option<&[u8]>], received: &mut [Option<&mut [u8]>]) -> Result<(), CommError> {
        check(self, "all_to_all", parts.len(), received.len())?;
        keep_own(self.rank(), parts, received)?;
        let (rank, world) = (self.rank(), self.world_size());
        // In round `n` rank `r` meets rank `n - r`, modulo the number of ranks: every pair meets once, and of a pair the lower
        // rank sends first. So whoever sends has a peer that receives, even where no message fits a buffer.
        for round in 0..world {
            let peer = (round + world - rank) % world;
            if peer == rank {
                continue;
            }
            for sends in [rank < peer, rank > peer] {
                if sends {
                    parts[peer].map_or(Ok(()), |part| self.send(peer, part))?;
                } else if let Some(bytes) = &mut received[peer] {
                    self.receive(peer, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Sends `mine` to every rank and fills `received[r]` with the bytes that rank `r` sends.
    ///
    /// `mine` is `None` on a rank that has nothing to send; its entry in `received` is `None` on every rank. Errors
    /// as [`all_to_all`](Communicator::all_to_all).
    fn all_gather(&mut self, mine: Option<&[u8]>, received: &mut [Option<&mut [u8]>]) -> Result<(), CommError> {
        self.all_to_all(&vec![mine; self.world_size()], received)
    }

    /// Sends `parts[q]` to each rank `q` and fills `sum` with the sum of the parts that this rank receives, added in
    /// the order of ranks.
    ///
    /// Errors when a rank sends another number of elements than `sum` has, and as
    /// [`all_to_all`](Communicator::all_to_all).
    fn reduce_scatter(&mut self, parts: &[&[f32]], sum: &mut [f32]) -> Result<(), CommError> {
        let world = self.world_size();
        let mut given = vec![0f32; world * sum.len()];
        let parts: Vec<Option<&[u8]>> = parts.iter().map(|part| Some(bytemuck::cast_slice(part))).collect();
        let received = given.chunks_mut(sum.len().max(1)).map(|part| Some(bytemuck::cast_slice_mut(part)));
        let mut received: Vec<Option<&mut [u8]>> = received.collect();
        // An empty sum has no bytes to exchange, but every rank takes part in the collective.
        received.resize_with(world, || Some(&mut []));
        self.all_to_all(&parts, &mut received)?;
        for (rank, part) in given.chunks(sum.len().max(1)).enumerate() {
            add(rank, part, sum);
        }
        Ok(())
    }

    /// Fills `sum` with the sum of `mine` over all ranks, added in the order of ranks: every rank gets the same bits.
    ///
    /// Errors when a rank sends another number of elements than `sum` has, and as
    /// [`all_to_all`](Communicator::all_to_all).
    fn all_reduce(&mut self, mine: &[f32], sum: &mut [f32]) -> Result<(), CommError> {
        self.reduce_scatter(&vec![mine; self.world_size()], sum)
    }

    /// Copies `bytes` of rank `root` into `bytes` of every other rank.
    ///
    /// Errors when there is no rank `root`, and as [`all_to_all`](Communicator::all_to_all).
    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let (rank, world) = (self.rank(), self.world_size());
        if root >= world {
            return Err(CommError::PeerEnded { rank, peer: root });
        }
        if rank != root {
            return self.receive(root, bytes);
        }
        (0..world).filter(|&to| to != root).try_for_each(|to| self.send(to, bytes))
    }
}

/// Errors unless a collective was given one entry per rank, both to send and to receive.
fn check(
    communicator: &(impl Communicator + ?Sized),
    collective: &'static str,
    sent: usize,
    received: usize,
) -> Result<(), CommError> {
    let (rank, expected) = (communicator.rank(), communicator.world_size());
    match [sent, received].into_iter().find(|n| *n != expected) {
        Some(found) => Err(CommError::Parts { rank, collective, expected, found }),
        None => Ok(()),
    }
}

/// Errors unless the message of `peer` to `rank` has the length that is expected, both in bytes.
fn same_length(rank: usize, peer: usize, found: usize, expected: usize) -> Result<(), CommError> {
    if found == expected { Ok(()) } else { Err(CommError::Length { rank, peer, expected, found }) }
}

/// Copies a rank's part for itself. Errors when the lengths differ.
fn keep_own(rank: usize, parts: &[Option<&[u8]>], received: &mut [Option<&mut [u8]>]) -> Result<(), CommError> {
    if let (Some(part), Some(bytes)) = (parts[rank], &mut received[rank]) {
        same_length(rank, rank, part.len(), bytes.len())?;
        bytes.copy_from_slice(part);
    }
    Ok(())
}

/// Adds the part of rank `rank` to `sum`. Called for the ranks in their order; the first part replaces what was there.
fn add(rank: usize, part: &[f32], sum: &mut [f32]) {
    if rank == 0 {
        return sum.copy_from_slice(part);
    }
    for (sum, x) in sum.iter_mut().zip(part) {
        *sum += x;
    }
}
