//! One call of an engine: rows of tokens, padded to one length, and the values of the graph's inputs that follow from them.
//!
//! It deliberately runs nothing. Read `engine.rs` for who makes calls of one row, `encode.rs` and `answers.rs` for who makes them of several.

use super::error::GenerateError;
use crate::model::ModelInfo;
use crate::session::SessionError;
use crate::tensor::Tensor;
use std::ops::Range;

/// One text as a model takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Text {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// For each token the segment it belongs to, or nothing where there is one segment only.
    pub types: Vec<u32>,
    /// How many tokens at its beginning pooling leaves out: those of a prompt, where the folder wants it so.
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
    /// The positions of the context that each row holds: the rest is padding.
    pub(super) spans: Vec<Range<usize>>,
    /// How many of each row's first positions pooling leaves out.
    skipped: Vec<usize>,
    /// Positions that lie before it in the context.
    pub(super) past: usize,
}

impl PaddedCall {
    /// The tokens after `past` others of rows that hold `spans`, without a second segment.
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
            // Any token does: nobody sees it.
            call.tokens.resize(row * seq, 0);
            call.types.resize(row * seq, 0);
        }
        call
    }

    pub(super) fn rows(&self) -> usize {
        self.spans.len()
    }

    /// How many of its tokens are no padding.
    pub(super) fn held(&self) -> usize {
        let (past, end) = (self.past, self.past + self.seq);
        let held = |span: &Range<usize>| span.end.min(end).saturating_sub(span.start.max(past));
        self.spans.iter().map(held).sum()
    }

    /// The call's value of the input called `name` of the model that `info` tells of.
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

    /// The position of every token, `[rows, seq]`: counted from the first one of its row, from `info.first_position` up.
    ///
    /// With `info.padding`, as transformers' `create_position_ids_from_input_ids` has it for RoBERTa: that token, where a
    /// text spells it, takes the position before the first and is not counted. Such models take a text in one call, so
    /// nothing of it lies in the `past`.
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
