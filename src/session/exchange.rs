//! One rank's side of an exchange: which bytes of a value go to whom, the communicator's collective, and where the bytes
//! that arrive belong.
//!
//! It deliberately knows no device: it works on bytes on the host. Regions that lie without gaps are handed to the communicator
//! where they are; only others are packed and unpacked. Read `rank.rs` for who calls it.

use crate::comm::{CommError, Communicator};
use crate::shape::{Env, Shape, resolve};
use crate::sharding::Redistribute;
use crate::tensor::{Region, SymbolicRegion, copy_region};
use std::collections::HashMap;
use std::ops::Range;

/// The exchanges of a rank, prepared for the sizes of the last call, and their buffers on the host. Both are kept between
/// calls, so that a decode step prepares nothing.
#[derive(Default)]
pub(super) struct Exchanger {
    sizes: Option<Env>,
    routes: HashMap<usize, Route>,
    buffers: Buffers,
}

/// The bytes of an exchange on the host, in words so that the numbers in them are aligned.
#[derive(Default)]
struct Buffers {
    packed: Vec<u32>,
    arrived: Vec<u32>,
    target: Vec<u32>,
}

/// An exchange that is prepared for the sizes of a call.
pub(super) struct Exchange<'a> {
    route: &'a Route,
    buffers: &'a mut Buffers,
}

/// What a rank sends, or what it receives: the symbolic shape of its local value, and for each peer the region of that value
/// that travels, if any.
pub(super) type Side<'a> = (&'a Shape, &'a [Option<SymbolicRegion>]);

/// An exchange at the sizes of one call.
struct Route {
    kind: Redistribute,
    /// The bytes of an element.
    size: usize,
    sent: End,
    received: End,
    /// Bytes sent to other ranks.
    bytes: u64,
}

/// One side of an exchange at the sizes of one call. All ranges are of bytes.
struct End {
    shape: Vec<usize>,
    /// The bytes of the whole value.
    bytes: usize,
    parts: Vec<Option<Part>>,
    /// Whether the parts lie in the value without gaps, one after the other in the order of ranks.
    in_order: bool,
    /// Whether the parts are all of the value.
    complete: bool,
}

/// The region of a value that travels to a peer, or comes from it.
struct Part {
    region: Region,
    /// Its bytes in the value, where no others lie between them.
    place: Option<Range<usize>>,
    /// Its bytes in the buffer of packed parts, which holds equal regions of a value that is sent once.
    packed: Range<usize>,
}

impl End {
    fn new(env: &Env, size: usize, (shape, regions): Side<'_>, once: bool) -> End {
        let shape = resolve(shape, env);
        let bytes = shape.iter().product::<usize>() * size;
        let mut parts: Vec<Option<Part>> = Vec::new();
        let (mut packed, mut end, mut in_order, mut covered) = (0, 0, true, 0);
        for region in regions {
            parts.push(region.as_ref().map(|region| {
                let region = region.resolve(&shape);
                let place = region.contiguous(&shape).map(|range| range.start * size..range.end * size);
                let length = region.numel() * size;
                let known = parts.iter().flatten().find(|part| once && part.region == region);
                let packed = match known {
                    Some(part) => part.packed.clone(),
                    None => {
                        packed += length;
                        packed - length..packed
                    }
                };
                in_order &= place.as_ref().is_some_and(|place| place.start >= end);
                end = place.as_ref().map_or(end, |place| place.end);
                covered += length;
                Part { region, place, packed }
            }));
        }
        End { shape, bytes, parts, in_order, complete: covered >= bytes }
    }

    /// Where each part arrives: in its place of `buffer`, which is the value if the parts lie in order there, else the packed parts.
    fn buffers<'a>(&self, buffer: &'a mut [u8]) -> Vec<Option<&'a mut [u8]>> {
        let (mut rest, mut taken) = (buffer, 0);
        let mut buffers = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            buffers.push(part.as_ref().map(|part| {
                let place = part.place.as_ref().filter(|_| self.in_order).unwrap_or(&part.packed).clone();
                let (before, after) = std::mem::take(&mut rest).split_at_mut(place.end - taken);
                rest = after;
                let start = place.start - taken;
                taken = place.end;
                &mut before[start..]
            }));
        }
        buffers
    }

    /// Has `collective` fill the parts of `target`, the value: in their places if they lie in order there, else in `arrived`, from
    /// which they are copied.
    fn fill(
        &self,
        size: usize,
        arrived: &mut Vec<u32>,
        target: &mut [u8],
        collective: impl FnOnce(&mut [Option<&mut [u8]>]) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        if !self.complete {
            target.fill(0);
        }
        if self.in_order {
            return collective(&mut self.buffers(target));
        }
        let arrived = sized(arrived, self.packed());
        collective(&mut self.buffers(arrived))?;
        for part in self.parts.iter().flatten() {
            let shape = part.region.shape();
            let whole = (&arrived[part.packed.clone()], shape.as_slice(), &Region::whole(&shape));
            copy_region(size, whole, (target, &self.shape, &part.region));
        }
        Ok(())
    }

    /// The bytes that its parts take when they are packed.
    fn packed(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.packed.end).max().unwrap_or(0)
    }
}

/// Makes `words` hold `bytes` bytes, of any value.
fn sized(words: &mut Vec<u32>, bytes: usize) -> &mut [u8] {
    words.resize(bytes.div_ceil(4), 0);
    &mut bytemuck::cast_slice_mut(words)[..bytes]
}

/// The numbers of a part, none where nothing is sent. An empty slice of bytes may lie at any address, so it is not cast.
fn floats(part: Option<&[u8]>) -> &[f32] {
    part.filter(|part| !part.is_empty()).map_or(&[], bytemuck::cast_slice)
}

impl Exchanger {
    /// The exchange of instruction `instr` of `rank` in a call of the sizes in `env`, of elements of `size` bytes.
    pub(super) fn prepare(
        &mut self,
        (instr, kind): (usize, Redistribute),
        rank: usize,
        env: &Env,
        size: usize,
        (send, receive): (Side<'_>, Side<'_>),
    ) -> Exchange<'_> {
        let sizes = Env { past: 0, ..*env };
        if self.sizes != Some(sizes) {
            self.routes.clear();
            self.sizes = Some(sizes);
        }
        let route = self.routes.entry(instr).or_insert_with(|| {
            let (sent, received) = (End::new(env, size, send, true), End::new(env, size, receive, false));
            let others = sent.parts.iter().enumerate().filter(|(to, _)| *to != rank);
            let bytes = others.filter_map(|(_, part)| Some(part.as_ref()?.packed.len() as u64)).sum();
            Route { kind, size, sent, received, bytes }
        });
        Exchange { route, buffers: &mut self.buffers }
    }
}

impl Exchange<'_> {
    /// Whether the rank sends anything, so that its value must be read.
    pub(super) fn sends(&self) -> bool {
        self.route.sent.parts.iter().any(Option::is_some)
    }

    /// The bytes sent to other ranks.
    pub(super) fn bytes(&self) -> u64 {
        self.route.bytes
    }

    /// Sends regions of `source`, the whole local value, and makes the value that [`Exchange::target`] returns. Its elements that
    /// no region covers are zero. Errors when the communicator's collective does.
    pub(super) fn run(&mut self, communicator: &mut dyn Communicator, source: &[u8]) -> Result<(), CommError> {
        let Route { kind, size, sent, received, .. } = self.route;
        let Buffers { packed, arrived, target } = &mut *self.buffers;
        // Numbers are added where they are, so they must be aligned there.
        let aligned = source.as_ptr().align_offset(align_of::<f32>()) == 0;
        let packed = sized(packed, sent.packed());
        for part in sent.parts.iter().flatten().filter(|part| !aligned || part.place.is_none()) {
            let shape = part.region.shape();
            let whole = (&mut packed[part.packed.clone()], shape.as_slice(), &Region::whole(&shape));
            copy_region(*size, (source, &sent.shape, &part.region), whole);
        }
        let part = |part: &Part| match &part.place {
            Some(place) if aligned => &source[place.clone()],
            _ => &packed[part.packed.clone()],
        };
        let parts: Vec<Option<&[u8]>> = sent.parts.iter().map(|sent| sent.as_ref().map(part)).collect();
        let target = sized(target, received.bytes);
        match kind {
            Redistribute::AllReduce => {
                communicator.all_reduce(floats(parts.first().copied().flatten()), bytemuck::cast_slice_mut(target))
            }
            Redistribute::ReduceScatter => {
                let parts: Vec<&[f32]> = parts.into_iter().map(floats).collect();
                communicator.reduce_scatter(&parts, bytemuck::cast_slice_mut(target))
            }
            Redistribute::AllGather => {
                let mine = parts.into_iter().flatten().next();
                received.fill(*size, arrived, target, |buffers| communicator.all_gather(mine, buffers))
            }
            // All other kinds send each peer a region of its own.
            _ => received.fill(*size, arrived, target, |buffers| communicator.all_to_all(&parts, buffers)),
        }
    }

    /// The bytes of the whole value that [`Exchange::run`] made.
    pub(super) fn target(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.buffers.target)[..self.route.received.bytes]
    }
}
