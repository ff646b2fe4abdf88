//! `fanfold bench`: measures tokens per second, and shows them as llama.cpp's llama-bench does.
//!
//! Rows go to stdout as soon as they are known; load time, memory and progress go to stderr. Nothing is timed here: read
//! [`fanfold::measure`] for what is, and `results.rs` for the rows.

mod results;

use self::results::{Placement, table};
use crate::arguments::devices::Placing;
use crate::arguments::numbers::{count, positive};
use crate::arguments::target::Target;
use crate::arguments::words::{dtype, format, strategy};
use crate::engine::decision::decide_as;
use crate::engine::load::open;
use crate::engine::models::{SEED, check_weights, open_model, stored};
use crate::terminal::print::{say, tell};
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::Result;
use bytesize::ByteSize;
use fanfold::generate::EngineOptions;
use fanfold::import::{Folder, Head};
use fanfold::measure::{Phase, Test, measure, peak_memory};
use fanfold::model::Model;
use fanfold::plan::Strategy;
use fanfold::tensor::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The prompt length that is measured when none is given, if the model's context holds it.
const PROMPT: usize = 512;
/// The number of generated tokens that is measured when none is given, if the model's context holds it.
const GENERATED: usize = 128;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  fanfold bench MODEL -p 512 -n 128 --devices 0,1 --ratios 3,2
  fanfold bench --random config.json -p 0,512 -n 64 -d 0,4096 -o json --devices 0x2 --strategies tensor,column")]
pub struct Args {
    /// A model folder as Hugging Face lays it out, or `demo` for the embedded model
    model: Option<PathBuf>,
    /// Random weights of this configuration, which no file holds
    #[arg(long, value_name = "CONFIG.json", conflicts_with = "model")]
    random: Option<PathBuf>,
    /// The type of the random weights
    #[arg(long, value_parser = dtype(), default_value = "f16", value_name = "TYPE")]
    dtype: DType,
    /// Stores the matrices in this format on the devices, whatever their files hold; without it they stay as they are
    #[arg(long, value_parser = format(), value_name = "FORMAT")]
    weights: Option<fanfold::format::Format>,
    /// Fields of config.json that are read as if they were not there
    #[arg(long, value_delimiter = ',', value_name = "FIELD,..")]
    ignore_config: Vec<String>,
    /// Prompt lengths to measure; 0: none [default: 512, or what the model holds]
    #[arg(short = 'p', long, value_delimiter = ',', value_parser = count, value_name = "N,..")]
    n_prompt: Vec<usize>,
    /// Numbers of generated tokens to measure; 0: none [default: 128, or what the model holds]
    #[arg(short = 'n', long, value_delimiter = ',', value_parser = count, value_name = "N,..")]
    n_gen: Vec<usize>,
    /// Tokens that the cache holds before each measurement
    #[arg(short = 'd', long, value_delimiter = ',', value_parser = count, default_value = "0", value_name = "N,..")]
    n_depth: Vec<usize>,
    /// How often each measurement is repeated
    #[arg(short = 'r', long, default_value_t = 5, value_parser = repetitions, value_name = "N")]
    repetitions: usize,
    /// Most prompt tokens of one call
    #[arg(long, visible_alias = "ubatch-size", default_value_t = 256, value_parser = positive, value_name = "N")]
    chunk: usize,
    /// Strategies to compare, one after another
    #[arg(long, value_delimiter = ',', value_parser = strategy(), value_name = "STRATEGY,..",
        conflicts_with_all = ["strategy", "plan"])]
    strategies: Vec<Strategy>,
    /// How results are printed
    #[arg(short, long, value_enum, default_value_t = Format::Md)]
    output: Format,
    /// Make sure first that no weight is NaN or infinite
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    placing: Placing,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table
    Md,
    /// Values separated by commas
    Csv,
    /// One array, at the end
    Json,
    /// An object per line
    Jsonl,
}

/// A number of repetitions.
fn repetitions(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| "a number of 1 to 1000".to_string())
}

/// The tests to run, in llama-bench's order. Errors when the model's context does not hold one of them.
fn tests(args: &Args, model: &Model) -> Result<Vec<Test>> {
    let (info, mut tests) = (model.info(), Vec::new());
    let given =
        [(Phase::Prefill, "--n-prompt", &args.n_prompt, PROMPT), (Phase::Decode, "--n-gen", &args.n_gen, GENERATED)];
    for &depth in &args.n_depth {
        for (phase, flag, lengths, default) in given {
            let room = info.context.saturating_sub(depth);
            let defaults = [if phase == Phase::Decode && !info.generates { 0 } else { default.min(room.max(1)) }];
            let lengths = if lengths.is_empty() { defaults.as_slice() } else { lengths };
            for &tokens in lengths.iter().filter(|tokens| **tokens > 0) {
                let test = Test { phase, tokens, depth };
                if test.positions() > info.context {
                    let (needed, context) = (test.positions(), info.context);
                    let reason = format!("{test} needs {needed} positions, the model was made for {context}");
                    return Err(usage(format!("{flag}, --n-depth: {reason}")));
                }
                if !info.generates && (phase == Phase::Decode || depth > 0) {
                    return Err(usage(format!(
                        "{flag}, --n-depth: the model embeds whole texts: {test} means nothing"
                    )));
                }
                tests.push(test);
            }
        }
    }
    if tests.is_empty() {
        return Err(usage("nothing to measure: --n-prompt and --n-gen are 0"));
    }
    Ok(tests)
}

/// The arguments of `path` as the commands have them that run a model once.
fn target(args: &Args, path: &Path, context: usize, placing: Placing) -> Target {
    // `check` is off: the weights are checked once, and not once per strategy.
    let (model, ignore_config, weights) = (path.to_owned(), args.ignore_config.clone(), args.weights);
    Target { model, context, check: false, ignore_config, weights, placing }
}

/// The model to measure, and its path.
fn model(args: &Args) -> Result<(Arc<Model>, PathBuf)> {
    let Some(path) = args.random.as_ref().or(args.model.as_ref()) else {
        return Err(usage("no model to measure: give MODEL or --random CONFIG.json"));
    };
    let read = |head: Head| match &args.random {
        Some(config) => {
            let folder = Folder::bare(config)?.ignoring(&args.ignore_config)?;
            Ok(Arc::new(stored(Model::random_from(folder, args.dtype, SEED, head)?, args.weights)))
        }
        None => open_model(&target(args, path, 1, args.placing.clone()), head),
    };
    let model = read(Head::Default)?;
    // A model that predicts no tokens is measured by its hidden states, also where it has a classification head.
    Ok((if model.info().generates { model } else { read(Head::Hidden(model.info().pooling))? }, path.clone()))
}

pub fn main(args: &Args) -> Result<()> {
    let (model, path) = model(args)?;
    let tests = tests(args, &model)?;
    if args.check {
        check_weights(&model)?;
    }
    let context = tests.iter().map(Test::positions).max().unwrap_or(1);
    let options = EngineOptions::default().context(context).chunk(args.chunk);
    let mut placings = vec![args.placing.clone()];
    if !args.strategies.is_empty() {
        let with = |strategy: &Strategy| Placing { strategy: Some(*strategy), ..args.placing.clone() };
        placings = args.strategies.iter().map(with).collect();
    }
    // All strategies are decided before anything is loaded, so that one that does not fit is refused at once.
    let decide = |placing| decide_as(&model, &target(args, &path, context, placing), options);
    let decisions = placings.into_iter().map(decide).collect::<Result<Vec<_>>>()?;
    let mut table = table(&tests);
    let mut rows = Vec::new();
    for decision in &decisions {
        let started = Instant::now();
        let mut engine = open(&model, decision)?;
        let placement = Placement::new(&model, &path, decision, started.elapsed().as_secs_f64());
        tell(format_args!("loaded {} in {:.2} s", ByteSize::b(placement.loaded), placement.load_seconds));
        for &test in &tests {
            let bar = progress_bar(args.repetitions as u64, "{msg} {bar:30} {pos}/{len} repetitions");
            bar.set_message(format!("{test}, {}", placement.strategy));
            let timing = measure(&mut engine, test, args.repetitions, |done| bar.set_position(done as u64));
            bar.finish_and_clear();
            let timing = timing?;
            let row = placement.row(&timing);
            match args.output {
                Format::Md => say(table.row(&placement.cells(&timing)))?,
                Format::Jsonl => say(serde_json::to_string(&row)?)?,
                Format::Csv => {
                    if rows.is_empty() {
                        say(row.csv_names()?)?;
                    }
                    say(row.csv_values()?)?;
                }
                Format::Json => {}
            }
            rows.push(row);
        }
        match peak_memory() {
            Some(peak) => {
                let times = peak as f64 / placement.loaded.max(1) as f64;
                tell(format_args!("peak memory {}, {times:.2} times the weights", ByteSize::b(peak)));
            }
            None => tell("peak memory unknown: this system does not tell it"),
        }
    }
    if args.output == Format::Json {
        say(serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
