//! `fanfold bench`: tokens per second, measured and shown as llama.cpp's llama-bench does.
//!
//! Rows go to stdout as soon as they are known; load time, memory and progress go to stderr. Read
//! [`fanfold::bench`] for what is timed.

use crate::common::{
    Decision, Placing, SEED, Target, check_weights, count, decide_as, open, open_model, positive, progress_bar, say,
    tell, usage,
};
use crate::values::{dtype, strategy};
use anyhow::Result;
use bytesize::ByteSize;
use fanfold::device::select::DeviceChoice;
use fanfold::generate::EngineOptions;
use fanfold::graph::Source;
use fanfold::import::{Folder, Head};
use fanfold::measure::{Phase, Test, Timing, mean_and_deviation, measure, peak_memory};
use fanfold::model::Model;
use fanfold::plan::Strategy;
use fanfold::shape::Dim;
use fanfold::tensor::DType;
use serde::ser::{Serialize, Serializer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What is measured when nothing is said, where the model's context holds it.
const PROMPT: usize = 512;
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

fn repetitions(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| "a number of 1 to 1000".to_string())
}

/// The tests in llama-bench's order. Errors on one that the model's context does not hold.
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

/// `llama f16`: the family, and the type that most of the weights have.
fn model_type(model: &Model) -> String {
    let weights = || model.graph().values().filter(|(_, value)| value.source == Source::Weight);
    let elements = |dtype: DType| -> usize {
        let numel = |shape: &[Dim]| shape.iter().map(|d| d.fixed().unwrap_or(0)).product::<usize>();
        weights().filter(|(_, value)| value.dtype == dtype).map(|(_, value)| numel(&value.shape)).sum()
    };
    let max = [DType::F16, DType::BF16, DType::F32].into_iter().max_by_key(|dtype| elements(*dtype));
    format!("{} {}", model.info().family, max.unwrap_or(DType::F32))
}

/// `2x llvmpipe, host`: neighbours that are alike counted.
fn counted(names: &[String]) -> String {
    let runs = names.chunk_by(|a, b| a == b);
    let run = |run: &[String]| if run.len() > 1 { format!("{}x {}", run.len(), run[0]) } else { run[0].clone() };
    runs.map(run).collect::<Vec<_>>().join(", ")
}

/// What one result says, name by name, in order.
struct Row(Vec<(&'static str, Value)>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Row {
    /// The names, and the values, as lines of CSV: texts in quotes, lists as one text.
    fn csv(&self) -> [String; 2] {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let plain = |value: &Value| value.as_str().map_or(value.to_string(), str::to_string);
        let cell = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => quoted(text),
            Value::Array(list) => quoted(&list.iter().map(plain).collect::<Vec<_>>().join(",")),
            other => other.to_string(),
        };
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        let cells: Vec<String> = self.0.iter().map(|(_, value)| cell(value)).collect();
        [names.join(","), cells.join(",")]
    }
}

/// A table whose rows come one by one, its columns as wide as what is known of them by the first.
struct Table {
    /// What a column needs at least; later the columns' widths.
    widths: [usize; 9],
    begun: bool,
}

const COLUMNS: [&str; 9] = ["model", "size", "params", "backend", "devices", "strategy", "ratios", "test", "t/s"];
/// Columns of numbers stand to the right.
const RIGHT: [bool; 9] = [false, true, true, false, false, false, false, true, true];

impl Table {
    fn new(tests: &[Test]) -> Table {
        let test = tests.iter().map(|test| test.to_string().len()).max().unwrap_or(0);
        Table { widths: [0, 0, 0, 0, 0, 0, 0, test, "1234.56 ± 123.45".len()], begun: false }
    }

    fn row(&mut self, cells: &[String; 9]) -> Result<()> {
        if !self.begun {
            self.begun = true;
            for ((width, name), cell) in self.widths.iter_mut().zip(COLUMNS).zip(cells) {
                *width = (*width).max(name.len()).max(cell.chars().count());
            }
            self.line(&COLUMNS.map(str::to_string))?;
            let dashes = |(width, right): (&usize, &bool)| {
                "-".repeat(width - usize::from(*right)) + if *right { ":" } else { "" }
            };
            let dashes: Vec<String> = self.widths.iter().zip(&RIGHT).map(dashes).collect();
            say(format_args!("| {} |", dashes.join(" | ")))?;
        }
        self.line(cells)
    }

    fn line(&self, cells: &[String; 9]) -> Result<()> {
        let padded = |((cell, &width), right): ((&String, &usize), bool)| {
            if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        };
        let cells: Vec<String> = cells.iter().zip(&self.widths).zip(RIGHT).map(padded).collect();
        say(format_args!("| {} |", cells.join(" | ")))
    }
}

/// What the commands that run a model once are given.
fn target(args: &Args, path: &Path, context: usize, placing: Placing) -> Target {
    // Weights are looked through once, not once per strategy.
    Target { model: path.to_owned(), context, check: false, ignore_config: args.ignore_config.clone(), placing }
}

/// The model and where it lies, for messages.
fn model(args: &Args) -> Result<(Arc<Model>, PathBuf)> {
    let Some(path) = args.random.as_ref().or(args.model.as_ref()) else {
        return Err(usage("no model to measure: give MODEL or --random CONFIG.json"));
    };
    let read = |head: Head| match &args.random {
        Some(config) => {
            let folder = Folder::bare(config)?.ignoring(&args.ignore_config)?;
            Ok(Arc::new(Model::random_from(folder, args.dtype, SEED, head)?))
        }
        None => open_model(&target(args, path, 1, args.placing.clone()), head),
    };
    let model = read(Head::Default)?;
    // What classifies is measured as what embeds.
    Ok((if model.info().generates { model } else { read(Head::Hidden(model.info().pooling))? }, path.clone()))
}

/// What is the same in all rows of one placement.
struct Placement {
    model: String,
    model_type: String,
    size: u64,
    parameters: u64,
    backends: Vec<String>,
    devices: Vec<String>,
    strategy: Strategy,
    ratios: Vec<f64>,
    chunk: usize,
    load_seconds: f64,
    /// Bytes of weights on all devices together.
    loaded: u64,
}

impl Placement {
    fn new(model: &Model, path: &Path, decision: &Decision, load_seconds: f64) -> Placement {
        let backend = |choice: &DeviceChoice| match choice {
            DeviceChoice::Host => "host".to_string(),
            DeviceChoice::Gpu(info) => info.backend.to_string(),
        };
        let mut backends: Vec<String> = decision.choices.iter().map(backend).collect();
        backends.sort();
        backends.dedup();
        Placement {
            model: path.display().to_string(),
            model_type: model_type(model),
            size: model.weight_bytes(),
            parameters: model.parameters(),
            backends,
            devices: decision.choices.iter().map(ToString::to_string).collect(),
            strategy: decision.plan.strategy,
            ratios: decision.plan.ratios.clone(),
            chunk: decision.limits.seq,
            load_seconds,
            loaded: decision.program.ranks.iter().map(|rank| rank.memory(&decision.limits).weights).sum(),
        }
    }

    fn cells(&self, timing: &Timing) -> [String; 9] {
        let (mean, deviation) = mean_and_deviation(&timing.rates());
        let parameters = match self.parameters as f64 {
            n if n < 1e9 => format!("{:.2} M", n / 1e6),
            n => format!("{:.2} B", n / 1e9),
        };
        let ratios: Vec<String> = self.ratios.iter().map(f64::to_string).collect();
        [
            self.model_type.clone(),
            ByteSize::b(self.size).to_string(),
            parameters,
            self.backends.join(","),
            counted(&self.devices),
            self.strategy.to_string(),
            ratios.join(","),
            timing.test.to_string(),
            format!("{mean:.2} ± {deviation:.2}"),
        ]
    }

    fn row(&self, timing: &Timing) -> Row {
        let (rates, rate) = (timing.rates(), mean_and_deviation(&timing.rates()));
        let nanoseconds: Vec<u64> = timing.times.iter().map(|time| time.as_nanos() as u64).collect();
        let time = mean_and_deviation(&nanoseconds.iter().map(|&n| n as f64).collect::<Vec<_>>());
        let Test { phase, tokens, depth } = timing.test;
        let of = |wanted: Phase| if phase == wanted { tokens } else { 0 };
        Row(vec![
            ("fanfold", json!(env!("CARGO_PKG_VERSION"))),
            ("model_filename", json!(self.model)),
            ("model_type", json!(self.model_type)),
            ("model_size", json!(self.size)),
            ("model_n_params", json!(self.parameters)),
            ("backends", json!(self.backends)),
            ("devices", json!(self.devices)),
            ("strategy", json!(self.strategy)),
            ("ratios", json!(self.ratios)),
            ("n_ubatch", json!(self.chunk)),
            ("n_prompt", json!(of(Phase::Prefill))),
            ("n_gen", json!(of(Phase::Decode))),
            ("n_depth", json!(depth)),
            ("test", json!(timing.test.to_string())),
            ("avg_ns", json!(time.0.round() as u64)),
            ("stddev_ns", json!(time.1.round() as u64)),
            ("avg_ts", json!(rate.0)),
            ("stddev_ts", json!(rate.1)),
            ("samples_ns", json!(nanoseconds)),
            ("samples_ts", json!(rates)),
            ("load_s", json!(self.load_seconds)),
            ("weight_bytes", json!(self.loaded)),
            ("peak_memory_bytes", json!(peak_memory())),
        ])
    }
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
    // All of them before any is loaded: what does not fit is known at once.
    let decide = |placing| decide_as(&model, &target(args, &path, context, placing), options);
    let decisions = placings.into_iter().map(decide).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(&tests);
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
                Format::Md => table.row(&placement.cells(&timing))?,
                Format::Jsonl => say(serde_json::to_string(&row)?)?,
                Format::Csv => {
                    let [names, values] = row.csv();
                    if rows.is_empty() {
                        say(names)?;
                    }
                    say(values)?;
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
