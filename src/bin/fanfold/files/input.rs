//! Texts that a person gives in a file or on standard input.
//!
//! A file that is not UTF-8 is refused at the first byte that is not, and a file that never ends, such as a device, is refused
//! at a size limit. Nothing here knows what a text is for. Read [`text`] first.

use crate::usage::usage;
use anyhow::Result;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest text that is read, in bytes: more than any model's context holds, and less than most machines' memory.
const LONGEST: usize = 1 << 30;

/// How many bytes are read at a time.
const CHUNK: u64 = 1 << 20;

/// The text in the file at `path`; `-` is standard input.
///
/// # Errors
/// With exit code 2 when the file cannot be read, is not UTF-8, or is longer than 1 GiB.
pub fn text(path: &Path) -> Result<String> {
    text_within(path, LONGEST)
}

/// As [`text`], for a text of at most `longest` bytes.
pub fn text_within(path: &Path, longest: usize) -> Result<String> {
    let refused = |reason: String| usage(format!("{}: {reason}", path.display()));
    match path == Path::new("-") {
        true => read(std::io::stdin().lock(), longest).map_err(|e| usage(format!("standard input: {e}"))),
        false => File::open(path).map_err(|e| e.to_string()).and_then(|file| read(file, longest)).map_err(refused),
    }
}

/// All of `from`, if it is UTF-8 of at most `longest` bytes. The error is the reason for a refusal.
fn read(mut from: impl Read, longest: usize) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut checked = 0;
    loop {
        let n = from.by_ref().take(CHUNK).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() > longest {
            return Err(format!("is longer than {longest} bytes"));
        }
        // The last character of this chunk may end in the next one.
        match std::str::from_utf8(&bytes[checked..]) {
            Ok(_) => checked = bytes.len(),
            Err(error) if error.error_len().is_none() && n > 0 => checked += error.valid_up_to(),
            Err(error) => return Err(format!("is not UTF-8 text: see byte {}", checked + error.valid_up_to())),
        }
        if n == 0 {
            return String::from_utf8(bytes).map_err(|e| e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, and characters therefore in parts.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            into[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn a_text_is_read_whole_and_anything_else_is_refused_early() {
        for given in ["", "x", "Größe: 3 €, \u{1F600}\n"] {
            assert_eq!(read(Slowly(given.as_bytes()), 99).as_deref(), Ok(given));
        }
        // A character across the end of a chunk.
        let long = "x".repeat(CHUNK as usize - 1) + "é and more";
        assert_eq!(read(long.as_bytes(), LONGEST).as_deref(), Ok(long.as_str()));
        assert!(read(&b"ab\xffcd"[..], 99).unwrap_err().contains("byte 2"));
        assert!(read(&b"ab\xe2\x82"[..], 99).unwrap_err().contains("byte 2"), "a character that does not end");
        // A stream that never ends and one that is not text are both refused early.
        assert!(read(std::io::repeat(b'x'), 4 << 20).unwrap_err().contains("longer than"));
        assert!(read(std::io::repeat(0xff), LONGEST).unwrap_err().contains("byte 0"));
    }
}
