//! Stored formats: how the elements of a weight are encoded, in a file and in a device's memory.
//!
//! An activation has a [`DType`]; a weight has a [`Format`], whose blocks hold several elements each and are never split. A
//! file of this folder describes one kind of format on the host, and a module of `shaders/common/` decodes it in a kernel's
//! inner loop; nothing else knows an encoding. This module deliberately knows no graph and no device. Read
//! [`crate::weights`] next for who reads weights in a format.

mod codec;
mod error;
mod plain;
mod q8_0;
mod stored;

pub use error::FormatError;
pub use stored::Stored;

use crate::tensor::DType;
use codec::Codec;
use plain::Plain;
use q8_0::Q8_0;
use serde::Serialize;
use std::fmt;

/// How the elements of a weight are stored.
///
/// The elements of a row (the last dimension) are stored in blocks of [`Format::block`] elements. A row is a whole number of
/// blocks, and a cut never divides a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16, the upper 16 bits of an f32.
    BF16,
    /// Unsigned whole numbers: indices.
    U32,
    /// Blocks of 32 whole numbers from -127 to 127, with a scale in f16: 8.5 bits per element. The encoding and the rounding
    /// are those of GGUF's `Q8_0`.
    Q8_0,
}

impl Format {
    /// The formats that numbers may be stored in, with the names that a person gives them.
    pub const NUMBERS: [Format; 4] = [Format::F32, Format::F16, Format::BF16, Format::Q8_0];

    fn codec(self) -> &'static dyn Codec {
        match self {
            Format::F32 => &Plain(DType::F32),
            Format::F16 => &Plain(DType::F16),
            Format::BF16 => &Plain(DType::BF16),
            Format::U32 => &Plain(DType::U32),
            Format::Q8_0 => &Q8_0,
        }
    }

    /// Its name: `f16`, `q8_0`.
    #[doc(hidden)]
    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::BF16 => "bf16",
            Format::U32 => "u32",
            Format::Q8_0 => "q8_0",
        }
    }

    /// The type of its elements as ops see them: u32 for indices, f32 for everything else.
    pub fn dtype(self) -> DType {
        if self == Format::U32 { DType::U32 } else { DType::F32 }
    }

    /// Elements of one block; 1 where every element is stored by itself.
    pub fn block(self) -> usize {
        self.codec().block()
    }

    /// Bytes that `elements` elements take, which are a whole number of blocks.
    #[doc(hidden)]
    pub fn bytes(self, elements: usize) -> u64 {
        let codec = self.codec();
        (elements as u64 / codec.block() as u64).saturating_mul(codec.block_bytes() as u64)
    }

    /// Whether a weight of this shape can be stored in it: its rows are whole blocks.
    #[doc(hidden)]
    pub fn holds(self, shape: &[usize]) -> bool {
        shape.last().copied().unwrap_or(1).is_multiple_of(self.block())
    }

    /// Bytes of a row of `len` elements in a device's memory, where rows start at multiples of the vectors that kernels load.
    #[doc(hidden)]
    pub fn device_row(self, len: usize) -> usize {
        self.codec().device_row(len)
    }

    /// The module of `shaders/common/` that decodes it in a kernel. `wide` asks for the one that loads eight elements at a time,
    /// for rows of a multiple of eight elements; it is the same one where a format has only one.
    #[doc(hidden)]
    pub fn module(self, wide: bool) -> &'static str {
        self.codec().module(wide)
    }

    /// Whether a kernel of its own loads eight elements at a time, for rows of `len` elements.
    #[doc(hidden)]
    pub fn is_wide(self, len: usize) -> bool {
        len.is_multiple_of(8) && self.module(true) != self.module(false)
    }
}

impl From<DType> for Format {
    fn from(dtype: DType) -> Format {
        match dtype {
            DType::F32 => Format::F32,
            DType::F16 => Format::F16,
            DType::BF16 => Format::BF16,
            DType::U32 => Format::U32,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
