//! From a target's arguments to a model: its folder, the headers of its files, its tokenizer and its chat template.
//!
//! Weights are not loaded here, and no device is chosen. Read `decision.rs` for what comes next.

use crate::arguments::sampling::TalkArgs;
use crate::arguments::target::Target;
use crate::files::input::text_within;
use crate::machine::huggingface;
use crate::terminal::print::tell;
use crate::terminal::progress::progress_bar;
use crate::usage::usage;
use anyhow::{Context as _, Result};
use fanfold::format::Format;
use fanfold::hub::ModelId;
use fanfold::import::{Folder, Head, demo};
use fanfold::model::Model;
use fanfold::tensor::DType;
use fanfold::text::{ChatTemplate, TextError, Tokenizer};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Opens the model of `target` and reads the headers of its files, not its weights. `demo` is the embedded model, unless there
/// is a folder of that name.
pub fn open_model(target: &Target, head: Head) -> Result<Arc<Model>> {
    Ok(Arc::new(stored(read_model(target, head)?, target.weights)))
}

/// As [`open_model`], for a model that predicts tokens. Errors with exit code 2 where it does not.
pub fn generator(target: &Target) -> Result<Arc<Model>> {
    let model = open_model(target, Head::Default)?;
    if !model.info().generates {
        let why = model.info().missing_head.as_ref();
        let why = why.map(|head| format!(", since its files hold no {head}")).unwrap_or_default();
        return Err(usage(format!("{} predicts no tokens{why}: use `fanfold embed`", target.model.display())));
    }
    Ok(model)
}

/// As [`open_model`], with the outputs that a proof compares: the hidden states of a model that embeds, and with `layers` the
/// activations after every layer.
pub fn open_compared(target: &Target, layers: bool) -> Result<Arc<Model>> {
    let mut model = read_model(target, Head::Default)?;
    if !model.info().generates && model.info().scores.is_none() {
        model = model.with_hidden_states()?;
    }
    let model = stored(model, target.weights);
    Ok(Arc::new(if layers { model.with_layer_outputs()? } else { model }))
}

/// The model with its matrices stored in `format`, if one is given. Tells which matrices keep their own format.
pub fn stored(model: Model, format: Option<Format>) -> Model {
    let Some(format) = format else { return model };
    let model = model.with_weights(format);
    let all = model.graph().matrices().count();
    let kept: Vec<_> = model.graph().matrices().filter(|matrix| matrix.format() != Some(format)).collect();
    if let Some(first) = kept.first() {
        let (count, block) = (kept.len(), format.block());
        let of = first.format().map_or("their format", Format::name);
        let name = &first.name;
        tell(format!(
            "note: {count} of {all} matrices stay in {of}, since their rows are not blocks of {block} elements: {name} is one"
        ));
    }
    model
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

/// The folder at `path` if it exists, and otherwise the model of that name in the cache.
fn find_folder(path: &Path) -> Result<Folder> {
    if path.exists() {
        return Ok(Folder::open(path)?);
    }
    match path.to_str() {
        Some("demo") => Ok(demo()?),
        Some(name) if name.parse::<ModelId>().is_ok() => {
            let id: ModelId = name.parse()?;
            let found = huggingface::cache().find(&id).context(format!("{name}: there is no such folder"))?;
            Folder::open(found).with_context(|| format!("`fanfold pull {id}` completes what the cache holds"))
        }
        _ => Ok(Folder::open(path)?),
    }
}

/// The path of the configuration, where a model is named as `random:CONFIG.json`.
pub fn random_config(path: &Path) -> Option<&Path> {
    path.to_str()?.strip_prefix("random:").filter(|_| !path.exists()).map(Path::new)
}

/// The seed of random weights, the same in every run, so that results can be compared.
pub const SEED: u64 = 0;

/// Reads all weights and errors where one is NaN or infinite. Shows a progress bar.
pub fn check_weights(model: &Model) -> Result<()> {
    let bar = progress_bar(model.weight_bytes(), "checking {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    let found = model.check(&|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    Ok(found?)
}

/// The model's tokenizer. Errors where it can produce ids that the model's vocabulary does not have.
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
            Err(TextError::Tokenizer { path, reason }.into())
        }
    }
}

/// The longest chat template that is read, in bytes. Templates have a few KB, so a longer file was given in error.
const LONGEST_TEMPLATE: usize = 1 << 20;

/// The chat template that `talk` names, or else the model's own. Errors where there is neither.
pub fn template(talk: &TalkArgs, model: &Model) -> Result<ChatTemplate> {
    let (path, source) = match &talk.template {
        Some(path) => (path.clone(), text_within(path, LONGEST_TEMPLATE)?),
        None => {
            let missing = || TextError::NoTemplate { path: model.path().to_owned() };
            model.chat_template()?.ok_or_else(missing)?
        }
    };
    Ok(ChatTemplate::new(path, &source, model.special_tokens()?, SystemTime::now())?)
}
