//! The patterns of a tokenizer.json, with limits: how a `Replace` and a `Split` find their matches.
//!
//! The tokenizers crate compiles and runs the same regular expressions. But where the engine gives up on one, the
//! crate silently continues as if nothing more matched, and it has no time limit. Here both are errors. The module
//! deliberately knows no tokenizer. Read [`Pattern::find`].

use super::budget::Budget;
use fancy_regex::Regex;
use serde_json::Value;
use tokenizers::Offsets;

/// The longest pattern, in bytes. The longest in use, which lists the blocks of Chinese characters, has about 500.
const LONGEST: usize = 8 << 10;
/// The largest product of a pattern's repetition counts, such as `{1,3}`. Nested counts multiply, and neither the
/// engine's limit on backtracking nor a look at the clock ends a search that only repeats.
const REPETITIONS: u64 = 1_000_000;

/// A string or a regular expression to search for.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

/// The parts of a text, each with whether it is a match.
pub(super) struct Found(pub Vec<(Offsets, bool)>);

impl tokenizers::pattern::Pattern for &Found {
    fn find_matches(&self, _: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        Ok(self.0.clone())
    }
}

impl Pattern {
    /// Reads `{"String": ...}` or `{"Regex": ...}`.
    pub fn read(value: &Value) -> Result<Pattern, String> {
        let text = |kind: &str| value.get(kind).and_then(Value::as_str);
        let source = match (text("String"), text("Regex")) {
            (Some(string), None) => fancy_regex::escape(string).into_owned(),
            (None, Some(regex)) => regex.to_string(),
            _ => return Err("a pattern is {\"String\": ...} or {\"Regex\": ...}".to_string()),
        };
        if source.len() > LONGEST {
            return Err(format!("a pattern of {} bytes; {LONGEST} are allowed", source.len()));
        }
        if text("Regex").is_some() && repetitions(&source) > REPETITIONS {
            return Err(format!("a pattern whose counts, such as {{1,3}}, multiply to more than {REPETITIONS}"));
        }
        Regex::new(&source).map(Pattern).map_err(|e| format!("a pattern that is no regular expression: {e}"))
    }

    /// Splits `text` into matches and the parts between them, in order.
    pub fn find(&self, text: &str, budget: &mut Budget) -> Result<Found, String> {
        if text.is_empty() {
            return Ok(Found(vec![((0, 0), false)]));
        }
        let mut parts = Vec::new();
        let mut end = 0;
        for found in self.0.find_iter(text) {
            budget.tick()?;
            let found = found.map_err(|e| format!("a pattern fails on a text of {} bytes: {e}", text.len()))?;
            // `\K` can move the start of a match anywhere.
            if found.start() < end || found.end() < found.start() {
                return Err("a pattern whose matches overlap".to_string());
            }
            if end != found.start() {
                parts.push(((end, found.start()), false));
            }
            parts.push(((found.start(), found.end()), true));
            end = found.end();
        }
        if end != text.len() {
            parts.push(((end, text.len()), false));
        }
        Ok(Found(parts))
    }

    /// `text` with each match replaced by `content`.
    pub fn replace(&self, text: &str, content: &str, budget: &mut Budget) -> Result<String, String> {
        let found = self.find(text, budget)?;
        let mut replaced = String::new();
        for ((start, end), matches) in found.0 {
            replaced.push_str(if matches { content } else { &text[start..end] });
            budget.check(replaced.len())?;
        }
        Ok(replaced)
    }
}

/// The product of all repetition counts in a pattern. Braces inside a character class repeat nothing but are counted
/// as well, which can only refuse more patterns.
fn repetitions(pattern: &str) -> u64 {
    let counts = pattern.split('{').skip(1).filter_map(|rest| rest.split_once('}')).filter_map(|(count, _)| {
        let numbers = count.split(',').map(|number| number.trim().parse::<u64>());
        numbers
            .filter_map(Result::ok)
            .max()
            .or_else(|| count.starts_with(|c: char| c.is_ascii_digit()).then_some(u64::MAX))
    });
    counts.fold(1, |product, count| product.saturating_mul(count.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pattern(regex: &str) -> Result<Pattern, String> {
        Pattern::read(&json!({"Regex": regex}))
    }

    #[test]
    fn matches_and_what_is_between_them_make_up_the_text() {
        let find = |regex: &str, text: &str| pattern(regex).unwrap().find(text, &mut Budget::of(9)).unwrap().0;
        assert_eq!(find("b+", "abbc"), [((0, 1), false), ((1, 3), true), ((3, 4), false)]);
        assert_eq!(find("", "é"), [((0, 0), true), ((0, 2), false), ((2, 2), true)]);
        assert_eq!(find("a", ""), [((0, 0), false)]);
        let dot = Pattern::read(&json!({"String": "."})).unwrap();
        assert_eq!(dot.replace("a.b.", "--", &mut Budget::of(4)), Ok("a--b--".to_string()));
    }

    #[test]
    fn patterns_without_bounds_are_refused() {
        let long = "a".repeat(9000);
        for (regex, says) in [
            ("(", "no regular expression"),
            ("(?:(?:(?=a)){90000000}){90000000}", "multiply"),
            ("(?:(?=a)b?){99999999999999999999}", "multiply"),
            (long.as_str(), "9000 bytes"),
        ] {
            assert!(pattern(regex).unwrap_err().contains(says), "{regex:.20}");
        }
        assert!(Pattern::read(&json!({"String": 3})).is_err());
        assert!(Pattern::read(&json!({"String": "{99999999}"})).is_ok());
        assert!(pattern(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s]+[\r\n]*|\s+(?!\S)|\s+").is_ok());
    }

    #[test]
    fn a_search_that_the_engine_gives_up_is_an_error() {
        let catastrophe = pattern("(?:a|a)*(?=b)c").unwrap();
        let error = catastrophe.find(&"a".repeat(64), &mut Budget::of(64)).err().unwrap();
        assert!(error.contains("fails on a text of 64 bytes"), "{error}");
    }
}
