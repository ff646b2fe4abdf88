//! How one rank exchanges bytes with the others: send, receive, and the collectives made of them.
//!
//! A communicator deliberately moves bytes and knows neither shapes nor element types: packing is the session's, and
//! adding is an instruction or the caller's. Read [`channel`] for the one over crossbeam channels.

mod error;

pub use error::CommError;

pub mod channel;

use std::sync::Arc;

/// A message: shared, so that one packing serves every receiver.
pub type Bytes = Arc<[u8]>;

/// One rank's end of the connections to all ranks, itself included.
///
/// Every rank calls the same collectives in the same order. No call waits once nobody has made progress for the
/// communicator's deadline; a rank that fails ends the waits of the others.
pub trait Communicator: Send {
    /// This rank.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world_size(&self) -> usize;

    /// Sends `bytes` to rank `to`. Does not wait for it to receive. Errors when it has ended.
    fn send(&self, to: usize, bytes: Bytes) -> Result<(), CommError>;

    /// The next message from rank `from`. Errors when it has ended, or when it sends nothing and
    /// nobody makes progress for the deadline.
    fn receive(&self, from: usize) -> Result<Bytes, CommError>;

    /// Gives `parts[q]` to each rank `q` and returns what each gave, by rank. Parts may have any lengths.
    fn all_to_all(&self, parts: Vec<Bytes>) -> Result<Vec<Bytes>, CommError> {
        let (rank, expected) = (self.rank(), self.world_size());
        if parts.len() != expected {
            return Err(CommError::Parts { rank, collective: "all_to_all", expected, found: parts.len() });
        }
        let own = parts[rank].clone();
        for (to, part) in parts.into_iter().enumerate().filter(|(to, _)| *to != rank) {
            self.send(to, part)?;
        }
        (0..expected).map(|from| if from == rank { Ok(own.clone()) } else { self.receive(from) }).collect()
    }

    /// Gives `mine` to every rank and returns what each gave, by rank. Parts may have any lengths.
    fn all_gather(&self, mine: Bytes) -> Result<Vec<Bytes>, CommError> {
        self.all_to_all(vec![mine; self.world_size()])
    }

    /// Gives `parts[q]` to each rank `q` and returns the fold of what was given to this one, in rank order.
    fn reduce_scatter(&self, parts: Vec<Bytes>, fold: &dyn Fn(&mut [u8], &[u8])) -> Result<Vec<u8>, CommError> {
        let given = self.all_to_all(parts)?;
        let mut sum = given[0].to_vec();
        for (peer, part) in given.iter().enumerate().skip(1) {
            if part.len() != sum.len() {
                let (rank, expected, found) = (self.rank(), sum.len(), part.len());
                return Err(CommError::Length { rank, peer, expected, found });
            }
            fold(&mut sum, part);
        }
        Ok(sum)
    }

    /// The fold of what every rank gives, in rank order: the same bits on every rank.
    fn all_reduce(&self, mine: Bytes, fold: &dyn Fn(&mut [u8], &[u8])) -> Result<Vec<u8>, CommError> {
        self.reduce_scatter(vec![mine; self.world_size()], fold)
    }

    /// What rank `root` gives, on every rank. Others give `None`.
    fn broadcast(&self, root: usize, mine: Option<Bytes>) -> Result<Bytes, CommError> {
        match mine {
            Some(bytes) if root == self.rank() => {
                for to in (0..self.world_size()).filter(|&to| to != root) {
                    self.send(to, bytes.clone())?;
                }
                Ok(bytes)
            }
            _ if root == self.rank() => {
                Err(CommError::Parts { rank: root, collective: "broadcast", expected: 1, found: 0 })
            }
            _ => self.receive(root),
        }
    }
}

/// Adds f32s, little-endian, element by element: the usual fold.
pub fn add_f32(sum: &mut [u8], part: &[u8]) {
    for (sum, part) in sum.chunks_exact_mut(4).zip(part.chunks_exact(4)) {
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let total = value(sum) + value(part);
        sum.copy_from_slice(&total.to_le_bytes());
    }
}
