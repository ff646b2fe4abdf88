//! `fanfold classify`: the probability of each label of a classifier, for texts or for pairs of texts.
//!
//! Labels and probabilities are those of transformers' text-classification pipeline; nothing is sorted across texts here.
//! Read `rank.rs` for classifiers of one label that sort documents.

use crate::arguments::numbers::count;
use crate::arguments::target::Target;
use crate::arguments::texts::TextsArgs;
use crate::engine::load::open;
use crate::engine::models::{open_model, tokenizer};
use crate::engine::texts::{decide, preparer, read, timed};
use crate::terminal::print::say;
use crate::usage::usage;
use anyhow::Result;
use fanfold::generate::Prompt;
use fanfold::import::Head;
use serde_json::json;

#[derive(clap::Args)]
#[command(after_help = "Example:
  fanfold classify distilbert-sst2 \"What a film!\" \"I left after ten minutes.\"
  fanfold classify nli-deberta \"A man eats.\" --pair \"Somebody has food.\" --json
  fanfold classify MODEL -f lines.txt --top 1")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// The texts
    #[arg(value_name = "TEXT")]
    given: Vec<String>,
    #[command(flatten)]
    texts: TextsArgs,
    /// The second text of a pair whose first is a TEXT or a line: once for all of them, or once for each
    #[arg(long, value_name = "TEXT")]
    pair: Vec<String>,
    /// Only the N most likely labels of each text; 0: all
    #[arg(long, default_value_t = 0, value_parser = count, value_name = "N")]
    top: usize,
    /// As JSON: for each text its labels and their scores, the most likely first
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Result<()> {
    let texts = read(&args.texts, &args.given)?;
    if args.pair.len() > 1 && args.pair.len() != texts.len() {
        let (pairs, texts) = (args.pair.len(), texts.len());
        return Err(usage(format!("--pair is given {pairs} times for {texts} texts: give it once, or once for each")));
    }
    let model = open_model(&args.target, Head::Default)?;
    let Some(scores) = model.info().scores else {
        let path = args.target.model.display();
        return Err(usage(format!("{path} has no classification head (...ForSequenceClassification)")));
    };
    let tokenizer = tokenizer(&model)?;
    let decision = decide(&args.texts, &model, &args.target, texts.len())?;
    // The pipeline ignores the settings that sentence-transformers keeps in a folder.
    let settings = model.info().texts.of_tokenizer();
    let preparer = preparer(&args.texts, &settings, tokenizer, Prompt::Default, &decision)?;
    let prepared = texts.prepared(&decision, |number, text| {
        match args.pair.get(if args.pair.len() == 1 { 0 } else { number }) {
            Some(second) => preparer.pair(text, second),
            None => preparer.text(text),
        }
    })?;
    let mut engine = open(&model, &decision)?;
    let mut rows = Vec::new();
    for logits in timed(&mut engine, &prepared, |engine, texts, done| engine.scores_all(texts, done))? {
        let logits = logits.as_f32()?;
        let mut row: Vec<(usize, f64)> = scores.probability.apply(logits).into_iter().enumerate().collect();
        row.sort_by(|a, b| logits[b.0].total_cmp(&logits[a.0]).then(a.0.cmp(&b.0)));
        row.truncate(if args.top == 0 { row.len() } else { args.top });
        rows.push(row);
    }
    let label = |number: usize| model.info().labels.get(number).map_or("", String::as_str);
    if args.json {
        let entry = |&(n, score): &(usize, f64)| json!({"label": label(n), "score": score});
        let rows = rows.iter().map(|row| row.iter().map(entry).collect::<Vec<_>>());
        return say(serde_json::Value::from(rows.map(serde_json::Value::from).collect::<Vec<_>>()));
    }
    rows.iter().zip(texts.iter()).try_for_each(|(row, text)| {
        let labels: Vec<String> = row.iter().map(|&(n, score)| format!("{score:.6} {}", label(n))).collect();
        say(format_args!("{}\t{text}", labels.join("  ")))
    })
}
