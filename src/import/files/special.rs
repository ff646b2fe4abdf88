//! Reads from a folder what a conversation needs: the special tokens' names, the ids of end tokens, and the source of
//! the chat template.
//!
//! This module deliberately knows no tokenizer and no template language: it returns strings and ids as the files have
//! them. Read [`super::folder`] for how files are found, and `text::ChatTemplate` for how a template is run.

use crate::import::ImportError;
use crate::import::files::bytes::{json_error, python_json};
use crate::import::files::config::Config;
use crate::import::files::folder::Folder;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The files that can hold a chat template and nothing else, in transformers' order of preference.
const TEMPLATES: [&str; 2] = ["chat_template.jinja", "additional_chat_templates/default.jinja"];

/// The special tokens by the variable names that chat templates use for them: `("bos_token", "<s>")`.
///
/// Errors when a file cannot be read or parsed.
pub(crate) fn names(folder: &Folder) -> Result<Vec<(String, String)>, ImportError> {
    let mut names: Vec<(String, String)> = Vec::new();
    // Older folders state the tokens in special_tokens_map.json. tokenizer_config.json takes precedence.
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

/// The text of a token, which a file states as a string or as an object with the field `content`.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The path of the file that holds the chat template and the template's source, or `None` if the folder has none.
///
/// Errors when a file cannot be read, and when tokenizer_config.json lists templates by name and none is called
/// `default`.
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

/// The ids of the tokens that end a generation.
///
/// They are `eos_token_id` of generation_config.json, or else of `config`, or else `inner`, which is that of a nested
/// configuration (Gemma 3); in addition, the tokenizer's `eos_token` if tokenizer.json lists it as an added token. As
/// in transformers, an id outside the `vocabulary` stands for a token that is never produced, so it is dropped. Errors
/// when a file cannot be read.
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
    // A chat model's tokenizer often names the token that ends a turn as its `eos_token`, while generation_config.json
    // may state only the token that ends a text.
    if let Some((_, text)) = names(folder)?.into_iter().find(|(name, _)| name == "eos_token") {
        let id = added_id(folder, &text)?.filter(|id| (*id as usize) < vocabulary);
        ends.extend(id.filter(|id| !ends.contains(id)));
    }
    Ok(ends)
}

/// Errors when tokenizer_config.json and tokenizer.json disagree on how BERT's tokenizer normalises text: lower case,
/// accents, Chinese characters.
///
/// transformers follows tokenizer_config.json there, while fanfold normalises as tokenizer.json says. Where the two
/// files disagree, fanfold's tokens, and so its results, would differ from those of transformers.
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
    // Under these classes transformers uses the normaliser in tokenizer.json unchanged.
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

/// Whether the truncation settings in tokenizer.json cut off the beginning of a long text instead of its end. They
/// apply when tokenizer_config.json has no `truncation_side`.
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

/// The id of the token `text` in the list of added tokens in tokenizer.json, or `None` if it is not in the list.
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
