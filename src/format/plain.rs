//! The formats in which every element is stored by itself: f32, f16, bf16, and u32 for indices.
//!
//! It deliberately leaves the conversion of elements to [`Tensor`]. Read `q8_0.rs` for a format with blocks.

use super::codec::{Codec, Encoded, Unfit};
use crate::tensor::{DType, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Elements of this type, one after another. On a device a row is padded with zeros to a multiple of four elements.
pub(super) struct Plain(pub(super) DType);

impl Codec for Plain {
    fn block(&self) -> usize {
        1
    }

    fn block_bytes(&self) -> usize {
        self.0.size()
    }

    fn encode(&self, tensor: Tensor) -> Result<Encoded, Unfit> {
        if tensor.dtype() == self.0 {
            return Ok(Encoded::Elements(tensor));
        }
        let finite = tensor.first_not_finite().is_none();
        let rounded = tensor.rounded(self.0);
        // A number that is finite in its source and infinite here was too large for this type.
        match rounded.first_not_finite() {
            Some((_, value)) if finite => Err(Unfit::Value(value)),
            _ => Ok(Encoded::Elements(rounded)),
        }
    }

    fn decode(&self, bytes: &[u8], values: &mut [f32]) {
        match self.0 {
            DType::F32 | DType::U32 => bytemuck::cast_slice_mut(values).copy_from_slice(bytes),
            DType::F16 => bytemuck::pod_collect_to_vec::<u8, f16>(bytes).convert_to_f32_slice(values),
            DType::BF16 => bytemuck::pod_collect_to_vec::<u8, bf16>(bytes).convert_to_f32_slice(values),
        }
    }

    fn device_row(&self, len: usize) -> usize {
        len.next_multiple_of(4) * self.0.size()
    }

    fn lay(&self, stored: &[u8], row: &mut [u8]) {
        row[..stored.len()].copy_from_slice(stored);
    }

    fn module(&self, wide: bool) -> &'static str {
        match (self.0, wide) {
            (DType::F32 | DType::U32, _) => "weight_f32",
            (DType::F16, false) => "weight_f16",
            (DType::F16, true) => "weight_f16_wide",
            (DType::BF16, false) => "weight_bf16",
            (DType::BF16, true) => "weight_bf16_wide",
        }
    }
}
