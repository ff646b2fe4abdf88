//! SentencePiece's precompiled character map, which is checked before it is used.
//!
//! The map consists of a length, a trie stored as a double array (Darts), and the replacement texts. The crate that
//! reads it allocates by the stated length and follows offsets without checking them, so everything that a text can
//! reach in the map is walked here once. The module deliberately does not know what the map means. Read [`read`].

use super::budget::Budget;
use super::vocabulary::boundary;
use std::collections::HashSet;
use tokenizers::NormalizedString;
use tokenizers::Normalizer;
use tokenizers::normalizers::Precompiled;

/// The longest replacement for a character, in bytes. The longest in use, for U+FDFA under NFKC, has 33.
const LONGEST: usize = 1 << 10;

/// A character map on which no text can fail.
#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    map: Precompiled,
    /// The length of the longest replacement in the map.
    longest: usize,
}

impl Charsmap {
    /// Reads a map that is written in base64.
    pub fn read(base64: &str) -> Result<Charsmap, String> {
        let bytes = decode(base64).ok_or("precompiled_charsmap is not base64")?;
        let longest = check(&bytes)?;
        let map = Precompiled::from(&bytes).map_err(|e| format!("precompiled_charsmap: {e}"))?;
        Ok(Charsmap { map, longest })
    }

    /// Normalises a text. Errors when the result would exceed the budget.
    pub fn normalize(&self, text: &mut NormalizedString, budget: &mut Budget) -> tokenizers::Result<()> {
        // Most texts cannot grow beyond the budget. For the others the result is first computed piece by piece,
        // without the alignment that normalising stores for each byte.
        if text.len().saturating_mul(self.longest.max(1)) > budget.left() {
            let mut made = 0;
            let mut rest = text.get();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(boundary(rest, 4096));
                made += self.map.normalize_string(piece).len();
                budget.check(made)?;
                rest = after;
            }
        }
        self.map.normalize(text)
    }
}

/// Checks everything in the map that a text can reach, and returns the length of the longest replacement.
fn check(map: &[u8]) -> Result<usize, String> {
    let fail = |what: &str| Err(format!("precompiled_charsmap {what}"));
    let Some((length, rest)) = map.split_first_chunk() else { return fail("has no length") };
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let Some((trie, texts)) = rest.split_at_checked(length) else {
        return fail(&format!("states a trie of {length} bytes, but has {}", rest.len()));
    };
    let trie: Vec<usize> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]) as usize).collect();
    // A unit has the layout of Darts: the offset of its children, whether a text ends here, and its own byte.
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let Some(&root) = trie.first() else { return fail("has no trie") };
    let Ok(texts) = std::str::from_utf8(texts) else { return fail("leads to texts that are not UTF-8") };
    let mut longest = 0;
    let mut seen = HashSet::from([offset(root)]);
    let mut open = vec![offset(root)];
    while let Some(node) = open.pop() {
        // The reader looks up any byte of a text beside its parent, whether the trie contains it or not.
        if node | 0xff >= trie.len() {
            return fail("leads out of its own trie");
        }
        for byte in 1..=0xff {
            let unit = trie[node ^ byte];
            if unit & ((1 << 31) | 0xff) != byte {
                continue;
            }
            let child = node ^ byte ^ offset(unit);
            if (unit >> 8) & 1 == 1 {
                let start = trie.get(child).map(|leaf| leaf & ((1 << 31) - 1));
                let Some(text) = start.and_then(|start| texts.get(start..)) else {
                    return fail("leads to a text that it does not hold");
                };
                longest = longest.max(text.bytes().take(LONGEST + 1).take_while(|&byte| byte != 0).count());
                if longest > LONGEST {
                    return fail(&format!("makes a text of more than {LONGEST} bytes of one character"));
                }
            }
            if seen.insert(child) {
                open.push(child);
            }
        }
    }
    Ok(longest)
}

/// Decodes base64 with the standard alphabet and padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let padding = text.bytes().rev().take(2).take_while(|&c| c == b'=').count();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.as_bytes()[..text.len() - padding].chunks(4) {
        let mut bits = 0u32;
        for place in 0..4 {
            let six = match group.get(place) {
                Some(c @ b'A'..=b'Z') => c - b'A',
                Some(c @ b'a'..=b'z') => c - b'a' + 26,
                Some(c @ b'0'..=b'9') => c - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            bits = (bits << 6) | u32::from(six);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A map that replaces "a" by `text`. The root's children are in the first 256 units, the leaf is in the next
    /// ones.
    fn map(text: &str) -> Vec<u8> {
        let mut trie = vec![0u32; 512];
        // The child for "a" is unit 0x61. It has a leaf, and its own children are at 0x61 ^ 0x100.
        trie[0x61] = 0x61 | 1 << 8 | 0x100 << 10;
        trie[0x61 ^ 0x100] = 1 << 31 | 4;
        let mut map = (trie.len() as u32 * 4).to_le_bytes().to_vec();
        map.extend(trie.iter().flat_map(|unit| unit.to_le_bytes()));
        map.extend(b"xyz\0");
        map.extend(text.as_bytes());
        map
    }

    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().chain([&0, &0]).take(3).fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
            for place in 0..4 {
                let six = (bits >> (18 - 6 * place)) as usize & 63;
                text.push(if place > group.len() { '=' } else { ALPHABET[six] as char });
            }
        }
        text
    }

    #[test]
    fn a_map_maps() {
        let charsmap = Charsmap::read(&encode(&map("äb"))).unwrap();
        let mut text = NormalizedString::from("cac");
        charsmap.normalize(&mut text, &mut Budget::of(3)).unwrap();
        assert_eq!((text.get(), charsmap.longest), ("cäbc", 3));
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        let good = map("ä");
        let changed = |at: usize, unit: u32| {
            let mut map = good.clone();
            map[at..at + 4].copy_from_slice(&unit.to_le_bytes());
            check(&map).unwrap_err()
        };
        assert!(changed(0, u32::MAX).contains("states a trie of 4294967292 bytes, but has"));
        assert!(changed(0, 0).contains("has no trie"));
        assert!(changed(4, 1 << 31 | 700 << 10).contains("out of its own trie"));
        assert!(changed(4 + 4 * 0x61, 0x61 | 700 << 10).contains("out of its own trie"));
        // Offsets beyond the replacement texts, and into the middle of a character.
        for start in [100, 5] {
            assert!(changed(4 + 4 * (0x61 ^ 0x100), start).contains("does not hold"));
        }
        assert!(check(&map(&"x".repeat(2000))).unwrap_err().contains("more than 1024 bytes"));
        assert!(check(b"").is_err() && check(b"\0\0\0\0").is_err());
        for text in ["A", "AAA", "AA=A", "====", "AAAé", "AA\nA"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_map_makes_no_more_of_a_text_than_its_budget() {
        let charsmap = Charsmap::read(&encode(&map(&"x".repeat(1000)))).unwrap();
        let text = "a".repeat(100_000);
        assert!(charsmap.normalize(&mut text.as_str().into(), &mut Budget::of(text.len())).is_err());
        assert!(charsmap.normalize(&mut "b".repeat(100_000).into(), &mut Budget::of(100_000)).is_ok());
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn a_damaged_map_is_refused_or_maps(at in 0usize..2056, value: u8, text: String) {
            let mut map = map("ä");
            map[at] = value;
            if let Ok(charsmap) = Charsmap::read(&encode(&map)) {
                let mut text = NormalizedString::from(text + "aaa");
                let _ = charsmap.normalize(&mut text, &mut Budget::of(99));
            }
        }
    }
}
