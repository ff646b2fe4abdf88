//! What a folder states about special tokens and conversations: names of tokens, end tokens, and the chat template's
//! source.
//!
//! It deliberately knows no tokenizer and no template language: strings and ids are passed on as the files have them.
//! Read [`super::folder`] for where files come from; `text::ChatTemplate` runs the template.

use crate::import::ImportError;
use crate::import::files::bytes::{json_error, python_json};
use crate::import::files::config::Config;
use crate::import::files::folder::Folder;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The files that may hold a chat template by itself, in transformers' order of preference.
const TEMPLATES: [&str; 2] = ["chat_template.jinja", "additional_chat_templates/default.jinja"];

/// The variables that name special tokens in a chat template, such as `bos_token`, with the tokens.
///
/// Errors when a file cannot be read.
pub(crate) fn names(folder: &Folder) -> Result<Vec<(String, String)>, ImportError> {
    let mut names: Vec<(String, String)> = Vec::new();
    // Older folders have the second file.
    for file in [TOKENIZER_CONFIG, "special_tokens_map.json"] {
        let Some(bytes) = folder.bytes(file)? else { continue };
        let path = folder.path().join(file);
        let fields: Map<String, Value> = python_json(&path, &bytes)?;
        for (name, value) in fields.iter().filter(|(name, _)| name.ends_with("_token")) {
            if let Some(text) = token(value).filter(|_| names.iter().all(|(known, _)| known != name)) {
                names.push((name.clone(), text.to_owned()));
            }
        }
    }
    Ok(names)
}

/// A token's text. A file states a token as a string or as an object around one.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The chat template's file and source, if the folder has a template.
///
/// Errors when a file cannot be read, and when there are several templates and none is the default.
pub(crate) fn chat_template(folder: &Folder) -> Result<Option<(PathBuf, String)>, ImportError> {
    for name in TEMPLATES {
        if let Some(bytes) = folder.bytes(name)? {
            let path = folder.path().join(name);
            let text = String::from_utf8(bytes.into_owned());
            let text = text.map_err(|e| ImportError::Io { path: path.clone(), reason: format!("is no text: {e}") })?;
            return Ok(Some((path, text)));
        }
    }
    let Some(config) = folder.json(TOKENIZER_CONFIG)? else { return Ok(None) };
    let source = match config.value("chat_template") {
        None => return Ok(None),
        Some(Value::String(source)) => source.clone(),
        Some(list) => named(&config, list)?,
    };
    Ok(Some((config.path().to_owned(), source)))
}

fn named(config: &Config, list: &Value) -> Result<String, ImportError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        template: String,
    }
    let field = "chat_template";
    let templates: Vec<Named> = serde::Deserialize::deserialize(list)
        .map_err(|_| config.error(field, "expected a text or a list of templates with a name and a template"))?;
    let found = templates.iter().find(|entry| entry.name == "default");
    let names: Vec<&str> = templates.iter().map(|entry| entry.name.as_str()).collect();
    let missing = || config.error(field, format!("none of its templates is named \"default\": {}", names.join(", ")));
    Ok(found.ok_or_else(missing)?.template.clone())
}

/// The ids that end a generation: those of generation_config.json, or else of config.json, and in addition the
/// tokenizer's own end token.
///
/// As in transformers, an id outside the vocabulary stands for a token that is never produced. Errors when a file
/// cannot be read.
pub(crate) fn end_tokens(
    folder: &Folder,
    config: &Config,
    inner: &[i64],
    vocabulary: usize,
) -> Result<Vec<u32>, ImportError> {
    let told = match folder.json("generation_config.json")? {
        Some(generation) => generation.ids("eos_token_id")?,
        None => Vec::new(),
    };
    let told = if told.is_empty() { config.ids("eos_token_id")? } else { told };
    let told = if told.is_empty() { inner.to_vec() } else { told };
    let known = |id: &i64| u32::try_from(*id).ok().filter(|id| (*id as usize) < vocabulary);
    let mut ends: Vec<u32> = told.iter().filter_map(known).collect();
    // The tokenizer of a chat model names the token that ends a turn; generation_config.json may lack it.
    if let Some((_, text)) = names(folder)?.into_iter().find(|(name, _)| name == "eos_token") {
        let id = added_id(folder, &text)?.filter(|id| (*id as usize) < vocabulary);
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}

/// Errors when tokenizer_config.json and tokenizer.json disagree on upper and lower case, in folders with BERT's
/// tokenizer.
///
/// transformers follows tokenizer_config.json, which is read for nothing else here: tokens, and so vectors, would
/// differ from transformers'.
pub(crate) fn check_letters(folder: &Folder) -> Result<(), ImportError> {
    const SAID: [(&str, &str); 3] = [
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ];
    #[derive(Deserialize)]
    struct Tokenizer {
        normalizer: Option<Map<String, Value>>,
    }
    let Some(config) = folder.json(TOKENIZER_CONFIG)? else { return Ok(()) };
    // These classes follow tokenizer.json as it is.
    let plain = ["PreTrainedTokenizerFast", "TokenizersBackend"].contains(&config.str_or("tokenizer_class", "")?);
    if plain || SAID.iter().all(|(field, _)| !config.has(*field)) {
        return Ok(());
    }
    let Some(bytes) = folder.bytes("tokenizer.json")? else { return Ok(()) };
    let path = folder.path().join("tokenizer.json");
    let file: Tokenizer = serde_json::from_slice(&bytes).map_err(|e| json_error(&path, &bytes, &e))?;
    let Some(normalizer) = file.normalizer.filter(|n| n.get("type").is_some_and(|kind| kind == "BertNormalizer"))
    else {
        return Ok(());
    };
    for (field, own) in SAID {
        let (said, done) = (config.opt_bool(field)?, normalizer.get(own).and_then(Value::as_bool));
        if let (Some(said), Some(done)) = (said, done)
            && said != done
        {
            let reason =
                format!("{said}, and in tokenizer.json the normalizer's {own} is {done}: one of them is wrong");
            return Err(config.error(field, reason));
        }
    }
    Ok(())
}

/// Whether tokenizer.json itself truncates long texts at their beginning. It decides when tokenizer_config.json does
/// not.
pub(crate) fn cuts_start(folder: &Folder) -> Result<bool, ImportError> {
    #[derive(Deserialize)]
    struct Tokenizer {
        truncation: Option<Map<String, Value>>,
    }
    let Some(bytes) = folder.bytes("tokenizer.json")? else { return Ok(false) };
    let path = folder.path().join("tokenizer.json");
    let file: Tokenizer = serde_json::from_slice(&bytes).map_err(|e| json_error(&path, &bytes, &e))?;
    Ok(file.truncation.is_some_and(|truncation| truncation.get("direction").is_some_and(|side| side == "Left")))
}

/// The id of an added token, looked up without building a tokenizer.
fn added_id(folder: &Folder, text: &str) -> Result<Option<u32>, ImportError> {
    #[derive(Deserialize)]
    struct Tokenizer {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let Some(bytes) = folder.bytes("tokenizer.json")? else { return Ok(None) };
    let path = folder.path().join("tokenizer.json");
    let file: Tokenizer = serde_json::from_slice(&bytes).map_err(|e| json_error(&path, &bytes, &e))?;
    Ok(file.added_tokens.into_iter().find(|token| token.content == text).map(|token| token.id))
}
