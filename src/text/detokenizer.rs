//! Token ids to text, piece by piece: what is emitted is final, and the pieces joined are the text of the whole.
//!
//! It deliberately knows no windows and no guesses at what text is stable: each decoder of a tokenizer.json becomes a
//! stage that keeps exactly what a later token may still change, so the cost is linear. [`Stage`] names them all; whole
//! texts are decoded by the same stages, and the tests hold them against the tokenizers crate's own decoding.

use super::tokenizer::Tokenizer;
use crate::error::Result;
use std::mem::take;
use tokenizers::decoders::bpe::BPEDecoder;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::ctc::CTC;
use tokenizers::decoders::strip::Strip;
use tokenizers::{Decoder, DecoderWrapper};

/// Text that arrives token by token; made by [`Tokenizer::stream`].
///
/// Text is emitted as soon as no later token can change it. Most tokens give text at once; a character spread over
/// several tokens, or a run of SentencePiece byte tokens (`<0xE5>`), gives it when complete.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    stages: Vec<Stage>,
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        let stages = stages(tokenizer.decoder());
        TextStream { tokenizer, skip_special, stages }
    }

    /// Takes a token and gives the text that has become final, if any.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`](crate::error::TextError::Tokenizer) when the tokenizer's own decoder fails.
    pub fn push(&mut self, token: u32) -> Result<Option<String>> {
        let mut pieces: Vec<String> = self.tokenizer.piece(token, self.skip_special).into_iter().collect();
        for stage in &mut self.stages {
            let mut next = Vec::new();
            for piece in pieces {
                stage.push(piece, &mut next).map_err(|e| self.tokenizer.error(e))?;
            }
            pieces = next;
        }
        Ok(text(pieces))
    }

    /// Ends the text and gives what was held back, if anything; the stream is then as new.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`](crate::error::TextError::Tokenizer) when the tokenizer's own decoder fails.
    pub fn finish(&mut self) -> Result<Option<String>> {
        let mut pieces = Vec::new();
        for stage in &mut self.stages {
            let mut next = Vec::new();
            for piece in take(&mut pieces) {
                stage.push(piece, &mut next).map_err(|e| self.tokenizer.error(e))?;
            }
            stage.finish(&mut next).map_err(|e| self.tokenizer.error(e))?;
            pieces = next;
        }
        self.stages = stages(self.tokenizer.decoder());
        Ok(text(pieces))
    }
}

fn text(pieces: Vec<String>) -> Option<String> {
    Some(pieces.concat()).filter(|text| !text.is_empty())
}

/// One decoder, and what it must remember between tokens.
#[derive(Debug, Clone)]
enum Stage {
    /// No decoder at all: tokens are joined with spaces.
    Join { first: bool },
    /// Looks at one token at a time.
    Each(DecoderWrapper),
    /// Treats the first token apart from all others.
    FirstApart { decoder: DecoderWrapper, first: bool },
    /// Trims every token.
    Trim(Strip),
    /// Drops a token equal to the one before it.
    Ctc { decoder: CTC, last: Option<String> },
    /// Treats the last token apart, so one is always held.
    LastApart { decoder: BPEDecoder, held: Option<String> },
    /// `<0xE5>` tokens: one byte more can turn a run of them from text into replacement characters, or back.
    ByteRun { decoder: ByteFallback, run: Vec<String> },
    /// Byte-level tokens: the bytes of a character that is not complete.
    Utf8 { incomplete: Vec<u8> },
    /// Trims the start of the whole text: how many characters may still go.
    TrimStart { content: char, left: usize },
    /// A decoder applied to the text as one: any character may depend on any other, so all is held until the end.
    Whole { decoder: DecoderWrapper, text: String },
}

fn stages(decoder: Option<&DecoderWrapper>) -> Vec<Stage> {
    let Some(decoder) = decoder else {
        return vec![Stage::Join { first: true }];
    };
    let mut stages = Vec::new();
    let mut fused = false;
    add(decoder, &mut stages, &mut fused);
    stages
}

/// Appends a decoder's stages; from a fusing decoder on, the following ones see a single token: the whole text.
fn add(decoder: &DecoderWrapper, stages: &mut Vec<Stage>, fused: &mut bool) {
    stages.push(match decoder.clone() {
        DecoderWrapper::Sequence(sequence) => {
            return sequence.get_decoders().iter().for_each(|decoder| add(decoder, stages, fused));
        }
        DecoderWrapper::Fuse(_) => {
            *fused = true;
            return;
        }
        DecoderWrapper::Strip(strip) if *fused && strip.stop == 0 => {
            Stage::TrimStart { content: strip.content, left: strip.start }
        }
        decoder if *fused => Stage::Whole { decoder, text: String::new() },
        DecoderWrapper::ByteLevel(_) => {
            *fused = true;
            Stage::Utf8 { incomplete: Vec::new() }
        }
        decoder @ DecoderWrapper::Replace(_) => Stage::Each(decoder),
        decoder @ (DecoderWrapper::WordPiece(_) | DecoderWrapper::Metaspace(_)) => {
            Stage::FirstApart { decoder, first: true }
        }
        DecoderWrapper::Strip(strip) => Stage::Trim(strip),
        DecoderWrapper::CTC(decoder) => Stage::Ctc { decoder, last: None },
        DecoderWrapper::BPE(decoder) => Stage::LastApart { decoder, held: None },
        DecoderWrapper::ByteFallback(decoder) => Stage::ByteRun { decoder, run: Vec::new() },
    });
}

impl Stage {
    fn push(&mut self, token: String, out: &mut Vec<String>) -> tokenizers::Result<()> {
        match self {
            Stage::Join { first } => {
                if !take(first) {
                    out.push(" ".into());
                }
                out.push(token);
            }
            Stage::Each(decoder) => out.extend(decoder.decode_chain(vec![token])?),
            Stage::FirstApart { decoder, first } => {
                let before = if take(first) { Vec::new() } else { vec![String::new()] };
                let skip = before.len();
                let tokens = [before, vec![token]].concat();
                out.extend(decoder.decode_chain(tokens)?.into_iter().skip(skip));
            }
            Stage::Trim(strip) => out.push(trim(strip, &token)),
            Stage::Ctc { decoder, last } => {
                if last.as_ref() != Some(&token) {
                    *last = Some(token.clone());
                    out.extend(decoder.decode_chain(vec![token])?);
                }
            }
            Stage::LastApart { decoder, held } => {
                if let Some(token) = held.replace(token) {
                    out.extend(decoder.decode_chain(vec![token, String::new()])?.into_iter().take(1));
                }
            }
            Stage::ByteRun { decoder, run } => {
                let byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
                run.push(token);
                if !byte {
                    out.extend(decoder.decode_chain(take(run))?);
                }
            }
            Stage::Utf8 { incomplete } => {
                match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                    Some(bytes) => incomplete.extend(bytes),
                    // An added token stands in the vocabulary as it is.
                    None => incomplete.extend(token.as_bytes()),
                }
                out.push(complete(incomplete));
            }
            Stage::TrimStart { content, left } => {
                let mut kept = token.as_str();
                while *left > 0 && !kept.is_empty() {
                    match kept.strip_prefix(*content) {
                        Some(rest) => (kept, *left) = (rest, *left - 1),
                        None => *left = 0,
                    }
                }
                out.push(kept.into());
            }
            Stage::Whole { text, .. } => text.push_str(&token),
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<String>) -> tokenizers::Result<()> {
        match self {
            Stage::LastApart { decoder, held } => {
                if let Some(token) = held.take() {
                    out.extend(decoder.decode_chain(vec![token])?);
                }
            }
            Stage::ByteRun { decoder, run } => out.extend(decoder.decode_chain(take(run))?),
            Stage::Utf8 { incomplete } => out.push(String::from_utf8_lossy(&take(incomplete)).into_owned()),
            Stage::Whole { decoder: DecoderWrapper::Strip(strip), text } => out.push(trim(strip, text)),
            Stage::Whole { decoder, text } => out.extend(decoder.decode_chain(vec![take(text)])?),
            _ => {}
        }
        Ok(())
    }
}

/// `Strip`, also on tokens shorter than what is to be trimmed, where the crate's own panics.
fn trim(strip: &Strip, token: &str) -> String {
    let is_content = |&c: &char| c == strip.content;
    let start = token.chars().take(strip.start).take_while(is_content).count();
    let kept = token.chars().count() - start;
    let stop = token.chars().rev().take(strip.stop.min(kept)).take_while(is_content).count();
    token.chars().skip(start).take(kept - stop).collect()
}

/// Takes all that no later byte can change; a byte that can belong to no character becomes U+FFFD.
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

/// GPT-2's spelling of bytes: printable Latin-1 stands for itself, the other 68 for U+0100 onwards.
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
    use super::super::tokenizer::tests::{fixture, load};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    /// One tokenizer, and the tokenizers crate's own reading of the same file as the oracle.
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
            // Their decoders panic on no tokens at all, or decode them to nothing.
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
                // One id beyond the vocabulary, too.
                let ids: Vec<u32> = draws.iter().map(|draw| draw % (case.ours.vocab_size() as u32 + 1)).collect();
                case.check(&ids, skip_special);
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
