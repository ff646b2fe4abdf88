//! Reads the settings of a sentence-transformers folder: how texts are prepared and how hidden states become vectors.
//!
//! They are in modules.json and the files that it names. As for config.json, a field that is not supported and might
//! change a vector is an error that names the field. This module deliberately knows no tokenizer and runs nothing: it
//! returns [`TextSettings`]. Read `generate/preparer.rs` next, which applies them to a text.

use crate::import::ImportError;
use crate::import::files::config::Config;
use crate::import::files::folder::Folder;
use crate::import::files::modules::MODULES;
use crate::import::files::special;
use crate::model::Pooling;
use crate::model::TextSettings;
use serde_json::Value;

/// The names that the settings file of a Transformer module can have. Current versions of sentence-transformers write
/// the first one, older versions wrote one of the others.
pub(crate) const TRANSFORMER_SETTINGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Whether the two texts of a pair get different token types (segment ids), as transformers 5 decides: they do if
/// tokenizer_config.json lists `token_type_ids` in `model_input_names`. Without `model_input_names` they do if the
/// tokenizer's class, such as `BertTokenizer`, has them, or if no class is named. Under a general class such as
/// `PreTrainedTokenizerFast` the types that tokenizer.json produces are dropped.
fn tells_pairs_apart(tokenizer: &Config) -> Result<bool, ImportError> {
    const CLASSES: [&str; 3] = ["Bert", "Electra", "DebertaV2"];
    let inputs = tokenizer.strings("model_input_names")?;
    if !inputs.is_empty() {
        return Ok(inputs.contains(&"token_type_ids"));
    }
    let class = tokenizer.opt_str("tokenizer_class")?;
    Ok(class.is_none_or(|class| CLASSES.iter().any(|known| class.strip_prefix(known).is_some_and(is_tokenizer))))
}

/// Whether `suffix` is what follows the model's name in the name of a tokenizer class: `BertTokenizerFast`.
fn is_tokenizer(suffix: &str) -> bool {
    ["Tokenizer", "TokenizerFast"].contains(&suffix)
}

/// The settings of a sentence-transformers folder. All are empty for another folder.
#[derive(Default)]
pub(crate) struct Sentence {
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
    /// The number of dimensions to which vectors are truncated: `truncate_dim`. `None` keeps all.
    pub(crate) dimensions: Option<usize>,
    /// The width of hidden states that the Pooling module's settings state, and these settings, for messages.
    width: Option<(Config, usize)>,
    /// Whether the folder has a modules.json, so that it is a sentence-transformers folder.
    modules: bool,
    /// Whether the folder was saved as a CrossEncoder, a model that scores pairs of texts. Otherwise it embeds texts.
    cross_encoder: bool,
    /// The longest text in tokens, from the Transformer module's settings. `None` if they state no limit; the
    /// tokenizer's limit then applies.
    max_tokens: Option<usize>,
    texts: TextSettings,
}

/// Reads modules.json and the files that it names. Returns empty settings for a folder without modules.json. Errors on
/// modules, and on fields, that are not supported.
pub(crate) fn read(folder: &Folder) -> Result<Sentence, ImportError> {
    let mut sentence = Sentence::default();
    let Some(modules) = folder.json_list(MODULES)? else { return Ok(sentence) };
    sentence.modules = true;
    for (at, module) in modules.iter().enumerate() {
        let class = module.str("type")?;
        // Only classes of the package itself are known. A folder may name a class in its own Python code, which may be
        // called `Pooling` too and compute something else.
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
            // Dropout has an effect only in training.
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
        // `kwargs` lists optional arguments that a caller may pass to the module. fanfold never passes any.
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
    /// Errors when the Pooling module's settings state a width other than `hidden`, the width of the model's hidden
    /// states.
    pub(crate) fn check_width(&self, hidden: usize) -> Result<(), ImportError> {
        match &self.width {
            Some((config, width)) if *width != hidden => {
                let reason = format!("{width}, and the model's hidden states are {hidden} wide");
                Err(config.error(WIDTH, reason))
            }
            _ => Ok(()),
        }
    }

    /// How a text has to be prepared. `context` is the model's number of positions. `scores` is true if the graph ends
    /// in a classification head, as a CrossEncoder's does. Without modules.json, only such a model gets settings: its
    /// pairs are truncated to the model's limit.
    ///
    /// Errors when a file cannot be read or a field of it has a wrong value.
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
        // The tokenizer's `model_max_length` applies, but at most the model's number of positions, which is also the
        // limit where the tokenizer states none.
        let max =
            folder.config().opt_usize(["max_position_embeddings", "n_positions"])?.unwrap_or(context).min(context);
        let max = told.unwrap_or(max).min(max);
        // The settings of a folder that was saved as a CrossEncoder do not apply when the model embeds, nor the other
        // way round: sentence-transformers then ignores the modules and builds the other kind from the model alone.
        if self.cross_encoder != scores {
            return Ok(TextSettings { max_tokens: Some(max), cut_start, one_segment, ..TextSettings::default() });
        }
        Ok(TextSettings { max_tokens: self.max_tokens.or(Some(max)), cut_start, one_segment, ..self.texts.clone() })
    }

    /// Reads the settings of the Transformer module.
    fn transformer(&mut self, folder: &Folder) -> Result<(), ImportError> {
        for file in TRANSFORMER_SETTINGS {
            match folder.json(file)? {
                // A settings file without fields counts as missing, so that the next name is tried.
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
            // Settings for other kinds of input are ignored: fanfold passes only text.
            ["image", "audio", "video"].iter().for_each(|kind| _ = modalities.value(*kind));
        }
        // `unpad_inputs` affects only how a batch is laid out in memory.
        config.opt_bool("unpad_inputs")?;
        // Arguments for loading a model or tokenizer. They choose where and in which type it runs, and change no text.
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
            // Attention masks padding out, so the side on which a text is padded does not matter.
            only(&tokenizer, ["padding_side"], &["left", "right"])?;
            self.max_tokens = length(&tokenizer, ["model_max_length"])?.or(self.max_tokens);
        }
        config.object("processing_kwargs")?;
        config.wholly_understood()
    }

    /// Reads the settings of the Pooling module.
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

    /// Reads config_sentence_transformers.json: the prompts, the dimensions that vectors are truncated to, and whether
    /// the folder is a CrossEncoder's.
    fn model(&mut self, folder: &Folder) -> Result<(), ImportError> {
        let Some(config) = folder.outer_json("config_sentence_transformers.json")? else { return Ok(()) };
        only(&config, ["model_type"], &["SentenceTransformer", "CrossEncoder"])?;
        self.cross_encoder = config.opt_str("model_type")? == Some("CrossEncoder");
        // `similarity_fn_name` says how vectors are to be compared, and changes no vector.
        only(&config, ["similarity_fn_name"], &["cosine", "dot", "dot_product", "euclidean", "manhattan"])?;
        // `classifier::activation` reads `activation_fn`. `requirements` lists Python packages. `keep_in_fp32_modules`
        // lists modules that compute in f32, as all modules do here.
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
            // sentence-transformers defines the prompts "query" and "document" for every model. Where the file does not
            // set them they are empty, which is the same as no prompt.
            if !named && !["query", "document"].contains(&name) {
                return Err(config.error("default_prompt_name", format!("{name:?} is none of the prompts")));
            }
            self.texts.default_prompt = named.then(|| name.to_string());
        }
        config.wholly_understood()
    }
}

/// The names of the field that states the width of the hidden states, the newer one first.
const WIDTH: [&str; 2] = ["embedding_dimension", "word_embedding_dimension"];

/// Reads the strings `fields`, and errors when one of them is present with a value that is not in `known`.
fn only<const N: usize>(config: &Config, fields: [&str; N], known: &[&str]) -> Result<(), ImportError> {
    for field in fields {
        if let Some(found) = config.opt_str(field)?.filter(|found| !known.contains(found)) {
            return Err(config.error(field, format!("{found:?} is not supported; supported: {}", known.join(", "))));
        }
    }
    Ok(())
}

/// A length in tokens, or `None` if it is absent. transformers writes a number like 1e30 for a tokenizer without a
/// limit, so a number above 2^31 counts as absent.
fn length<const N: usize>(config: &Config, fields: [&str; N]) -> Result<Option<usize>, ImportError> {
    match config.value(fields).and_then(Value::as_f64) {
        Some(beyond) if beyond > crate::import::files::config::MAX_SIZE as f64 => Ok(None),
        _ => config.opt_usize(fields),
    }
}

/// The pooling that a Pooling module's settings choose: in `pooling_mode` (since sentence-transformers 5.4), or with
/// one boolean per mode (before). If they choose none it is the mean. If they choose several, sentence-transformers
/// concatenates the results; that is not supported and an error.
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
