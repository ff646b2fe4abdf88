//! RoBERTa and XLM-RoBERTa: BERT's block, whose positions are counted from the row after the padding token's.
//!
//! It knows nothing but that difference and the head's names. Read `bert.rs` for the block.

use super::bert::{encoder, settings};
use crate::error::Result;
use crate::import::builder::{Builder, Family};
use crate::import::classifier::{Classifier, Ending, ending};
use crate::ops::UnaryFunction;

pub(super) fn build(b: &mut Builder<'_>) -> Result<Family> {
    family(b, "Roberta")
}

pub(super) fn build_xlm(b: &mut Builder<'_>) -> Result<Family> {
    family(b, "XLMRoberta")
}

fn family(b: &mut Builder<'_>, class: &str) -> Result<Family> {
    let mut settings = settings(b, "roberta.")?;
    // fairseq's numbering: the padding token's own row stays unused, and so do those before it.
    let padding = b.config.ids("pad_token_id")?.first().copied().unwrap_or(1);
    settings.first_position = padding as usize + 1;
    let ending = ending(b.config, class)?;
    let (mut family, _) = encoder(b, &settings)?;
    if ending == Ending::Scores {
        let (dense, out) = ("classifier.dense", "classifier.out_proj");
        family.scores = Some(Classifier::new(b.config, dense, UnaryFunction::Tanh, out)?);
    }
    Ok(family)
}
