//! Rotary position embedding (RoPE): its settings, in the spellings of transformers 5 and before, and the tables of
//! cosines and sines made from them.
//!
//! It deliberately knows no attention: a table has a row per position and a column per rotated pair. Tables are
//! computed in f64 for the session's capacity. Some scalings depend on the length of the text. In transformers that
//! length grows with each token; here it is the capacity from the first token on, so that all keys in the cache are
//! rotated by the same frequencies. Read `scaling.rs` for the scalings, [`crate::ops::RotaryEmbedding`] for the op.

use crate::import::ImportError;
use crate::import::blocks::scaling::Scaling;
use crate::import::files::config::Config;
use crate::tensor::{Region, Tensor};
use std::fmt;

/// The most dimensions that a head may have. Checked before a table is allocated for it.
const MAX_HEAD: usize = 1 << 16;

/// Whether a table holds cosines or sines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Angle {
    Cosine,
    Sine,
}

impl fmt::Display for Angle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Angle::Cosine => "cos",
            Angle::Sine => "sin",
        })
    }
}

/// The rotary embedding of a layer's heads.
#[derive(Clone, Debug)]
pub(crate) struct Rope {
    name: &'static str,
    pub(crate) theta: f64,
    /// The fraction of each head's dimensions that is rotated (`partial_rotary_factor`).
    pub(crate) part: f64,
    /// How many dimensions of each head are rotated, an even number.
    pub(crate) rotated: usize,
    pub(crate) scaling: Scaling,
}

/// One table: cosine or sine of `position * frequency[i]`, times the scaling's attention factor.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    pub(crate) angle: Angle,
    pub(crate) rope: Rope,
}

impl RopeTable {
    /// The region `region` of the table, which has a row for each of `capacity` positions.
    pub(crate) fn read(&self, capacity: usize, region: &Region) -> Result<Tensor, ImportError> {
        let (frequencies, attention) = self.rope.frequencies(capacity);
        let mut values = Vec::with_capacity(region.numel());
        for position in region.0[0].clone() {
            for i in region.0[1].clone() {
                let angle = position as f64 * frequencies.get(i).copied().unwrap_or(0.0);
                let value = match self.angle {
                    Angle::Cosine => angle.cos(),
                    Angle::Sine => angle.sin(),
                };
                values.push((value * attention) as f32);
            }
        }
        Ok(Tensor::f32(region.shape(), values)?)
    }
}

impl Rope {
    /// The rotary embedding that `config` states for heads of `head_dim` dimensions, all of which are rotated.
    ///
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before). Errors on a rope type
    /// that is not supported, and on senseless settings.
    pub(crate) fn of_whole_heads(config: &Config, head_dim: usize) -> Result<Rope, ImportError> {
        let rope = Rope::of_part(config, head_dim)?;
        if rope.rotated != head_dim {
            return Err(config.error("partial_rotary_factor", "only 1 is supported in this family"));
        }
        Ok(rope)
    }

    /// As [`Rope::of_whole_heads`], for families where `partial_rotary_factor` may leave the end of each head
    /// unrotated.
    pub(crate) fn of_part(config: &Config, head_dim: usize) -> Result<Rope, ImportError> {
        Rope::named(config, ["rope_theta", "partial_rotary_factor"], head_dim)
    }

    /// As [`Rope::of_part`], for families with field names of their own for the base and the rotated fraction.
    pub(crate) fn named(config: &Config, names: [&str; 2], head_dim: usize) -> Result<Rope, ImportError> {
        let parameters = match config.object("rope_scaling")?.filter(|scaling| !scaling.is_empty()) {
            Some(scaling) => Some(scaling),
            None => config.object("rope_parameters")?,
        };
        Rope::read(config, parameters.as_ref(), "rope", names, head_dim)
    }

    /// The rotary embedding that `parameters` state. Its tables are called `name`. What `parameters` leave out is
    /// read from the fields `theta` and `part` of `config`.
    pub(crate) fn read(
        config: &Config,
        parameters: Option<&Config>,
        name: &'static str,
        [theta, part]: [&str; 2],
        head_dim: usize,
    ) -> Result<Rope, ImportError> {
        let inner = |field: &str| parameters.map_or(Ok(None), |p| p.opt_positive(field));
        let either = |within: Option<f64>, field: &str, default: f64| match within {
            Some(value) => {
                config.agrees(field, value);
                Ok(value)
            }
            None => config.positive_or(field, default),
        };
        let theta = either(inner("rope_theta")?, theta, 10_000.0)?;
        let part = either(inner("partial_rotary_factor")?, part, 1.0)?;
        if theta <= 1.0 {
            return Err(config.error("rope_theta", format!("{theta} is not above 1")));
        }
        if head_dim > MAX_HEAD {
            return Err(config.error("head_dim", format!("{head_dim} is wider than any head, {MAX_HEAD} at most")));
        }
        let rotated = (head_dim as f64 * part) as usize;
        if part > 1.0 || rotated == 0 || !rotated.is_multiple_of(2) {
            let reason = format!("{part} of heads of {head_dim} turns {rotated} dimensions, which must be some pairs");
            return Err(config.error(["partial_rotary_factor", "head_dim"], reason));
        }
        let scaling = Scaling::read(config, parameters, rotated)?;
        Ok(Rope { name, theta, part, rotated, scaling })
    }

    /// The name of the embedding's tables in the graph: `NAME.cos` and `NAME.sin`.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The frequency of each rotated pair for a capacity of `capacity` positions, and the factor of cosines and
    /// sines.
    pub(crate) fn frequencies(&self, capacity: usize) -> (Vec<f64>, f64) {
        self.scaling.frequencies(self.theta, self.rotated, capacity)
    }

    /// The rotated pairs of a head: the columns of its tables.
    pub(crate) fn pairs(&self) -> usize {
        self.rotated / 2
    }

    /// The longest context of a model whose configuration states `max_position_embeddings`.
    pub(crate) fn context(&self, max_position_embeddings: usize) -> usize {
        self.scaling.context(max_position_embeddings)
    }
}
