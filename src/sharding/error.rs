//! What can be wrong with a sharding rule, a cut or ratios.
//!
//! It deliberately knows no graph. Read `rule.rs` and `cut.rs` for who returns these.

/// A sharding rule, a cut or ratios that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShardingError {
    /// A rule's text cannot be read.
    #[error("the sharding rule {pattern:?} cannot be read: {reason}")]
    Pattern {
        /// The rule.
        pattern: String,
        /// What is wrong in it.
        reason: String,
    },
    /// A factor would have two lengths.
    #[error("{op}: factor {factor} is {first} in one place and {second} in another")]
    Extent {
        /// The op.
        op: &'static str,
        /// The factor's name.
        factor: String,
        /// One length.
        first: String,
        /// The other length.
        second: String,
    },
    /// The inputs do not have the shapes that the rule states.
    #[error("{op}: {reason}")]
    Inputs {
        /// The op.
        op: &'static str,
        /// Which input does not fit, and why.
        reason: String,
    },
    /// A factor may not be cut.
    #[error("{op}: factor {factor:?} cannot be cut; the rule {rule} allows {allowed}")]
    NotCuttable {
        /// The op.
        op: &'static str,
        /// The factor asked for.
        factor: String,
        /// The rule's text.
        rule: String,
        /// The factors that can be, comma-separated.
        allowed: String,
    },
    /// A cut is not legal for its factor.
    #[error("the cut {cut} of {factor} {reason}")]
    Cut {
        /// The cut, printed.
        cut: String,
        /// The factor's name.
        factor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Ratios that cannot be used.
    #[error("ratios: {0}")]
    Ratios(String),
}
