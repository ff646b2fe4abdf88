//! Encodes a text by the steps of a tokenizer.json, each within a budget.
//!
//! The steps and their order are the tokenizers crate's: added tokens are found, the text between them is normalised
//! and split into pieces, and the model looks up each piece. The crate can run all steps by itself, but it checks
//! neither the time nor the size of the text between them. This module deliberately knows no file. Read
//! [`Pipeline::ids`], then `file.rs` for where a pipeline comes from.

use super::budget::Budget;
use super::charsmap::Charsmap;
use super::pattern::Pattern;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokenizers::normalizers::Lowercase;
use tokenizers::pattern::Invert;
use tokenizers::{
    AddedVocabulary, DecoderWrapper, Encoding, Model, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper,
    OffsetReferential, OffsetType, PostProcessor, PostProcessorWrapper, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper, SplitDelimiterBehavior, Token,
};

/// The longest word, in characters, that WordPiece may split; its time grows with the cube of the length. Words have
/// at most about 100, unless a file sets another limit and nothing splits the text.
const WORD: usize = 2048;

/// How a text that is too long is truncated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truncation {
    /// The number of tokens that are kept, special ones included.
    pub max: usize,
    /// Whether the beginning of a text is removed instead of its end.
    pub start: bool,
}

/// A tokenizer as its parts.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub added: AddedVocabulary,
    /// Added tokens that the model also produces by itself. In a byte-level vocabulary these still spell bytes, while
    /// other added tokens stand for their own text.
    pub spelled: HashSet<u32>,
    pub normalizers: Vec<Normalize>,
    pub cuts: Vec<Cut>,
    pub model: ModelWrapper,
    /// Adds special tokens around texts.
    pub around: Option<PostProcessorWrapper>,
    /// `None` if the file names no decoder.
    pub decoders: Option<Vec<Decode>>,
    /// The largest id in the model's vocabulary.
    pub largest: u32,
}

/// A step that changes a text before it is split.
#[derive(Debug, Clone)]
pub(super) enum Normalize {
    /// A step of the crate that makes a text at most a few times longer.
    Own(NormalizerWrapper),
    Replace(Arc<Pattern>, String),
    Prepend(String),
    Charsmap(Charsmap),
}

/// A step that splits a text into pieces. The file calls it a pre-tokenizer.
#[derive(Debug, Clone)]
pub(super) enum Cut {
    /// A step of the crate.
    Own(PreTokenizerWrapper),
    Split {
        pattern: Arc<Pattern>,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
}

/// A step that turns tokens into text.
#[derive(Debug, Clone)]
pub(super) enum Decode {
    /// A step of the crate.
    Own(DecoderWrapper),
    Replace(Arc<Pattern>, String),
}

/// Normalises the pieces of one text within its budget.
///
/// The crate calls this and ignores its errors, so the first error is stored here.
pub(super) struct Normalizing<'a> {
    steps: &'a [Normalize],
    budget: Mutex<Budget>,
    failure: Mutex<Option<tokenizers::Error>>,
}

impl<'a> Normalizing<'a> {
    pub fn new(steps: &'a [Normalize], budget: Budget) -> Self {
        Normalizing { steps, budget: Mutex::new(budget), failure: Mutex::new(None) }
    }

    fn done(self) -> tokenizers::Result<()> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl Normalizer for Normalizing<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return Ok(());
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = || -> tokenizers::Result<()> {
            for step in self.steps {
                step.run(text, &mut budget)?;
                budget.check(text.len())?;
            }
            Ok(budget.take(text.len())?)
        };
        steps().inspect_err(|error| *failure = Some(error.to_string().into()))
    }
}

impl Normalize {
    fn run(&self, text: &mut NormalizedString, budget: &mut Budget) -> tokenizers::Result<()> {
        match self {
            Normalize::Own(normalizer) => normalizer.normalize(text),
            Normalize::Charsmap(map) => map.normalize(text, budget),
            Normalize::Prepend(content) => {
                prepend(text, content);
                Ok(())
            }
            Normalize::Replace(pattern, content) => {
                let mut found = pattern.find(text.get(), budget)?;
                let matches = found.0.iter().filter(|(_, matches)| *matches);
                let kept = text.len() - matches.clone().map(|((start, end), _)| end - start).sum::<usize>();
                budget.check(kept.saturating_add(matches.count().saturating_mul(content.len())))?;
                // A replacement of nothing at the very start has no position in the original text, on which the
                // crate's next step panics. Prepended text is given the position of the first letter.
                let first = !text.is_empty() && found.0.first() == Some(&((0, 0), true));
                if first {
                    found.0.remove(0);
                }
                text.replace(&found, content)?;
                if first {
                    prepend(text, content);
                }
                Ok(())
            }
        }
    }
}

/// Puts `content` before a text that is not empty. The crate treats an empty prefix as one that the first letter of
/// the text belongs to, and its next step panics.
fn prepend(text: &mut NormalizedString, content: &str) {
    if !content.is_empty() {
        text.prepend(content);
    }
}

impl Cut {
    fn run(&self, text: &mut PreTokenizedString, budget: &mut Budget) -> tokenizers::Result<()> {
        match self {
            Cut::Own(cut) => cut.pre_tokenize(text)?,
            Cut::Split { pattern, behavior, invert } => text.split(|_, piece| {
                let found = pattern.find(piece.get(), budget)?;
                if *invert { piece.split(Invert(&found), *behavior) } else { piece.split(&found, *behavior) }
            })?,
        }
        let pieces = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(budget.check(pieces.iter().map(|(piece, ..)| piece.len()).sum())?)
    }
}

impl Pipeline {
    /// The ids of a text without special tokens around it, of which the caller needs at most `max`. If `plain`, it is
    /// encoded as plain text, in which added tokens are not recognised.
    pub fn ids(&self, text: &str, plain: bool, max: usize) -> tokenizers::Result<Vec<u32>> {
        let none = AddedVocabulary::new();
        let added = if plain { &none } else { &self.added };
        let normalizing = Normalizing::new(&self.normalizers, Budget::of(text.len()));
        let normalizer = (!self.normalizers.is_empty()).then_some(&normalizing);
        let mut pieces = added.extract_and_normalize(normalizer, text);
        normalizing.done()?;
        let mut budget = Budget::of(text.len());
        for cut in &self.cuts {
            cut.run(&mut pieces, &mut budget)?;
        }
        let mut ids = Vec::new();
        for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if ids.len() >= max {
                break;
            }
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => {
                    budget.tick()?;
                    ids.extend(self.look_up(piece)?.iter().map(|token| token.id));
                }
            }
        }
        Ok(ids)
    }

    fn look_up(&self, piece: &str) -> tokenizers::Result<Vec<Token>> {
        if let ModelWrapper::WordPiece(model) = &self.model {
            let length = piece.chars().count();
            if length > WORD && length <= model.max_input_chars_per_word {
                return Err(format!("a word of {length} characters; {WORD} are allowed").into());
            }
        }
        self.model.tokenize(piece)
    }

    /// The ids of a text or a pair, with special tokens around them if `add_special`, and the text that each belongs
    /// to. At most as many as `truncation` allows; of a pair the longer text is truncated.
    pub fn encode(
        &self,
        first: &str,
        second: Option<&str>,
        add_special: bool,
        truncation: Option<Truncation>,
    ) -> tokenizers::Result<(Vec<u32>, Vec<u32>)> {
        // If the end of a text is kept, all of it has to be encoded.
        let limit = truncation.filter(|cut| !cut.start).map_or(usize::MAX, |cut| cut.max);
        let mut a = self.ids(first, false, limit)?;
        let mut b = second.map(|second| self.ids(second, false, limit)).transpose()?;
        if let Some(Truncation { max, start }) = truncation {
            let around = if add_special { self.around(b.is_some()) } else { 0 };
            let max = max.checked_sub(around).ok_or_else(|| no_room(max, around))?;
            let (kept, kept_second) = kept(a.len(), b.as_ref().map_or(0, Vec::len), max);
            let cut = |ids: &mut Vec<u32>, kept: usize| match start {
                true => drop(ids.drain(..ids.len() - kept)),
                false => ids.truncate(kept),
            };
            cut(&mut a, kept);
            b.iter_mut().for_each(|b| cut(b, kept_second));
        }
        let encoding = |ids: Vec<u32>, text: u32| {
            Encoding::from_tokens(ids.into_iter().map(|id| Token::new(id, String::new(), (0, 0))).collect(), text)
        };
        let (a, b) = (encoding(a, 0), b.map(|b| encoding(b, 1)));
        let whole = match &self.around {
            Some(around) => around.process(a, b, add_special)?,
            None => Encoding::merge([a].into_iter().chain(b), false),
        };
        Ok((whole.get_ids().to_vec(), whole.get_type_ids().to_vec()))
    }

    /// The same pipeline with a first step that converts texts to lower case.
    pub fn lowercased(&self) -> tokenizers::Result<Pipeline> {
        let mut pipeline = self.clone();
        pipeline.normalizers.insert(0, Normalize::Own(NormalizerWrapper::from(Lowercase)));
        let bytes = pipeline.added.get_added_tokens_decoder().values().map(|token| token.content.len()).sum();
        let normalizing = Normalizing::new(&pipeline.normalizers, Budget::of(bytes));
        pipeline.added.refresh_normalized_tokens(Some(&normalizing))?;
        normalizing.done()?;
        Ok(pipeline)
    }

    /// The number of tokens that are added around a text or a pair.
    pub fn around(&self, pair: bool) -> usize {
        self.around.as_ref().map_or(0, |around| around.added_tokens(pair))
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.added.token_to_id(token, &self.model)
    }

    pub fn token(&self, id: u32) -> Option<String> {
        self.added.simple_id_to_token(id).or_else(|| self.model.id_to_token(id))
    }
}

pub(super) fn no_room(max: usize, around: usize) -> String {
    format!("a text cut to {max} tokens has no room for the {around} special tokens around it")
}

/// How many tokens of each of two texts are kept if `max` are kept in all: the longer text is truncated, or both to
/// half. This is the tokenizers crate's strategy "longest first".
fn kept(first: usize, second: usize, max: usize) -> (usize, usize) {
    let (short, long) = (first.min(second), first.max(second));
    if first + second <= max {
        return (first, second);
    }
    let long_kept = if short > max { short } else { long.min(short.max(max - short)) };
    let (short, long) = if short + long_kept > max { (max / 2, max / 2 + max % 2) } else { (short, long_kept) };
    if first > second { (long, short) } else { (short, long) }
}

#[cfg(test)]
mod tests {
    use super::kept;
    use proptest::prelude::*;
    use tokenizers::{Encoding, Token, TruncationParams, truncate_encodings};

    proptest! {
        #[test]
        fn the_longer_text_is_cut_first(first in 0usize..40, second in 0usize..40, max in 1usize..60) {
            let encoding = |length: usize| Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0)); length], 0);
            let params = TruncationParams { max_length: max, ..TruncationParams::default() };
            let (a, b) = truncate_encodings(encoding(first), Some(encoding(second)), &params).unwrap();
            prop_assert_eq!(kept(first, second, max), (a.len(), b.unwrap().len()));
            let (a, _) = truncate_encodings(encoding(first), None, &params).unwrap();
            prop_assert_eq!(kept(first, 0, max), (a.len(), 0));
        }
    }
}
