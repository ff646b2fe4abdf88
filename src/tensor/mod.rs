//! [`DType`], the element types, and [`Tensor`], a dense tensor in host memory.
//!
//! This module deliberately knows nothing of devices, files or how a tensor is split.
//! Read [`crate::sharding`] next for how a shape is divided over ranks.

mod error;

pub use error::TensorError;

mod region;

pub use region::{Region, SymbolicRegion, copy_region};

use crate::shape::checked_numel;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 single precision: activations, accumulators and state.
    F32,
    /// IEEE 754 half precision: weights only.
    F16,
    /// bfloat16, the upper 16 bits of an `F32`: weights only.
    BF16,
    /// Unsigned whole numbers: token ids, positions and other indices.
    U32,
}

impl DType {
    /// The size of one element in bytes.
    #[doc(hidden)]
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U32 => "u32",
        })
    }
}

/// Errors when the operating system does not grant an allocation of `bytes`, which it reserves and frees again to find
/// out. Called before large tensors are allocated, because a failed `vec![0.0; n]` ends the process. An allocation
/// below 16 MiB is not tested.
pub(crate) fn ask_for(bytes: usize) -> Result<(), TensorError> {
    const MANY: usize = 16 << 20;
    if bytes < MANY {
        return Ok(());
    }
    let refused = |_| TensorError::Memory { bytes: bytes as u64 };
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(refused)
}

/// The elements of a [`Tensor`], row-major, as a vector of their type.
#[derive(Clone, Debug, PartialEq)]
enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    U32(Vec<u32>),
}

/// A dense, row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// An `F32` tensor of `shape` with the elements `values`, row-major. Errors when the number of values is not the
    /// product of `shape`.
    pub fn f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Tensor, TensorError> {
        Tensor::checked(shape.into(), values.len(), Data::F32(values))
    }

    /// A `U32` tensor of `shape` with the elements `values`, row-major. Errors when the number of values is not the
    /// product of `shape`.
    pub fn u32(shape: impl Into<Vec<usize>>, values: Vec<u32>) -> Result<Tensor, TensorError> {
        Tensor::checked(shape.into(), values.len(), Data::U32(values))
    }

    /// A tensor of `dtype` and `shape` from the little-endian bytes of its elements, row-major. Errors when the number
    /// of bytes is not the number of elements times their size.
    #[doc(hidden)]
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, bytes: &[u8]) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let expected = checked_numel(&shape).and_then(|n| n.checked_mul(dtype.size()));
        if expected != Some(bytes.len()) {
            return Err(TensorError::Length { shape, elements: bytes.len() / dtype.size() });
        }
        let data = match dtype {
            DType::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
            DType::F16 => Data::F16(bytemuck::pod_collect_to_vec(bytes)),
            DType::BF16 => Data::BF16(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => Data::U32(bytemuck::pod_collect_to_vec(bytes)),
        };
        Ok(Tensor { shape, data })
    }

    /// A tensor of zeros, with a check that there is enough memory.
    ///
    /// Errors when the number of bytes overflows or the operating system refuses the memory. [`Tensor::zeros`] would
    /// end the process instead.
    #[doc(hidden)]
    pub fn try_zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        let shape = shape.into();
        let bytes = checked_numel(&shape).and_then(|n| n.checked_mul(dtype.size()));
        ask_for(bytes.ok_or(TensorError::Memory { bytes: u64::MAX })?)?;
        Ok(Tensor::zeros(dtype, shape))
    }

    /// A tensor of zeros. Where there is not enough memory for it, the process ends.
    pub fn zeros(dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let n = shape.iter().product();
        let data = match dtype {
            DType::F32 => Data::F32(vec![0.0; n]),
            DType::F16 => Data::F16(vec![f16::ZERO; n]),
            DType::BF16 => Data::BF16(vec![bf16::ZERO; n]),
            DType::U32 => Data::U32(vec![0; n]),
        };
        Tensor { shape, data }
    }

    fn checked(shape: Vec<usize>, elements: usize, data: Data) -> Result<Tensor, TensorError> {
        if checked_numel(&shape) != Some(elements) {
            return Err(TensorError::Length { shape, elements });
        }
        Ok(Tensor { shape, data })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::U32(_) => DType::U32,
        }
    }

    /// The length of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The little-endian bytes of the elements, row-major.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::F16(v) => bytemuck::cast_slice(v),
            Data::BF16(v) => bytemuck::cast_slice(v),
            Data::U32(v) => bytemuck::cast_slice(v),
        }
    }

    /// The little-endian bytes of the elements, row-major, for writing.
    #[doc(hidden)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.data {
            Data::F32(v) => bytemuck::cast_slice_mut(v),
            Data::F16(v) => bytemuck::cast_slice_mut(v),
            Data::BF16(v) => bytemuck::cast_slice_mut(v),
            Data::U32(v) => bytemuck::cast_slice_mut(v),
        }
    }

    /// The elements of an `F32` tensor, row-major. Errors when the tensor has another type.
    pub fn as_f32(&self) -> Result<&[f32], TensorError> {
        match &self.data {
            Data::F32(v) => Ok(v),
            _ => Err(TensorError::DType { expected: DType::F32, found: self.dtype() }),
        }
    }

    /// The elements of a `U32` tensor, row-major. Errors when the tensor has another type.
    pub fn as_u32(&self) -> Result<&[u32], TensorError> {
        match &self.data {
            Data::U32(v) => Ok(v),
            _ => Err(TensorError::DType { expected: DType::U32, found: self.dtype() }),
        }
    }

    /// As [`Tensor::widened`]. Errors when the operating system refuses the memory for the result.
    #[doc(hidden)]
    pub fn try_widened(self) -> Result<Tensor, TensorError> {
        if self.dtype().size() < 4 {
            ask_for(self.numel().saturating_mul(4))?;
        }
        Ok(self.widened())
    }

    /// The same values as `F32`. Tensors of type `F32` and `U32` are returned unchanged.
    #[doc(hidden)]
    pub fn widened(self) -> Tensor {
        let data = match self.data {
            Data::F16(v) => Data::F32(v.to_f32_vec()),
            Data::BF16(v) => Data::F32(v.to_f32_vec()),
            data => data,
        };
        Tensor { shape: self.shape, data }
    }

    /// The same values rounded to `dtype`, if that is `F16` or `BF16` (to nearest, ties to even). With another `dtype`
    /// the result is that of [`Tensor::widened`]. A `U32` tensor is returned unchanged.
    #[doc(hidden)]
    pub fn rounded(self, dtype: DType) -> Tensor {
        let wide = self.widened();
        let data = match (wide.data, dtype) {
            (Data::F32(v), DType::F16) => Data::F16(Vec::from_f32_slice(&v)),
            (Data::F32(v), DType::BF16) => Data::BF16(Vec::from_f32_slice(&v)),
            (data, _) => data,
        };
        Tensor { shape: wide.shape, data }
    }

    /// The row-major index and the value of the first element that is NaN or infinite, or `None` if all are finite.
    #[doc(hidden)]
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        match &self.data {
            Data::F32(v) => v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at])),
            Data::F16(v) => v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at].to_f32())),
            Data::BF16(v) => v.iter().position(|x| !x.is_finite()).map(|at| (at, v[at].to_f32())),
            Data::U32(_) => None,
        }
    }

    /// The same elements, row-major, with another shape. Errors when `shape` has another number of elements.
    #[doc(hidden)]
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Result<Tensor, TensorError> {
        let elements = self.numel();
        Tensor::checked(shape.into(), elements, self.data)
    }

    /// A copy of the part of the tensor inside `region`. Errors when `region` is not inside the tensor.
    pub fn slice(&self, region: &Region) -> Result<Tensor, TensorError> {
        let inside = region.0.len() == self.shape.len()
            && region.0.iter().zip(&self.shape).all(|(r, &n)| r.start <= r.end && r.end <= n);
        if !inside {
            return Err(TensorError::Region { shape: self.shape.clone(), region: region.clone() });
        }
        let mut out = Tensor::zeros(self.dtype(), region.shape());
        let whole = Region::whole(&out.shape);
        let shape = out.shape.clone();
        copy_region(self.dtype().size(), (self.bytes(), &self.shape, region), (out.bytes_mut(), &shape, &whole));
        Ok(out)
    }
}

/// The relative error of `a` against the reference `b`: `||a - b|| / ||b||` in the Euclidean norm over all elements. 0
/// if both are empty. Infinite if the lengths differ or the difference is NaN.
#[doc(hidden)]
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    let (mut difference, mut norm) = (0f64, 0f64);
    for (&x, &y) in a.iter().zip(b) {
        difference += (x as f64 - y as f64).powi(2);
        norm += (y as f64).powi(2);
    }
    if a.len() != b.len() || difference.is_nan() {
        f64::INFINITY
    } else if difference == 0.0 {
        0.0
    } else {
        (difference / norm).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_copied_to_another_place() {
        let t = Tensor::u32([2, 3, 4], (0..24).collect()).unwrap();
        let part = t.slice(&Region(vec![0..2, 1..2, 1..3])).unwrap();
        assert_eq!(part.as_u32().unwrap(), [5, 6, 17, 18]);
        let rows = t.slice(&Region(vec![1..2, 0..3, 0..4])).unwrap();
        assert_eq!(rows.as_u32().unwrap(), (12..24).collect::<Vec<_>>());
        assert!(t.slice(&Region(vec![0..3, 0..1, 0..1])).is_err());
    }

    #[test]
    fn an_error_of_nan_is_infinite() {
        assert_eq!(relative_error(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
    }
}
