//! The model of a tokenizer.json, with its vocabulary and merges, read within limits.
//!
//! The tokenizers crate buffers the model, sizes its tables by numbers from the file, and panics or reads out of
//! bounds on inconsistent merges. The model is therefore read and checked here and given to the crate in parts. The
//! module deliberately knows no text. Read [`ModelFile::build`].

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::{self, BPE};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;

/// Limits of a vocabulary, each a few times the largest published one: 900,000 tokens (XLM-V), 500,000 merges (Gemma),
/// 256 bytes in a token.
const TOKENS: usize = 1 << 21;
const MERGES: usize = 1 << 22;
pub(super) const TOKEN_BYTES: usize = 4096;
/// A Unigram model tries every token with which the text could begin, and its trie is dropped by recursion.
const UNIGRAM_TOKEN_BYTES: usize = 512;
/// The most nodes of a Unigram model's trie; each takes about 350 bytes.
const TRIE_NODES: usize = 1 << 23;
/// The most bytes of a prefix, a suffix or an unknown token, which is copied for each character or word of a text.
const AFFIX_BYTES: usize = 256;
/// The largest id. The tokenizers crate adds numbers to ids.
pub(super) const LARGEST_ID: u32 = i32::MAX as u32;

/// A model as the file states it. Its `dropout` is not read: by it training sees a text split in several ways, and
/// here the same text must always give the same tokens.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ModelFile {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Option<Vocabulary>,
    merges: Option<Merges>,
    unk_token: Option<String>,
    unk_id: Option<usize>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// Tokens with their ids, or tokens in order with their scores.
#[derive(Debug)]
enum Vocabulary {
    Ids(bpe::Vocab),
    Scores(Vec<(String, f64)>),
}

#[derive(Debug)]
struct Merges(Vec<(String, String)>);

impl ModelFile {
    /// Checks the model and builds it. Also returns the largest id in its vocabulary.
    pub fn build(self) -> Result<(ModelWrapper, u32), String> {
        for (name, text) in [
            ("unk_token", &self.unk_token),
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            if text.as_ref().is_some_and(|text| text.len() > AFFIX_BYTES) {
                return Err(format!("{name} is longer than {AFFIX_BYTES} bytes"));
            }
        }
        let vocabulary = self.vocab.as_ref().ok_or("missing field `vocab`")?;
        let largest = vocabulary.check()?;
        // Older files lack this field. Their models are recognised in the same way as by the tokenizers crate.
        let kind = match (&self.kind, vocabulary) {
            (Some(kind), _) => kind.clone(),
            (None, Vocabulary::Scores(_)) => "Unigram".to_string(),
            (None, _) if self.merges.is_some() => "BPE".to_string(),
            (None, _) if self.max_input_chars_per_word.is_some() => "WordPiece".to_string(),
            (None, _) => "WordLevel".to_string(),
        };
        let model = match kind.as_str() {
            "BPE" => self.bpe()?.into(),
            "WordPiece" => self.wordpiece()?.into(),
            "WordLevel" => self.wordlevel()?.into(),
            "Unigram" => self.unigram()?.into(),
            _ => return Err("type is none of BPE, WordPiece, WordLevel and Unigram".to_string()),
        };
        Ok((model, largest))
    }

    /// Those of `tokens` that the model itself produces for a text: its letters and the results of its merges. A model
    /// other than BPE produces all tokens in its vocabulary.
    pub fn makes<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
        let Some(Vocabulary::Ids(ids)) = &self.vocab else { return HashSet::new() };
        let mut known: HashSet<&str> = tokens.filter(|token| ids.contains_key(*token)).collect();
        if let (Some(Merges(merges)), false) = (&self.merges, known.is_empty()) {
            let prefix = self.continuing_subword_prefix.as_ref().map_or(0, String::len);
            let merged = merges.iter().map(|(a, b)| format!("{a}{}", b.get(prefix..).unwrap_or_default()));
            let merged: HashSet<String> = merged.filter(|token| known.contains(token.as_str())).collect();
            known.retain(|token| token.chars().count() == 1 || merged.contains(*token));
        }
        known
    }

    fn bpe(self) -> Result<BPE, String> {
        let vocab = ids(self.vocab)?;
        let merges = self.merges.ok_or("missing field `merges`")?.0;
        check_merges(&vocab, &merges, self.continuing_subword_prefix.as_deref().unwrap_or_default())?;
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build().map_err(|e| e.to_string())
    }

    fn wordpiece(self) -> Result<WordPiece, String> {
        let builder = WordPiece::builder()
            .vocab(ids(self.vocab)?)
            .unk_token(self.unk_token.ok_or("missing field `unk_token`")?)
            .continuing_subword_prefix(
                self.continuing_subword_prefix.ok_or("missing field `continuing_subword_prefix`")?,
            )
            .max_input_chars_per_word(self.max_input_chars_per_word.ok_or("missing field `max_input_chars_per_word`")?);
        builder.build().map_err(|e| e.to_string())
    }

    fn wordlevel(self) -> Result<WordLevel, String> {
        let unknown = self.unk_token.ok_or("missing field `unk_token`")?;
        WordLevel::builder().vocab(ids(self.vocab)?).unk_token(unknown).build().map_err(|e| e.to_string())
    }

    fn unigram(self) -> Result<Unigram, String> {
        let Some(Vocabulary::Scores(scores)) = self.vocab else {
            return Err("vocab of a Unigram model is a list of tokens with their scores".to_string());
        };
        Unigram::from(scores, self.unk_id, self.byte_fallback.unwrap_or(false)).map_err(|e| e.to_string())
    }
}

fn ids(vocabulary: Option<Vocabulary>) -> Result<bpe::Vocab, String> {
    match vocabulary {
        Some(Vocabulary::Ids(ids)) => Ok(ids),
        _ => Err("vocab is a map from tokens to ids".to_string()),
    }
}

impl Vocabulary {
    /// Checks the ids, or the cost of the scores' trie, and returns the largest id.
    fn check(&self) -> Result<u32, String> {
        match self {
            Vocabulary::Ids(ids) => {
                let mut sorted: Vec<(u32, &str)> = ids.iter().map(|(token, &id)| (id, token.as_str())).collect();
                sorted.sort_unstable();
                // If two tokens shared an id, the decoded one would differ from run to run.
                if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    let (first, second) = (short(pair[0].1), short(pair[1].1));
                    return Err(format!("vocab: {first:?} and {second:?} both have id {}", pair[0].0));
                }
                match sorted.last() {
                    Some((id, token)) if *id > LARGEST_ID => {
                        Err(format!("vocab: {:?} has id {id}; the largest allowed is {LARGEST_ID}", short(token)))
                    }
                    last => Ok(last.map_or(0, |(id, _)| *id)),
                }
            }
            Vocabulary::Scores(scores) => {
                let mut sorted: Vec<&[u8]> = scores.iter().map(|(token, _)| token.as_bytes()).collect();
                if let Some(token) = scores.iter().find(|(token, _)| token.len() > UNIGRAM_TOKEN_BYTES) {
                    let token = short(&token.0);
                    return Err(format!("vocab: {token:?}... is longer than {UNIGRAM_TOKEN_BYTES} bytes"));
                }
                sorted.sort_unstable();
                let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
                let shared: usize = sorted.windows(2).map(|pair| common(pair[0], pair[1])).sum();
                let nodes = sorted.iter().map(|token| token.len()).sum::<usize>() - shared;
                if nodes > TRIE_NODES {
                    return Err(format!("vocab: a trie of {nodes} nodes; {TRIE_NODES} are allowed"));
                }
                Ok(scores.len().saturating_sub(1) as u32)
            }
        }
    }
}

/// Checks that the parts and the result of each merge are in the vocabulary. The tokenizers crate removes as many
/// bytes from the start of the second part as `prefix` has, without comparing them.
fn check_merges(vocab: &bpe::Vocab, merges: &[(String, String)], prefix: &str) -> Result<(), String> {
    let mut merged = String::new();
    for (at, (a, b)) in merges.iter().enumerate() {
        let Some(rest) = b.get(prefix.len()..) else {
            return Err(format!("merges[{at}]: {:?} does not begin with {:?}", short(b), short(prefix)));
        };
        merged.clear();
        merged.push_str(a);
        merged.push_str(rest);
        if let Some(missing) = [a, b, &merged].into_iter().find(|token| !vocab.contains_key(token.as_str())) {
            return Err(format!("merges[{at}]: {:?} is not in the vocabulary", short(missing)));
        }
    }
    Ok(())
}

/// The beginning of a text, for messages.
pub(super) fn short(text: &str) -> &str {
    &text[..boundary(text, 60)]
}

/// The largest character boundary that is at most `at`.
pub(super) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn token<E: serde::de::Error>(token: String) -> Result<String, E> {
    if token.len() <= TOKEN_BYTES {
        return Ok(token);
    }
    Err(E::custom(format!("the token {:?}... is longer than {TOKEN_BYTES} bytes", short(&token))))
}

fn limited<E: serde::de::Error>(count: usize, limit: usize, what: &str) -> Result<(), E> {
    if count <= limit { Ok(()) } else { Err(E::custom(format!("more than {limit} {what}"))) }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tokens to ids, or a list of tokens with their scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut ids = bpe::Vocab::default();
                while let Some((name, id)) = map.next_entry::<String, u32>()? {
                    if let Some(other) = ids.insert(token(name)?, id).filter(|other| *other != id) {
                        return Err(A::Error::custom(format!("a token has two ids, {other} and {id}")));
                    }
                    limited(ids.len(), TOKENS, "tokens")?;
                }
                Ok(Vocabulary::Ids(ids))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                let mut scores = Vec::new();
                while let Some((name, score)) = seq.next_element::<(String, f64)>()? {
                    scores.push((token(name)?, score));
                    limited(scores.len(), TOKENS, "tokens")?;
                }
                Ok(Vocabulary::Scores(scores))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// One merge: `["a", "b"]`, or `"a b"` in older files.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge of two tokens")
            }

            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<Merge, E> {
                if line.starts_with("#version") {
                    return Ok(Merge(None));
                }
                match line.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge(Some((a.to_string(), b.to_string())))),
                    _ => Err(E::custom(format!("the merge {:?} is not two tokens", short(line)))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let mut next = || -> Result<String, A::Error> {
                    seq.next_element::<String>()?.ok_or_else(|| A::Error::custom("a merge of one token"))
                };
                let pair = (next()?, next()?);
                match seq.next_element::<String>()? {
                    None => Ok(Merge(Some(pair))),
                    Some(_) => Err(A::Error::custom("a merge of three tokens")),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                while let Some(Merge(merge)) = seq.next_element()? {
                    merges.extend(merge);
                    limited(merges.len(), MERGES, "merges")?;
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}
