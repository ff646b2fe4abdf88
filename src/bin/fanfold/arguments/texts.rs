//! The arguments of commands that take many texts at once, and of those that put a prompt before each of them.
//!
//! They are only parsed here. Read `engine/texts.rs` for how the texts are read and go through a model.

use super::numbers::positive;
use fanfold::generate::Prompt;
use std::path::PathBuf;

/// Where texts come from, and how many go through the model at once.
#[derive(clap::Args, Clone)]
pub struct TextsArgs {
    /// A file that holds a text per line, an empty line being an empty text; `-` is standard input
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// Texts that go through the model together, at most; those of like length do
    #[arg(long, default_value_t = 32, value_parser = positive, value_name = "N")]
    pub batch: usize,
    /// Cut texts that are longer than the context, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
}

/// The prompt that stands before every text.
#[derive(clap::Args, Clone)]
pub struct PromptArgs {
    /// Put the folder's prompt of this name before every text [default: its default prompt, if it has one]
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    pub prompt_name: Option<String>,
    /// Put this before every text, instead of the folder's default prompt; an empty one for none
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
}

impl PromptArgs {
    /// The prompt that these arguments choose.
    pub fn prompt(&self) -> Prompt<'_> {
        match (&self.prompt, &self.prompt_name) {
            (Some(text), _) => Prompt::Text(text),
            (None, Some(name)) => Prompt::Named(name),
            (None, None) => Prompt::Default,
        }
    }
}
