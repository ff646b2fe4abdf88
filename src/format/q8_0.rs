//! Q8_0: blocks of 32 whole numbers with one scale.
//!
//! It deliberately knows nothing of files: GGUF stores the same blocks. Read `shaders/common/weight_q8_0.wgsl` for how a
//! kernel decodes a row.

use super::codec::{Codec, Encoded, Unfit};
use crate::tensor::Tensor;
use half::f16;

/// Elements of a block.
const BLOCK: usize = 32;

/// Bytes of a memory sector of a GPU, at whose multiples rows start on a device.
const SECTOR: usize = 32;

/// Bytes of a scale.
const SCALE: usize = 2;

/// A block is the scale in f16, then 32 signed bytes: an element is the scale times its byte, which f32 holds exactly.
///
/// On a device a row is all bytes of its blocks, then all scales, padded to whole sectors: neighbouring lanes then
/// load neighbouring bytes. Source of the encoding: `quantize_row_q8_0_ref` of ggml.
pub(super) struct Q8_0;

impl Codec for Q8_0 {
    fn block(&self) -> usize {
        BLOCK
    }

    fn block_bytes(&self) -> usize {
        SCALE + BLOCK
    }

    fn encode(&self, tensor: Tensor) -> Result<Encoded, Unfit> {
        let wide = tensor.try_widened()?;
        let values = wide.as_f32()?;
        let mut bytes = Vec::with_capacity(values.len() / BLOCK * (SCALE + BLOCK));
        for block in values.chunks_exact(BLOCK) {
            // The scale is that of the largest magnitude, which becomes 127 or -127. Quotients are rounded by the scale in f32,
            // before it is rounded to f16, as in ggml.
            let largest = block.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let scale = largest / 127.0;
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            let stored = f16::from_f32(scale);
            if !stored.is_finite() || block.iter().any(|x| !x.is_finite()) {
                let value = block.iter().copied().find(|x| !x.is_finite()).unwrap_or(largest);
                return Err(Unfit::Value(value));
            }
            bytes.extend_from_slice(&stored.to_le_bytes());
            // The conversion of an f32 to an i8 saturates: 1 / scale may be so large for tiny numbers that a quotient is not 127.
            bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
        }
        Ok(Encoded::Blocks(bytes))
    }

    fn decode(&self, bytes: &[u8], values: &mut [f32]) {
        for (block, values) in bytes.chunks_exact(SCALE + BLOCK).zip(values.chunks_exact_mut(BLOCK)) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (value, &byte) in values.iter_mut().zip(&block[SCALE..]) {
                *value = scale * f32::from(byte as i8);
            }
        }
    }

    fn device_row(&self, len: usize) -> usize {
        (len + len / BLOCK * SCALE).next_multiple_of(SECTOR)
    }

    fn lay(&self, stored: &[u8], row: &mut [u8]) {
        let blocks = stored.len() / (SCALE + BLOCK);
        let (bytes, scales) = row.split_at_mut(blocks * BLOCK);
        let places = bytes.chunks_exact_mut(BLOCK).zip(scales.chunks_exact_mut(SCALE));
        for (block, (bytes, scale)) in stored.chunks_exact(SCALE + BLOCK).zip(places) {
            scale.copy_from_slice(&block[..SCALE]);
            bytes.copy_from_slice(&block[SCALE..]);
        }
    }

    fn module(&self, _wide: bool) -> &'static str {
        "weight_q8_0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn encoded(values: Vec<f32>) -> Result<Vec<u8>, Unfit> {
        match Q8_0.encode(Tensor::f32([values.len()], values).unwrap())? {
            Encoded::Blocks(bytes) => Ok(bytes),
            Encoded::Elements(_) => panic!("no blocks"),
        }
    }

    #[test]
    fn a_block_is_within_half_a_step_and_keeps_what_it_can_hold() {
        let mut random = Random::new(7);
        for magnitude in [1e-6, 1.0, 6e4] {
            let values: Vec<f32> = (0..96).map(|_| magnitude * random.unit()).collect();
            let mut decoded = vec![0.0; 96];
            Q8_0.decode(&encoded(values.clone()).unwrap(), &mut decoded);
            for (values, decoded) in values.chunks(32).zip(decoded.chunks(32)) {
                let largest = values.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                for (x, y) in values.iter().zip(decoded) {
                    // Half a step of the scale, and what rounding a scale of so small numbers to f16 loses.
                    assert!((x - y).abs() <= largest / 127.0 * 0.51 + largest * 1e-3 + 127.0 * 3e-8, "{x} {y}");
                }
            }
        }
        // Bytes times a power of two are what the format holds: they come back.
        let exact: Vec<f32> = (0..32).map(|i| (i * 8 - 127) as f32 * 0.25).collect();
        let mut decoded = vec![0.0; 32];
        Q8_0.decode(&encoded(exact.clone()).unwrap(), &mut decoded);
        assert_eq!(exact, decoded);
        let mut zeros = vec![1.0; 32];
        Q8_0.decode(&encoded(vec![0.0; 32]).unwrap(), &mut zeros);
        assert_eq!(zeros, [0.0; 32]);
    }

    #[test]
    fn a_block_has_the_bytes_of_ggml() {
        // Made with gguf 0.19's `gguf.quants.quantize(x, GGMLQuantizationType.Q8_0)` for x = (i - 11)^3 / 97 in f32.
        let values: Vec<f32> = (0..32).map(|i| ((i - 11) as f32).powi(3) / 97.0).collect();
        let bytes = encoded(values).unwrap();
        assert_eq!(&bytes[..2], REFERENCE_SCALE);
        assert_eq!(bytes[2..].iter().map(|&b| b as i8).collect::<Vec<_>>(), REFERENCE);
    }

    const REFERENCE_SCALE: &[u8] = &[50, 57];
    const REFERENCE: [i8; 32] = [
        -21, -16, -12, -8, -5, -3, -2, -1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 5, 8, 12, 16, 21, 27, 35, 44, 54, 65, 78, 93,
        109, 127,
    ];

    #[test]
    fn a_number_beyond_the_scale_is_an_error() {
        for value in [f32::NAN, f32::INFINITY, 1e7] {
            let mut values = vec![1.0; 64];
            values[40] = value;
            assert!(matches!(encoded(values), Err(Unfit::Value(found)) if found == value || found.is_nan()));
        }
    }
}
