//! `fanfold embed`: turns texts into vectors, as sentence-transformers does.
//!
//! Where texts come from and how they go through the model is shared with other commands. Read `engine/texts.rs` for it.

use crate::arguments::target::Target;
use crate::arguments::texts::{PromptArgs, TextsArgs};
use crate::engine::load::open;
use crate::engine::models::{open_model, tokenizer};
use crate::engine::texts::{decide, preparer, read, timed};
use crate::files::output::OutputFile;
use crate::terminal::print::say;
use crate::usage::usage;
use anyhow::Result;
use fanfold::import::Head;
use fanfold::model::Pooling;
use fanfold::tensor::Tensor;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold embed all-MiniLM-L6-v2 \"a sentence\" \"another\" --out vectors.safetensors
  fanfold embed all-MiniLM-L6-v2 -f sentences.txt --json
  fanfold embed multilingual-e5-base --prompt \"query: \" \"how do plants eat?\"")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The texts
    #[arg(value_name = "TEXT")]
    given: Vec<String>,
    #[command(flatten)]
    texts: TextsArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    /// How positions become one vector: mean, cls, last or none [default: what the folder says, else mean]
    #[arg(long, value_parser = ["mean", "cls", "last", "none"])]
    pooling: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Write the vectors, [texts, width] or, without pooling, [positions, width] of the one text
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    let output = args.out.as_deref().map(OutputFile::open).transpose()?;
    let texts = read(&args.texts, &args.given)?;
    let head = match args.pooling.as_deref() {
        Some("cls") => Head::Hidden(Pooling::Cls),
        Some("last") => Head::Hidden(Pooling::Last),
        Some("none") => Head::Hidden(Pooling::None),
        Some(_) => Head::Hidden(Pooling::Mean),
        None => Head::Embedding,
    };
    let pooled = head != Head::Hidden(Pooling::None);
    if !pooled && texts.len() > 1 {
        return Err(usage("--pooling none takes one text: texts have different numbers of positions"));
    }
    let model = open_model(&args.target, head)?;
    let tokenizer = tokenizer(&model)?;
    let decision = decide(&args.texts, &model, &args.target, texts.len())?;
    let preparer = preparer(&args.texts, &model.info().texts, tokenizer, args.prompt.prompt(), &decision)?;
    let prepared = texts.prepared(&decision, |_, text| preparer.text(text))?;
    let mut engine = open(&model, &decision)?;
    let mut rows = Vec::new();
    let mut width = 1;
    for hidden in timed(&mut engine, &prepared, |engine, texts, done| engine.embed_all(texts, done))? {
        width = hidden.shape().last().copied().unwrap_or(1).max(1);
        rows.extend_from_slice(hidden.as_f32()?);
    }
    if let Some(file) = output {
        let tensor = Tensor::f32([rows.len() / width, width], rows.clone())?;
        file.write_tensor(if pooled { "embeddings" } else { "hidden" }, &tensor)?;
    }
    if args.json {
        let rows: Vec<&[f32]> = rows.chunks(width).collect();
        say(serde_json::to_string(&rows)?)?;
    } else if args.out.is_none() {
        for row in rows.chunks(width) {
            say(row.iter().map(|x| format!("{x:.6}")).collect::<Vec<_>>().join(" "))?;
        }
    }
    Ok(())
}
