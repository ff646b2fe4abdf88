//! sentence-transformers folders: what modules.json and the files that it names require for texts and vectors.
//!
//! Every field of these files is obeyed, known to change no vector, or refused by its name, like those of config.json.
//! The module deliberately knows no tokenizer and runs nothing: [`TextSettings`] says what a caller has to do to a
//! text. Read `generate/preparer.rs` next, which does it.

use crate::import::ImportError;
use crate::import::files::config::Config;
use crate::import::files::folder::Folder;
use crate::import::files::modules::MODULES;
use crate::import::files::special;
use crate::model::Pooling;
use crate::model::TextSettings;
use serde_json::Value;

/// The file names that a Transformer module's settings may have, the present one first.
pub(crate) const TRANSFORMER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Whether transformers 5 gives a model token types: it does if `model_input_names` lists them, or else if the
/// tokenizer's class does. A tokenizer.json may produce types all the same; a class that belongs to no model, such as
/// `PreTrainedTokenizerFast`, drops them.
fn tells_pairs_apart(tokenizer: &Config) -> Result<bool, ImportError> {
    const CLASSES: [&str; 3] = ["Bert", "Electra", "DebertaV2"];
    let inputs = tokenizer.strings("model_input_names")?;
    if !inputs.is_empty() {
        return Ok(inputs.contains(&"token_type_ids"));
    }
    let class = tokenizer.opt_str("tokenizer_class")?;
    Ok(class.is_none_or(|class| CLASSES.iter().any(|known| class.strip_prefix(known).is_some_and(is_tokenizer))))
}

/// Whether `suffix` is an ending of tokenizer class names.
fn is_tokenizer(suffix: &str) -> bool {
    ["Tokenizer", "TokenizerFast"].contains(&suffix)
}

/// Everything that the folder states.
#[derive(Default)]
pub(crate) struct Sentence {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    /// How many of a vector's first dimensions are kept: `truncate_dim`.
    pub(crate) dimensions: Option<usize>,
    /// The width of the hidden states that the pooling is for, and the field that says so.
    width: Option<(Config, usize)>,
    /// Whether this is a sentence-transformers folder.
    modules: bool,
    /// Whether the folder was saved as a CrossEncoder, which scores pairs, and not as a model that embeds.
    cross_encoder: bool,
    /// `max_seq_length`, before the tokenizer's own limit is considered.
    max_tokens: Option<usize>,
    texts: TextSettings,
}

/// Reads modules.json and the files that it names. For a folder without modules.json the result is empty.
pub(crate) fn read(folder: &Folder) -> Result<Sentence, ImportError> {
    let mut sentence = Sentence::default();
    let Some(modules) = folder.json_list(MODULES)? else { return Ok(sentence) };
    sentence.modules = true;
    for (at, module) in modules.iter().enumerate() {
        let class = module.str("type")?;
        // A class from the folder's own code may have the same last name and compute something else.
        let known = class.strip_prefix("sentence_transformers.").and_then(|path| path.rsplit('.').next());
        let settings = || match module.str_or("path", "")?.trim_matches('/') {
            "" => Ok(None),
            path => folder.outer_json(&format!("{path}/config.json")),
        };
        match (at, known) {
            (0, Some("Transformer")) => sentence.transformer(folder)?,
            (1, Some("Pooling")) => {
                let missing = || module.error("path", "holds no config.json, which says how to pool");
                sentence.pooled(settings()?.ok_or_else(missing)?)?;
            }
            // Dropout does something only in training.
            (1.., Some("Dropout")) => {
                if let Some(settings) = settings()? {
                    settings.opt_f64("dropout")?;
                    settings.wholly_understood()?;
                }
            }
            (1.., Some("Normalize")) => {
                if let Some(settings) = settings()? {
                    only(&settings, ["module_input_name", "module_output_name"], &["sentence_embedding"])?;
                    settings.wholly_understood()?;
                }
                sentence.normalize = true;
            }
            (_, Some("Transformer" | "Pooling")) => {
                let reason = format!("{class} as module {at}: only a Transformer, then a Pooling, then others");
                return Err(module.error("type", reason));
            }
            _ => {
                return Err(ImportError::Unsupported {
                    what: "sentence-transformers module",
                    name: class.to_string(),
                    supported: "Transformer, Pooling, Normalize, Dropout of sentence_transformers".to_string(),
                });
            }
        }
        // `kwargs` names options of a call, which are all off unless a caller sets them.
        ["idx", "name", "path", "kwargs"].iter().for_each(|field| _ = module.value(*field));
        module.wholly_understood()?;
    }
    if sentence.normalize && sentence.pooling == Pooling::None {
        let reason = "Normalize without a Pooling before it: there is no vector to normalize";
        return Err(modules[modules.len() - 1].error("type", reason));
    }
    sentence.model(folder)?;
    Ok(sentence)
}

impl Sentence {
    /// Errors when the pooling is for hidden states of another width than `hidden`.
    pub(crate) fn check_width(&self, hidden: usize) -> Result<(), ImportError> {
        match &self.width {
            Some((config, width)) if *width != hidden => {
                let reason = format!("{width}, and the model's hidden states are {hidden} wide");
                Err(config.error(WIDTH, reason))
            }
            _ => Ok(()),
        }
    }

    /// How a text has to be prepared. `context` is the model's number of positions. `scores` says whether the graph
    /// ends in the head that a CrossEncoder uses, which truncates pairs in any folder.
    pub(crate) fn texts(&self, folder: &Folder, context: usize, scores: bool) -> Result<TextSettings, ImportError> {
        if !self.modules && !scores {
            return Ok(TextSettings::default());
        }
        let tokenizer = folder.json("tokenizer_config.json")?;
        let (mut told, mut side, mut one_segment) = Default::default();
        if let Some(config) = &tokenizer {
            told = length(config, ["model_max_length", "max_len"])?;
            side = config.opt_str("truncation_side")?;
            one_segment = !tells_pairs_apart(config)?;
        }
        let cut_start = match side {
            None => special::cuts_start(folder)?,
            Some("right") => false,
            Some("left") => true,
            Some(other) => {
                let error =
                    |c: &Config| c.error("truncation_side", format!("{other:?}: expected \"left\" or \"right\""));
                return Err(error(tokenizer.as_ref().unwrap_or(folder.config())));
            }
        };
        // A model that states no limit takes texts as long as its configuration allows.
        let max =
            folder.config().opt_usize(["max_position_embeddings", "n_positions"])?.unwrap_or(context).min(context);
        let max = told.unwrap_or(max).min(max);
        // The settings of a CrossEncoder folder do not apply to a model that embeds, nor the reverse:
        // sentence-transformers then builds the other kind from the model alone.
        if self.cross_encoder != scores {
            return Ok(TextSettings { max_tokens: Some(max), cut_start, one_segment, ..TextSettings::default() });
        }
        Ok(TextSettings { max_tokens: self.max_tokens.or(Some(max)), cut_start, one_segment, ..self.texts.clone() })
    }

    /// The settings of the Transformer module.
    fn transformer(&mut self, folder: &Folder) -> Result<(), ImportError> {
        for file in TRANSFORMER_SETTINGS {
            match folder.json(file)? {
                // An empty settings file is skipped, and an older one is looked for.
                Some(config) if config.fields().next().is_some() => return self.transformer_settings(&config),
                _ => {}
            }
        }
        Ok(())
    }

    fn transformer_settings(&mut self, config: &Config) -> Result<(), ImportError> {
        self.max_tokens = length(config, ["max_seq_length"])?;
        self.texts.lowercase = config.bool_or("do_lower_case", false)?;
        only(config, ["transformer_task"], &["feature-extraction", "sequence-classification"])?;
        only(config, ["module_output_name"], &["token_embeddings", "scores"])?;
        if let Some(modalities) = config.object("modality_config")? {
            if let Some(text) = modalities.object("text")? {
                only(&text, ["method"], &["forward"])?;
                only(&text, ["method_output_name"], &["last_hidden_state", "logits"])?;
            }
            if modalities.has("message") {
                let reason = "texts are sent through the chat template as messages, which is not supported";
                return Err(modalities.error("message", reason));
            }
            // fanfold never passes other kinds of input.
            ["image", "audio", "video"].iter().for_each(|kind| _ = modalities.value(*kind));
        }
        // This field only affects the memory layout of texts.
        config.opt_bool("unpad_inputs")?;
        // Arguments for loading: they change where and in which type things are computed, and no text.
        const LOADING: [&str; 10] = [
            "attn_implementation",
            "cache_dir",
            "device_map",
            "dtype",
            "low_cpu_mem_usage",
            "torch_dtype",
            "trust_remote_code",
            "use_cache",
            "use_fast",
            "use_safetensors",
        ];
        let arguments = |names: [&str; 2]| -> Result<Option<Config>, ImportError> {
            let found = config.object(names)?;
            if let Some(found) = &found {
                LOADING.iter().for_each(|field| _ = found.value(*field));
            }
            Ok(found)
        };
        arguments(["model_kwargs", "model_args"])?;
        arguments(["config_kwargs", "config_args"])?;
        if let Some(tokenizer) = arguments(["processor_kwargs", "tokenizer_args"])? {
            // Attention never sees padding, so its side does not matter.
            only(&tokenizer, ["padding_side"], &["left", "right"])?;
            self.max_tokens = length(&tokenizer, ["model_max_length"])?.or(self.max_tokens);
        }
        config.object("processing_kwargs")?;
        config.wholly_understood()
    }

    /// The settings of the Pooling module.
    fn pooled(&mut self, config: Config) -> Result<(), ImportError> {
        self.pooling = pooling(&config)?;
        self.texts.skip_prompt = !config.bool_or("include_prompt", true)?;
        let widths = (config.opt_usize(WIDTH[0])?, config.opt_usize(WIDTH[1])?);
        if let (Some(a), Some(b)) = widths
            && a != b
        {
            return Err(config.error(WIDTH[1], format!("{b}, and {} is {a}", WIDTH[0])));
        }
        config.wholly_understood()?;
        self.width = widths.0.or(widths.1).map(|width| (config, width));
        Ok(())
    }

    /// config_sentence_transformers.json: prompts, and what is done to vectors.
    fn model(&mut self, folder: &Folder) -> Result<(), ImportError> {
        let Some(config) = folder.outer_json("config_sentence_transformers.json")? else { return Ok(()) };
        only(&config, ["model_type"], &["SentenceTransformer", "CrossEncoder"])?;
        self.cross_encoder = config.opt_str("model_type")? == Some("CrossEncoder");
        // This field says how vectors are compared, and changes none.
        only(&config, ["similarity_fn_name"], &["cosine", "dot", "dot_product", "euclidean", "manhattan"])?;
        // `classifier::activation` reads the first field. The others are about Python packages and about the types of
        // sums, which are f32 here.
        ["activation_fn", "requirements", "keep_in_fp32_modules"].iter().for_each(|field| _ = config.value(*field));
        self.dimensions = config.opt_usize("truncate_dim")?;
        if let Some(prompts) = config.object("prompts")? {
            for name in prompts.fields() {
                let text = prompts.opt_str(name)?.unwrap_or_default();
                self.texts.prompts.push((name.to_string(), text.to_string()));
            }
        }
        if let Some(name) = config.opt_str("default_prompt_name")? {
            let named = self.texts.prompts.iter().any(|(known, _)| known == name);
            // sentence-transformers defines these two prompts in every folder; they are empty where the file does not
            // set them.
            if !named && !["query", "document"].contains(&name) {
                return Err(config.error("default_prompt_name", format!("{name:?} is none of the prompts")));
            }
            self.texts.default_prompt = named.then(|| name.to_string());
        }
        config.wholly_understood()
    }
}

/// The names of the field that gives the width of the hidden states.
const WIDTH: [&str; 2] = ["embedding_dimension", "word_embedding_dimension"];

/// Errors when one of `fields` exists with a value that is not in `known`.
fn only<const N: usize>(config: &Config, fields: [&str; N], known: &[&str]) -> Result<(), ImportError> {
    for field in fields {
        if let Some(found) = config.opt_str(field)?.filter(|found| !known.contains(found)) {
            return Err(config.error(field, format!("{found:?} is not supported; supported: {}", known.join(", "))));
        }
    }
    Ok(())
}

/// A length in tokens that may be absent. A tokenizer without a limit states a number beyond all lengths, which counts
/// as absent.
fn length<const N: usize>(config: &Config, fields: [&str; N]) -> Result<Option<usize>, ImportError> {
    match config.value(fields).and_then(Value::as_f64) {
        Some(beyond) if beyond > crate::import::files::config::MAX_SIZE as f64 => Ok(None),
        _ => config.opt_usize(fields),
    }
}

/// The pooling that a Pooling module's settings choose: by `pooling_mode` (since sentence-transformers 5.4) or by a
/// truth value per mode (before). The mean if they choose none. Several would be concatenated, which is not supported.
fn pooling(config: &Config) -> Result<Pooling, ImportError> {
    const MODES: [(&str, &str, Option<Pooling>); 6] = [
        ("mean", "pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("cls", "pooling_mode_cls_token", Some(Pooling::Cls)),
        ("max", "pooling_mode_max_tokens", None),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Some(Pooling::MeanSqrt)),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Some(Pooling::WeightedMean)),
        ("lasttoken", "pooling_mode_lasttoken", Some(Pooling::Last)),
    ];
    let mut older = Vec::new();
    for (mode, field, _) in MODES {
        if config.bool_or(field, false)? {
            older.push(mode);
        }
    }
    let modes = match config.value("pooling_mode") {
        None if older.is_empty() => vec!["mean"],
        None => older,
        Some(Value::Array(_)) => config.strings("pooling_mode")?,
        Some(_) => vec![config.str("pooling_mode")?],
    };
    let known = |name: &str| MODES.iter().find(|(mode, ..)| *mode == name).and_then(|(.., pooling)| *pooling);
    let found = if let [mode] = modes[..] { known(mode) } else { None };
    found.ok_or_else(|| {
        let supported: Vec<&str> = MODES.iter().filter(|(.., p)| p.is_some()).map(|(mode, ..)| *mode).collect();
        let (name, supported) = (modes.join(" and "), supported.join(", "));
        ImportError::Unsupported { what: "pooling", name, supported }
    })
}
