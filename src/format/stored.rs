//! [`Stored`]: elements of a weight in their format, as they pass from a source to a device.
//!
//! It deliberately knows no encoding. Read `codec.rs` for what it asks of a format.

use super::Format;
use super::codec::{Encoded, Unfit};
use super::error::FormatError;
use crate::shape::checked_numel;
use crate::tensor::{DType, Tensor};
use std::borrow::Cow;

/// Elements of a weight, or of a region of one, in the format in which they are stored.
pub struct Stored {
    format: Format,
    shape: Vec<usize>,
    elements: Encoded,
}

impl Stored {
    /// The blocks `bytes` of a weight of `shape`, row by row, as a file in `format` holds them.
    ///
    /// Errors when rows are not whole blocks, or when the number of bytes is not that of the shape.
    pub fn new(format: Format, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> Result<Stored, FormatError> {
        let shape = shape.into();
        if !format.holds(&shape) {
            return Err(FormatError::Blocks { format, shape });
        }
        match checked_numel(&shape) {
            Some(elements) if format.bytes(elements) == bytes.len() as u64 => {
                Ok(Stored { format, shape, elements: Encoded::Blocks(bytes) })
            }
            _ => Err(FormatError::Length { format, shape, bytes: bytes.len() }),
        }
    }

    /// `tensor` encoded in `format`. A tensor whose elements already are in it is taken as it is.
    ///
    /// Errors when rows are not whole blocks, when an element is too large for the format, and when numbers would become
    /// indices or the other way round.
    pub fn encode(tensor: Tensor, format: Format) -> Result<Stored, FormatError> {
        let shape = tensor.shape().to_vec();
        if !format.holds(&shape) {
            return Err(FormatError::Blocks { format, shape });
        }
        if (tensor.dtype() == DType::U32) != (format == Format::U32) {
            return Err(FormatError::DType { format, found: tensor.dtype() });
        }
        let elements = format.codec().encode(tensor).map_err(|unfit| match unfit {
            Unfit::Value(value) => FormatError::Value { format, value },
            Unfit::Tensor(cause) => cause.into(),
        })?;
        Ok(Stored { format, shape, elements })
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The stored bytes, row by row.
    pub fn bytes(&self) -> &[u8] {
        match &self.elements {
            Encoded::Elements(tensor) => tensor.bytes(),
            Encoded::Blocks(bytes) => bytes,
        }
    }

    /// The elements as ops see them: f32, or u32 for indices. Errors when the operating system refuses the memory.
    pub fn values(self) -> Result<Tensor, FormatError> {
        match self.elements {
            Encoded::Elements(tensor) => Ok(tensor.try_widened()?),
            Encoded::Blocks(bytes) => {
                let mut values = Tensor::try_zeros(self.format.dtype(), self.shape)?;
                self.format.codec().decode(&bytes, bytemuck::cast_slice_mut(values.bytes_mut()));
                Ok(values)
            }
        }
    }

    /// The rows as they lie in a device's memory, each of [`Format::device_row`] bytes.
    #[doc(hidden)]
    pub fn device_rows(&self) -> Cow<'_, [u8]> {
        let (bytes, codec) = (self.bytes(), self.format.codec());
        let len = self.shape.last().copied().unwrap_or(1);
        let (stored, row) = (self.format.bytes(len) as usize, codec.device_row(len));
        if codec.block() == 1 && stored == row {
            return Cow::Borrowed(bytes);
        }
        let mut rows = vec![0; bytes.len().checked_div(stored).unwrap_or(0) * row];
        let lines = bytes.chunks_exact(stored.max(1)).zip(rows.chunks_exact_mut(row.max(1)));
        lines.for_each(|(stored, row)| codec.lay(stored, row));
        Cow::Owned(rows)
    }
}

impl From<Tensor> for Stored {
    fn from(tensor: Tensor) -> Stored {
        let (format, shape) = (tensor.dtype().into(), tensor.shape().to_vec());
        Stored { format, shape, elements: Encoded::Elements(tensor) }
    }
}
