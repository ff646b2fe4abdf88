//! Which tokens an engine holds, kept by whoever feeds it texts that begin alike: turns of a conversation, or requests.
//!
//! An engine itself knows only how many tokens it holds. Read [`crate::chat::Chat`] and `service.rs` for the two that share.

use super::engine::Engine;

/// The tokens whose keys and values an engine holds.
#[derive(Default)]
pub(crate) struct Held(Vec<u32>);

impl Held {
    /// Rewinds `engine` to what it holds of `ids`, and returns how many of them these are.
    ///
    /// The last of `ids` is never among them: it is fed in any case, since its logits are wanted.
    pub(crate) fn rewind(&mut self, engine: &mut Engine, ids: &[u32]) -> usize {
        let common = ids.iter().zip(&self.0).take_while(|(a, b)| a == b).count();
        let kept = engine.rewind(common.min(ids.len().saturating_sub(1)));
        self.0.truncate(kept);
        kept
    }

    /// Notes that `ids` were fed and then `tokens` yielded, as far as `engine` holds them.
    pub(crate) fn note(&mut self, engine: &Engine, ids: Vec<u32>, tokens: &[u32]) {
        self.0 = ids;
        self.0.extend(tokens);
        self.0.truncate(engine.past());
    }
}
