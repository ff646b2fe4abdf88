//! [`Norm`], how a family normalises: by RMS or by mean and variance, with which epsilon and which offset.
//!
//! It deliberately knows no weight. Read `builder.rs` for the node that is made from a `Norm`.

use crate::import::ImportError;
use crate::import::files::config::Config;
use crate::ops::NormalizationKind;

/// The kind of norm, its epsilon and the offset of its weight.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) kind: NormalizationKind,
    pub(crate) epsilon: f64,
    /// Added to the weight: 1 for Gemma, whose files hold the difference from one; else 0.
    pub(crate) offset: f32,
}

impl Norm {
    /// RMSNormalization with the epsilon of `rms_norm_eps`.
    pub(crate) fn rms(config: &Config) -> Result<Norm, ImportError> {
        Ok(Norm { kind: NormalizationKind::Rms, epsilon: config.positive("rms_norm_eps")?, offset: 0.0 })
    }

    /// LayerNormalization with the epsilon that `field` of the configuration states.
    pub(crate) fn layer(config: &Config, field: &str) -> Result<Norm, ImportError> {
        Ok(Norm { kind: NormalizationKind::Layer, epsilon: config.positive(field)?, offset: 0.0 })
    }
}
