//! Turns tokens into text that ends at a stop string. Text that may be the beginning of a stop string is held back
//! until it turns out not to be one.
//!
//! It deliberately knows no model and prints nothing. Read [`Output::push`]; the text itself comes from
//! [`TextStream`](super::TextStream).

use super::tokenizer::TextStream;
use super::tokenizer::Tokenizer;
use crate::text::TextError;

use std::mem::take;

/// A text that arrives token by token and ends before the first stop string in it.
///
/// A stop string may begin and end inside tokens. A stop string that is a special token, which has no text here, ends
/// the text at that token.
#[derive(Debug, Clone)]
#[doc(hidden)]
pub struct Output {
    stream: TextStream,
    stops: Vec<String>,
    /// Stop strings that are special tokens, as their ids.
    stop_tokens: Vec<(u32, String)>,
    held: String,
    /// The stop string that ended the text.
    stopped: Option<String>,
}

impl Output {
    /// A text without special tokens that ends before any of `stops`. Empty stop strings are ignored.
    #[doc(hidden)]
    pub fn new(tokenizer: &Tokenizer, stops: &[String]) -> Self {
        Self::of(tokenizer, tokenizer.stream(true), stops)
    }

    /// The same, for a text that continues `prompt`. A stop string cannot begin inside the prompt.
    ///
    /// # Errors
    /// As [`Tokenizer::stream_after`].
    #[doc(hidden)]
    pub fn after(tokenizer: &Tokenizer, prompt: &[u32], stops: &[String]) -> Result<Self, TextError> {
        Ok(Self::of(tokenizer, tokenizer.stream_after(prompt, true)?, stops))
    }

    fn of(tokenizer: &Tokenizer, stream: TextStream, stops: &[String]) -> Self {
        let stops: Vec<String> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let ids = stops.iter().filter_map(|stop| Some((tokenizer.token_id(stop)?, stop.clone())));
        // Tokens that have a text are recognised by their text.
        let stop_tokens = ids.filter(|(id, _)| tokenizer.piece(*id, true).is_none()).collect();
        Output { stream, stops, stop_tokens, held: String::new(), stopped: None }
    }

    /// Whether a stop string has ended the text; nothing comes after it.
    #[doc(hidden)]
    pub fn stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// The stop string that ended the text, if one did.
    #[doc(hidden)]
    pub fn stopped_by(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Adds a token, and returns the text that has become final.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    #[doc(hidden)]
    pub fn push(&mut self, token: u32) -> Result<String, TextError> {
        if self.stopped() {
            return Ok(String::new());
        }
        if let Some((_, stop)) = self.stop_tokens.iter().find(|(id, _)| *id == token) {
            let stop = stop.clone();
            let text = self.finish()?;
            self.stopped.get_or_insert(stop);
            return Ok(text);
        }
        let text = self.stream.push(token)?;
        Ok(self.take(text, false))
    }

    /// Ends the text, and returns the text that was held back.
    ///
    /// # Errors
    /// As [`TextStream::finish`].
    #[doc(hidden)]
    pub fn finish(&mut self) -> Result<String, TextError> {
        let text = self.stream.finish()?;
        Ok(if self.stopped() { String::new() } else { self.take(text, true) })
    }

    fn take(&mut self, text: Option<String>, last: bool) -> String {
        self.held.extend(text);
        if let Some((at, stop)) = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop))).min() {
            self.stopped = Some(stop.clone());
            self.held.truncate(at);
            return take(&mut self.held);
        }
        let pending = if last { 0 } else { self.pending() };
        let rest = self.held.split_off(self.held.len() - pending);
        std::mem::replace(&mut self.held, rest)
    }

    /// The length of the longest suffix of the text with which a stop string begins.
    fn pending(&self) -> usize {
        let begins = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).skip(1);
            ends.filter(|&at| self.held.ends_with(&stop[..at])).max()
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::tests::{fixture, load};
    use proptest::prelude::*;

    fn demo() -> Tokenizer {
        load(&fixture("assets/demo/tokenizer.json"))
    }

    /// The pieces of text that each token makes final, and whether a stop string ended the text.
    fn stopped(tokenizer: &Tokenizer, ids: &[u32], stops: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut output = Output::new(tokenizer, &stops);
        let mut pieces: Vec<String> = ids.iter().map(|&id| output.push(id).unwrap()).collect();
        pieces.push(output.finish().unwrap());
        (pieces, output.stopped())
    }

    #[test]
    fn a_stop_string_spans_tokens_and_is_not_part_of_the_text() {
        let tokenizer = demo();
        let ids: Vec<u32> =
            "a\nUser: b".chars().flat_map(|c| tokenizer.encode(&c.to_string(), false).unwrap()).collect();
        let (pieces, stop) = stopped(&tokenizer, &ids, &["\nUser:", "zzz"]);
        assert!(stop);
        assert_eq!(pieces[..2], ["a", ""]);
        assert_eq!(pieces.concat(), "a");
        // Text that only begins like a stop string is returned when it turns out not to be one, or at the end.
        let (pieces, stop) = stopped(&tokenizer, &ids, &["\nUsers", "b!"]);
        assert!(!stop);
        assert_eq!(pieces.concat(), "a\nUser: b");
        assert_eq!((pieces[1].as_str(), pieces[6].as_str(), pieces.last().unwrap().as_str()), ("", "\nUser:", "b"));
        assert_eq!(stopped(&tokenizer, &ids, &[""]).0.concat(), "a\nUser: b");
    }

    #[test]
    fn a_stop_string_that_is_a_special_token_stops_at_the_token() {
        let tokenizer = demo();
        let mut ids = tokenizer.encode("so be it", false).unwrap();
        ids.push(tokenizer.token_id("<|endoftext|>").unwrap());
        ids.extend(tokenizer.encode("more", false).unwrap());
        assert_eq!(stopped(&tokenizer, &ids, &["<|endoftext|>"]).0.concat(), "so be it");
        assert_eq!(stopped(&tokenizer, &ids, &["it, and"]).0.concat(), "so be itmore");
    }

    #[test]
    fn ids_without_a_text_break_nothing() {
        let tokenizer = demo();
        let ids = [tokenizer.encode("ab", false).unwrap(), vec![1_000_000], tokenizer.encode("cd", false).unwrap()];
        assert_eq!(stopped(&tokenizer, &ids.concat(), &["bc"]).0.concat(), "a");
    }

    proptest! {
        #[test]
        fn the_text_is_that_before_the_first_stop_string(text in "[ab]{0,12}", stops in prop::collection::vec("[ab]{1,4}", 0..3)) {
            let tokenizer = demo();
            let ids: Vec<u32> = text.chars().flat_map(|c| tokenizer.encode(&c.to_string(), false).unwrap()).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            // Of several stop strings, the one that is complete first ends the text; of those, the one that begins
            // first.
            let end = (0..=text.len()).find(|&end| stops.iter().any(|stop| text[..end].ends_with(stop)));
            let cut = end.map(|end| stops.iter().filter_map(|stop| text[..end].find(stop)).min().unwrap());
            let (pieces, stop) = stopped(&tokenizer, &ids, &stops);
            prop_assert_eq!(stop, cut.is_some());
            prop_assert_eq!(pieces.concat(), &text[..cut.unwrap_or(text.len())]);
        }
    }
}
