//! Which tokens an engine holds, so that a text that begins like the one before is not fed from its beginning again.
//!
//! An engine itself knows only how many tokens it holds. Read `service.rs` and `chat/mod.rs` for the two users: requests that
//! come one after the other, and turns of a conversation.

use super::engine::Engine;

/// The tokens whose keys and values an engine holds.
#[derive(Default)]
pub(crate) struct Held(Vec<u32>);

impl Held {
    /// Rewinds `engine` to the longest prefix of `ids` that it holds, and returns the length of that prefix.
    ///
    /// The prefix never includes the last of `ids`, which has to be fed for its logits.
    pub(crate) fn rewind(&mut self, engine: &mut Engine, ids: &[u32]) -> usize {
        let common = ids.iter().zip(&self.0).take_while(|(a, b)| a == b).count();
        let kept = engine.rewind(common.min(ids.len().saturating_sub(1)));
        self.0.truncate(kept);
        kept
    }

    /// Notes that `ids` and then `tokens` were fed, up to the number of tokens that `engine` holds now.
    pub(crate) fn note(&mut self, engine: &Engine, ids: Vec<u32>, tokens: &[u32]) {
        self.0 = ids;
        self.0.extend(tokens);
        self.0.truncate(engine.past());
    }
}
