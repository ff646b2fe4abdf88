//! What the subcommands share: the arguments that name a model and its devices, and opening both.
//!
//! Data goes to stdout and all else to stderr. Read `run.rs` for how it is used.

use crate::{huggingface, memory};
use anyhow::{Context, Result};
use fanfold::device::Device;
use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::error::{PlanError, SessionError};
use fanfold::generate::{Engine, EngineOptions, prepare};
use fanfold::hub::ModelId;
use fanfold::import::{Folder, Head, Model, demo};
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::{Program, Room};
use fanfold::tensor::{DType, Limits};
use fanfold::text::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A mistake in how the program was called.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error with exit code 2.
pub fn usage(reason: impl Into<String>) -> anyhow::Error {
    Usage(reason.into()).into()
}

/// Prints `text` and a line end on stdout; as an error, unlike `println!`, where the reader has gone.
pub fn say(text: impl Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// The devices and how the model is divided over them.
#[derive(clap::Args, Clone)]
pub struct Placing {
    /// Devices: indices or parts of names from `fanfold devices`, `host`, or `0x3` for adapter 0 three times
    #[arg(long, value_name = "LIST")]
    pub devices: Option<String>,
    /// Each device's share, such as 3,2,1; equal if not given
    // A list that begins with a negative number is refused for what it is, not taken for an option.
    #[arg(long, value_delimiter = ',', value_name = "N,N,..", value_parser = share, allow_hyphen_values = true)]
    pub ratios: Vec<f64>,
    /// How layers are cut [default: tensor, or column with --exact]
    #[arg(long, value_parser = strategy)]
    pub strategy: Option<Strategy>,
    /// A plan from `fanfold plan -o`, perhaps edited
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ratios", "strategy"])]
    pub plan: Option<PathBuf>,
    /// Each device's memory, such as 8GiB,4GiB, where the driver does not tell or less is to be used
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "SIZE,..")]
    pub memory: Vec<u64>,
    /// Refuse any plan whose answer is not bit for bit that of one device
    #[arg(long)]
    pub exact: bool,
    /// Seconds any wait may last without progress
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    pub timeout: u64,
}

/// A model and the devices it runs on.
#[derive(clap::Args, Clone)]
pub struct Target {
    /// A model's folder, its OWNER/NAME in the cache (see `fanfold pull`), `demo` for the embedded model, or
    /// random:CONFIG.json for random weights
    pub model: PathBuf,
    /// Positions the KV cache holds
    #[arg(short, long, default_value_t = 2048, value_parser = positive, value_name = "N")]
    pub context: usize,
    /// Make sure first that no weight is NaN or infinite
    #[arg(long)]
    pub check: bool,
    /// Fields of config.json that are read as if they were not there
    #[arg(long, value_delimiter = ',', value_name = "FIELD,..")]
    pub ignore_config: Vec<String>,
    #[command(flatten)]
    pub placing: Placing,
}

impl Target {
    /// How an engine of it is opened.
    pub fn options(&self, all_logits: bool) -> EngineOptions {
        EngineOptions { context: self.context, all_logits, ..EngineOptions::default() }
    }
}

pub fn strategy(text: &str) -> Result<Strategy, String> {
    let known: Vec<&str> = Strategy::ALL.iter().map(|(name, _)| *name).collect();
    let found = Strategy::ALL.iter().find(|(name, _)| *name == text).map(|(_, s)| *s);
    found.ok_or_else(|| format!("one of {}", known.join(", ")))
}

/// The most of anything that is counted: positions, tokens, repetitions.
const MANY: usize = 1 << 24;

/// A whole number of 1 to [`MANY`].
pub fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=MANY).contains(n)).ok_or_else(|| format!("a number of 1 to {MANY}"))
}

/// A whole number of 0 to [`MANY`].
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= MANY).ok_or_else(|| format!("a number of 0 to {MANY}"))
}

/// A parser of numbers of `low` to `high`, both allowed.
pub fn within(low: f32, high: f32) -> impl Fn(&str) -> Result<f32, String> + Clone {
    let range = low..=high;
    move |text| text.parse().ok().filter(|x| range.contains(x)).ok_or_else(|| format!("a number of {low} to {high}"))
}

/// A device's share.
fn share(text: &str) -> Result<f64, String> {
    let reason = || "a number of at least 0, such as 3 or 0.5".to_string();
    text.parse().ok().filter(|x| (0.0..=1e12).contains(x)).ok_or_else(reason)
}

/// `8GiB`, `500MB` or plain bytes.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 7] =
        [("KiB", 1024.0), ("MiB", 1048576.0), ("GiB", 1073741824.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("B", 1.0)];
    let (number, unit) =
        UNITS.iter().find_map(|(unit, n)| text.strip_suffix(unit).map(|t| (t, *n))).unwrap_or((text, 1.0));
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 && value * unit < 1e18 => Ok((value * unit) as u64),
        _ => Err("a size such as 8GiB, 500MB or a number of bytes".to_string()),
    }
}

/// Reads the model's headers; `demo` is the embedded one unless a folder bears the name.
pub fn open_model(target: &Target, head: Head) -> Result<Arc<Model>> {
    Ok(Arc::new(read_model(target, head)?))
}

/// As [`open_model`], of a model that predicts tokens.
pub fn generator(target: &Target) -> Result<Arc<Model>> {
    let model = open_model(target, Head::Default)?;
    if !model.info().generates {
        return Err(usage(format!("{} predicts no tokens: use `fanfold embed`", target.model.display())));
    }
    Ok(model)
}

/// As [`open_model`], with an output after every layer.
pub fn open_layers(target: &Target) -> Result<Arc<Model>> {
    Ok(Arc::new(read_model(target, Head::Default)?.with_layer_outputs()?))
}

fn read_model(target: &Target, head: Head) -> Result<Model> {
    if let Some(config) = random_config(&target.model) {
        let folder = Folder::bare(config)?.ignoring(&target.ignore_config)?;
        return Ok(Model::random_from(folder, DType::F16, SEED, head)?);
    }
    Ok(Model::from_folder(find_folder(&target.model)?.ignoring(&target.ignore_config)?, head)?)
}

/// `path` if it is there; else what the cache holds of the model of that name.
fn find_folder(path: &Path) -> Result<Folder> {
    if path.exists() {
        return Ok(Folder::open(path)?);
    }
    match path.to_str() {
        Some("demo") => Ok(demo()?),
        Some(name) if name.parse::<ModelId>().is_ok() => {
            let id: ModelId = name.parse()?;
            let found = huggingface::cache().find(&id).context(format!("{name}: there is no such folder"))?;
            Ok(Folder::open(found).with_context(|| format!("`fanfold pull {id}` completes what the cache holds"))?)
        }
        _ => Ok(Folder::open(path)?),
    }
}

/// The configuration that is to have random weights, where a model is named as `random:CONFIG.json`.
pub fn random_config(path: &Path) -> Option<&Path> {
    path.to_str()?.strip_prefix("random:").filter(|_| !path.exists()).map(Path::new)
}

/// Where random weights start: the same everywhere.
pub const SEED: u64 = 0;

/// Makes sure that no weight is NaN or infinite, with a progress bar.
pub fn check_weights(model: &Model) -> Result<()> {
    let bar = progress_bar(model.weight_bytes(), "checking {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let found = model.check(&|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok(found?)
}

/// The model's tokenizer, whose ids the model knows.
pub fn tokenizer(model: &Model) -> Result<Tokenizer> {
    let path = model.file_path("tokenizer.json");
    match model.file("tokenizer.json")? {
        Some(bytes) => {
            let tokenizer = Tokenizer::from_bytes(&path, &bytes)?;
            tokenizer.check(model.info().vocabulary)?;
            Ok(tokenizer)
        }
        None => {
            let reason = "is missing: without it there is no text, only token ids".to_string();
            Err(fanfold::Error::from(fanfold::error::TextError::Tokenizer { path, reason }).into())
        }
    }
}

/// Everything decided before a device is opened.
pub struct Decision {
    pub plan: Plan,
    pub program: Program,
    pub limits: Limits,
    pub choices: Vec<DeviceChoice>,
    /// What is known of each rank's device.
    pub rooms: Vec<Room>,
    pub options: EngineOptions,
}

/// What is known of the chosen devices: what `--memory` says, or else the drivers and the system.
fn rooms(choices: &[DeviceChoice], given: &[u64]) -> Result<Vec<Room>> {
    if !given.is_empty() && given.len() != choices.len() {
        let (sizes, devices) = (given.len(), choices.len());
        return Err(usage(format!("--memory has {sizes} sizes for {devices} devices")));
    }
    Ok(select::rooms(choices, given, memory::free()))
}

/// Chooses devices and a plan for `model`, and checks that it fits where memory is known, and its weights if wanted.
pub fn decide(model: &Model, target: &Target, all_logits: bool) -> Result<Decision> {
    decide_as(model, target, target.options(all_logits))
}

/// As [`decide`], for an engine opened otherwise than a target says.
pub fn decide_as(model: &Model, target: &Target, options: EngineOptions) -> Result<Decision> {
    let decision = decide_unchecked(model, &target.placing, options)?;
    decision.program.check(&decision.limits, &decision.rooms)?;
    if target.check {
        check_weights(model)?;
    }
    Ok(decision)
}

/// As [`decide`], without any check.
pub fn decide_unchecked(model: &Model, placing: &Placing, options: EngineOptions) -> Result<Decision> {
    let mut choices = choose(placing)?;
    let plan = match &placing.plan {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| usage(format!("{}: {e}", file.display())))?;
            let plan = Plan::from_json(&text)?;
            if plan.world_size != choices.len() {
                let (plan, devices) = (plan.world_size, choices.len());
                return Err(fanfold::Error::from(PlanError::WorldSize { plan, devices }).into());
            }
            plan
        }
        None => {
            let default = if placing.exact { Strategy::Column } else { Strategy::Tensor };
            let strategy = placing.strategy.unwrap_or(default);
            if strategy == Strategy::Single && choices.len() > 1 {
                eprintln!("strategy single: only the first of {} devices is used", choices.len());
                choices.truncate(1);
            }
            let mut ratios = placing.ratios.clone();
            if ratios.is_empty() {
                ratios = vec![1.0; choices.len()];
            } else if ratios.len() != choices.len() {
                return Err(usage(format!("--ratios has {} numbers for {} devices", ratios.len(), choices.len())));
            }
            plan(model.graph(), strategy, &ratios)?
        }
    };
    if placing.exact {
        plan.check_exact(model.graph())?;
        if let Some(other) = choices.iter().find(|choice| *choice != &choices[0]) {
            let reason = format!("{} and {other} are different adapters, whose arithmetic may differ", choices[0]);
            return Err(fanfold::Error::from(PlanError::Inexact(reason)).into());
        }
    }
    let deadline = Duration::from_secs(placing.timeout);
    let options = EngineOptions { deadline, ..options };
    let rooms = rooms(&choices, &placing.memory)?;
    let (program, limits) = prepare(model, &plan, &options, &rooms)?;
    Ok(Decision { plan, program, limits, choices, rooms, options })
}

fn choose(placing: &Placing) -> Result<Vec<DeviceChoice>> {
    if let Some(list) = &placing.devices {
        // Drivers take time to load, and a list of hosts alone needs none.
        return Ok(select::parse(list, &[]).or_else(|_| select::parse(list, &adapters()))?);
    }
    let (choices, software) = select::default_choice(&adapters())?;
    if software {
        eprintln!("no GPU found: running on the software adapter {}, slowly", choices[0]);
    }
    Ok(choices)
}

/// Refuses a text that cannot run before the weights are loaded, which may take minutes.
pub fn check_tokens(ids: &[u32], decision: &Decision) -> Result<()> {
    let (tokens, capacity) = (ids.len(), decision.limits.capacity);
    let refused = match tokens {
        0 => SessionError::EmptyPrompt,
        _ if tokens > capacity => SessionError::Context { tokens, capacity },
        _ => return Ok(()),
    };
    Err(fanfold::Error::from(refused).into())
}

/// Opens the devices and loads the model onto them, with a progress bar.
pub fn open(model: &Arc<Model>, decision: &Decision) -> Result<Engine> {
    let options = GpuOptions { deadline: decision.options.deadline, ..GpuOptions::default() };
    let devices = decision.choices.iter().map(|choice| select::open(choice, &options));
    open_on(model, decision, devices.collect::<Result<_, _>>()?)
}

/// Loads the model onto devices that are open already, with a progress bar.
pub fn open_on(model: &Arc<Model>, decision: &Decision, devices: Vec<Box<dyn Device>>) -> Result<Engine> {
    let total: u64 = decision.program.ranks.iter().map(|rank| rank.memory(&decision.limits).weights).sum();
    let bar = progress_bar(total, "loading {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let told = bar.clone();
    let progress = Arc::new(move |bytes| told.inc(bytes));
    let engine = Engine::open(model.clone(), &decision.plan, devices, decision.options, progress);
    bar.finish_and_clear();
    Ok(engine?)
}

/// A bar on stderr; hidden when that is no terminal.
pub fn progress_bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A flag that the first Ctrl-C sets; the second ends the program.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(stop)
}

/// Writes one f32 tensor as a safetensors file.
pub fn write_tensor(path: &Path, name: &str, tensor: &fanfold::tensor::Tensor) -> Result<()> {
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, tensor.shape().to_vec(), tensor.bytes())?;
    safetensors::serialize_to_file([(name, view)], None, path).map_err(|e| usage(format!("{}: {e}", path.display())))
}
