//! Texts made ready for a model that embeds or scores: put behind a prompt, in lower case, cut to a length, as tokens.
//!
//! A text is treated as sentence-transformers treats it, so that its vector or score is the same as there. Nothing here opens a
//! file or runs a model. Read [`TextSettings`] for what a model's folder can ask for, and
//! [`Engine::embed_all`](super::Engine::embed_all) for what takes the texts.

use super::Text;
use crate::generate::GenerateError;
use crate::model::TextSettings;
use crate::text::TextError;
use crate::text::Tokenizer;

/// The instruction that is put before every text, such as `query: `.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The folder's default prompt, where it has one.
    #[default]
    Default,
    /// The folder's prompt of this name.
    Named(&'a str),
    /// This text. An empty one means no prompt, even where the folder has a default one.
    Text(&'a str),
}

/// A text made ready for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
#[non_exhaustive]
pub struct Prepared {
    /// Its tokens.
    pub text: Text,
    /// Whether the text was longer than the model takes and was cut.
    pub cut: bool,
}

/// Makes texts ready for a model.
#[derive(Clone, Debug)]
pub struct Preparer {
    tokenizer: Tokenizer,
    /// The same tokenizer, set to cut texts, and the number of tokens it cuts to.
    cutting: Option<(Tokenizer, usize)>,
    prompt: String,
    /// How many tokens of the prompt are left out of pooling.
    skipped: usize,
    one_segment: bool,
}

impl Preparer {
    /// Prepares texts as `settings` say, with the ids of `tokenizer`. Texts are cut to `max` tokens, or to the number in
    /// `settings` where that is smaller.
    ///
    /// Errors when the folder has no prompt of the name asked for, or when a text may have fewer tokens than the special
    /// tokens that the tokenizer adds to it.
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
            // The special token that ends every text is not the prompt's. sentence-transformers counts in the same way.
            let mut tokens = preparer.text("")?.text.tokens;
            tokens.pop_if(|last| preparer.tokenizer.is_special(*last));
            preparer.skipped = tokens.len();
        }
        Ok(preparer)
    }

    /// Prepares one text.
    ///
    /// Errors when the tokenizer fails on it.
    pub fn text(&self, text: &str) -> Result<Prepared, GenerateError> {
        let text = format!("{}{text}", self.prompt);
        self.prepare(|tokenizer| Ok((tokenizer.encode(&text, true)?, Vec::new())))
    }

    /// Prepares two texts as a pair, with the prompt before the first.
    ///
    /// Errors when the tokenizer fails on them.
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
