//! The model families, by the `model_type` of their configurations. Each has a file that states its parts.
//!
//! A family names weights and reads settings. It deliberately knows nothing of files, of how weights are split or of
//! the head that its graph ends in. Read `llama.rs` for the plain case, `gemma2.rs` for one that differs in nearly
//! everything.

mod bert;
mod distilbert;
mod falcon;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod roberta;
mod starcoder2;

use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::family::Family;

/// How a family builds its graph from its configuration.
pub(crate) type Build = fn(&mut Builder<'_>) -> Result<Family, ImportError>;

/// The families, by `model_type`. A new importer is added to this list only.
pub(crate) const FAMILIES: &[(&str, Build)] = &[
    ("llama", llama::build),
    ("mistral", mistral::build),
    ("mixtral", mixtral::build),
    ("qwen2", qwen2::build),
    ("qwen3", qwen3::build),
    ("qwen2_moe", qwen2_moe::build),
    ("qwen3_moe", qwen3_moe::build),
    ("gemma2", gemma2::build),
    ("gemma3_text", gemma3::build),
    ("gemma3", gemma3::build_within),
    ("phi3", phi3::build),
    ("olmo2", olmo2::build),
    ("starcoder2", starcoder2::build),
    ("gpt_neox", gpt_neox::build),
    ("falcon", falcon::build),
    ("gpt2", gpt2::build),
    ("bert", bert::build),
    ("roberta", roberta::build),
    ("xlm-roberta", roberta::build_xlm),
    ("distilbert", distilbert::build),
];
