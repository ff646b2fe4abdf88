//! Turns a tokenizer.json into the parts of a pipeline, and checks each part.
//!
//! The file comes with a model, from an untrusted author. A construct that could make the tokenizers crate panic,
//! allocate without bound or never end is refused here, by its name in the file; costs that depend on the text are
//! limited by a [`Budget`](super::budget) when the tokenizer runs. The crate therefore never parses the file itself
//! but is given checked parts. This module deliberately knows no text. Read [`read`], then `pipeline.rs` for how the
//! parts run.

use super::budget::Budget;
use super::charsmap::Charsmap;
use super::pattern::Pattern;
use super::pipeline::{Cut, Decode, Normalize, Normalizing, Pipeline};
use super::vocabulary::{LARGEST_ID, ModelFile, TOKEN_BYTES, short};
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use tokenizers::{AddedToken, AddedVocabulary, ModelWrapper, PostProcessorWrapper};

/// The most JSON values in one part of the file, such as `decoder`, which is a list of a few steps.
const VALUES: usize = 100_000;
/// The most steps in one part. Tokenizers in use have up to ten or so.
const STEPS: usize = 64;
/// The most bytes that a step inserts for each match, or before each text.
const CONTENT_BYTES: usize = 256;
/// The most added tokens, and the most bytes of all of them. A speech model in use has 65,536 tokens.
const ADDED: usize = 1 << 18;
const ADDED_BYTES: usize = 8 << 20;
/// The most tokens that a post-processor adds around a text.
const AROUND: usize = 64;

/// The file's fields.
#[derive(Deserialize)]
struct File {
    version: Option<String>,
    #[serde(default)]
    added_tokens: AddedTokens,
    normalizer: Option<Tree>,
    pre_tokenizer: Option<Tree>,
    post_processor: Option<Tree>,
    decoder: Option<Tree>,
    model: ModelFile,
}

/// An added token as the file states it.
#[derive(Deserialize)]
struct Added {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Default)]
struct AddedTokens(Vec<Added>);

/// A JSON value of at most [`VALUES`] values.
struct Tree(Value);

/// Reads a tokenizer.json. Truncation and padding in the file are ignored: sentence-transformers folders contain both,
/// and either would silently change the ids of a text.
pub(super) fn read(bytes: &[u8]) -> Result<Pipeline, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| format!("not a tokenizer.json: {e}"))?;
    if let Some(version) = file.version.filter(|version| version != "1.0") {
        return Err(format!("not a tokenizer.json: version {:?} is not known", short(&version)));
    }
    let words: Vec<&str> = file.added_tokens.0.iter().map(|added| added.token.content.as_str()).collect();
    let made = file.model.makes(words.iter().copied());
    let (model, largest) = file.model.build().map_err(|e| format!("not a tokenizer.json: model: {e}"))?;
    let normalizers = part("normalizer", &file.normalizer, "normalizers", normalizer)?.unwrap_or_default();
    let cuts = part("pre_tokenizer", &file.pre_tokenizer, "pretokenizers", cut)?.unwrap_or_default();
    let decoders = part("decoder", &file.decoder, "decoders", decoder)?;
    let around = match &file.post_processor {
        Some(Tree(value)) => Some(post_processor(value).map_err(|e| format!("post_processor: {e}"))?),
        None => None,
    };
    let added = added_vocabulary(&file.added_tokens.0, &model, &normalizers)?;
    let spelled = made.iter().filter_map(|token| added.token_to_id(token, &model)).collect();
    Ok(Pipeline { added, spelled, normalizers, cuts, model, around, decoders, largest })
}

/// Adds the file's added tokens, and checks that each gets the id that the file states.
fn added_vocabulary(
    tokens: &[Added],
    model: &ModelWrapper,
    normalizers: &[Normalize],
) -> Result<AddedVocabulary, String> {
    let bytes = tokens.iter().map(|added| added.token.content.len()).sum();
    if let Some(added) = tokens.iter().find(|added| added.token.content.len() > TOKEN_BYTES) {
        let content = short(&added.token.content);
        return Err(format!("added token {content:?}... is longer than {TOKEN_BYTES} bytes"));
    }
    if bytes > ADDED_BYTES {
        return Err(format!("added_tokens: more than {ADDED_BYTES} bytes of tokens"));
    }
    let mut vocabulary = AddedVocabulary::new();
    let normalizing = Normalizing::new(normalizers, Budget::of(bytes));
    let normalizer = (!normalizers.is_empty()).then_some(&normalizing);
    vocabulary
        .add_tokens(tokens.iter().map(|added| added.token.clone()), model, normalizer)
        .map_err(|e| format!("added_tokens: {e}"))?;
    // Where the file's ids clash or leave a gap, the crate silently numbers added tokens itself.
    let holder = |id: u32| {
        let added = vocabulary.get_added_tokens_decoder().get(&id).map(|token| token.content.clone());
        added.or_else(|| tokenizers::Model::id_to_token(model, id))
    };
    for Added { id, token: AddedToken { content, .. } } in tokens.iter().filter(|added| !added.token.content.is_empty())
    {
        let found = vocabulary.token_to_id(content, model);
        if found != Some(*id) {
            let found = found.map_or("none".into(), |id| id.to_string());
            let other = holder(*id).filter(|token| token != content);
            let other = other.map(|token| format!(", which is {:?}", short(&token))).unwrap_or_default();
            let content = short(content);
            return Err(format!("added token {content:?} has id {id}{other}, but the vocabulary gives it {found}"));
        }
        if holder(*id).as_ref() != Some(content) {
            let other = holder(*id).unwrap_or_default();
            return Err(format!("added tokens {:?} and {:?} both have id {id}", short(content), short(&other)));
        }
    }
    Ok(vocabulary)
}

/// The steps of a part of the file. A `Sequence` is replaced by its members.
fn part<T>(
    field: &str,
    tree: &Option<Tree>,
    members: &str,
    step: impl Fn(&str, &Value) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    let Some(Tree(value)) = tree else { return Ok(None) };
    let read = || -> Result<Vec<T>, String> {
        let steps = steps(value, members)?;
        steps.into_iter().map(|(kind, value)| step(kind, value).map_err(|e| format!("{}: {e}", short(kind)))).collect()
    };
    read().map(Some).map_err(|e| format!("{field}: {e}"))
}

/// The members of nested sequences, in order, with their types. JSON is parsed to a depth of at most 128.
fn steps<'a>(value: &'a Value, members: &str) -> Result<Vec<(&'a str, &'a Value)>, String> {
    let kind = value.get("type").and_then(Value::as_str).ok_or("a step without a type")?;
    if kind != "Sequence" {
        return Ok(vec![(kind, value)]);
    }
    let list = value.get(members).and_then(Value::as_array).ok_or_else(|| format!("Sequence: no list {members}"))?;
    let mut all = Vec::new();
    for member in list {
        all.extend(steps(member, members)?);
        if all.len() > STEPS {
            return Err(format!("more than {STEPS} steps"));
        }
    }
    Ok(all)
}

/// A step of one of the types `known`, as the tokenizers crate reads it.
fn own<T: DeserializeOwned>(kind: &str, value: &Value, known: &[&str]) -> Result<T, String> {
    if !known.contains(&kind) {
        return Err(format!("is none of {}, Sequence", known.join(", ")));
    }
    serde_json::from_value(value.clone()).map_err(|e| e.to_string())
}

/// A string in a step that is copied for each match or piece of a text.
fn content<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    let text = value.get(field).and_then(Value::as_str).ok_or_else(|| format!("no text {field}"))?;
    if text.len() > CONTENT_BYTES {
        return Err(format!("{field} is longer than {CONTENT_BYTES} bytes"));
    }
    Ok(text)
}

fn pattern(value: &Value) -> Result<Arc<Pattern>, String> {
    Pattern::read(value.get("pattern").unwrap_or(&Value::Null)).map(Arc::new)
}

fn normalizer(kind: &str, value: &Value) -> Result<Normalize, String> {
    const KNOWN: [&str; 13] = [
        "BertNormalizer",
        "Strip",
        "StripAccents",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "Nmt",
        "ByteLevel",
        "Prepend",
        "Replace",
        "Precompiled",
    ];
    match kind {
        "Replace" => Ok(Normalize::Replace(pattern(value)?, content(value, "content")?.to_string())),
        "Precompiled" => {
            let map =
                value.get("precompiled_charsmap").and_then(Value::as_str).ok_or("no text precompiled_charsmap")?;
            Charsmap::read(map).map(Normalize::Charsmap)
        }
        "Prepend" => Ok(Normalize::Prepend(content(value, "prepend")?.to_string())),
        _ => own(kind, value, &KNOWN).map(Normalize::Own),
    }
}

fn cut(kind: &str, value: &Value) -> Result<Cut, String> {
    const KNOWN: [&str; 11] = [
        "BertPreTokenizer",
        "ByteLevel",
        "CharDelimiterSplit",
        "Metaspace",
        "Whitespace",
        "WhitespaceSplit",
        "Punctuation",
        "Digits",
        "UnicodeScripts",
        "FixedLength",
        "Split",
    ];
    match kind {
        "Split" => {
            let behavior = value.get("behavior").cloned().unwrap_or_default();
            let behavior = serde_json::from_value(behavior).map_err(|e| format!("behavior: {e}"))?;
            let invert = value.get("invert").and_then(Value::as_bool).ok_or("no truth value invert")?;
            Ok(Cut::Split { pattern: pattern(value)?, behavior, invert })
        }
        "FixedLength" if value.get("length").and_then(Value::as_u64) == Some(0) => {
            Err("pieces of length 0".to_string())
        }
        _ => own(kind, value, &KNOWN).map(Cut::Own),
    }
}

fn decoder(kind: &str, value: &Value) -> Result<Decode, String> {
    const KNOWN: [&str; 9] =
        ["BPEDecoder", "ByteLevel", "WordPiece", "Metaspace", "CTC", "Fuse", "Strip", "ByteFallback", "Replace"];
    match kind {
        "Replace" => Ok(Decode::Replace(pattern(value)?, content(value, "content")?.to_string())),
        _ => own(kind, value, &KNOWN).map(Decode::Own),
    }
}

/// Checks and reads the post-processor. The tokenizers crate can run a single one that adds tokens, and only on a text
/// or a pair; it panics on another one after it.
fn post_processor(value: &Value) -> Result<PostProcessorWrapper, String> {
    const KNOWN: [&str; 4] = ["BertProcessing", "RobertaProcessing", "ByteLevel", "TemplateProcessing"];
    let steps = steps(value, "processors")?;
    for (kind, value) in &steps {
        if !KNOWN.contains(kind) {
            return Err(format!("{} is none of {}, Sequence", short(kind), KNOWN.join(", ")));
        }
        if *kind == "TemplateProcessing" {
            template(value).map_err(|e| format!("{kind}: {e}"))?;
        }
    }
    if steps.iter().filter(|(kind, _)| *kind != "ByteLevel").count() > 1 {
        return Err("a Sequence of several that add tokens".to_string());
    }
    serde_json::from_value(value.clone()).map_err(|e| e.to_string())
}

/// Checks that a template contains each text at most once and that the tokens that it names exist.
fn template(value: &Value) -> Result<(), String> {
    let tokens = value.get("special_tokens").and_then(Value::as_object).ok_or("no map special_tokens")?;
    let mut counts = Map::new();
    for (name, token) in tokens {
        let list = |field: &str| token.get(field).and_then(Value::as_array).map(Vec::len);
        match (list("ids"), list("tokens")) {
            (Some(ids), Some(tokens)) if ids == tokens => counts.insert(name.clone(), ids.into()),
            _ => return Err(format!("special_tokens: {:?} has not as many ids as tokens", short(name))),
        };
    }
    for (field, texts) in [("single", &["A"][..]), ("pair", &["A", "B"][..])] {
        let pieces = value.get(field).and_then(Value::as_array).ok_or_else(|| format!("no list {field}"))?;
        let mut seen = Vec::new();
        let mut around = 0;
        for piece in pieces {
            let id = |kind: &str| piece.get(kind).and_then(|piece| piece.get("id")).and_then(Value::as_str);
            match (id("Sequence"), id("SpecialToken")) {
                (Some(text), None) if texts.contains(&text) && !seen.contains(&text) => seen.push(text),
                (Some(text), None) => return Err(format!("{field}: text {:?} twice, or not there", short(text))),
                (None, Some(token)) => {
                    let count = counts.get(token).and_then(Value::as_u64);
                    around += count.ok_or_else(|| format!("{field}: {:?} is no special token", short(token)))?;
                }
                _ => return Err(format!("{field}: a piece that is neither a Sequence nor a SpecialToken")),
            }
        }
        if around > AROUND as u64 || pieces.len() > AROUND {
            return Err(format!("{field}: more than {AROUND} tokens around a text"));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for AddedTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = AddedTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of added tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AddedTokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(added) = seq.next_element::<Added>()? {
                    if added.id > LARGEST_ID {
                        return Err(A::Error::custom(format!("an added token has id {}", added.id)));
                    }
                    if tokens.len() == ADDED {
                        return Err(A::Error::custom(format!("more than {ADDED} added tokens")));
                    }
                    tokens.push(added);
                }
                Ok(AddedTokens(tokens))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Branch { left: &mut { VALUES } }.deserialize(deserializer).map(Tree)
    }
}

/// Reads a value and subtracts it from the number of values that remain.
struct Branch<'a> {
    left: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Branch<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left =
            self.left.checked_sub(1).ok_or_else(|| D::Error::custom(format!("a part of more than {VALUES} values")))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Branch<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Branch { left: self.left })? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            fields.insert(name, map.next_value_seed(Branch { left: self.left })?);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::guard::guarded;
    use super::super::ids::Tokenizer;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    /// A small tokenizer with letters, merges, added tokens and every part.
    fn sane() -> Value {
        let added = |id: u32, content: &str, special: bool| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": !special, "special": special})
        };
        json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [added(0, "<s>", true), added(7, "new", false)],
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "▁"}, "behavior": "MergedWithNext", "invert": false},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, "▁": 4, "▁ab": 5, "<unk>": 6},
                "merges": [["a", "b"], "▁ ab"]}})
    }

    fn load(file: &Value) -> Result<Tokenizer, String> {
        Tokenizer::from_bytes("tokenizer.json", file.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    /// Loads, encodes and decodes. Returns the first error, if any.
    fn attempt(file: &Value, text: &str) -> Result<(), String> {
        let tokenizer = load(file)?;
        let text_of = |e: crate::text::TextError| e.to_string();
        let ids = tokenizer.encode(text, true).map_err(text_of)?;
        tokenizer.encode_within(text, true).map_err(text_of)?;
        tokenizer.encode_pair(text, "b").map_err(text_of)?;
        tokenizer.truncated(5, false).and_then(|cut| cut.encode_pair(text, text)).map_err(text_of)?;
        let known: Vec<u32> = (0..12).chain(ids).take(2000).collect();
        tokenizer.decode(&known, false).map_err(text_of)?;
        tokenizer.stream_after(&known, true).map_err(text_of)?;
        Ok(())
    }

    fn with(field: &str, value: Value) -> Value {
        let mut file = sane();
        *file.pointer_mut(field).unwrap() = value;
        file
    }

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    fn sequence(members: &str, steps: Vec<Value>) -> Value {
        json!({"type": "Sequence", members: steps})
    }

    #[test]
    fn a_sane_file_is_read_whole() {
        let tokenizer = load(&sane()).unwrap();
        assert_eq!(tokenizer.encode("ab abnew<s>c", true).unwrap(), [0, 3, 5, 7, 0, 6]);
        assert_eq!(tokenizer.encode("ab abnew<s>c", false).unwrap(), [3, 5, 7, 0, 6]);
        assert_eq!(tokenizer.encode_pair("a", "b").unwrap(), (vec![1, 2], vec![0, 1]));
        assert_eq!((tokenizer.vocab_size(), tokenizer.decode(&[5, 5, 7], true).unwrap()), (8, "ab abnew".into()));
        attempt(&sane(), "ab ab").unwrap();
    }

    #[test]
    fn a_construct_without_bounds_is_refused_by_its_name() {
        let template = |single: Value, tokens: Value| json!({"type": "TemplateProcessing", "single": single, "special_tokens": tokens, "pair": []});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let mark = json!({"SpecialToken": {"id": "x", "type_id": 0}});
        let mut deep = json!({"type": "NFC"});
        (0..130).for_each(|_| deep = sequence("normalizers", vec![deep.take()]));
        let long = "a".repeat(5000);
        for (field, value, says) in [
            ("/version", json!("2.0"), "version \"2.0\""),
            ("/normalizer", replace("a", &"b".repeat(300)), "normalizer: Replace: content is longer than 256 bytes"),
            ("/normalizer", json!({"type": "Prepend", "prepend": long}), "normalizer: Prepend: prepend is longer"),
            ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "states a trie of"),
            ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""}), "has no length"),
            ("/normalizer", json!({"type": "Precompiled"}), "normalizer: Precompiled: no text"),
            ("/normalizer", json!({"type": "Nonsense"}), "normalizer: Nonsense: is none of BertNormalizer"),
            ("/normalizer", json!({"pattern": {"String": "a"}, "content": "b"}), "normalizer: a step without a type"),
            ("/normalizer", sequence("normalizers", vec![json!({"type": "NFC"}); 99]), "more than 64 steps"),
            ("/decoder", sequence("normalizers", Vec::new()), "decoder: Sequence: no list decoders"),
            ("/decoder", json!({"type": "Strip", "content": "long", "start": 1, "stop": 0}), "decoder: Strip: "),
            ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "pre_tokenizer: FixedLength: pieces of"),
            (
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                "invert": false}),
                "pre_tokenizer: Split: a pattern that is no regular expression",
            ),
            ("/post_processor", template(json!([text, text]), json!({})), "single: text \"A\" twice"),
            (
                "/post_processor",
                template(json!([{"Sequence": {"id": "B", "type_id": 0}}]), json!({})),
                "\"B\" twice, or",
            ),
            ("/post_processor", template(json!([mark]), json!({})), "single: \"x\" is no special token"),
            (
                "/post_processor",
                template(json!([mark]), json!({"x": {"id": "x", "ids": [1, 2], "tokens": ["x"]}})),
                "\"x\" has not as many ids as tokens",
            ),
            (
                "/post_processor",
                template(json!(vec![&mark; 65]), json!({"x": {"id": "x", "ids": [1], "tokens": ["x"]}})),
                "more than 64 tokens around",
            ),
            ("/post_processor", sequence("processors", vec![sane()["post_processor"].clone(); 2]), "several that add"),
            ("/model/vocab", json!({"a": 1, "b": 1}), "model: vocab: \"a\" and \"b\" both have id 1"),
            ("/model/vocab", json!({"a": u32::MAX}), "model: vocab: \"a\" has id 4294967295"),
            ("/model/vocab", json!({"a": -1}), "invalid value"),
            ("/model/vocab", json!({long.as_str(): 1}), "longer than 4096 bytes"),
            ("/model/vocab", json!([["a", 0.5]]), "model: vocab is a map"),
            ("/model/merges", json!([["a", "c"]]), "merges[0]: \"c\" is not in the vocabulary"),
            ("/model/merges", json!([["ab", "ab"]]), "merges[0]: \"abab\" is not in the vocabulary"),
            ("/model/merges", json!(["a b c"]), "\"a b c\" is not two tokens"),
            ("/model/merges", json!([["a", "b", "a"]]), "a merge of three tokens"),
            ("/model/continuing_subword_prefix", json!("##"), "merges[0]: \"b\" does not begin with \"##\""),
            ("/model/continuing_subword_prefix", json!("é"), "merges[0]: \"b\" does not begin"),
            ("/model/unk_token", json!(long), "model: unk_token is longer than 256 bytes"),
            ("/model/end_of_word_suffix", json!(long), "model: end_of_word_suffix is longer"),
            ("/model/type", json!("Nonsense"), "model: type is none of BPE"),
            ("/model", json!({"type": "Unigram", "vocab": [["a".repeat(600), 0.0]]}), "longer than 512 bytes"),
            ("/model", json!({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 1}), "unk_id"),
            ("/model", json!({"type": "WordPiece", "vocab": {}}), "missing field `unk_token`"),
            ("/added_tokens/0/id", json!(u32::MAX), "an added token has id 4294967295"),
            ("/added_tokens/0/content", json!(long), "is longer than 4096 bytes"),
            ("/decoder", Value::Array(vec![Value::Null; 200_000]), "a part of more than 100000 values"),
            ("/normalizer", deep, "recursion limit exceeded"),
        ] {
            let error = load(&with(field, value)).expect_err(says);
            assert!(error.contains(says) && error.len() < 700, "{says:?} is not in: {error}");
        }
    }

    #[test]
    fn many_tokens_are_refused_before_tables_are_made_of_them() {
        let added = |count: usize, content: &str| {
            let token = json!({"id": 0, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": false});
            with("/added_tokens", Value::Array(vec![token; count]))
        };
        assert!(load(&added(3000, &"x".repeat(4000))).unwrap_err().contains("more than 8388608 bytes of tokens"));
        let text = sane().to_string();
        let added: String = "{\"id\":0,\"content\":\"x\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\
            \"normalized\":false,\"special\":false},"
            .repeat(262_145);
        let text = text.replace("\"added_tokens\":[", &format!("\"added_tokens\":[{added}"));
        let error = Tokenizer::from_bytes("tokenizer.json", text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 262144 added tokens"), "{error}");
    }

    #[test]
    fn what_grows_with_the_text_is_an_error_soon() {
        let doubling = |members: &str| sequence(members, vec![replace("a", "aa"); 60]);
        let cut = |steps: Vec<Value>| sequence("pretokenizers", steps);
        let single = json!({"type": "FixedLength", "length": 1});
        let marked =
            |mark: &str| json!({"type": "Metaspace", "replacement": mark, "prepend_scheme": "always", "split": true});
        let cuts = vec![[single.clone(), marked("x"), single, marked("y")]; 15].concat();
        let slow = json!({"type": "Split", "pattern": {"Regex": "(?:a|a)*(?=b)c"}, "behavior": "Isolated",
            "invert": false});
        let wordpiece = json!({"type": "WordPiece", "unk_token": "b", "continuing_subword_prefix": "",
            "max_input_chars_per_word": u32::MAX, "vocab": {"a": 1, "b": 2, "<s>": 0}});
        let spread = json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true});
        let text = "a".repeat(5000);
        for (field, value, says) in [
            ("/normalizer", doubling("normalizers"), "makes more than"),
            (
                "/normalizer",
                sequence("normalizers", vec![json!({"type": "NFKD"}), doubling("normalizers")]),
                "makes more",
            ),
            ("/normalizer", sequence("normalizers", vec![replace("", "aaaaaaaa"); 20]), "makes more than"),
            ("/pre_tokenizer", cut(cuts), "makes more than"),
            ("/pre_tokenizer", slow, "a pattern fails on a text"),
            ("/model", wordpiece, "a word of 5000 characters"),
            ("/decoder", doubling("decoders"), "makes more than"),
            ("/decoder", sequence("decoders", vec![json!({"type": "Fuse"}), doubling("decoders")]), "makes more than"),
            ("/decoder", sequence("decoders", vec![spread; 60]), "makes more than"),
        ] {
            let started = Instant::now();
            let mut file = with(field, value);
            file["added_tokens"] = json!([]);
            let error = attempt(&file, &text).expect_err(says);
            assert!(error.contains(says) && error.starts_with("tokenizer.json: "), "{says:?} is not in: {error}");
            assert!(started.elapsed() < Duration::from_secs(10), "{says} took {:?}", started.elapsed());
        }
    }

    #[test]
    fn the_same_text_gives_the_same_tokens_where_the_file_asks_for_dropout() {
        for dropout in [json!(0.5), json!(1.0)] {
            let dropping = load(&with("/model/dropout", dropout)).unwrap();
            for _ in 0..20 {
                assert_eq!(dropping.encode("ab ab ab", false).unwrap(), [3, 5, 5]);
            }
        }
    }

    #[test]
    fn models_that_state_no_type_are_told_apart() {
        let untyped = |mut model: Value| {
            model.as_object_mut().unwrap().remove("type");
            let mut file = with("/model", model);
            (file["normalizer"], file["added_tokens"]) = (Value::Null, json!([]));
            load(&file).unwrap().encode("ab", false).unwrap()
        };
        assert_eq!(untyped(sane()["model"].clone()), [3]);
        assert_eq!(untyped(json!({"vocab": [["b", -1.0], ["a", -1.0]], "unk_id": 0})), [1, 0]);
        assert_eq!(
            untyped(json!({"vocab": {"a": 1, "##b": 2}, "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 9})),
            [1, 2]
        );
        assert_eq!(untyped(json!({"vocab": {"a": 1, "ab": 2}, "unk_token": "a"})), [2]);
    }

    /// Steps and models, valid and invalid, from which random files are made.
    fn pool(part: &str) -> Vec<Value> {
        let split = |regex: &str, behavior: &str, invert: bool| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert});
        match part {
            "normalizers" => vec![
                replace("a", "aaaaaaaaaa"),
                replace("", "x"),
                replace(" ", ""),
                json!({"type": "NFKD"}),
                json!({"type": "Lowercase"}),
                json!({"type": "Prepend", "prepend": "▁é"}),
                json!({"type": "Prepend", "prepend": ""}),
                json!({"type": "Nmt"}),
                json!({"type": "Strip", "strip_left": true, "strip_right": true}),
                json!({"type": "StripAccents"}),
                json!({"type": "ByteLevel"}),
                json!({"type": "Replace", "pattern": {"Regex": "(?=a)|b*"}, "content": ""}),
                json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                    "strip_accents": null, "lowercase": true}),
            ],
            "pretokenizers" => vec![
                split("", "Isolated", false),
                split("a|", "Removed", true),
                split("(?<=a)b?", "MergedWithPrevious", false),
                split(r"(a)\1*\K", "Contiguous", true),
                split("[^a]*", "MergedWithNext", false),
                json!({"type": "FixedLength", "length": 1}),
                json!({"type": "FixedLength", "length": u64::MAX}),
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
                json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}),
                json!({"type": "Digits", "individual_digits": true}),
                json!({"type": "UnicodeScripts"}),
                json!({"type": "Punctuation", "behavior": "Contiguous"}),
                json!({"type": "Whitespace"}),
                json!({"type": "BertPreTokenizer"}),
                json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
            ],
            "decoders" => vec![
                replace("a", "aaaaaaaaaa"),
                replace("", " "),
                json!({"type": "Fuse"}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Strip", "content": "a", "start": u64::MAX, "stop": u64::MAX}),
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
                json!({"type": "WordPiece", "prefix": "", "cleanup": true}),
                json!({"type": "BPEDecoder", "suffix": ""}),
                json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
                json!({"type": "Metaspace", "replacement": "a", "prepend_scheme": "always", "split": true}),
            ],
            "processors" => vec![
                sane()["post_processor"].clone(),
                json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
                json!({"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 99], "trim_offsets": true,
                    "add_prefix_space": true}),
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            ],
            _ => vec![
                sane()["model"].clone(),
                json!({"type": "Unigram", "unk_id": 0, "byte_fallback": true,
                    "vocab": [["<s>", 0.0], ["", 9.0], ["a", 1e308], ["aa", 1e308], ["▁", -1e308], ["a", -1.0]]}),
                json!({"type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]]}),
                json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "",
                    "max_input_chars_per_word": 0, "vocab": {"<s>": 0, "a": 1, "aa": 2}}),
                json!({"type": "WordLevel", "unk_token": "gone", "vocab": {"<s>": 0, "a": 1}}),
                json!({"type": "BPE", "vocab": {"<s>": 0, "a": 1, "<0x61>": 2, "##a": 3, "a##a": 5, "b</w>": 6},
                    "merges": [], "byte_fallback": true, "fuse_unk": true, "unk_token": "gone", "ignore_merges": true,
                    "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}),
            ],
        }
    }

    /// All values inside a value.
    fn places(value: &mut Value) -> Vec<&mut Value> {
        let is_leaf = match &value {
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => true,
        };
        match value {
            leaf if is_leaf => vec![leaf],
            Value::Array(list) => list.iter_mut().flat_map(places).collect(),
            Value::Object(fields) => fields.values_mut().flat_map(places).collect(),
            _ => Vec::new(),
        }
    }

    proptest! {
        /// The environment variable `PROPTEST_CASES` sets a larger number.
        #[test]
        fn no_file_panics_or_goes_on_for_long(
            steps in prop::collection::vec((0usize..4, any::<Index>()), 0..24),
            model: Index,
            damage in prop::collection::vec((any::<Index>(), any::<Index>()), 0..3),
            text in "[ab1.▁ é<s>x]{0,40}",
            times in 0usize..60,
        ) {
            let parts = ["normalizers", "pretokenizers", "decoders", "processors"];
            let fields = ["normalizer", "pre_tokenizer", "decoder", "post_processor"];
            let mut file = sane();
            for (at, (part, field)) in parts.iter().zip(fields).enumerate() {
                let pool = pool(part);
                let drawn = steps.iter().filter(|(which, _)| *which == at).map(|(_, draw)| draw.get(&pool).clone());
                // A second post-processor is refused.
                let drawn: Vec<Value> = drawn.take(if at == 3 { 1 } else { 8 }).collect();
                if !drawn.is_empty() {
                    file[field] = sequence(part, drawn);
                }
            }
            file["model"] = model.get(&pool("model")).clone();
            let nasty = [json!(u64::MAX), json!(-1), json!(""), json!("a".repeat(300)), Value::Null, json!([]), json!({}),
                json!(0), json!(1e300), json!("▁"), json!(true), json!([[[[]]]])];
            for (place, value) in damage {
                let mut places = places(&mut file);
                let place = place.index(places.len());
                *places[place] = value.get(&nasty).clone();
            }
            let text = text.repeat(times + 1);
            let started = Instant::now();
            let outcome = attempt(&file, &text);
            prop_assert!(started.elapsed() < Duration::from_secs(15), "{:?} for {file}", started.elapsed());
            if let Err(error) = outcome {
                prop_assert!(!error.contains("library failed"), "{error}: {file}");
                return Ok(());
            }
            // A file that is accepted gives the tokens that the tokenizers crate gives by itself, unless the crate
            // panics.
            let ours = load(&file).unwrap();
            let Ok(Ok(theirs)) = guarded(|| tokenizers::Tokenizer::from_bytes(file.to_string().as_bytes())) else {
                return Ok(());
            };
            let ids = |encoding: tokenizers::Encoding| encoding.get_ids().to_vec();
            if let Ok(Ok(encoding)) = guarded(|| theirs.encode_fast(text.as_str(), true)) {
                prop_assert_eq!(ours.encode(&text, true).unwrap(), ids(encoding), "{}", file);
            }
            if let Ok(Ok(encoding)) = guarded(|| theirs.encode_fast((text.as_str(), "ab a"), true)) {
                let types = encoding.get_type_ids().to_vec();
                prop_assert_eq!(ours.encode_pair(&text, "ab a").unwrap(), (ids(encoding), types), "{}", file);
            }
            let known: Vec<u32> = (0..9).collect();
            if let Ok(Ok(decoded)) = guarded(|| theirs.decode(&known, false)) {
                prop_assert_eq!(ours.decode(&known, false).unwrap(), decoded, "{}", file);
            }
        }

        #[test]
        fn no_damaged_bytes_panic(changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4)) {
            let mut bytes = sane().to_string().into_bytes();
            for (place, byte) in changes {
                *place.get_mut(&mut bytes) = byte;
            }
            if let Ok(tokenizer) = Tokenizer::from_bytes("tokenizer.json", &bytes) {
                let _ = tokenizer.encode("ab ab", true);
            }
        }
    }
}
