//! Parsers for the values of options that are numbers, some of which may be unlimited or drawn at random.
//!
//! Each parser refuses a number without sense, and its error says which numbers it takes. None of them knows its option's
//! name, which clap adds. Read `size.rs` for sizes with a unit.

/// The largest count of anything: positions, tokens, texts, repetitions.
const MAX_COUNT: usize = 1 << 24;

/// A whole number from 1 to [`MAX_COUNT`].
pub fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=MAX_COUNT).contains(n)).ok_or_else(|| format!("a number of 1 to {MAX_COUNT}"))
}

/// A whole number from 0 to [`MAX_COUNT`].
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= MAX_COUNT).ok_or_else(|| format!("a number of 0 to {MAX_COUNT}"))
}

/// A parser of numbers from `low` to `high`, both included.
pub fn within(low: f32, high: f32) -> impl Fn(&str) -> Result<f32, String> + Clone {
    let range = low..=high;
    move |text| text.parse().ok().filter(|x| range.contains(x)).ok_or_else(|| format!("a number of {low} to {high}"))
}

/// A device's share of the model, relative to the other devices' shares.
pub fn share(text: &str) -> Result<f64, String> {
    let reason = || "a number of at least 0, such as 3 or 0.5".to_string();
    text.parse().ok().filter(|x| (0.0..=1e12).contains(x)).ok_or_else(reason)
}

/// A whole number of at least 0, or -1 for no limit.
pub fn limit(text: &str) -> Result<usize, String> {
    if text == "-1" { Ok(usize::MAX) } else { count(text).map_err(|reason| format!("{reason}, or -1 for no limit")) }
}

/// How many of the most likely tokens are candidates: 0 for all of them. A negative number means all as well, as in llama.cpp.
pub fn top_k(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Ok(0),
        _ => count(text).map_err(|reason| format!("{reason}, or less for all")),
    }
}

/// A temperature. A negative one is read as 0, as in llama.cpp.
pub fn temperature(text: &str) -> Result<f32, String> {
    within(-100.0, 100.0)(text).map(|temperature| temperature.max(0.0))
}

/// A fraction of the largest probability. A negative one is read as 0, as in llama.cpp.
pub fn min_p(text: &str) -> Result<f32, String> {
    within(-100.0, 1.0)(text).map(|fraction| fraction.max(0.0))
}

/// Positions of the KV cache. 0 stands for as many as the model was made for, and is read as `usize::MAX`.
pub fn context(text: &str) -> Result<usize, String> {
    match count(text)? {
        0 => Ok(usize::MAX),
        n => Ok(n),
    }
}

/// The seed of the random numbers that choose tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// Drawn anew for each run, and told.
    Drawn,
    /// Given by the person.
    Given(u64),
}

/// A seed, or -1 for a drawn one.
pub fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed::Drawn),
        _ => text.parse().map(Seed::Given).map_err(|_| format!("a number of 0 to {}, or -1: drawn", u64::MAX)),
    }
}
