//! Parsers for the values of options that are one of a few words: strategies, types of weights, orders of sums.
//!
//! The words stand in the help and in shells' completions. Read `numbers.rs` for values that are numbers.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fanfold::format::Format;
use fanfold::kernel::Numerics;
use fanfold::plan::Strategy;
use fanfold::tensor::DType;

/// A parser of `words`, each of which stands for a value.
fn word<T: Clone + Send + Sync + 'static>(
    words: Vec<(PossibleValue, T)>,
) -> impl TypedValueParser<Value = T> + 'static {
    let names = words.iter().map(|(word, _)| word.clone()).collect::<Vec<_>>();
    PossibleValuesParser::new(names).try_map(move |given| {
        let found = words.iter().find(|(word, _)| word.matches(&given, false));
        found.map(|(_, value)| value.clone()).ok_or("is none of them")
    })
}

/// The name of a strategy.
pub fn strategy() -> impl TypedValueParser<Value = Strategy> + 'static {
    let help = |strategy: Strategy| match strategy {
        Strategy::Single => "one device does everything",
        Strategy::Column => "weights are cut by their outputs, which are stacked: bit for bit one device's answer",
        Strategy::Row => "weights are cut by their inputs, and partial outputs are added",
        Strategy::Tensor => "column and then row, so that two products need one exchange",
    };
    word(Strategy::ALL.map(|(name, strategy)| (PossibleValue::new(name).help(help(strategy)), strategy)).into())
}

/// The name of an order in which kernels add up sums.
pub fn numerics() -> impl TypedValueParser<Value = Numerics> + 'static {
    let help = |numerics: Numerics| match numerics {
        Numerics::Sequential => "one invocation adds up a sum: for software drivers",
        Numerics::Lanes => "the lanes of a workgroup share a sum: for GPUs",
    };
    let known = [Numerics::Sequential, Numerics::Lanes];
    word(known.map(|numerics| (PossibleValue::new(numerics.name()).help(help(numerics)), numerics)).into())
}

/// The name of a format that weights are stored in.
pub fn format() -> impl TypedValueParser<Value = Format> + 'static {
    let help = |format: Format| match format {
        Format::Q8_0 => "blocks of 32 whole numbers of 8 bits with a scale: about half of f16",
        Format::F16 => "16 bits: IEEE half precision",
        Format::BF16 => "16 bits: the upper half of an f32",
        Format::F32 | Format::U32 => "32 bits",
    };
    word(Format::NUMBERS.map(|format| (PossibleValue::new(format.name()).help(help(format)), format)).into())
}

/// The name of a type that random weights have.
pub fn dtype() -> impl TypedValueParser<Value = DType> + 'static {
    let known = [("f16", DType::F16), ("bf16", DType::BF16), ("f32", DType::F32)];
    word(known.map(|(name, dtype)| (PossibleValue::new(name), dtype)).into())
}
