//! What the subcommands share: the arguments that name a model and its devices, and opening both.
//!
//! Data goes to stdout and all else to stderr. Read `run.rs` for how it is used.

use crate::input;
use crate::values::{context, size, strategy};
use crate::{huggingface, memory};
use anyhow::{Context, Result};
use fanfold::device::Device;
use fanfold::device::gpu::{GpuOptions, adapters};
use fanfold::device::select::{self, DeviceChoice};
use fanfold::generate::GenerateError;
use fanfold::generate::{Engine, EngineOptions, prepare};
use fanfold::hub::ModelId;
use fanfold::import::{Folder, Head, demo};
use fanfold::model::Model;
use fanfold::plan::PlanError;
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::{Program, Room};
use fanfold::session::SessionError;
use fanfold::shape::Limits;
use fanfold::tensor::DType;
use fanfold::text::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// Prints `text` and a line end on stdout, for data. Errors, unlike `println!`, which panics, when it cannot be written.
pub fn say(text: impl Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints `text` and a line end on stderr, for all else. What cannot be written is lost, and the command goes on:
/// `eprintln!` panics on a closed or full stderr.
pub fn tell(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
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
    #[arg(long, value_parser = strategy(), value_name = "STRATEGY")]
    pub strategy: Option<Strategy>,
    /// A plan from `fanfold plan -o`, perhaps edited
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ratios", "strategy"])]
    pub plan: Option<PathBuf>,
    /// Each device's memory, such as 24G,500M, where the driver does not tell or less is to be used: G and GiB are 1024^3
    /// bytes, GB is 1000^3, B bytes
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
    /// Positions the KV cache holds; 0: as many as the model was made for
    #[arg(short, long, default_value_t = 2048, value_parser = context, value_name = "N")]
    pub context: usize,
    /// Make sure first that no weight is NaN or infinite
    #[arg(long)]
    pub check: bool,
    /// Fields that are read as if they were not there: of config.json by name, of another file as FILE:FIELD
    #[arg(long, value_delimiter = ',', value_name = "FIELD,..")]
    pub ignore_config: Vec<String>,
    #[command(flatten)]
    pub placing: Placing,
}

impl Target {
    /// How an engine of it is opened.
    pub fn options(&self, all_logits: bool) -> EngineOptions {
        EngineOptions::default().context(self.context).all_logits(all_logits)
    }
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

/// Reads the model's headers; `demo` is the embedded one unless a folder bears the name.
pub fn open_model(target: &Target, head: Head) -> Result<Arc<Model>> {
    Ok(Arc::new(read_model(target, head)?))
}

/// As [`open_model`], of a model that predicts tokens.
pub fn generator(target: &Target) -> Result<Arc<Model>> {
    let model = open_model(target, Head::Default)?;
    if !model.info().generates {
        let why = model.info().missing_head.as_ref();
        let why = why.map(|head| format!(", since its files hold no {head}")).unwrap_or_default();
        return Err(usage(format!("{} predicts no tokens{why}: use `fanfold embed`", target.model.display())));
    }
    Ok(model)
}

/// As [`open_model`], with the outputs that a proof compares: the hidden states of a model that embeds, and, if `layers`,
/// what comes after every layer.
pub fn open_compared(target: &Target, layers: bool) -> Result<Arc<Model>> {
    let mut model = read_model(target, Head::Default)?;
    if !model.info().generates && model.info().scores.is_none() {
        model = model.with_hidden_states()?;
    }
    Ok(Arc::new(if layers { model.with_layer_outputs()? } else { model }))
}

fn read_model(target: &Target, head: Head) -> Result<Model> {
    if let Some(config) = random_config(&target.model) {
        if config == Path::new("") {
            return Err(usage("random: names no file: give random:CONFIG.json"));
        }
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
            Err(fanfold::Error::from(fanfold::text::TextError::Tokenizer { path, reason }).into())
        }
    }
}

/// Plans are some MB at most; anything longer was given in error.
const LONGEST_PLAN: usize = 64 << 20;

/// Everything decided before a device is opened.
pub struct Decision {
    pub plan: Plan,
    pub program: Program,
    pub limits: Limits,
    pub choices: Vec<DeviceChoice>,
    /// What is known of each rank's device.
    pub rooms: Vec<Room>,
    pub options: EngineOptions,
    /// The largest context that the model was made for.
    pub made_for: usize,
}

/// What is known of the chosen devices: what `--memory` says, or else the drivers and the system.
fn rooms(choices: &[DeviceChoice], given: &[u64]) -> Vec<Room> {
    // A device that is used alone is the first of those that sizes were given for.
    let given = &given[..given.len().min(choices.len())];
    select::rooms(choices, given, memory::free())
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
    let listed = choices.len();
    // What is wrong with a plan from a file is told with the file's name.
    let of_plan = |error: fanfold::Error| match (&placing.plan, &error) {
        (Some(file), fanfold::Error::Plan(_) | fanfold::Error::Session(SessionError::WorldSize { .. })) => {
            anyhow::Error::from(error).context(file.display().to_string())
        }
        _ => error.into(),
    };
    let plan = match &placing.plan {
        Some(file) => {
            let plan =
                Plan::from_json(&input::text_within(file, LONGEST_PLAN)?).map_err(|error| of_plan(error.into()))?;
            if plan.world_size != choices.len() {
                let (plan, devices) = (plan.world_size, choices.len());
                return Err(of_plan(SessionError::WorldSize { plan, devices }.into()));
            }
            plan
        }
        None => {
            let default = if placing.exact { Strategy::Column } else { Strategy::Tensor };
            let strategy = placing.strategy.unwrap_or(default);
            if strategy == Strategy::Single && choices.len() > 1 {
                tell(format_args!("strategy single: only the first of {listed} devices is used"));
                choices.truncate(1);
            }
            one_each("--ratios", "numbers", placing.ratios.len(), listed, choices.len())?;
            let mut ratios = placing.ratios.clone();
            ratios.resize(choices.len(), 1.0);
            plan(model.graph(), strategy, &ratios)?
        }
    };
    one_each("--memory", "sizes", placing.memory.len(), listed, choices.len())?;
    if placing.exact {
        plan.check_exact(model.graph()).map_err(|error| of_plan(error.into()))?;
        if let Some(other) = choices.iter().find(|choice| *choice != &choices[0]) {
            let reason = format!("{} and {other} are different adapters, whose arithmetic may differ", choices[0]);
            return Err(fanfold::Error::from(PlanError::Inexact(reason)).into());
        }
    }
    let deadline = Duration::from_secs(placing.timeout);
    let options = options.deadline(deadline);
    let rooms = rooms(&choices, &placing.memory);
    let (program, limits) = prepare(model, &plan, &options, &rooms).map_err(|error| of_plan(error.into()))?;
    Ok(Decision { plan, program, limits, choices, rooms, options, made_for: model.info().context })
}

/// Refuses a list that is neither empty nor of one entry per device, be it per device listed or per device used.
fn one_each(flag: &str, entries: &str, given: usize, listed: usize, used: usize) -> Result<()> {
    if given == 0 || given == listed || given == used {
        return Ok(());
    }
    Err(usage(format!("{flag} has {given} {entries} for {listed} devices")))
}

fn choose(placing: &Placing) -> Result<Vec<DeviceChoice>> {
    if let Some(list) = &placing.devices {
        // Drivers take time to load, and a list of hosts alone needs none.
        return Ok(select::parse(list, &[]).or_else(|_| select::parse(list, &adapters()))?);
    }
    let (choices, software) = select::default_choice(&adapters())?;
    if software {
        tell(format_args!("no GPU found: running on the software adapter {}, slowly", choices[0]));
    }
    Ok(choices)
}

/// Refuses a text that cannot run before the weights are loaded, which may take minutes.
pub fn check_tokens(ids: &[u32], decision: &Decision) -> Result<()> {
    let (tokens, capacity, limit) = (ids.len(), decision.limits.capacity, Some(decision.made_for));
    let refused = match tokens {
        0 => GenerateError::EmptyPrompt,
        _ if tokens > capacity => GenerateError::Context { tokens, capacity, limit },
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
    // Drawn also while the first step is under way, which may take the longest.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Takes `bar` away, if it is there: the line of a bar that is gone may hold output by now.
pub fn clear(bar: &ProgressBar) {
    if !bar.is_finished() {
        bar.finish_and_clear();
    }
}

/// Shows on stderr that something is going on of which it is not known how long it takes, until it is cleared.
pub fn waiting(what: &str) -> ProgressBar {
    progress_bar(0, &format!("{{spinner}} {what}, {{elapsed}}"))
}
