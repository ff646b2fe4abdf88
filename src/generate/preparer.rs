//! Texts made ready for a model as its folder says: behind a prompt, in lower case, cut to a length, as tokens.
//!
//! It does to a text what sentence-transformers does to it, so that the vector or the score is the one of there. It
//! deliberately opens nothing and runs nothing. Read [`TextSettings`] for what a folder can say, and
//! [`Engine::embed_all`](super::Engine::embed_all) for what takes the texts.

use super::Text;
use crate::generate::GenerateError;
use crate::model::TextSettings;
use crate::text::TextError;
use crate::text::Tokenizer;

/// What stands before every text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub enum Prompt<'a> {
    /// The folder's default prompt, where it has one.
    #[default]
    Default,
    /// The folder's prompt of this name.
    Named(&'a str),
    /// This text. An empty one means no prompt, even where the folder has a default one.
    Text(&'a str),
}

/// A text as a model takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
#[non_exhaustive]
pub struct Prepared {
    /// Its tokens.
    pub text: Text,
    /// Whether it was longer than it may be, and lost something.
    pub cut: bool,
}

/// Makes texts ready for a model.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Preparer {
    tokenizer: Tokenizer,
    /// The same, which cuts, and to how many tokens.
    cutting: Option<(Tokenizer, usize)>,
    prompt: String,
    /// The prompt's own tokens, where pooling leaves them out.
    skipped: usize,
    one_segment: bool,
}

impl Preparer {
    /// Does what `settings` say with the tokens of `tokenizer`, and cuts to `most` tokens where that is less.
    ///
    /// Errors when the folder has no prompt of the name asked for, or when the special tokens alone are more than a
    /// text may have.
    pub fn new(
        settings: &TextSettings,
        tokenizer: Tokenizer,
        prompt: Prompt<'_>,
        max: Option<usize>,
    ) -> Result<Preparer, GenerateError> {
        let tokenizer = if settings.lowercase { tokenizer.lowercased()? } else { tokenizer };
        let max = [settings.max_tokens, max].into_iter().flatten().min();
        let cutting = match max {
            Some(max) => Some((tokenizer.truncated(max, settings.cut_start)?, max)),
            None => None,
        };
        let prompt = match prompt {
            Prompt::Text(text) => text,
            Prompt::Named(name) => named(settings, name)?,
            Prompt::Default => settings.default_prompt.as_deref().map_or(Ok(""), |name| named(settings, name))?,
        };
        let (prompt_text, one_segment) = (prompt.to_string(), settings.one_segment);
        let mut preparer = Preparer { tokenizer, cutting, prompt: prompt_text, skipped: 0, one_segment };
        if settings.skip_prompt && !prompt.is_empty() {
            // What ends every text does not belong to the prompt. This is how sentence-transformers counts it.
            let mut tokens = preparer.text("")?.text.tokens;
            tokens.pop_if(|last| preparer.tokenizer.is_special(*last));
            preparer.skipped = tokens.len();
        }
        Ok(preparer)
    }

    /// One text.
    ///
    /// Errors when the tokenizer cannot express it.
    pub fn text(&self, text: &str) -> Result<Prepared, GenerateError> {
        let text = format!("{}{text}", self.prompt);
        self.prepare(|tokenizer| Ok((tokenizer.encode(&text, true)?, Vec::new())))
    }

    /// Two texts as one, of which the prompt stands before the first.
    ///
    /// Errors when the tokenizer cannot express them.
    pub fn pair(&self, first: &str, second: &str) -> Result<Prepared, GenerateError> {
        let first = format!("{}{first}", self.prompt);
        self.prepare(|tokenizer| Ok(tokenizer.encode_pair(&first, second)?))
    }

    fn prepare(
        &self,
        encode: impl Fn(&Tokenizer) -> Result<(Vec<u32>, Vec<u32>), GenerateError>,
    ) -> Result<Prepared, GenerateError> {
        let (mut tokens, mut types) = encode(&self.tokenizer)?;
        let cutting = self.cutting.as_ref().filter(|(_, max)| tokens.len() > *max);
        if let Some((tokenizer, _)) = cutting {
            (tokens, types) = encode(tokenizer)?;
        }
        if self.one_segment {
            types.clear();
        }
        Ok(Prepared { text: Text { tokens, types, skipped: self.skipped }, cut: cutting.is_some() })
    }
}

fn named<'a>(settings: &'a TextSettings, name: &str) -> Result<&'a str, GenerateError> {
    let found = settings.prompts.iter().find(|(known, _)| known == name);
    found.map(|(_, text)| text.as_str()).ok_or_else(|| {
        let known: Vec<&str> = settings.prompts.iter().map(|(known, _)| known.as_str()).collect();
        let known = if known.is_empty() { "it has none".to_string() } else { format!("it has {}", known.join(", ")) };
        TextError::Prompt { name: name.to_string(), known }.into()
    })
}
