//! Turns a conversation into token ids. Only the template writes control tokens; text in a message never becomes one.
//!
//! transformers offers this as `sanitize_control_tokens`. Here it is the only way, because texts come from anywhere:
//! text in a message that looks like a control token is encoded as plain text. The module deliberately knows no model.
//! Read [`ChatTemplate::encode`], then `template/`.

use super::template::{ChatTemplate, Message};
use super::tokenizer::Tokenizer;
use crate::text::TextError;

use std::collections::HashMap;

/// Markers put around text in a message that looks like a control token (`<|im_end|>`), so that after rendering it can
/// be told from tokens that the template wrote. They are private-use characters, and removed before encoding.
const OPEN: char = '\u{f0000}';
const CLOSE: char = '\u{f0001}';

impl ChatTemplate {
    /// The ids of a conversation, up to the point where the assistant's next answer begins.
    ///
    /// Nothing is added around the template's text: a template writes its own `<s>`. Special tokens, and other added
    /// tokens that the template names, are recognised only where the template or the assistant wrote them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`]; also when a variable that the template uses does not
    /// name a token, or when a text cannot be told from a control token.
    #[doc(hidden)]
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        let source = self.source();
        for (name, text) in self.specials().iter().filter(|(name, _)| source.contains(name.as_str())) {
            if tokenizer.token_id(text).is_none() {
                return Err(self.error(format!("prints {name}, {text:?}, which is no token of the tokenizer")));
            }
        }
        let added = tokenizer.added();
        let named = |token: &str| !token.trim().is_empty() && source.contains(token);
        let mut control: Vec<&str> =
            added.iter().filter(|(token, special)| *special || named(token)).map(|(token, _)| token.as_str()).collect();
        // Of several tokens that begin alike, the longest one counts.
        control.sort_by_key(|token| std::cmp::Reverse(token.len()));
        let mut by_letter: HashMap<char, Vec<&str>> = HashMap::new();
        for &token in &control {
            by_letter.entry(token.chars().next().unwrap_or_default()).or_default().push(token);
        }
        let marked: Vec<Message> = messages.iter().map(|message| mark(message, &by_letter)).collect();
        let text = self.render(&marked, true)?;
        let mut ids = Vec::new();
        for piece in pieces(&text, &control) {
            match piece {
                Piece::Template(text) if ids.is_empty() => ids = tokenizer.encode(text, false)?,
                Piece::Template(text) => ids.extend(tokenizer.encode_within(text, false)?),
                Piece::Spelled(text) => {
                    let plain = tokenizer.encode_within(text, true)?;
                    if plain.iter().any(|&id| tokenizer.token_id(text) == Some(id)) {
                        let reason = format!("the tokenizer knows no way to write {text:?} as plain text");
                        return Err(self.error(reason));
                    }
                    ids.extend(plain);
                }
            }
        }
        Ok(ids)
    }
}

/// The message with its control tokens marked. `control` gives the tokens by their first letter: a vocabulary can have
/// tens of thousands, of which only few begin with a given letter. Tokens in the assistant's own messages come from
/// the model and are not marked.
fn mark(message: &Message, control: &HashMap<char, Vec<&str>>) -> Message {
    // Marker characters in the text itself are removed, since they could forge a marked token.
    let text: String = message.content.chars().filter(|c| ![OPEN, CLOSE].contains(c)).collect();
    if message.role == "assistant" {
        return Message::new(message.role.as_str(), text);
    }
    let mut content = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let mut alike = control.get(&c).into_iter().flatten();
        let length = match alike.find(|token| rest.starts_with(**token)) {
            Some(token) => {
                content.extend([OPEN]);
                content.push_str(token);
                content.extend([CLOSE]);
                token.len()
            }
            None => {
                content.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Message::new(message.role.as_str(), content)
}

#[derive(Debug, PartialEq)]
enum Piece<'a> {
    /// Text in which control tokens are recognised.
    Template(&'a str),
    /// A marked token, which is encoded as plain text.
    Spelled(&'a str),
}

/// The rendered text, split at its markers. A template that cuts strings can leave a marker without its token or its
/// counterpart; such a marker is dropped, and the text on its two sides stays separate.
fn pieces<'a>(text: &'a str, control: &[&str]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find([OPEN, CLOSE]) {
        let (before, marked) = rest.split_at(at);
        pieces.push(Piece::Template(before));
        let spelled = marked.strip_prefix(OPEN).and_then(|after| after.split_once(CLOSE));
        match spelled.filter(|(token, _)| control.contains(token)) {
            Some((token, after)) => {
                pieces.push(Piece::Spelled(token));
                rest = after;
            }
            None => rest = &marked[OPEN.len_utf8()..],
        }
    }
    pieces.push(Piece::Template(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Template("")));
    pieces
}
