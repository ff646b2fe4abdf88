//! One exchange of a rank: regions are packed, handed to the communicator by the kind of collective, and put in place.
//!
//! It deliberately knows no device: bytes come in and go out. Where the parts of a sum are added stands in the program, as an
//! instruction of its own, so that nothing is added here. Read `rank.rs` for who calls it.

use super::error::SessionError;
use crate::comm::Communicator;
use crate::sharding::Redistribute;
use crate::tensor::{Region, SymbolicRegion, copy_region};

/// The buffers of a rank's exchanges, kept from one to the next.
#[derive(Default)]
pub(super) struct Exchanger {
    /// The value that is sent from.
    pub(super) source: Vec<u8>,
    /// The value that is received into.
    pub(super) target: Vec<u8>,
    packed: Vec<u8>,
    arrived: Vec<u8>,
}

/// One side of an exchange: the shape of the rank's value, and for each rank the region that is sent or received, if any.
pub(super) struct Side<'a> {
    pub(super) shape: Vec<usize>,
    pub(super) regions: &'a [Option<SymbolicRegion>],
}

impl Side<'_> {
    /// For each rank the resolved region.
    fn resolved(&self) -> Vec<Option<Region>> {
        self.regions.iter().map(|region| region.as_ref().map(|region| region.resolve(&self.shape))).collect()
    }
}

impl Exchanger {
    /// Exchanges regions of `source` for regions of `target`, whose elements are of `size` bytes each; returns the bytes sent
    /// to other ranks. Errors as the communicator.
    pub(super) fn exchange(
        &mut self,
        communicator: &mut dyn Communicator,
        kind: Redistribute,
        size: usize,
        (send, receive): (Side<'_>, Side<'_>),
    ) -> Result<u64, SessionError> {
        let rank = communicator.rank();
        let (sent, received) = (send.resolved(), receive.resolved());
        // Regions that are the same for several ranks, as in a gather, are packed once.
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
            // A sum's parts are exchanged as they are.
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
