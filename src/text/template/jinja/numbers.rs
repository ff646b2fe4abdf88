//! Number helpers that operators and formats share: a value as a float, and the error of integers that are too large.
//!
//! This file deliberately knows no operator. Read `operators.rs` next.

use super::fault::refused;
use super::value::Value;

pub(super) fn too_large() -> Box<super::fault::Error> {
    refused("an integer of more than 128 bits")
}

/// The value of a number, or of a boolean, as a float; `None` for a value of another type.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        other => other.as_int().map(|value| value as f64),
    }
}
