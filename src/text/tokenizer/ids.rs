//! The tokenizer of a model folder: text to token ids and back.
//!
//! It deliberately knows no model and no file system: it is given the bytes of tokenizer.json, and the path only
//! appears in errors. Read [`Tokenizer::from_bytes`], then `file.rs` for the checks, `pipeline.rs` for how a text is
//! encoded, and [`TextStream`](super::TextStream) for text that arrives token by token.

use super::file;
use super::guard::guarded;
use super::pipeline::{Decode, Pipeline, Truncation, no_room};
use super::vocabulary::boundary;
use crate::text::TextError;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::{DecoderWrapper, Model};

/// The longest error message, in bytes. The tokenizers crate quotes input that it does not understand.
const MESSAGE: usize = 500;

/// A tokenizer; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    pipeline: Arc<Pipeline>,
    /// Whether tokens spell bytes, as GPT-2's do.
    byte_level: bool,
    /// How long texts are truncated; `None` if they are not.
    truncation: Option<Truncation>,
}

/// A token on its way through the decoding stages.
#[derive(Debug, Clone)]
pub(in crate::text) struct Piece {
    pub text: String,
    /// Whether the text is literal, as an added token's is, and not a byte-level spelling of bytes.
    pub literal: bool,
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Piece { text, literal: false }
    }
}

impl Tokenizer {
    /// Reads a tokenizer.json.
    ///
    /// Truncation and padding in the file are switched off: sentence-transformers folders contain both, and either
    /// would silently change the ids of a text. So is a BPE model's dropout, by which training sees a text split in
    /// several ways.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the bytes are not a tokenizer.json, or one that needs more memory or time than a
    /// file may. The error names the field.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, TextError> {
        let path = path.as_ref().to_owned();
        let pipeline = guarded(|| file::read(bytes)).and_then(|read| read);
        let pipeline = pipeline.map_err(|reason| failure(&path, reason))?;
        let byte_level = |step: &Decode| matches!(step, Decode::Own(DecoderWrapper::ByteLevel(_)));
        let byte_level = pipeline.decoders.iter().flatten().any(byte_level);
        Ok(Tokenizer { inner: Arc::new(Inner { path, pipeline: Arc::new(pipeline), byte_level, truncation: None }) })
    }

    /// The ids of a text, with the special tokens that the model expects around it (`[CLS]`, `<s>`, ...) if
    /// `add_special`.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the vocabulary cannot express the text, or when the file's steps make it grow too
    /// much.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        Ok(self.run(|pipeline| pipeline.encode(text, None, add_special, self.inner.truncation))?.0)
    }

    /// The ids of two texts as one sequence, as a cross-encoder reads them, and for each id the text that it belongs
    /// to: 0 or 1, or 0 throughout if the tokenizer does not tell the texts apart.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; also when texts are truncated and there is no room for the special tokens of a pair.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        self.run(|pipeline| pipeline.encode(first, Some(second), true, self.inner.truncation))
    }

    /// The same tokenizer with texts and pairs truncated to `max` tokens, special ones included; of a pair the longer
    /// text is truncated. It removes the end of a text, or its beginning if `start`.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when `max` is too small for the special tokens alone.
    #[doc(hidden)]
    pub fn truncated(&self, max: usize, start: bool) -> Result<Self, TextError> {
        let around = self.inner.pipeline.around(false);
        if max < around {
            return Err(self.error(no_room(max, around)));
        }
        Ok(self.with(self.inner.pipeline.clone(), Some(Truncation { max, start })))
    }

    /// The same tokenizer, which converts texts to lower case before anything else.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when an added token cannot be converted.
    #[doc(hidden)]
    pub fn lowercased(&self) -> Result<Self, TextError> {
        let pipeline = self.run(Pipeline::lowercased)?;
        Ok(self.with(Arc::new(pipeline), self.inner.truncation))
    }

    /// A tokenizer of the same file with another pipeline.
    fn with(&self, pipeline: Arc<Pipeline>, truncation: Option<Truncation>) -> Self {
        let (path, byte_level) = (self.inner.path.clone(), self.inner.byte_level);
        Tokenizer { inner: Arc::new(Inner { path, pipeline, byte_level, truncation }) }
    }

    /// Whether an id belongs to a special token, such as the one at the end of every text.
    #[doc(hidden)]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.pipeline.added.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The text of ids, without special tokens if `skip_special`.
    ///
    /// Ids outside the vocabulary have no text. They occur because a model's logits are often padded beyond its
    /// tokenizer's vocabulary.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TextError> {
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for &token in tokens {
            text.extend(stream.push(token)?);
        }
        text.extend(stream.finish()?);
        Ok(text)
    }

    /// The number of tokens in the vocabulary, special ones included.
    #[doc(hidden)]
    pub fn vocab_size(&self) -> usize {
        let Pipeline { added, model, .. } = &*self.inner.pipeline;
        let new = added.get_vocab().keys().filter(|token| model.token_to_id(token).is_none());
        model.get_vocab_size() + new.count()
    }

    /// The id of a token, spelled as in the vocabulary.
    #[doc(hidden)]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.pipeline.token_id(token)
    }

    /// A token, spelled as in the vocabulary.
    #[doc(hidden)]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.pipeline.token(id)
    }

    /// Checks that the model, whose ids are below `vocabulary`, can read the ids that this tokenizer produces.
    ///
    /// A model may have more ids than the tokenizer has tokens, since vocabularies are padded. An added token beyond
    /// the model's ids is ignored, because some models that read only text have such tokens (a placeholder for an
    /// image, for example). A text that contains the token is refused.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] names both sizes.
    #[doc(hidden)]
    pub fn check(&self, vocabulary: usize) -> Result<(), TextError> {
        let largest = self.inner.pipeline.largest;
        if (largest as usize) < vocabulary {
            return Ok(());
        }
        Err(TextError::Vocabulary { path: self.inner.path.clone(), largest, vocabulary })
    }

    /// The added tokens, and whether each is special.
    pub(in crate::text) fn added(&self) -> Vec<(String, bool)> {
        let added = self.inner.pipeline.added.get_added_tokens_decoder();
        added.values().map(|token| (token.content.clone(), token.special)).collect()
    }

    /// The ids of a text that is a part of a longer one. If `plain`, it is encoded as plain text, in which added
    /// tokens are not recognised.
    pub(in crate::text) fn encode_within(&self, text: &str, plain: bool) -> Result<Vec<u32>, TextError> {
        let encode = |text: &str| self.run(|pipeline| pipeline.ids(text, plain, usize::MAX));
        // Many tokenizers add a space before the beginning of a text. A line end in front prevents that.
        let line_end = encode("\n")?;
        let ids = encode(&format!("\n{text}"))?;
        match ids.strip_prefix(line_end.as_slice()) {
            Some(ids) => Ok(ids.to_vec()),
            None => encode(text),
        }
    }

    /// The token as it is spelled in the vocabulary; `None` if it is to be skipped.
    pub(in crate::text) fn piece(&self, token: u32, skip_special: bool) -> Option<Piece> {
        let pipeline = &self.inner.pipeline;
        let added = pipeline.added.get_added_tokens_decoder().get(&token);
        if skip_special && added.is_some_and(|added| added.special) {
            return None;
        }
        match added {
            // The tokens of a byte-level vocabulary spell bytes, but an added token is matched in the text literally
            // and so stands for itself. "đem" consists of letters that also spell bytes; the tokenizers crate decodes
            // it as bytes.
            Some(_) if self.inner.byte_level && pipeline.spelled.contains(&token) => {
                pipeline.model.id_to_token(token).map(Piece::from)
            }
            Some(added) if self.inner.byte_level => Some(Piece { text: added.content.clone(), literal: true }),
            _ => self.token(token).map(Piece::from),
        }
    }

    /// The decoding steps, if the file names any.
    pub(super) fn decoders(&self) -> Option<&[Decode]> {
        self.inner.pipeline.decoders.as_deref()
    }

    /// Calls the tokenizers crate. Its errors and panics become errors that name the file.
    fn run<T>(&self, call: impl FnOnce(&Pipeline) -> tokenizers::Result<T>) -> Result<T, TextError> {
        let result = guarded(|| call(&self.inner.pipeline)).and_then(|result| result.map_err(|e| e.to_string()));
        result.map_err(|reason| self.error(reason))
    }

    pub(super) fn error(&self, reason: String) -> TextError {
        failure(&self.inner.path, reason)
    }
}

fn failure(path: &Path, mut reason: String) -> TextError {
    if reason.len() > MESSAGE {
        reason.truncate(boundary(&reason, MESSAGE));
        reason.push_str("...");
    }
    TextError::Tokenizer { path: path.to_owned(), reason }
}

#[cfg(test)]
pub(in crate::text) mod tests {
    use super::*;

    use proptest::prelude::*;
    use serde_json::json;

    pub fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    pub fn load(bytes: &[u8]) -> Tokenizer {
        Tokenizer::from_bytes("tokenizer.json", bytes).unwrap()
    }

    const LLAMA: &str = "tests/fixtures/llama-uneven/tokenizer.json";

    #[test]
    fn text_comes_back() {
        for name in [LLAMA, "tests/fixtures/bert/tokenizer.json", "assets/demo/tokenizer.json"] {
            let tokenizer = load(&fixture(name));
            for text in ["", "To be, or not to be", "  é 叫 🦀\n\0", "<|endoftext|>"] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            }
            assert_eq!(tokenizer.token_id("<|endoftext|>"), Some(0));
            assert_eq!(tokenizer.token_id("no such token"), None);
            assert_eq!(tokenizer.decode(&[0], true).unwrap(), "");
            assert_eq!(tokenizer.decode(&[u32::MAX], true).unwrap(), "");
        }
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_off() {
        let mut file: serde_json::Value = serde_json::from_slice(&fixture(LLAMA)).unwrap();
        file["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
        let plain = load(&fixture(LLAMA));
        let loaded = load(file.to_string().as_bytes());
        for text in ["a", "a text of more than three tokens"] {
            assert_eq!(loaded.encode(text, true).unwrap(), plain.encode(text, true).unwrap());
        }
    }

    #[test]
    fn texts_are_cut_on_request_special_tokens_and_all() {
        let mut file: serde_json::Value = serde_json::from_slice(&fixture(LLAMA)).unwrap();
        file["post_processor"] = json!({"type": "BertProcessing", "sep": ["<|endoftext|>", 0], "cls": ["a", 70]});
        let whole = load(file.to_string().as_bytes());
        let cut = whole.truncated(8, false).unwrap();
        let (long, short) = ("a text of more than a few tokens", "a");
        let ids = cut.encode(long, true).unwrap();
        assert_eq!((ids.len(), ids[0], ids[7]), (8, 70, 0));
        assert_eq!(cut.encode(short, true).unwrap(), whole.encode(short, true).unwrap());
        let (pair, types) = cut.encode_pair(short, long).unwrap();
        assert_eq!((pair.len(), types.len(), pair[7]), (8, 8, 0));
        let kept = whole.encode(short, false).unwrap();
        assert_eq!(pair[1..=kept.len()], kept, "the shorter text is kept whole");
        assert_eq!(whole.encode(long, true).unwrap().len(), whole.encode(long, false).unwrap().len() + 2);
    }

    #[test]
    fn special_tokens_are_added_on_request() {
        let mut file: serde_json::Value = serde_json::from_slice(&fixture(LLAMA)).unwrap();
        file["post_processor"] = json!({"type": "BertProcessing", "sep": ["<|endoftext|>", 0], "cls": ["a", 70]});
        let tokenizer = load(file.to_string().as_bytes());
        let bare = tokenizer.encode("text", false).unwrap();
        assert_eq!(tokenizer.encode("text", true).unwrap(), [&[70], &bare[..], &[0]].concat());
    }

    #[test]
    fn pairs_are_told_apart_as_the_file_says() {
        let mut file: serde_json::Value = serde_json::from_slice(&fixture(LLAMA)).unwrap();
        file["post_processor"] = json!({"type": "BertProcessing", "sep": ["<|endoftext|>", 0], "cls": ["a", 70]});
        let bert = load(file.to_string().as_bytes());
        let (a, b) = (bert.encode("one text", false).unwrap(), bert.encode("another", false).unwrap());
        let (ids, types) = bert.encode_pair("one text", "another").unwrap();
        assert_eq!(ids, [&[70], &a[..], &[0], &b, &[0]].concat());
        assert_eq!(types, [vec![0; a.len() + 2], vec![1; b.len() + 1]].concat());
        file["post_processor"] = json!({"type": "RobertaProcessing", "sep": ["<|endoftext|>", 0], "cls": ["a", 70],
            "trim_offsets": true, "add_prefix_space": false});
        let (ids, types) = load(file.to_string().as_bytes()).encode_pair("one text", "another").unwrap();
        assert_eq!(ids, [&[70], &a[..], &[0, 0], &b, &[0]].concat());
        assert_eq!(types, vec![0; ids.len()]);
    }

    fn refusal(bytes: &[u8]) -> String {
        match Tokenizer::from_bytes("some/tokenizer.json", bytes) {
            Err(error @ TextError::Tokenizer { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_that_are_no_tokenizer_are_refused_with_their_name() {
        assert!(refusal(b"").starts_with("some/tokenizer.json: not a tokenizer.json: EOF"));
        assert!(refusal(b"{}").contains("missing field"));
        assert!(refusal(b"\xff\xfe").contains("line 1"));
        let file: serde_json::Value = serde_json::from_slice(&fixture(LLAMA)).unwrap();
        let senseless = [
            ("decoder", json!({"type": "Nonsense"})),
            ("decoder", json!({"type": "Strip", "content": "long", "start": -1, "stop": 0})),
            ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": 3})),
            ("model", json!({"type": "BPE", "vocab": {}, "merges": [["a", "b"]]})),
            ("model", json!(3)),
        ];
        for (field, value) in senseless {
            let mut file = file.clone();
            file[field] = value;
            refusal(file.to_string().as_bytes());
        }
        let mut deep = file.to_string().replace("\"decoder\":{", "\"decoder\":{\"x\":DEEP,");
        deep = deep.replace("DEEP", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
        refusal(deep.as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_file_broken_off_anywhere_is_refused(at in 0.0f64..1.0) {
            let bytes = fixture(LLAMA);
            // The file ends in a brace and possibly a newline.
            refusal(&bytes[..((bytes.len() - 2) as f64 * at) as usize]);
        }
    }
}
