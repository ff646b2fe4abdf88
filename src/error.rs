//! One [`Error`] with one variant per layer, each carrying what a person needs to act.
//!
//! The types stand here, at the bottom of the layering, so that every layer can return every lower layer's error;
//! they know none of the code that makes them. An error that wraps another prints it and calls it `cause`, not `source`:
//! the derive would make that a `source()`, and a chain of causes would be printed with each cause twice. Each layer's own
//! module documents when it returns which.

use crate::tensor::{DType, Region, display_bytes};

use crate::shape::display_shape;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The result of everything in the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, by layer.
///
/// Its `Display` tells all of it, the cause included, and it has no `source()`: whoever prints a chain of causes
/// prints nothing twice. Text from outside (names in files, words of a driver) is shown as [`shown`] says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A tensor in host memory.
    Tensor(TensorError),
    /// A sharding rule, cut or placement.
    Sharding(ShardingError),
    /// An op or a graph of ops.
    Graph(GraphError),
    /// A model folder.
    Import(ImportError),
    /// A model's name, the cache, or a hub that models come from.
    Hub(HubError),
    /// A plan, or its lowering to a program.
    Plan(PlanError),
    /// A device.
    Device(DeviceError),
    /// An exchange between ranks.
    Comm(CommError),
    /// A session or a generation.
    Session(SessionError),
    /// Text: tokenizer and sampling.
    Text(TextError),
}

/// `Display` and `From` of every layer's errors. Not derived: a derived `From` is also a `source()`, and a cause that is
/// both printed and chained is read twice.
macro_rules! layers {
    ($($layer:ident($error:ident)),*) => {
        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = match self {
                    $(Error::$layer(error) => error.to_string(),)*
                };
                f.write_str(&shown(&text))
            }
        }

        $(impl From<$error> for Error {
            fn from(error: $error) -> Error {
                Error::$layer(error)
            }
        })*
    };
}

layers!(
    Tensor(TensorError),
    Sharding(ShardingError),
    Graph(GraphError),
    Import(ImportError),
    Hub(HubError),
    Plan(PlanError),
    Device(DeviceError),
    Comm(CommError),
    Session(SessionError),
    Text(TextError)
);

impl std::error::Error for Error {}

/// The most characters of an error that are shown, and how many of them are from its end, where advice stands.
const SHOWN: usize = 4000;
const SHOWN_END: usize = 1000;

/// `text` as it can be shown at a terminal.
///
/// Errors quote what strangers wrote: names in model files, plans, templates, answers of a hub. Control characters, which
/// could move the cursor or set the window's title, and characters that turn the direction of what follows are escaped as in
/// a Rust literal; ends of lines stay. Of a long text the middle is left out.
pub fn shown(text: &str) -> String {
    // U+061C and those after it order the text around them; U+2028 and U+2029 end lines on some terminals.
    let turns =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escape = |out: &mut String, c: char| match c {
        '\n' => out.push(c),
        _ if c.is_control() || turns(c) => out.extend(c.escape_default()),
        _ => out.push(c),
    };
    let length = text.chars().count();
    let mut out = String::new();
    if length <= SHOWN {
        text.chars().for_each(|c| escape(&mut out, c));
        return out;
    }
    text.chars().take(SHOWN - SHOWN_END).for_each(|c| escape(&mut out, c));
    out += &format!(" [... {} characters are left out ...] ", length - SHOWN);
    text.chars().skip(length - SHOWN_END).for_each(|c| escape(&mut out, c));
    out
}

/// A tensor in host memory.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The number of elements is not the shape's.
    #[error("{elements} elements do not fill shape {}", display_shape(shape))]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The elements given.
        elements: usize,
    },
    /// The element type is not the one needed.
    #[error("expected elements of type {expected}, found {found}")]
    DType {
        /// Needed.
        expected: DType,
        /// Given.
        found: DType,
    },
    /// A region leaves its tensor.
    #[error("region {:?} leaves a tensor of shape {}", region.0, display_shape(shape))]
    Region {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The region asked for.
        region: Region,
    },
    /// The system refused memory for a tensor.
    #[error("there is no room in the machine's memory for a tensor of {}", display_bytes(*bytes))]
    Memory {
        /// Its size.
        bytes: u64,
    },
    /// A dimension does not exist.
    #[error("a tensor of shape {} has no dimension {dim}", display_shape(shape))]
    Dimension {
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The dimension asked for, from 0.
        dim: usize,
    },
}

/// A sharding rule, cut or placement.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShardingError {
    /// A rule's text cannot be read.
    #[error("the sharding rule {pattern:?} cannot be read: {reason}")]
    Pattern {
        /// The rule.
        pattern: String,
        /// What is wrong in it.
        reason: String,
    },
    /// A factor has two extents.
    #[error("{op}: factor {factor} is {first} in one place and {second} in another")]
    Extent {
        /// The op.
        op: &'static str,
        /// The factor's name.
        factor: String,
        /// One extent.
        first: String,
        /// The other.
        second: String,
    },
    /// The inputs do not have the shapes that the rule states.
    #[error("{op}: {reason}")]
    Inputs {
        /// The op.
        op: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A factor may not be cut.
    #[error("{op}: factor {factor:?} cannot be cut; the rule {rule} allows {allowed}")]
    NotCuttable {
        /// The op.
        op: &'static str,
        /// The factor asked for.
        factor: String,
        /// The rule's text.
        rule: String,
        /// The factors that can be, comma-separated.
        allowed: String,
    },
    /// A cut does not do for its factor.
    #[error("the cut {cut} of {factor} {reason}")]
    Cut {
        /// The cut, printed.
        cut: String,
        /// The factor's name.
        factor: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An op or a graph of ops.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// An op is used on the wrong number of inputs.
    #[error("{op} takes {expected} inputs, {found} given")]
    Arity {
        /// The op.
        op: &'static str,
        /// How many it takes.
        expected: &'static str,
        /// How many it got.
        found: usize,
    },
    /// An op's attributes are contradictory.
    #[error("{op}: {reason}")]
    Attribute {
        /// The op.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A node fails.
    #[error("node {node}: {cause}")]
    Node {
        /// The node's name.
        node: String,
        /// Why.
        cause: Box<Error>,
    },
    /// An op is given elements of a type that it does not read.
    #[error("{op}: input {input} is {found}, it reads {expected}")]
    Operand {
        /// The op.
        op: &'static str,
        /// Which input, from 0.
        input: usize,
        /// The element types that the op reads at this input.
        expected: &'static str,
        /// The element type of the value given.
        found: DType,
    },
    /// A value cannot be what a graph makes of it.
    #[error("value {value:?} {reason}")]
    Value {
        /// Its name.
        value: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// A name stands twice or not at all.
    #[error("{kind} {name:?} {problem}")]
    Name {
        /// What bears the name.
        kind: &'static str,
        /// The name.
        name: String,
        /// `is defined twice`, `does not exist`.
        problem: &'static str,
    },
}

/// A model folder.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file cannot be opened or read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A file is not what it should be.
    #[error("{}: {reason} (at byte {offset})", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The byte offset in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A tensor in a file is not what it should be.
    #[error("{}: tensor {tensor:?}: {reason} (at byte {offset})", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The byte offset of its data in the file.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A folder that holds no weights that can be read safely.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing, and the way out.
        reason: String,
    },
    /// A field of a configuration is missing or senseless.
    #[error("{}: {field}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The model family or one of its settings is not supported.
    #[error("{what} {name:?} is not supported; supported: {supported}")]
    Unsupported {
        /// `model_type`, `rope type`, ...
        what: &'static str,
        /// What the folder names.
        name: String,
        /// What is supported, comma-separated.
        supported: String,
    },
    /// A weight is no number.
    #[error("{}: tensor {tensor:?} holds {value} at {}: the file is damaged, or its training diverged", path.display(), display_shape(index))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The element's index, one number per dimension.
        index: Vec<usize>,
        /// NaN or an infinity.
        value: f32,
    },
    /// A configuration has fields that may change what the model computes, and nobody read; all are listed.
    #[error(
        "{}: these fields are not understood, and may change what the model computes:{}\nthose that you know to change \
         nothing can be left out: --ignore-config {names} (in the library, Folder::ignoring)",
        path.display(),
        list(fields)
    )]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// One line per field, with its value.
        fields: Vec<String>,
        /// Their names, comma-separated.
        names: String,
    },
    /// The configuration and the tensors disagree; all disagreements are listed.
    #[error("{}: the tensors do not match config.json:{}", path.display(), list(mismatches))]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// One line per tensor.
        mismatches: Vec<String>,
    },
}

/// A model's name, the cache, or a hub that models come from.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that no hub gives.
    #[error("the model name {name:?} {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The cache does not hold the model.
    #[error("{id} is not in the cache {}: `fanfold pull {id}` fetches it", cache.display())]
    NotCached {
        /// The name.
        id: String,
        /// Where the cache is.
        cache: PathBuf,
    },
    /// The hub has no such model, revision or file.
    #[error("{endpoint} has no {what}: check its spelling")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// `model OWNER/NAME`, `revision ..`, `file ..`.
        what: String,
    },
    /// The hub wants to know who asks, or refuses who does.
    #[error("{id}: {reason}")]
    Denied {
        /// The name.
        id: String,
        /// Why, and the way out.
        reason: String,
    },
    /// The repository holds nothing that can be run.
    #[error("{id} holds no weights that fanfold reads (model.safetensors or its index){}", found.as_ref().map(|f| format!(", only {f}")).unwrap_or_default())]
    NoWeights {
        /// The name.
        id: String,
        /// A file of weights in another format.
        found: Option<String>,
    },
    /// The hub cannot be reached, or the connection broke.
    #[error("{url}: {reason}. Is there a network? What was fetched is kept: the same command goes on from there")]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The hub answers what no hub should.
    #[error("{url}: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// What arrived is not what the hub says the file is.
    #[error("{file}: {reason}. It was deleted: the same command fetches it anew")]
    Damaged {
        /// The file.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// A file in the cache cannot be written.
    #[error("{}: {reason}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words, and the way out.
        reason: String,
    },
    /// The person said stop.
    #[error("stopped; what was fetched is kept: the same command goes on from there")]
    Stopped,
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

fn waiters(ranks: &[usize]) -> String {
    let ranks: Vec<String> = ranks.iter().map(usize::to_string).collect();
    if ranks.is_empty() { String::new() } else { format!("; waited for by rank {}", ranks.join(", ")) }
}

/// A plan, or its lowering to a program.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A plan file cannot be read.
    #[error("the plan cannot be read: {0}")]
    Format(String),
    /// A plan says of a node, or of its ranks, what cannot be so.
    #[error("{0}")]
    Content(String),
    /// A plan was made for another model.
    #[error("the plan is for model {plan}, this is {model}: make one with `fanfold plan -o`")]
    Model {
        /// The plan's model.
        plan: String,
        /// The model at hand.
        model: String,
    },
    /// A plan was made for another number of devices.
    #[error("the plan is for {plan} ranks, {devices} devices are given")]
    WorldSize {
        /// Ranks in the plan.
        plan: usize,
        /// Devices at hand.
        devices: usize,
    },
    /// Ratios that cannot be used.
    #[error("ratios: {0}")]
    Ratios(String),
    /// A node's cut cannot be used.
    #[error("plan, node {node}: {cause}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        cause: Box<Error>,
    },
    /// A state would be held in two different cuts.
    #[error("node {node} uses the state {state} in another cut than the node that writes it")]
    State {
        /// The node.
        node: String,
        /// The state.
        state: String,
    },
    /// `exact` cannot be promised.
    #[error("--exact cannot be promised: {0}")]
    Inexact(String),
    /// Devices lack memory; every one that does is listed.
    #[error(
        "the model does not fit:{}\nUse more devices, other --ratios, a smaller context (-c) or a smaller model; where a \
         device has more memory than this, say so with --memory.",
        list(&shortfalls.iter().map(ToString::to_string).collect::<Vec<_>>())
    )]
    DoesNotFit {
        /// One entry per device, or memory that several share, that is too small.
        shortfalls: Vec<Shortfall>,
    },
    /// Tensors are larger than what a device binds or allocates in one piece; every one that is, is listed.
    #[error("the model does not fit:{}", list(&tensors.iter().map(ToString::to_string).collect::<Vec<_>>()))]
    TooWide {
        /// One entry per rank and tensor.
        tensors: Vec<TooWide>,
    },
}

/// How much memory a device lacks.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} ({device}){}: needs {} ({needed} bytes), has {} ({available} bytes), short of {}",
    ranks_of(ranks),
    if ranks.len() > 1 { ", in one memory together" } else { "" },
    display_bytes(*needed),
    display_bytes(*available),
    display_bytes(needed.saturating_sub(*available))
)]
pub struct Shortfall {
    /// The ranks that share the memory.
    pub ranks: Vec<usize>,
    /// Their device's name.
    pub device: String,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes there are.
    pub available: u64,
}

/// A tensor that a device cannot hold in one piece.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "rank {rank} ({device}): {tensor} takes {}, in one piece the device holds at most {}: {advice}",
    display_bytes(*bytes),
    display_bytes(*largest)
)]
pub struct TooWide {
    /// The rank.
    pub rank: usize,
    /// Its device's name.
    pub device: String,
    /// The tensor's name.
    pub tensor: String,
    /// Its size.
    pub bytes: u64,
    /// The largest that the device holds in one piece.
    pub largest: u64,
    /// What to do.
    pub advice: &'static str,
}

/// `rank 0`, or `ranks 0, 1`.
fn ranks_of(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    format!("rank{} {}", if ranks.len() > 1 { "s" } else { "" }, numbers.join(", "))
}

/// A device.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No adapter at all.
    #[error(
        "no GPU adapter found. Install a driver (Debian, Ubuntu: `apt-get install mesa-vulkan-drivers libvulkan1` also brings a software one), or use `--devices host`"
    )]
    NoAdapter,
    /// A device in the list matches nothing.
    #[error("device {wanted:?} matches no adapter; there are:{}", list(present))]
    NotFound {
        /// The word given.
        wanted: String,
        /// What there is.
        present: Vec<String>,
    },
    /// The list of devices cannot be read.
    #[error("device list {list:?}: {reason}")]
    List {
        /// The list.
        list: String,
        /// What is wrong.
        reason: String,
    },
    /// The device was lost.
    #[error("device {device} was lost: {reason}")]
    Lost {
        /// The device.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// The device refused memory.
    #[error(
        "device {device} has no room for {what}{}: {reason}",
        if *bytes > 0 { format!(" of {}", display_bytes(*bytes)) } else { String::new() }
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was to be allocated.
        what: String,
        /// Its size.
        bytes: u64,
        /// The driver's words or the limit.
        reason: String,
    },
    /// The device did not finish in time.
    #[error("device {device} made no progress within {deadline:?}")]
    Deadline {
        /// The device.
        device: String,
        /// The deadline.
        deadline: Duration,
    },
    /// A shader or a call was refused.
    #[error("device {device}: {reason}")]
    Refused {
        /// The device.
        device: String,
        /// The driver's or the validator's words.
        reason: String,
    },
}

/// An exchange between ranks.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// A peer ended.
    #[error("rank {rank}: rank {peer} ended")]
    PeerEnded {
        /// Who waited.
        rank: usize,
        /// For whom.
        peer: usize,
    },
    /// A peer sent nothing in time.
    #[error("rank {rank}: nothing from rank {peer} within {deadline:?}")]
    Deadline {
        /// Who waited.
        rank: usize,
        /// For whom.
        peer: usize,
        /// The deadline.
        deadline: Duration,
    },
    /// A peer sent a message of another length than the program says.
    #[error("rank {rank}: {found} bytes from rank {peer}, expected {expected}")]
    Length {
        /// Who received.
        rank: usize,
        /// From whom.
        peer: usize,
        /// Bytes expected.
        expected: usize,
        /// Bytes received.
        found: usize,
    },
    /// The parts given are not one per rank.
    #[error("rank {rank}: {found} parts given to {collective}, expected {expected}")]
    Parts {
        /// Who called.
        rank: usize,
        /// Which collective.
        collective: &'static str,
        /// One per rank.
        expected: usize,
        /// Given.
        found: usize,
    },
}

/// What can be done about tokens that do not fit a context.
fn context_advice(tokens: usize, capacity: usize, limit: Option<usize>) -> String {
    match limit {
        None => String::new(),
        Some(limit) if tokens <= limit => format!(
            ": raise it with -c (in the library, EngineOptions::context), up to the {limit} that the model was made for, \
             or shorten the text"
        ),
        Some(limit) if limit == capacity => ", and the model was made for no more: shorten the text".to_string(),
        Some(limit) => format!(", and the model was made for no more than {limit}: shorten the text"),
    }
}

/// A session or a generation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A rank failed and ended the others.
    #[error("rank {rank} ({device}){}: {cause}", node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default())]
    Rank {
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The node it was at, if any.
        node: Option<String>,
        /// Why.
        cause: Box<Error>,
    },
    /// The session has failed before. Nothing revives it, `Engine::reset` neither.
    #[error("the session has ended after an error: open a new one")]
    Ended,
    /// A rank's thread panicked. It is what a [`SessionError::Rank`] is caused by.
    #[error("panicked: {words}")]
    Panicked {
        /// What the panic said.
        words: String,
    },
    /// A rank answered nothing, and no rank made progress in time.
    #[error(
        "rank {rank} ({device}){}: no progress within {deadline:?}{}",
        node.as_ref().map(|n| format!(", node {n}")).unwrap_or_default(),
        waiters(waiting)
    )]
    Stalled {
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The node it is at, if any.
        node: Option<String>,
        /// The ranks that gave up waiting for it.
        waiting: Vec<usize>,
        /// The deadline.
        deadline: Duration,
    },
    /// An input is missing or of the wrong shape or type.
    #[error("input {name:?}: {reason}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An output does not exist.
    #[error("output {name:?} does not exist; there are: {present}")]
    Output {
        /// The name asked for.
        name: String,
        /// The outputs there are.
        present: String,
    },
    /// The tokens do not fit the context.
    #[error("{tokens} tokens do not fit the context of {capacity} positions{}", context_advice(*tokens, *capacity, *limit))]
    Context {
        /// Tokens in all.
        tokens: usize,
        /// The context's size.
        capacity: usize,
        /// The largest context that the model was made for, where that is known.
        limit: Option<usize>,
    },
    /// A token id is outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The id.
        token: u32,
        /// The vocabulary's size.
        vocabulary: usize,
    },
    /// An output is no finite number.
    #[error(
        "{output}: {value} came out of node {node} first, on rank {rank} ({device}); --check looks for such weights"
    )]
    NotFinite {
        /// The output.
        output: String,
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The first node that made such a value.
        node: String,
        /// The value.
        value: f32,
    },
    /// The prompt holds no token.
    #[error("the prompt holds no token")]
    EmptyPrompt,
    /// The model cannot do what was asked.
    #[error("the model {model} {reason}")]
    Model {
        /// The model.
        model: String,
        /// Why not.
        reason: String,
    },
}

/// Text: tokenizer and sampling.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The tokenizer cannot be read or refuses a text.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// tokenizer.json.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer and the model are not from one folder.
    #[error(
        "{}: has token ids up to {largest}, but the model's vocabulary ends before {vocabulary}: the tokenizer is not this model's", path.display()
    )]
    Vocabulary {
        /// tokenizer.json.
        path: PathBuf,
        /// Its largest id.
        largest: u32,
        /// The size of the model's vocabulary.
        vocabulary: usize,
    },
    /// A chat template is none, fails, raises, or does not end.
    #[error("{}: {reason}", path.display())]
    Template {
        /// The template's file.
        path: PathBuf,
        /// What is wrong, with the template's own message where it raises one.
        reason: String,
    },
    /// The model has no chat template.
    #[error(
        "{}: has no chat template, so that it is not known how the model wants to be talked to: give one with --template FILE, or use `fanfold run` without --chat", path.display()
    )]
    NoTemplate {
        /// The model's folder.
        path: PathBuf,
    },
    /// The folder names no such prompt.
    #[error("the model's folder has no prompt named {name:?}: {known}")]
    Prompt {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A sampling setting is outside its range.
    #[error("{setting} {value} is outside {range}")]
    Sampling {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f32,
        /// What is allowed.
        range: &'static str,
    },
    /// Logits that are not numbers.
    #[error("the logits hold no number to choose from ({0})")]
    Logits(&'static str),
}
