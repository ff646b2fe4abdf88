//! Values of options that are more than a number in a range: sizes with units, numbers that may be unlimited, and words
//! of which there are a few.
//!
//! Each parser refuses what it does not understand and says what it does. Read `common.rs` for plain numbers.

use crate::common::count;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fanfold::plan::Strategy;
use fanfold::tensor::DType;

/// One of a few words, which stand in the help and in completions.
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

/// The name of a type that weights have.
pub fn dtype() -> impl TypedValueParser<Value = DType> + 'static {
    let known = [("f16", DType::F16), ("bf16", DType::BF16), ("f32", DType::F32)];
    word(known.map(|(name, dtype)| (PossibleValue::new(name), dtype)).into())
}

/// A size in bytes: `24G`, `24GiB`, `24GB`, `24000000000B`, in letters of either case.
///
/// As GNU's tools read them: `G` and `GiB` are 1024^3 bytes, `GB` is 1000^3. A number without a unit is refused: some
/// programs take one for bytes, some for MiB, some for GiB.
pub fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim().to_lowercase());
    match (number.parse::<f64>(), bytes(&unit)) {
        (Ok(value), Some(factor)) if value.is_finite() && value * factor < 1e18 => Ok((value * factor) as u64),
        (Ok(_), None) if unit.is_empty() => Err(format!(
            "a size needs a unit: {text}G or {text}GiB (1024^3 bytes each), {text}GB (1000^3), {text}B (bytes)"
        )),
        _ => Err("a size such as 8G, 8GiB, 500MB or 1000000B".to_string()),
    }
}

/// How many bytes a unit in lower case is.
fn bytes(unit: &str) -> Option<f64> {
    if unit == "b" {
        return Some(1.0);
    }
    let (prefix, base) = match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
        (Some(prefix), _) => (prefix, 1024f64),
        (None, Some(prefix)) => (prefix, 1000f64),
        (None, None) => (unit, 1024f64),
    };
    let power = ["k", "m", "g", "t", "p"].iter().position(|known| *known == prefix)?;
    Some(base.powi(power as i32 + 1))
}

/// A whole number of at least 0, or -1 for as many as there are room for.
pub fn limit(text: &str) -> Result<usize, String> {
    if text == "-1" { Ok(usize::MAX) } else { count(text).map_err(|reason| format!("{reason}, or -1 for no limit")) }
}

/// How many of the most likely tokens: 0 for all. Negative numbers mean all, too.
pub fn top_k(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Ok(0),
        _ => count(text).map_err(|reason| format!("{reason}, or less for all")),
    }
}

/// A temperature; one below 0 is 0.
pub fn temperature(text: &str) -> Result<f32, String> {
    crate::common::within(-100.0, 100.0)(text).map(|temperature| temperature.max(0.0))
}

/// A fraction of the largest probability; one below 0 is 0.
pub fn min_p(text: &str) -> Result<f32, String> {
    crate::common::within(-100.0, 1.0)(text).map(|fraction| fraction.max(0.0))
}

/// Positions of the KV cache; 0 for as many as the model was made for.
pub fn context(text: &str) -> Result<usize, String> {
    match count(text)? {
        0 => Ok(usize::MAX),
        n => Ok(n),
    }
}

/// Where the random numbers start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// Anywhere.
    Drawn,
    /// Here.
    Given(u64),
}

/// A seed, or -1 for a drawn one.
pub fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed::Drawn),
        _ => text.parse().map(Seed::Given).map_err(|_| format!("a number of 0 to {}, or -1: drawn", u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_a_number_alone_is_refused() {
        let giga = 1u64 << 30;
        for (text, bytes) in [
            ("24G", 24 * giga),
            ("24g", 24 * giga),
            ("24GiB", 24 * giga),
            ("24gib", 24 * giga),
            ("24 GiB", 24 * giga),
            ("140GB", 140_000_000_000),
            ("140gb", 140_000_000_000),
            ("500M", 500 << 20),
            ("500MB", 500_000_000),
            ("1.5K", 1536),
            ("2T", 2048 * giga),
            ("24000000000B", 24_000_000_000),
            ("7b", 7),
            ("0B", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["24", "0", "1.5"] {
            let reason = size(text).unwrap_err();
            assert!(reason.contains(&format!("{text}GiB")) && reason.contains("unit"), "{reason}");
        }
        for text in ["", "G", "GiB", "-1G", "x", "24X", "24GG", "24Gi", "1e3G", "24ib", "24kmB", "1..2G", "9999999PB"] {
            assert!(size(text).unwrap_err().contains("8GiB"), "{text}");
        }
    }
}
