//! `fanfold embed`: turn texts into vectors.

use crate::common::{Target, open, open_model, say, tokenizer, usage};
use crate::output::OutputFile;
use crate::texts::{TextsArgs, check, timed};
use anyhow::Result;
use fanfold::generate::Text;
use fanfold::import::{Head, Pooling};
use fanfold::tensor::Tensor;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold embed all-MiniLM-L6-v2 \"a sentence\" \"another\" --out vectors.safetensors
  fanfold embed all-MiniLM-L6-v2 -f sentences.txt --json")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The texts
    #[arg(value_name = "TEXT")]
    given: Vec<String>,
    #[command(flatten)]
    texts: TextsArgs,
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
    let texts = args.texts.read(&args.given)?;
    let pooling = match args.pooling.as_deref() {
        Some("cls") => Pooling::Cls,
        Some("last") => Pooling::Last,
        Some("none") => Pooling::None,
        Some(_) => Pooling::Mean,
        None => match open_model(&args.target, Head::Default)?.info().pooling {
            Pooling::None => Pooling::Mean,
            told => told,
        },
    };
    if pooling == Pooling::None && texts.len() > 1 {
        return Err(usage("--pooling none takes one text: texts have different numbers of positions"));
    }
    let model = open_model(&args.target, Head::Hidden(pooling))?;
    let tokenizer = tokenizer(&model)?;
    let decision = args.texts.decide(&model, &args.target, texts.len())?;
    let tokenizer = args.texts.tokenizer(tokenizer, &decision)?;
    let encoded = texts.iter().map(|text| Ok(Text::from(tokenizer.encode(text, true)?)));
    let encoded: Vec<Text> = encoded.collect::<fanfold::Result<_>>()?;
    check(&encoded, &decision)?;
    let mut engine = open(&model, &decision)?;
    let mut rows = Vec::new();
    let mut width = 1;
    for hidden in timed(&mut engine, &encoded, |engine, texts, done| engine.embed_all(texts, done))? {
        width = hidden.shape().last().copied().unwrap_or(1).max(1);
        rows.extend_from_slice(hidden.as_f32()?);
    }
    if let Some(file) = output {
        let tensor = Tensor::f32([rows.len() / width, width], rows.clone())?;
        file.write_tensor(if pooling == Pooling::None { "hidden" } else { "embeddings" }, &tensor)?;
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
