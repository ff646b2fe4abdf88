//! `fanfold rank`: sorts documents by how well they answer a query, as a cross-encoder judges them.
//!
//! Models that tell several labels apart are refused: they give no single score. Read `classify.rs` for those.

use crate::arguments::numbers::count;
use crate::arguments::target::Target;
use crate::arguments::texts::{PromptArgs, TextsArgs};
use crate::engine::load::open;
use crate::engine::models::{open_model, tokenizer};
use crate::engine::texts::{decide, preparer, read, timed};
use crate::terminal::print::say;
use crate::usage::usage;
use anyhow::Result;
use fanfold::import::Head;
use serde_json::json;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold rank ms-marco-MiniLM-L6-v2 \"how do plants eat?\" \"Photosynthesis turns light into sugar.\" \"Cats sleep.\"
  fanfold rank MODEL \"a query\" -f documents.txt --top 5 --json")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// What the documents are to answer
    query: String,
    /// The documents
    #[arg(value_name = "DOCUMENT")]
    documents: Vec<String>,
    #[command(flatten)]
    texts: TextsArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Only the N best; 0: all
    #[arg(long, default_value_t = 0, value_parser = count, value_name = "N")]
    top: usize,
    /// As JSON: the documents' numbers, from 0, their scores and their texts
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Result<()> {
    let documents = read(&args.texts, &args.documents)?;
    let model = open_model(&args.target, Head::Default)?;
    let path = args.target.model.display();
    let scores = match model.info().scores {
        Some(scores) if scores.labels == 1 => scores,
        Some(scores) => {
            let labels = scores.labels;
            let reason = format!("{path} tells {labels} labels apart and gives no one score: use `fanfold classify`");
            return Err(usage(reason));
        }
        None => return Err(usage(format!("{path} scores no pairs: ranking needs a cross-encoder"))),
    };
    let tokenizer = tokenizer(&model)?;
    let decision = decide(&args.texts, &model, &args.target, documents.len())?;
    let preparer = preparer(&args.texts, &model.info().texts, tokenizer, args.prompt.prompt(), &decision)?;
    let pairs = documents.prepared(&decision, |_, document| preparer.pair(&args.query, document))?;
    let mut engine = open(&model, &decision)?;
    let logits = timed(&mut engine, &pairs, |engine, pairs, done| engine.scores_all(pairs, done))?;
    let mut ranked = Vec::new();
    for (number, logit) in logits.iter().enumerate() {
        ranked.push((number, logit.as_f32()?.first().copied().unwrap_or(f32::NEG_INFINITY)));
    }
    // Sorted by logits: after a sigmoid, all large ones would have the same score.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut ranked: Vec<(usize, f32)> = ranked.into_iter().map(|(n, x)| (n, scores.activation.apply(x))).collect();
    ranked.truncate(if args.top == 0 { ranked.len() } else { args.top });
    if args.json {
        let rows = ranked.iter().map(|&(n, score)| json!({"index": n, "score": score, "text": documents[n]}));
        return say(serde_json::Value::from(rows.collect::<Vec<_>>()));
    }
    ranked.iter().try_for_each(|&(number, score)| say(format_args!("{score:>9.6}  {}", documents[number])))
}
