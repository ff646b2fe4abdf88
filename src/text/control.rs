//! A conversation to token ids: control tokens are the template's to write, never a message's.
//!
//! transformers offers this as `sanitize_control_tokens`; here it is the only way, since texts are piped in from
//! anywhere: what a message spells like a control token is encoded as the plain text that it is. It deliberately knows
//! no model. Read [`ChatTemplate::encode`], then `template/`.

use super::template::{ChatTemplate, Message};
use super::tokenizer::Tokenizer;
use crate::text::TextError;

use std::collections::HashMap;

/// Stand around what a message spells like a control token, while the template runs.
const OPEN: char = '\u{f0000}';
const CLOSE: char = '\u{f0001}';

impl ChatTemplate {
    /// The ids of a conversation, up to where the assistant's next answer begins.
    ///
    /// Nothing is added around the template's text: a template writes its own `<s>`. Special tokens, and other added
    /// tokens that the template names, count only where the template or the assistant wrote them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`]; also when a variable that the template uses names no token,
    /// or a text cannot be told from a control token.
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
        // Of tokens that begin alike the longest is meant.
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

/// The message with its control tokens marked, which are given by their first letter: a vocabulary can have tens of
/// thousands, of which a letter of a text begins few. The assistant's own come from the model.
fn mark(message: &Message, control: &HashMap<char, Vec<&str>>) -> Message {
    // Marks in the text itself would forge a marked token.
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
    /// Text in which tokens count.
    Template(&'a str),
    /// A marked token.
    Spelled(&'a str),
}

/// The rendered text cut at its marks. A template that cuts strings can leave a mark without its token or its
/// counterpart: it goes, and what stood around it stays apart.
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
