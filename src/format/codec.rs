//! What a format says of itself: the trait that each file of this folder implements.
//!
//! It deliberately knows no format. Read `q8_0.rs` for one with blocks.

use crate::tensor::{Tensor, TensorError};

/// The encoding of one format on the host, and its layout in a device's memory.
pub(super) trait Codec: Sync {
    /// Elements of a block.
    fn block(&self) -> usize;

    /// Bytes of a block.
    fn block_bytes(&self) -> usize;

    /// Encodes all elements of `tensor`, whose rows are whole blocks, row by row.
    ///
    /// Errors when an element cannot be represented.
    fn encode(&self, tensor: Tensor) -> Result<Encoded, Unfit>;

    /// Decodes `bytes`, which are whole blocks, into `values`: f32 exactly as kernels decode it.
    fn decode(&self, bytes: &[u8], values: &mut [f32]);

    /// Bytes of a row of `len` elements in a device's memory: a multiple of four.
    fn device_row(&self, len: usize) -> usize;

    /// Fills `row`, a row in a device's memory, from the stored blocks of that row. The bytes that pad it are zero before.
    fn lay(&self, stored: &[u8], row: &mut [u8]);

    /// The module of `shaders/common/` that decodes such rows; `wide` asks for loads of eight elements.
    fn module(&self, wide: bool) -> &'static str;
}

/// Why elements cannot be encoded.
#[derive(Debug)]
pub(super) enum Unfit {
    /// This element is too large, or not finite.
    Value(f32),
    /// There is not enough memory.
    Tensor(TensorError),
}

impl From<TensorError> for Unfit {
    fn from(error: TensorError) -> Unfit {
        Unfit::Tensor(error)
    }
}

/// Elements in their encoding.
pub(super) enum Encoded {
    /// A tensor whose own elements are the encoding.
    Elements(Tensor),
    /// The blocks, row by row.
    Blocks(Vec<u8>),
}
