//! A conversation with a model on its devices: turns of text in, answers out, what is common to both kept in the cache.
//!
//! Each turn renders the whole conversation anew, as the template wants it, and feeds only what differs from what the
//! KV cache holds already. It deliberately knows no terminal: what is printed, and when, is the caller's. Read
//! `answer.rs` for one answer, [`crate::text`] for templates and stop strings.

mod answer;

pub use answer::{Answer, GenerationRequest, Piece, answer, answers};

use crate::error::Result;
use crate::generate::{Engine, GenerateError, Held, Pace};
use crate::text::{ChatTemplate, Message, Tokenizer};

/// A conversation.
pub struct Chat {
    engine: Engine,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    system: Option<String>,
    messages: Vec<Message>,
    /// What the engine holds.
    held: Held,
}

impl Chat {
    /// Begins a conversation, with what the system says first, if anything.
    pub fn new(mut engine: Engine, tokenizer: Tokenizer, template: ChatTemplate, system: Option<String>) -> Chat {
        engine.reset();
        let messages = opening(&system);
        Chat { engine, tokenizer, template, system, messages, held: Held::default() }
    }

    /// What was said so far.
    #[doc(hidden)]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Positions of the context in use, and how many there are.
    #[doc(hidden)]
    pub fn context(&self) -> (usize, usize) {
        (self.engine.past(), self.engine.limits().capacity)
    }

    /// How long the engine's calls took, of shapes whose kernels had been compiled by an earlier one.
    #[doc(hidden)]
    pub fn pace(&self) -> &Pace {
        self.engine.pace()
    }

    /// The engine's reports.
    #[doc(hidden)]
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Forgets all turns but what the system says. The cache is left as it is: the next turn may begin alike.
    #[doc(hidden)]
    pub fn reset(&mut self) {
        self.messages = opening(&self.system);
    }

    /// Says `text` to the model and hands its answer to `each`, piece by piece.
    ///
    /// The answer becomes part of the conversation, also where it was cut short. Every answer draws from the same seed,
    /// so that it depends on what was said and not on how long earlier answers were. Errors when the template refuses
    /// the turn or the conversation does not fit the context; the turn is then forgotten and the chat goes on. An error
    /// of the engine ends it.
    pub fn ask(&mut self, text: &str, request: &GenerationRequest, each: impl FnMut(Piece<'_>)) -> Result<Answer> {
        self.messages.push(Message::new("user", text));
        let answer = self.respond(request, each);
        match &answer {
            Ok(answer) => self.messages.push(Message::new("assistant", answer.text.as_str())),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    fn respond(&mut self, request: &GenerationRequest, each: impl FnMut(Piece<'_>)) -> Result<Answer> {
        let ids = self.template.encode(&self.tokenizer, &self.messages)?;
        let (tokens, capacity, limit) = (ids.len(), self.engine.limits().capacity, self.engine.model().info().context);
        // One more must fit, or there is no room for an answer.
        if tokens >= capacity {
            return Err(GenerateError::Context { tokens: tokens + 1, capacity, limit: Some(limit) }.into());
        }
        self.held.rewind(&mut self.engine, &ids);
        let answer = answer(&mut self.engine, &self.tokenizer, &ids, request, each);
        let yielded = answer.as_ref().map(|answer| answer.tokens.as_slice()).unwrap_or_default();
        self.held.note(&self.engine, ids, yielded);
        answer
    }
}

fn opening(system: &Option<String>) -> Vec<Message> {
    system.iter().map(|text| Message::new("system", text.as_str())).collect()
}
