//! The blocks that families are made of: attention, MLPs, norms, rotary tables, experts, heads.
//!
//! A block adds nodes to a graph through the [`builder`] and deliberately knows no family by name. Read `builder.rs`,
//! then `decoder.rs`.

pub(crate) mod builder;
pub(crate) mod classifier;
pub(crate) mod decoder;
pub(crate) mod family;
pub(crate) mod interleaved;
pub(crate) mod layers;
pub(crate) mod mixture;
pub(crate) mod norm;
pub(crate) mod origin;
pub(crate) mod rope;
pub(crate) mod scaling;
