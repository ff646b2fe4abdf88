//! One call of an engine: rows of tokens, padded to one length, and the values of the graph's inputs that follow from them.
//!
//! It deliberately runs nothing. Read `engine.rs` for who makes calls of one row, `encode.rs` and `answers.rs` for who makes them of several.

use super::error::GenerateError;
use crate::model::ModelInfo;
use crate::session::SessionError;
use crate::tensor::Tensor;
use std::ops::Range;

/// One text as the ids that a model takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Text {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// For each token the segment it belongs to (0 for the first text of a pair, 1 for the second); empty for a single text.
    pub types: Vec<u32>,
    /// How many tokens at its beginning are left out of pooling: those of an instruction put before the text, where the
    /// model's folder wants it so.
    pub skipped: usize,
}

impl From<Vec<u32>> for Text {
    fn from(tokens: Vec<u32>) -> Text {
        Text { tokens, ..Text::default() }
    }
}

/// The rows of one call, padded to one length.
pub(super) struct PaddedCall {
    /// Tokens per row.
    pub(super) seq: usize,
    /// `[rows, seq]`, row-major.
    pub(super) tokens: Vec<u32>,
    /// `[rows, seq]`, row-major.
    pub(super) types: Vec<u32>,
    /// For each row the positions of the context that are its own; tokens outside are padding.
    pub(super) spans: Vec<Range<usize>>,
    /// For each row how many of its first tokens are left out of pooling.
    skipped: Vec<usize>,
    /// How many positions of the context earlier calls have filled.
    pub(super) past: usize,
}

impl PaddedCall {
    /// A call on `tokens`, `[rows, seq]`, that come after `past` positions of the context. There is one of `spans` per row, and
    /// all tokens are of the first segment.
    pub(super) fn of(tokens: Vec<u32>, spans: Vec<Range<usize>>, past: usize) -> PaddedCall {
        let seq = tokens.len() / spans.len().max(1);
        PaddedCall { seq, types: vec![0; tokens.len()], tokens, skipped: vec![0; spans.len()], spans, past }
    }

    /// Whole texts, padded on the right to `seq`.
    pub(super) fn padded(texts: &[&Text], seq: usize) -> PaddedCall {
        let spans = texts.iter().map(|text| 0..text.tokens.len()).collect();
        let skipped = texts.iter().map(|text| text.skipped).collect();
        let mut call = PaddedCall { seq, tokens: Vec::new(), types: Vec::new(), spans, skipped, past: 0 };
        for (row, text) in (1..).zip(texts) {
            call.tokens.extend(&text.tokens);
            call.types.extend(&text.types);
            // Padding may be any token, since attention and pooling leave it out.
            call.tokens.resize(row * seq, 0);
            call.types.resize(row * seq, 0);
        }
        call
    }

    pub(super) fn rows(&self) -> usize {
        self.spans.len()
    }

    /// How many of its tokens are not padding.
    pub(super) fn held(&self) -> usize {
        let (past, end) = (self.past, self.past + self.seq);
        let held = |span: &Range<usize>| span.end.min(end).saturating_sub(span.start.max(past));
        self.spans.iter().map(held).sum()
    }

    /// The value of the graph's input named `name`, for the model described by `info`. Errors when no such input is known.
    pub(super) fn input(&self, name: &str, info: &ModelInfo) -> Result<Tensor, GenerateError> {
        let shape = [self.rows(), self.seq];
        match name {
            "input_ids" => Ok(Tensor::u32(shape, self.tokens.clone())?),
            "token_type_ids" => Ok(Tensor::u32(shape, self.types.clone())?),
            "position_ids" => Ok(Tensor::u32(shape, self.positions(info))?),
            "key_range" => {
                let ends = self.spans.iter().flat_map(|span| [span.start as u32, span.end as u32]);
                Ok(Tensor::u32([self.rows(), 2], ends.collect())?)
            }
            "pooling_weights" => {
                let row = |(span, &skipped): (&Range<usize>, &usize)| {
                    let weights = info.pooling.weights_from(skipped, span.len());
                    let padding = std::iter::repeat_n(0.0, self.seq.saturating_sub(span.len()));
                    weights.into_iter().chain(padding)
                };
                Ok(Tensor::f32(shape, self.spans.iter().zip(&self.skipped).flat_map(row).collect())?)
            }
            _ => Err(SessionError::Input { name: name.to_string(), reason: "is not known".to_string() }.into()),
        }
    }

    /// The position of every token, `[rows, seq]`. A row's first token has position `info.first_position`, and the next ones
    /// count up.
    ///
    /// Where `info.padding` names a token, that token has the position of its own id and is not counted, also where a text
    /// spells it out, as in transformers' `create_position_ids_from_input_ids` for RoBERTa. Models with such a token take a text
    /// in one call, so `past` is 0.
    fn positions(&self, info: &ModelInfo) -> Vec<u32> {
        let mut positions = Vec::with_capacity(self.tokens.len());
        for (span, tokens) in self.spans.iter().zip(self.tokens.chunks(self.seq.max(1))) {
            let mut passed = 0;
            for (at, token) in (self.past..).zip(tokens) {
                let counted = info.first_position + at.saturating_sub(span.start);
                positions.push(match info.padding {
                    Some(padding) if padding == *token && span.contains(&at) => {
                        passed += 1;
                        padding
                    }
                    _ => (counted - passed) as u32,
                });
            }
        }
        positions
    }
}
