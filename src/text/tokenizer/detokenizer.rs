//! Turns token ids into text, piece by piece. Emitted text is final, and the pieces joined equal the decoding of all
//! ids.
//!
//! It deliberately uses no windows and does not guess which text is stable: each decoder of a tokenizer.json becomes a
//! stage that holds back exactly the text that a later token may still change, so the cost is linear. [`Stage`] lists
//! the stages. Whole texts are decoded by the same stages, and tests compare them with the tokenizers crate's own
//! decoding.

use super::budget::Budget;
use super::guard::guarded;
use super::ids::{Piece, Tokenizer};
use super::pattern::Pattern;
use super::pipeline::Decode;
use crate::text::TextError;

use std::mem::take;
use std::sync::Arc;
use tokenizers::decoders::bpe::BPEDecoder;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::ctc::CTC;
use tokenizers::decoders::strip::Strip;
use tokenizers::{Decoder, DecoderWrapper};

/// Text that arrives token by token. Created by [`Tokenizer::stream`] and [`Tokenizer::stream_after`].
///
/// Text is emitted as soon as no later token can change it. Most tokens give text at once; a character spread over
/// several tokens, or a run of SentencePiece byte tokens (`<0xE5>`), gives it when complete.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    stages: Vec<Stage>,
    /// Bytes of the tokens since text was last emitted, from which the next text is made.
    taken: usize,
    /// Text of the prompt that the stages still hold back. It is dropped when they emit it.
    prompt_rest: String,
}

impl Tokenizer {
    /// The text of ids that arrive one by one, without special tokens if `skip_special`. It is the beginning of a
    /// text, where many tokenizers drop the leading space.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.clone(), skip_special)
    }

    /// The text of ids that continue `prompt`, without special tokens if `skip_special`.
    ///
    /// The text of the prompt and the text of the stream, joined, equal [`Tokenizer::decode`] of all ids: a
    /// continuation keeps the space between the prompt's last word and its own first word.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when the tokenizer's own decoder fails on the prompt.
    pub fn stream_after(&self, prompt: &[u32], skip_special: bool) -> Result<TextStream, TextError> {
        TextStream::after(self.clone(), prompt, skip_special)
    }
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        let stages = stages(tokenizer.decoders());
        TextStream { tokenizer, skip_special, stages, taken: 0, prompt_rest: String::new() }
    }

    /// Puts the stages into the state after `prompt`, so that the following ids are decoded as its continuation.
    pub(super) fn after(tokenizer: Tokenizer, prompt: &[u32], skip_special: bool) -> Result<Self, TextError> {
        let mut stream = TextStream::new(tokenizer, skip_special);
        for &token in prompt {
            stream.push(token)?;
        }
        // For example, a run of byte tokens at the end of the prompt is emitted together with the token after it.
        stream.prompt_rest = stream.clone().finish()?.unwrap_or_default();
        Ok(stream)
    }

    /// Adds a token, and returns the text that has become final, if any.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`](crate::text::TextError::Tokenizer) when the tokenizer's decoder fails, or produces too
    /// much text for the token.
    pub fn push(&mut self, token: u32) -> Result<Option<String>, TextError> {
        let piece = self.tokenizer.piece(token, self.skip_special);
        self.taken += piece.as_ref().map_or(0, |piece| piece.text.len());
        self.run(piece, false)
    }

    /// Ends the text and returns the text held back, if any. The stream then begins a new text.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(&mut self) -> Result<Option<String>, TextError> {
        let text = self.run(None, true);
        self.stages = stages(self.tokenizer.decoders());
        self.prompt_rest.clear();
        self.taken = 0;
        text
    }

    /// Passes a token through the stages, and then the end of the text if it ends here.
    fn run(&mut self, piece: Option<Piece>, end: bool) -> Result<Option<String>, TextError> {
        let mut budget = Budget::of(self.taken);
        let stages = &mut self.stages;
        let run = || -> tokenizers::Result<Vec<Piece>> {
            let mut pieces: Vec<Piece> = piece.into_iter().collect();
            for stage in stages {
                let mut next = Vec::new();
                for piece in pieces {
                    stage.push(piece, &mut next, &mut budget)?;
                }
                if end {
                    stage.finish(&mut next, &mut budget)?;
                }
                budget.check(next.iter().map(|piece| piece.text.len()).sum())?;
                pieces = next;
            }
            Ok(pieces)
        };
        let pieces = guarded(run).and_then(|pieces| pieces.map_err(|e| e.to_string()));
        let text = self.beyond_prompt(pieces.map_err(|reason| self.tokenizer.error(reason))?);
        if text.is_some() {
            self.taken = 0;
        }
        Ok(text)
    }

    /// The text of `pieces` without the part that belongs to the prompt.
    fn beyond_prompt(&mut self, pieces: Vec<Piece>) -> Option<String> {
        let mut text: String = pieces.into_iter().map(|piece| piece.text).collect();
        if !self.prompt_rest.is_empty() && !text.is_empty() {
            let alike = self.prompt_rest.chars().zip(text.chars()).take_while(|(a, b)| a == b);
            let alike: usize = alike.map(|(c, _)| c.len_utf8()).sum();
            // If the texts differ here, the prompt ended inside a character that has only now become complete.
            self.prompt_rest = match alike == text.len() {
                true => self.prompt_rest.split_off(alike),
                false => String::new(),
            };
            text.drain(..alike);
        }
        Some(text).filter(|text| !text.is_empty())
    }
}

/// One decoder, with the state that it needs between tokens.
#[derive(Debug, Clone)]
enum Stage {
    /// The file names no decoder: tokens are joined with spaces.
    Join { first: bool },
    /// Replaces the matches in each token.
    Replace { pattern: Arc<Pattern>, content: String },
    /// Treats the first token differently from all others.
    FirstApart { decoder: DecoderWrapper, first: bool },
    /// Trims every token.
    Trim(Strip),
    /// Drops a token that equals the one before it.
    Ctc { decoder: CTC, last: Option<String> },
    /// Treats the last token differently, so one token is always held back.
    LastApart { decoder: BPEDecoder, held: Option<Piece> },
    /// `<0xE5>` tokens. One more byte can turn a run of them from text into replacement characters, or back.
    ByteRun { decoder: ByteFallback, run: Vec<String> },
    /// Byte-level tokens. Holds the bytes of an incomplete character.
    Utf8 { incomplete: Vec<u8> },
    /// Trims the start of the whole text. Holds the number of characters that may still be removed.
    TrimStart { content: char, left: usize },
    /// A decoder that works on the text as a whole. Any character may depend on any other, so everything is held back
    /// until the end.
    Whole { decoder: Decode, text: String },
}

fn stages(decoders: Option<&[Decode]>) -> Vec<Stage> {
    let Some(decoders) = decoders else {
        return vec![Stage::Join { first: true }];
    };
    // After a decoder that fuses tokens, the following decoders see a single token: the whole text.
    let mut fused = false;
    decoders.iter().filter_map(|decoder| stage(decoder, &mut fused)).collect()
}

fn stage(decoder: &Decode, fused: &mut bool) -> Option<Stage> {
    Some(match decoder.clone() {
        Decode::Own(DecoderWrapper::Fuse(_)) => {
            *fused = true;
            return None;
        }
        Decode::Own(DecoderWrapper::Strip(strip)) if *fused && strip.stop == 0 => {
            Stage::TrimStart { content: strip.content, left: strip.start }
        }
        decoder if *fused => Stage::Whole { decoder, text: String::new() },
        Decode::Replace(pattern, content) => Stage::Replace { pattern, content },
        Decode::Own(decoder) => match decoder {
            DecoderWrapper::ByteLevel(_) => {
                *fused = true;
                Stage::Utf8 { incomplete: Vec::new() }
            }
            decoder @ (DecoderWrapper::WordPiece(_) | DecoderWrapper::Metaspace(_)) => {
                Stage::FirstApart { decoder, first: true }
            }
            DecoderWrapper::Strip(strip) => Stage::Trim(strip),
            DecoderWrapper::CTC(decoder) => Stage::Ctc { decoder, last: None },
            DecoderWrapper::BPE(decoder) => Stage::LastApart { decoder, held: None },
            DecoderWrapper::ByteFallback(decoder) => Stage::ByteRun { decoder, run: Vec::new() },
            // The sequences of a file are flattened and its replacements are read separately, so neither occurs here.
            decoder @ (DecoderWrapper::Sequence(_) | DecoderWrapper::Replace(_) | DecoderWrapper::Fuse(_)) => {
                Stage::Whole { decoder: Decode::Own(decoder), text: String::new() }
            }
        },
    })
}

impl Stage {
    fn push(&mut self, piece: Piece, out: &mut Vec<Piece>, budget: &mut Budget) -> tokenizers::Result<()> {
        let Piece { text: token, literal } = piece;
        let as_before = |text: String| Piece { text, literal };
        match self {
            Stage::Join { first } => {
                if !take(first) {
                    out.push(" ".to_string().into());
                }
                out.push(as_before(token));
            }
            Stage::Replace { pattern, content } => out.push(as_before(pattern.replace(&token, content, budget)?)),
            Stage::FirstApart { decoder, first } => {
                let before = if take(first) { Vec::new() } else { vec![String::new()] };
                let skip = before.len();
                let tokens = [before, vec![token]].concat();
                out.extend(decoder.decode_chain(tokens)?.into_iter().skip(skip).map(as_before));
            }
            Stage::Trim(strip) => out.push(as_before(trim(strip, &token))),
            Stage::Ctc { decoder, last } => {
                if last.as_ref() != Some(&token) {
                    *last = Some(token.clone());
                    out.extend(decoder.decode_chain(vec![token])?.into_iter().map(as_before));
                }
            }
            Stage::LastApart { decoder, held } => {
                if let Some(Piece { text, literal }) = held.replace(as_before(token)) {
                    let decoded = decoder.decode_chain(vec![text, String::new()])?.into_iter().take(1);
                    out.extend(decoded.map(|text| Piece { text, literal }));
                }
            }
            Stage::ByteRun { decoder, run } => {
                if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
                    run.push(token);
                } else {
                    out.extend(decoder.decode_chain(take(run))?.into_iter().map(Piece::from));
                    out.push(as_before(token));
                }
            }
            Stage::Utf8 { incomplete } => {
                match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                    Some(bytes) if !literal => incomplete.extend(bytes),
                    _ => incomplete.extend(token.as_bytes()),
                }
                out.push(complete(incomplete).into());
            }
            Stage::TrimStart { content, left } => {
                let mut kept = token.as_str();
                while *left > 0 && !kept.is_empty() {
                    match kept.strip_prefix(*content) {
                        Some(rest) => (kept, *left) = (rest, *left - 1),
                        None => *left = 0,
                    }
                }
                out.push(as_before(kept.into()));
            }
            Stage::Whole { text, .. } => text.push_str(&token),
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Piece>, budget: &mut Budget) -> tokenizers::Result<()> {
        match self {
            Stage::LastApart { decoder, held } => {
                if let Some(Piece { text, literal }) = held.take() {
                    out.extend(decoder.decode_chain(vec![text])?.into_iter().map(|text| Piece { text, literal }));
                }
            }
            Stage::ByteRun { decoder, run } => {
                out.extend(decoder.decode_chain(take(run))?.into_iter().map(Piece::from));
            }
            Stage::Utf8 { incomplete } => out.push(String::from_utf8_lossy(&take(incomplete)).into_owned().into()),
            Stage::Whole { decoder, text } => match decoder {
                Decode::Replace(pattern, content) => out.push(pattern.replace(text, content, budget)?.into()),
                Decode::Own(DecoderWrapper::Strip(strip)) => out.push(trim(strip, text).into()),
                Decode::Own(decoder) => {
                    out.extend(decoder.decode_chain(vec![take(text)])?.into_iter().map(Piece::from))
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// `Strip`. Unlike the crate's own it does not panic on tokens shorter than the part to trim.
fn trim(strip: &Strip, token: &str) -> String {
    let is_content = |&c: &char| c == strip.content;
    let start = token.chars().take(strip.start).take_while(is_content).count();
    let kept = token.chars().count() - start;
    let stop = token.chars().rev().take(strip.stop.min(kept)).take_while(is_content).count();
    token.chars().skip(start).take(kept - stop).collect()
}

/// Removes and returns the characters that no later byte can change. A byte that cannot belong to a character becomes
/// U+FFFD.
fn complete(bytes: &mut Vec<u8>) -> String {
    let incomplete = match bytes.utf8_chunks().last() {
        Some(chunk) if std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none()) => {
            chunk.invalid().len()
        }
        _ => 0,
    };
    let rest = bytes.split_off(bytes.len() - incomplete);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

/// GPT-2's spelling of bytes: printable Latin-1 letters stand for themselves, the other 68 bytes for U+0100 onwards.
fn byte_of(c: char) -> Option<u8> {
    match c {
        '!'..='~' | '¡'..='¬' | '®'..='ÿ' => u8::try_from(c).ok(),
        '\u{100}'..='\u{143}' => {
            let nth = (u32::from(c) - 0x100) as u8;
            Some(match nth {
                0..=32 => nth,
                33..=66 => nth - 33 + 127,
                _ => 0xad,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::tests::{fixture, load};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    /// A tokenizer, and the tokenizers crate's own reading of the same file, which is the oracle.
    struct Case {
        name: String,
        ours: Tokenizer,
        theirs: tokenizers::Tokenizer,
    }

    impl Case {
        fn new(name: &str, bytes: &[u8]) -> Self {
            Case { name: name.into(), ours: load(bytes), theirs: tokenizers::Tokenizer::from_bytes(bytes).unwrap() }
        }

        fn made(name: &str, tokens: &[&str], decoder: Value) -> Self {
            let vocab: serde_json::Map<String, Value> =
                tokens.iter().enumerate().map(|(id, token)| ((*token).into(), id.into())).collect();
            let special = tokens.len();
            let added = |id: usize, content: &str, special: bool| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special})
            };
            let file = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
                "added_tokens": [added(special, "</s>", true), added(special + 1, " added \u{fffd}", false)],
                "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
                "model": {"type": "WordLevel", "vocab": vocab, "unk_token": tokens[0]}});
            Case::new(name, file.to_string().as_bytes())
        }

        fn check(&self, ids: &[u32], skip_special: bool) {
            // These decoders panic without tokens, or decode them to nothing.
            let pieces = ids.iter().filter(|&&id| self.ours.piece(id, skip_special).is_some()).count();
            let expected = if pieces == 0 { String::new() } else { self.theirs.decode(ids, skip_special).unwrap() };
            assert_eq!(self.ours.decode(ids, skip_special).unwrap(), expected, "{}: decode {ids:?}", self.name);
            let mut stream = self.ours.stream(skip_special);
            for round in ["first", "second"] {
                let mut joined = String::new();
                for &id in ids {
                    joined.extend(stream.push(id).unwrap());
                    assert!(expected.starts_with(&joined), "{}: {joined:?} of {expected:?}, {ids:?}", self.name);
                }
                joined.extend(stream.finish().unwrap());
                assert_eq!(joined, expected, "{}: {round} stream of {ids:?}", self.name);
            }
        }

        /// The text of `ids` after `prompt`, as a stream gives it.
        fn continuation(&self, prompt: &[u32], ids: &[u32], skip_special: bool) -> String {
            let mut stream = self.ours.stream_after(prompt, skip_special).unwrap();
            let mut text: String = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
            text.extend(stream.finish().unwrap());
            text
        }
    }

    /// Every byte as a token, some words, and some added tokens, two of which are also in the vocabulary.
    fn byte_level(words: &[&str], added: &[&str]) -> Case {
        let alphabet = ('\0'..='\u{200}').filter(|&c| byte_of(c).is_some()).map(String::from);
        let base: Vec<String> = alphabet.chain(words.iter().map(|word| word.to_string())).collect();
        let vocab: serde_json::Map<String, Value> =
            base.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let mut new = base.len()..;
        let added: Vec<Value> = added
            .iter()
            .map(|content| {
                let id = base.iter().position(|token| token == content).or_else(|| new.next());
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": content.len() % 2 == 0, "special": content.starts_with('<')})
            })
            .collect();
        let merges: Vec<_> = words.iter().filter(|word| **word == "Ġa").map(|_| ["Ġ", "a"]).collect();
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": added, "pre_tokenizer": level, "post_processor": null, "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": merges}});
        Case::new("byte level", file.to_string().as_bytes())
    }

    const SENTENCE: [&str; 20] = [
        "<unk>", "▁", "▁a", "b", "▁▁", "▁c▁", "<0xE5>", "<0x8F>", "<0xAB>", "<0x61>", "<0xFF>", "<0xZZ>", "\u{fffd}",
        " ", "é", "", "</w>", "a</w>", "▁.", " ' ",
    ];
    const WORDS: [&str; 14] =
        ["[UNK]", "do", "not", "##n", "##'t", "n't", ".", "'", "##", "?", "'s", "a b", "##s", "do not"];

    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let across = json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": "_"});
        let strip = |start: usize, stop: usize| json!({"type": "Strip", "content": " ", "start": start, "stop": stop});
        let bytes = json!({"type": "ByteFallback"});
        let fuse = json!({"type": "Fuse"});
        let metaspace =
            |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        let wordpiece = |cleanup: bool| json!({"type": "WordPiece", "prefix": "##", "cleanup": cleanup});
        let bpe = json!({"type": "BPEDecoder", "suffix": "</w>"});
        let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let ctc = json!({"type": "CTC", "pad_token": "<unk>", "word_delimiter_token": "b", "cleanup": true});
        let sequence = |decoders: &[&Value]| json!({"type": "Sequence", "decoders": decoders});
        let made = |name: &str, decoder: Value| Case::made(name, &SENTENCE, decoder);
        vec![
            Case::new("llama fixture", &fixture("tests/fixtures/llama-uneven/tokenizer.json")),
            Case::new("bert fixture", &fixture("tests/fixtures/bert/tokenizer.json")),
            Case::new("demo", &fixture("assets/demo/tokenizer.json")),
            made("no decoder", Value::Null),
            made("metaspace", metaspace("always")),
            made("metaspace, first", metaspace("first")),
            made("metaspace, never", metaspace("never")),
            made("llama", sequence(&[&replace, &bytes, &fuse, &strip(1, 0)])),
            made("gemma", sequence(&[&replace, &bytes, &fuse])),
            made("long strip", sequence(&[&sequence(&[&replace, &bytes]), &fuse, &strip(3, 0)])),
            made("replacement across tokens", sequence(&[&replace, &fuse, &across, &strip(2, 0)])),
            made("bytes alone", bytes),
            made("strip each", sequence(&[&replace, &strip(1, 0)])),
            made("bpe", bpe.clone()),
            made("bpe after strip", sequence(&[&strip(1, 0), &bpe])),
            made("ctc", ctc),
            made("everything fused", sequence(&[&fuse, &metaspace("never"), &level, &wordpiece(true), &bpe])),
            Case::made("wordpiece", &WORDS, wordpiece(true)),
            Case::made("wordpiece without cleanup", &WORDS, wordpiece(false)),
        ]
    });

    #[test]
    fn text_comes_as_soon_as_it_is_final() {
        let byte_level = &CASES[0].ours;
        let ids = byte_level.encode("aé叫", false).unwrap();
        let mut stream = byte_level.stream(true);
        let pieces: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces.iter().flatten().map(String::as_str).collect::<String>(), "aé叫");
        assert_eq!(pieces[0].as_deref(), Some("a"));
        assert_eq!(stream.finish().unwrap(), None);

        let llama = &CASES.iter().find(|case| case.name == "llama").unwrap().ours;
        let mut stream = llama.stream(true);
        let mut push = |token: &str| stream.push(llama.token_id(token).unwrap()).unwrap();
        assert_eq!(push("▁a").as_deref(), Some("a"));
        assert_eq!(push("<0xE5>"), None);
        assert_eq!(push("<0x8F>"), None);
        assert_eq!(push("<0xAB>"), None);
        assert_eq!(push("▁a").as_deref(), Some("叫 a"));
        assert_eq!(push("</s>"), None);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters_without_waiting() {
        let tokenizer = &CASES[0].ours;
        let continuation = tokenizer.token_id("\u{122}").unwrap();
        let mut stream = tokenizer.stream(true);
        for _ in 0..3 {
            assert_eq!(stream.push(continuation).unwrap().as_deref(), Some("\u{fffd}"));
        }
    }

    #[test]
    fn every_byte_has_its_spelling() {
        let mut spelled: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        spelled.sort_unstable();
        assert_eq!(spelled, (0..=255).collect::<Vec<u8>>());
        for (c, byte) in [('A', b'A'), ('Ġ', b' '), ('Ċ', b'\n'), ('ł', 0xa0), ('Ń', 0xad)] {
            assert_eq!(byte_of(c), Some(byte));
        }
    }

    #[test]
    fn trimming_more_than_there_is_leaves_nothing() {
        let strip = |start, stop| Strip::new(' ', start, stop);
        assert_eq!(trim(&strip(1, 1), " "), "");
        assert_eq!(trim(&strip(0, 3), ""), "");
        assert_eq!(trim(&strip(2, 5), "   a  "), " a");
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 2});
        let fused = json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, strip]});
        for (decoder, expected) in [(strip, "b"), (fused, "  b")] {
            let tokenizer = Case::made("strip", &SENTENCE, decoder).ours;
            let ids = [" ", " ", " ", "b", " ", " "].map(|token| tokenizer.token_id(token).unwrap());
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected);
        }
    }

    #[test]
    fn an_added_token_is_text_whatever_letters_it_has() {
        let words = ["đem", "naïve", "<|end|>", "Ġa"];
        let added = ["đem", "ÃŁ", "é", "<|end|>", "<É>", "  ", "\t\t", "aé\u{fffd}", "Ġa"];
        let case = byte_level(&words, &added);
        for text in ["đem naïve", "ÃŁß", "馬đem馬", "a  b \t\tc", "<|end|><É>", "Ġ a Ġ", "aé\u{fffd}\u{fffd}"]
        {
            let ids = case.ours.encode(text, false).unwrap();
            assert_eq!(case.ours.decode(&ids, false).unwrap(), text);
            let streamed: Vec<String> = (0..=ids.len())
                .map(|at| {
                    case.ours.decode(&ids[..at], false).unwrap() + &case.continuation(&ids[..at], &ids[at..], false)
                })
                .collect();
            assert!(streamed.iter().all(|all| all == text || all.contains('\u{fffd}')), "{streamed:?}");
        }
        let text = |token: &str, skip| case.ours.decode(&[case.ours.token_id(token).unwrap()], skip).unwrap();
        // Tokens that the model produces for a text still spell bytes, even those that are also added tokens: "é" is a
        // byte of "馬", and a merge produces "Ġa".
        assert_eq!((text("naïve", true).as_str(), text("Ġa", true).as_str()), ("na\u{fffd}ve", " a"));
        assert_eq!((text("<É>", false).as_str(), text("<É>", true).as_str()), ("<É>", ""));
    }

    #[test]
    fn a_continuation_keeps_its_first_space() {
        let find = |name: &str| CASES.iter().find(|case| case.name == name).unwrap();
        for (name, prompt, output, text) in [
            ("llama", "▁a", ["▁c▁", "b"], " c b"),
            ("long strip", "b", ["▁▁", "▁a"], "   a"),
            ("metaspace", "▁a", ["▁a", "b"], " ab"),
            ("metaspace, first", "b", ["▁", "▁."], "  ."),
            ("gemma", "b", ["▁a", "b"], " ab"),
            ("wordpiece", "do", ["not", "##n"], " notn"),
            ("wordpiece", "do", [".", "not"], ". not"),
            ("bpe", "a</w>", ["b", "a</w>"], " ba"),
            ("no decoder", "b", ["▁a", "b"], " ▁a b"),
            ("replacement across tokens", "b", [" ", "▁a"], "_a"),
        ] {
            let case = find(name);
            let id = |token: &str| case.ours.token_id(token).unwrap();
            assert_eq!(case.continuation(&[id(prompt)], &output.map(id), true), text, "{name}");
        }
        let llama = find("llama");
        let id = |token: &str| llama.ours.token_id(token).unwrap();
        // A token that is skipped is not a text that a space could follow.
        assert_eq!(llama.continuation(&[id("</s>")], &[id("▁a")], true), "a");
        assert_eq!(llama.continuation(&[], &[id("▁a")], true), "a");
        // A character at the end of the prompt is held back by the stages, but it is not emitted again.
        let [first, second, third] = ["<0xE5>", "<0x8F>", "<0xAB>"].map(id);
        assert_eq!(llama.continuation(&[id("b"), first, second, third], &[id("▁a")], true), " a");
        assert_eq!(llama.continuation(&[first, second, third], &[first, second, third], true), "叫");
        // A character inside which the prompt ends is emitted whole.
        assert_eq!(llama.continuation(&[first, second], &[third, id("b")], true), "叫b");
    }

    #[test]
    fn no_tokens_are_no_text() {
        for case in CASES.iter() {
            case.check(&[], true);
            case.check(&[u32::MAX, 1_000_000], false);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn pieces_joined_are_the_text_of_the_whole(
            draws in prop::collection::vec(any::<u32>(), 0..40),
            skip_special: bool,
        ) {
            for case in CASES.iter() {
                // One id is beyond the vocabulary.
                let ids: Vec<u32> = draws.iter().map(|draw| draw % (case.ours.vocab_size() as u32 + 1)).collect();
                case.check(&ids, skip_special);
            }
        }

        #[test]
        fn prompt_and_output_joined_are_the_decoding_of_both(
            draws in prop::collection::vec(any::<u32>(), 0..24),
            at in 0.0..1.0,
            skip_special: bool,
        ) {
            static BYTES: LazyLock<Case> = LazyLock::new(|| byte_level(&["đem", "éł"], &["đem", "ß", "<é>", "  "]));
            for case in CASES.iter().chain([&*BYTES]) {
                let ids: Vec<u32> = draws.iter().map(|draw| draw % (case.ours.vocab_size() as u32 + 1)).collect();
                let (prompt, output) = ids.split_at((ids.len() as f64 * at) as usize);
                let before = case.ours.decode(prompt, skip_special).unwrap();
                let all = case.ours.decode(&ids, skip_special).unwrap();
                // The decoded prompt need not be a prefix, for example if it ends inside a character.
                if all.starts_with(&before) {
                    let behind = case.continuation(prompt, output, skip_special);
                    prop_assert_eq!(before + &behind, all, "{}: {:?} {:?}", case.name, prompt, output);
                }
            }
        }

        #[test]
        fn any_text_streams_back(text: String) {
            for case in &CASES[..3] {
                let ids = case.ours.encode(&text, false).unwrap();
                prop_assert_eq!(&case.ours.decode(&ids, false).unwrap(), &text);
                case.check(&ids, true);
            }
        }
    }
}
