//! One rank's side of an exchange: packs the regions that it sends, calls the communicator's collective, and unpacks
//! the regions that arrive.
//!
//! It deliberately knows no device: it works on bytes on the host. It adds nothing either: the addends of a sum are
//! added by an instruction of the program that follows the exchange. Read `rank.rs` for who calls it.

use super::error::SessionError;
use crate::comm::Communicator;
use crate::sharding::Redistribute;
use crate::tensor::{Region, SymbolicRegion, copy_region};

/// The host buffers of a rank's exchanges. They are kept between exchanges, so that a decode step allocates nothing.
#[derive(Default)]
pub(super) struct Exchanger {
    /// The whole local value that regions are sent from.
    pub(super) source: Vec<u8>,
    /// The whole local value that arriving regions are written into.
    pub(super) target: Vec<u8>,
    packed: Vec<u8>,
    arrived: Vec<u8>,
}

/// What a rank sends, or what it receives: the shape of its local value, and for each peer the region of that value
/// that travels, if any.
pub(super) struct Side<'a> {
    pub(super) shape: Vec<usize>,
    pub(super) regions: &'a [Option<SymbolicRegion>],
}

impl Side<'_> {
    /// The region of each peer, with the sizes of this call in place of symbols.
    fn resolved(&self) -> Vec<Option<Region>> {
        self.regions.iter().map(|region| region.as_ref().map(|region| region.resolve(&self.shape))).collect()
    }
}

impl Exchanger {
    /// Sends regions of `source`, fills `target` with the regions that arrive, and returns the bytes sent to other
    /// ranks.
    ///
    /// `size` is the length of an element in bytes. Elements of `target` that no region covers become zero. Errors
    /// when the communicator's collective does.
    pub(super) fn exchange(
        &mut self,
        communicator: &mut dyn Communicator,
        kind: Redistribute,
        size: usize,
        (send, receive): (Side<'_>, Side<'_>),
    ) -> Result<u64, SessionError> {
        let rank = communicator.rank();
        let (sent, received) = (send.resolved(), receive.resolved());
        // In an all-gather every peer is sent the same region: pack it once.
        let mut places: Vec<Option<std::ops::Range<usize>>> = Vec::new();
        self.packed.clear();
        for (q, region) in sent.iter().enumerate() {
            let known = sent[..q].iter().position(|other| other == region);
            places.push(match (region, known) {
                (None, _) => None,
                (Some(_), Some(known)) => places[known].clone(),
                (Some(region), None) => {
                    let start = self.packed.len();
                    self.packed.resize(start + region.numel() * size, 0);
                    let shape = region.shape();
                    let part = (&mut self.packed[start..], shape.as_slice(), &Region::whole(&shape));
                    copy_region(size, (&self.source, &send.shape, region), part);
                    Some(start..self.packed.len())
                }
            });
        }
        let parts: Vec<Option<&[u8]>> =
            places.iter().map(|place| place.clone().map(|place| &self.packed[place])).collect();
        let lengths = received.iter().map(|region| region.as_ref().map(|region| region.numel() * size));
        self.arrived.resize(lengths.clone().flatten().sum(), 0);
        let mut rest = self.arrived.as_mut_slice();
        let mut buffers: Vec<Option<&mut [u8]>> = Vec::new();
        for length in lengths {
            buffers.push(length.map(|length| {
                let (buffer, after) = std::mem::take(&mut rest).split_at_mut(length);
                rest = after;
                buffer
            }));
        }
        match kind {
            Redistribute::AllGather => {
                let mine = parts.iter().copied().flatten().next();
                communicator.all_gather(mine, &mut buffers)?;
            }
            // All other kinds send each peer a region of its own. The addends of a sum are only exchanged here; the
            // program adds them afterwards, in the order of ranks.
            _ => communicator.all_to_all(&parts, &mut buffers)?,
        }
        self.target.clear();
        self.target.resize(receive.shape.iter().product::<usize>() * size, 0);
        for (region, buffer) in received.iter().zip(&buffers) {
            if let (Some(region), Some(buffer)) = (region, buffer) {
                let shape = region.shape();
                let part = (&**buffer, shape.as_slice(), &Region::whole(&shape));
                copy_region(size, part, (&mut self.target, &receive.shape, region));
            }
        }
        let others = parts.iter().enumerate().filter(|(to, _)| *to != rank);
        Ok(others.filter_map(|(_, part)| part.map(|part| part.len() as u64)).sum())
    }
}
