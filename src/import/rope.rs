//! Rotary frequencies: both spellings of their settings, and the tables of angles made from them.
//!
//! It deliberately knows no attention: a table has a row per position and a column per rotated pair. Tables are made
//! in f64 and for the session's capacity only. Read `crate::ops::RotaryEmbedding` next.

use super::Config;
use crate::error::{ImportError, Result};
use crate::tensor::{Region, Tensor};

/// Heads wider than this are a mistake, which no table is made for.
const MAX_HEAD: usize = 1 << 16;

/// Which function of the angle a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Angle {
    Cosine,
    Sine,
}

/// One table: `f(position * frequency[i])`.
#[derive(Clone, Debug)]
pub(super) struct RopeTable {
    pub(super) angle: Angle,
    pub(super) frequencies: Vec<f64>,
}

impl RopeTable {
    /// The box `region` of the table.
    pub(super) fn read(&self, region: &Region) -> Result<Tensor> {
        let mut values = Vec::with_capacity(region.numel());
        for position in region.0[0].clone() {
            for i in region.0[1].clone() {
                let angle = position as f64 * self.frequencies.get(i).copied().unwrap_or(0.0);
                values.push(match self.angle {
                    Angle::Cosine => angle.cos(),
                    Angle::Sine => angle.sin(),
                } as f32);
            }
        }
        Tensor::f32(region.shape(), values)
    }
}

/// The frequencies of heads of `head_dim` under `config`: `theta^(-2 i / head_dim)`.
///
/// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before). Errors on a rope type that is
/// not supported.
pub(super) fn frequencies(config: &Config, head_dim: usize) -> Result<Vec<f64>> {
    let parameters = match config.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling")?,
    };
    if let Some(parameters) = &parameters {
        let kind = parameters.str_or(["rope_type", "type"], "default")?;
        if kind != "default" {
            let (name, supported) = (kind.to_string(), "default".to_string());
            return Err(ImportError::Unsupported { what: "rope type", name, supported }.into());
        }
    }
    for source in [Some(config), parameters.as_ref()].into_iter().flatten() {
        if source.positive_or("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(source.error("partial_rotary_factor", "only 1 is supported"));
        }
    }
    let theta = match parameters.as_ref().filter(|p| p.has("rope_theta")) {
        Some(parameters) => parameters.positive_or("rope_theta", 10_000.0)?,
        None => config.positive_or("rope_theta", 10_000.0)?,
    };
    if head_dim > MAX_HEAD {
        return Err(config.error("head_dim", format!("{head_dim} is wider than any head, {MAX_HEAD} at most")));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(config.error("head_dim", format!("{head_dim} is odd, rotary embedding pairs dimensions")));
    }
    Ok((0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect())
}
