//! `fanfold embed`: turn texts into vectors.

use crate::common::{Target, check_tokens, decide, open, open_model, say, tokenizer, usage, write_tensor};
use anyhow::Result;
use fanfold::import::{Head, Pooling};
use fanfold::tensor::Tensor;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold embed all-MiniLM-L6-v2 \"a sentence\" \"another\" --out vectors.safetensors")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The texts
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// How positions become one vector: mean, cls or none [default: what the folder says, else mean]
    #[arg(long, value_parser = ["mean", "cls", "none"])]
    pooling: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Write the vectors, [texts, width] or, without pooling, [positions, width] of the one text
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<()> {
    let pooling = match args.pooling.as_deref() {
        Some("cls") => Pooling::Cls,
        Some("none") => Pooling::None,
        Some(_) => Pooling::Mean,
        None => match open_model(&args.target.model, Head::Default)?.info().pooling {
            Pooling::None => Pooling::Mean,
            told => told,
        },
    };
    if pooling == Pooling::None && args.texts.len() > 1 {
        return Err(usage("--pooling none takes one text: texts have different numbers of positions"));
    }
    let model = open_model(&args.target.model, Head::Hidden(pooling))?;
    let tokenizer = tokenizer(&model)?;
    let decision = decide(&model, &args.target, true)?;
    let texts = args.texts.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<Vec<_>, _>>()?;
    texts.iter().try_for_each(|ids| check_tokens(ids, &decision))?;
    let mut engine = open(&model, &decision)?;
    let mut rows = Vec::new();
    let mut width = 0;
    for ids in &texts {
        let hidden = engine.embed(ids)?;
        width = hidden.shape().last().copied().unwrap_or(1).max(1);
        rows.extend_from_slice(hidden.as_f32()?);
    }
    if let Some(path) = &args.out {
        let tensor = Tensor::f32([rows.len() / width, width], rows.clone())?;
        write_tensor(path, if pooling == Pooling::None { "hidden" } else { "embeddings" }, &tensor)?;
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
