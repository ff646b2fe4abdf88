//! [`Joined`]: a graph weight as a concatenation of file views along the first dimension.
//!
//! Most weights are a single view. Several views are needed where strides cannot express the weight: where a file
//! stores Q, K and V interleaved head by head, or each expert in a tensor of its own. This module deliberately knows
//! neither heads nor files. Read `blocks/builder.rs` next, which creates these weights.

use crate::import::ImportError;
use crate::import::files::tensors::{Tensors, View};
use crate::tensor::TensorError;
use crate::tensor::{Region, Tensor};

/// The elements of one graph weight: one or more views, concatenated along the first dimension. All views have the same
/// shape, except for the length of that dimension.
#[derive(Clone, Debug)]
pub(crate) struct Joined(Vec<View>);

impl Joined {
    /// Concatenates `views`. `None` when `views` is empty, when the shapes differ in more than the first dimension, and
    /// for several scalars, which have no first dimension.
    pub(crate) fn new(views: Vec<View>) -> Option<Joined> {
        let rest = |view: &View| view.shape.get(1..).map(<[usize]>::to_vec);
        let first = views.first().and_then(rest);
        let whole = views.len() == 1 || first.is_some() && views.iter().all(|view| rest(view) == first);
        whole.then_some(Joined(views)).filter(|joined| !joined.0.is_empty())
    }

    /// The shape of the concatenation.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.0.first().map(|view| view.shape.clone()).unwrap_or_default();
        if let (Some(rows), [_, others @ ..]) = (shape.first_mut(), self.0.as_slice()) {
            *rows += others.iter().map(|view| view.shape[0]).sum::<usize>();
        }
        shape
    }

    /// The number of elements of the concatenation.
    pub(crate) fn numel(&self) -> usize {
        self.0.iter().map(View::numel).fold(0, usize::saturating_add)
    }

    /// The concatenated views, in order.
    pub(crate) fn views(&self) -> &[View] {
        &self.0
    }

    /// Reads the region `region` of the concatenation, and no element outside it. `tensors` are the tensors that the
    /// views refer to. Errors when the region is not inside the concatenation, or when a view cannot be read.
    pub(crate) fn read(&self, tensors: &dyn Tensors, region: &Region) -> Result<Tensor, ImportError> {
        if let [view] = self.0.as_slice() {
            return tensors.read(&view.region(region)?);
        }
        let shape = self.shape();
        let Some(rows) = region.0.first().filter(|rows| rows.start <= rows.end && rows.end <= shape[0]) else {
            return Err(TensorError::Region { shape, region: region.clone() }.into());
        };
        let mut bytes = Vec::new();
        let mut start = 0;
        for view in &self.0 {
            let end = start + view.shape[0];
            let part = rows.start.max(start)..rows.end.min(end);
            if !part.is_empty() {
                let mut inside = region.clone();
                inside.0[0] = part.start - start..part.end - start;
                bytes.extend_from_slice(tensors.read(&view.region(&inside)?)?.bytes());
            }
            start = end;
        }
        Ok(Tensor::from_bytes(tensors.dtype(self.0[0].tensor)?, region.shape(), &bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Joined;
    use crate::import::files::random::RandomTensors;
    use crate::import::files::tensors::{Tensors, View};
    use crate::tensor::{DType, Region};
    use proptest::prelude::*;
    use std::path::Path;

    proptest! {
        /// Reading a region of joined views gives the same values as copying these rows and columns from the tensor
        /// that the views are slices of, and reads no other element.
        #[test]
        fn any_region_of_joined_rows_is_those_rows(
            parts in prop::collection::vec((0usize..12, 0usize..5), 1..6),
            rows in any::<[prop::sample::Index; 2]>(),
            columns in any::<[prop::sample::Index; 2]>(),
        ) {
            let mut tensors = RandomTensors::new(Path::new("config.json"), DType::F16, 7);
            let id = tensors.wanted("w", &[16, 5]).unwrap().unwrap();
            let whole = tensors.view(id).unwrap();
            let views: Vec<View> = parts.iter().map(|&(at, n)| whole.slice(0, at..at + n).unwrap()).collect();
            let taken: Vec<usize> = parts.iter().flat_map(|&(at, n)| at..at + n).collect();
            let joined = Joined::new(views).unwrap();
            prop_assert_eq!(joined.shape(), [taken.len(), 5]);
            prop_assert_eq!(joined.numel(), taken.len() * 5);
            let range = |[a, b]: [prop::sample::Index; 2], n: usize| {
                let (a, b) = (a.index(n + 1), b.index(n + 1));
                a.min(b)..a.max(b)
            };
            let (rows, columns) = (range(rows, taken.len()), range(columns, 5));
            let all = tensors.read(&whole).unwrap().widened();
            let all = all.as_f32().unwrap();
            let before = tensors.bytes_read();
            let read = joined.read(&tensors, &Region(vec![rows.clone(), columns.clone()])).unwrap();
            prop_assert_eq!(tensors.bytes_read() - before, read.bytes().len() as u64);
            prop_assert_eq!(read.shape(), [rows.len(), columns.len()]);
            let wanted: Vec<f32> = taken[rows].iter().flat_map(|&row| all[row * 5..][columns.clone()].to_vec()).collect();
            let read = read.widened();
            prop_assert_eq!(read.as_f32().unwrap(), wanted.as_slice());
        }
    }

    #[test]
    fn what_does_not_join_and_what_leaves_the_whole() {
        let mut tensors = RandomTensors::new(Path::new("config.json"), DType::F32, 7);
        let mut of = |name: &str, shape: &[usize]| {
            let id = tensors.wanted(name, shape).unwrap().unwrap();
            tensors.view(id).unwrap()
        };
        let (a, b, scalar) = (of("a", &[3, 4]), of("b", &[2, 5]), of("c", &[]));
        assert!(Joined::new(vec![]).is_none() && Joined::new(vec![a.clone(), b]).is_none());
        assert!(Joined::new(vec![scalar.clone(), scalar]).is_none());
        let joined = Joined::new(vec![a.clone(), a]).unwrap();
        for region in [vec![0..7, 0..4], vec![0..6, 0..5], vec![0..6, 0..4, 0..1], vec![]] {
            assert!(joined.read(&tensors, &Region(region)).is_err());
        }
    }
}
