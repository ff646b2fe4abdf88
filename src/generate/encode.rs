//! Texts through an engine whole: hidden states, embeddings and scores, several texts to a call.
//!
//! Texts of like length go together, padded, and each gives what it would give alone. Nothing here knows text: ids in, vectors
//! out. Read `call.rs` for the padding, and `preparer.rs` for what makes ids of texts.

use super::call::{PaddedCall, Text};
use super::engine::Engine;
use super::error::GenerateError;
use crate::model::Pooling;
use crate::session::SessionError;
use crate::shape::Limits;
use crate::tensor::{Region, Tensor};

/// Rows are padded to a multiple of this many tokens. Texts of many lengths then make calls of few shapes, and kernels are
/// prepared once per shape.
const ROUND: usize = 8;

/// Sorts texts of these lengths into calls within `limits`: for each call the length that its rows are padded to, and the
/// numbers of its texts. Texts of like length go together, the longest first.
fn groups(lengths: &[usize], limits: &Limits) -> Vec<(usize, Vec<usize>)> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for text in order {
        let own = lengths[text].next_multiple_of(ROUND).min(limits.seq);
        // A padded position costs what a token costs, so at most a quarter of a row may be padding.
        let fits = |seq: usize, n: usize| n < limits.batch && (n + 1) * seq <= limits.tokens && own * 4 >= seq * 3;
        match groups.last_mut() {
            Some((seq, group)) if fits(*seq, group.len()) => group.push(text),
            _ => groups.push((own, vec![text])),
        }
    }
    groups
}

impl Engine {
    /// The model's last hidden states for a text: `[positions, hidden]`, or `[1, hidden]` where the model pools.
    ///
    /// A pooled vector is scaled to length 1 and cut to its first dimensions where the model's folder says so. The engine holds
    /// nothing afterwards. Errors when the model predicts tokens, there is no token, one is outside the vocabulary, or there are
    /// more than the context.
    pub fn embed(&mut self, tokens: &[u32]) -> Result<Tensor, GenerateError> {
        let mut all = self.embed_all(&[Text::from(tokens.to_vec())], |_| ())?;
        all.pop().ok_or_else(|| GenerateError::EmptyPrompt)
    }

    /// As [`Engine::embed`], for many texts, up to [`EngineOptions::batch`](super::EngineOptions#structfield.batch) of them in a
    /// call. Texts of like length are padded and go together; each gives what it gives alone. `done` is told after every call
    /// how many texts are done.
    ///
    /// Errors as [`Engine::embed`]. One text that is refused refuses them all, before any is embedded.
    pub fn embed_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>, GenerateError> {
        self.require("hidden", "was opened to predict tokens, not to embed")?;
        let hidden = self.encode_all(texts, "hidden", done)?;
        let info = self.model.info();
        if info.pooling == Pooling::None {
            return Ok(hidden);
        }
        let scaled = |tensor| if info.normalize { normalized(tensor) } else { Ok(tensor) };
        hidden.into_iter().map(|tensor| kept(scaled(tensor)?, info.dimensions)).collect()
    }

    /// The logits of the classification head for a text, `[1, labels]`. The model's
    /// [`ModelInfo::scores`](crate::model::ModelInfo::scores) says which function makes scores of them.
    ///
    /// `types` gives each token's segment where two texts are scored as a pair, as
    /// [`encode_pair`](crate::text::Tokenizer::encode_pair) returns them; it is empty for a single text. Errors when the model has
    /// no classification head, there is no token, a token or a type is outside what the model knows, or there are more tokens
    /// than the context.
    pub fn scores(&mut self, tokens: &[u32], types: &[u32]) -> Result<Tensor, GenerateError> {
        self.require("scores", "has no classification head")?;
        let text = Text { tokens: tokens.to_vec(), types: types.to_vec(), ..Text::default() };
        let mut all = self.scores_all(&[text], |_| ())?;
        all.pop().ok_or_else(|| GenerateError::EmptyPrompt)
    }

    /// As [`Engine::scores`], for many texts or pairs, up to [`EngineOptions::batch`](super::EngineOptions#structfield.batch) of
    /// them in a call. `done` is told after every call how many texts are done.
    ///
    /// Errors as [`Engine::scores`]. One text that is refused refuses them all.
    pub fn scores_all(&mut self, texts: &[Text], done: impl FnMut(usize)) -> Result<Vec<Tensor>, GenerateError> {
        self.require("scores", "has no classification head")?;
        self.encode_all(texts, "scores", done)
    }

    /// The graph's output named `output` for every text, in the order of the texts: `[1, width]` where the graph pools, else
    /// `[positions, width]`. `done` is told after every call how many texts are done.
    fn encode_all(
        &mut self,
        texts: &[Text],
        output: &str,
        mut done: impl FnMut(usize),
    ) -> Result<Vec<Tensor>, GenerateError> {
        for text in texts {
            self.check(&text.tokens, 0)?;
            self.check_types(text)?;
        }
        self.reset();
        let lengths: Vec<usize> = texts.iter().map(|text| text.tokens.len()).collect();
        let mut results: Vec<Option<Tensor>> = vec![None; texts.len()];
        let mut finished = 0;
        for (seq, group) in groups(&lengths, self.limits()) {
            let rows: Vec<&Text> = group.iter().map(|&text| &texts[text]).collect();
            let whole = self.call(&PaddedCall::padded(&rows, seq), output)?;
            for (row, &text) in group.iter().enumerate() {
                let mut region = Region::whole(whole.shape());
                region.0[0] = row..row + 1;
                let width = whole.shape().last().copied().unwrap_or(1);
                if whole.shape().len() == 3 {
                    region.0[1] = 0..lengths[text];
                }
                let positions = region.numel() / width.max(1);
                results[text] = Some(whole.slice(&region)?.reshaped([positions, width])?);
            }
            finished += group.len();
            done(finished);
        }
        Ok(results.into_iter().flatten().collect())
    }

    fn check_types(&self, Text { tokens, types, .. }: &Text) -> Result<(), GenerateError> {
        let known = self.model.info().token_types;
        let reason = match types.iter().find(|t| **t as usize >= known) {
            _ if !types.is_empty() && types.len() != tokens.len() => {
                format!("{} types for {} tokens", types.len(), tokens.len())
            }
            // Some tokenizers give types for models that have no input for them; these types are ignored.
            Some(token_type) if known > 0 => format!("type {token_type} is outside the model's {known}"),
            _ => return Ok(()),
        };
        Err(SessionError::Input { name: "token_type_ids".to_string(), reason }.into())
    }
}

/// Rows scaled to length 1.
fn normalized(tensor: Tensor) -> Result<Tensor, GenerateError> {
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    let mut values = tensor.as_f32()?.to_vec();
    for row in values.chunks_mut(width) {
        let norm = row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x = (*x as f64 / norm) as f32);
    }
    Ok(Tensor::f32(tensor.shape().to_vec(), values)?)
}

/// Cuts each row to its first `dimensions`; all are kept where there is no such number or it is no smaller.
fn kept(tensor: Tensor, dimensions: Option<usize>) -> Result<Tensor, GenerateError> {
    let width = tensor.shape().last().copied().unwrap_or(0);
    match dimensions.filter(|&kept| kept < width) {
        Some(kept) => {
            let mut region = Region::whole(tensor.shape());
            region.0[tensor.shape().len() - 1] = 0..kept;
            Ok(tensor.slice(&region)?)
        }
        None => Ok(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Env;

    #[test]
    fn texts_of_like_length_go_together_and_no_call_is_too_large() {
        let each = Env { batch: 3, seq: 64, keep: 1, past: 0, capacity: 64 };
        let limits = Limits { each, tokens: 100 };
        let lengths = [3, 60, 17, 16, 15, 2, 64, 1];
        let groups = groups(&lengths, &limits);
        assert_eq!(groups, [(64, vec![6]), (64, vec![1]), (24, vec![2]), (16, vec![3, 4]), (8, vec![0, 5, 7])]);
        for (seq, group) in groups {
            assert!(group.len() * seq <= limits.tokens && group.iter().all(|&text| lengths[text] <= seq));
        }
    }
}
