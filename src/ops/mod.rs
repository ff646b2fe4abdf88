//! The ops: one file per family, each with its sharding rule, cost, host evaluation, choice of kernel and random cases.
//!
//! Names and semantics are those of the ONNX operator set where it has the op. [`Linear`], [`Experts`] and [`Routing`] are
//! fanfold's own; each op's page says what it equals in ONNX. An op deliberately knows nothing of the graph around it and
//! nothing of devices: it computes a part of the whole that its [`crate::sharding::ShardingRule`] describes. Read `operator.rs`
//! for the trait, `softmax.rs` for a short op, then [`crate::graph`].

mod error;

pub use error::OpError;

mod all;
mod attention;
mod binary;
mod cache;
mod experts;
mod gather;
mod layout;
mod linear;
mod normalization;
mod operator;
mod reduce;
mod rotary;
mod routing;
pub mod sample;
mod softmax;
mod unary;

pub use all::samples;
pub use attention::Attention;
pub use binary::{Binary, BinaryFunction};
pub use cache::TensorScatter;
pub use experts::{Experts, ExpertsKind};
pub use gather::Gather;
pub use layout::{Reshape, Slice, Transpose};
pub use linear::Linear;
pub use normalization::{Normalization, NormalizationKind};
pub use operator::{Attributes, EvalContext, LaunchContext, Op, Operand, Operator, ResolvedExtent};
pub use reduce::{Reduce, ReduceKind};
pub use rotary::RotaryEmbedding;
pub use routing::Routing;
pub use softmax::Softmax;
pub use unary::{Unary, UnaryFunction};
