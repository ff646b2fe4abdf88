//! RoBERTa and XLM-RoBERTa: BERT's block, whose positions are counted from the row after the padding token's.
//!
//! It states only that difference and the head's names. Read `bert.rs` for the block.

use super::bert::{encoder, settings};
use crate::import::ImportError;

use crate::import::blocks::builder::Builder;
use crate::import::blocks::classifier::{Classifier, HeadKind, head_kind};
use crate::import::blocks::family::Family;
use crate::ops::UnaryFunction;

pub(crate) fn build(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    family(b, "Roberta")
}

pub(crate) fn build_xlm(b: &mut Builder<'_>) -> Result<Family, ImportError> {
    family(b, "XLMRoberta")
}

fn family(b: &mut Builder<'_>, class: &str) -> Result<Family, ImportError> {
    let mut settings = settings(b, "roberta.")?;
    // fairseq's numbering: the rows of the padding token and of the tokens before it stay unused. -1 stands for a
    // padding token that occurs in no text.
    let padding = match b.config.ids("pad_token_id")?.as_slice() {
        [padding] => usize::try_from(padding.saturating_add(1)).ok(),
        _ => None,
    };
    let wrong = || b.config.error("pad_token_id", "positions are counted from it: expected one id, or -1");
    settings.first_position = padding.ok_or_else(wrong)?;
    let head_kind = head_kind(b.config, class)?;
    let (mut family, _) = encoder(b, &settings)?;
    family.padding = settings.first_position.checked_sub(1).and_then(|padding| u32::try_from(padding).ok());
    if head_kind == HeadKind::Scores {
        let (dense, out) = ("classifier.dense", "classifier.out_proj");
        family.scores = Some(Classifier::new(b.config, dense, UnaryFunction::Tanh, out)?);
    }
    Ok(family)
}
