//! A conversation with a model: texts in, answers out. The part that successive turns have in common stays in the KV
//! cache.
//!
//! Each turn renders the whole conversation with the template and feeds only the part that the KV cache does not hold
//! yet. The module deliberately knows no terminal: its caller decides what is printed, and when. Read `answer.rs` for
//! one answer, [`crate::text`] for templates and stop strings.

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
    /// The tokens that the engine holds.
    held: Held,
}

impl Chat {
    /// Begins a conversation, with an optional system message.
    pub fn new(mut engine: Engine, tokenizer: Tokenizer, template: ChatTemplate, system: Option<String>) -> Chat {
        engine.reset();
        let messages = opening(&system);
        Chat { engine, tokenizer, template, system, messages, held: Held::default() }
    }

    /// The messages so far.
    #[doc(hidden)]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The number of positions in use, and the context's length.
    #[doc(hidden)]
    pub fn context(&self) -> (usize, usize) {
        (self.engine.past(), self.engine.limits().capacity)
    }

    /// The time of the engine's calls, counting only shapes whose kernels an earlier call had compiled.
    #[doc(hidden)]
    pub fn pace(&self) -> &Pace {
        self.engine.pace()
    }

    /// The engine's reports.
    #[doc(hidden)]
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Forgets all messages but the system message. The cache is kept, because the next turn may begin with the same
    /// tokens.
    #[doc(hidden)]
    pub fn reset(&mut self) {
        self.messages = opening(&self.system);
    }

    /// Sends `text` to the model and passes its answer to `each`, piece by piece.
    ///
    /// The answer becomes part of the conversation, even if it was cut short. Every answer draws from the same seed,
    /// so that it depends on the messages and not on the length of earlier answers. Errors when the template refuses
    /// the message or the conversation does not fit the context; the message is then forgotten and the chat can go on.
    /// After an error of the engine it cannot.
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
        // At least one more position must be free, or there would be no room for an answer.
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
