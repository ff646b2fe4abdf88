//! What operators and formats share about numbers: a value as a float, and the limit of integers.
//!
//! It deliberately knows no operator. Read `operators.rs` next.

use super::fault::refused;
use super::value::Value;

pub(super) fn too_large() -> Box<super::fault::Error> {
    refused("an integer of more than 128 bits")
}

/// A number as a float.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        other => other.as_int().map(|value| value as f64),
    }
}
