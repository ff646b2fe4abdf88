//! The list of the crate's own ops, for whoever does something with every one of them.
//!
//! A new op of the crate is added here and in `mod.rs`, nowhere else. Read `sample.rs` for what a case is.

use super::attention::Attention;
use super::binary::Binary;
use super::cache::TensorScatter;
use super::experts::Experts;
use super::gather::Gather;
use super::layout::{Reshape, Slice, Transpose};
use super::linear::Linear;
use super::normalization::Normalization;
use super::operator::Op;
use super::reduce::Reduce;
use super::rotary::RotaryEmbedding;
use super::routing::Routing;
use super::sample::MakeSample;
use super::softmax::Softmax;
use super::unary::Unary;
use std::any::Any;

macro_rules! built_in {
    ($($op:ident),* $(,)?) => {
        /// The random cases of every op that the crate brings, for tests, benches and self-tests: the op's name and a maker of
        /// cases.
        ///
        /// An op of one's own brings its cases to [`crate::proof::check_op`] itself.
        #[doc(hidden)]
        pub fn samples() -> Vec<(&'static str, MakeSample)> {
            [$($op::SAMPLES),*].concat()
        }

        impl Op {
            /// Whether the crate brings it. Then its kernels are launched with parameters for which their loops end.
            pub(crate) fn is_built_in(&self) -> bool {
                let op: &dyn Any = &**self;
                $(op.is::<$op>())||*
            }
        }
    };
}

// The one list that a new op of the crate is added to.
built_in! {
    Linear, Gather, Normalization, RotaryEmbedding, Attention, TensorScatter, Unary, Binary, Softmax, Reshape, Transpose,
    Slice, Reduce, Routing, Experts,
}
