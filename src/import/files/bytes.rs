//! Opens single files: a weight file, of which parts are read where they are needed, and a small file that is read whole, such
//! as config.json.
//!
//! This module deliberately knows no model. It checks only that a path is a regular file and that a small file is at
//! most 64 MiB long. Read [`super::safetensors`] next for the format of weight files, [`super::config`] for JSON files.

use crate::import::ImportError;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::SystemTime;

/// The longest file that [`read_small`] accepts, in bytes: a configuration, an index, a tokenizer or a chat template.
/// The largest index and tokenizer files known are half as long.
pub(crate) const MAX_JSON: u64 = 64 << 20;

/// The bytes of one file, wherever they are.
///
/// A file on disk is read by position and not mapped: what a mapping has shown stays in the process's memory beside the copy on
/// the device, and a mapped file that another process shortens kills this one where it is read.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// An open file, with its length and time of change when it was opened.
    Opened(File, Stamp),
    /// A file embedded in the program with `include_bytes!`, such as one of the demo model.
    Static(&'static [u8]),
    /// A file that the caller passed as bytes in memory.
    Shared(Arc<[u8]>),
}

/// A file's length and the time it was last written. Two stamps that differ show that the file changed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64, Option<SystemTime>);

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp(metadata.len(), metadata.modified().ok())
    }
}

impl Bytes {
    /// Opens the file at `path`. Errors when it cannot be opened or is not a regular file.
    pub(crate) fn open(path: &Path) -> Result<Bytes, ImportError> {
        let (file, _) = open_plain(path)?;
        let stamp = Stamp::of(&file.metadata().map_err(|e| io(path, &e))?);
        Ok(Bytes::Opened(file, stamp))
    }

    /// The number of bytes; of a file on disk, when it was opened.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Bytes::Opened(_, stamp) => stamp.0,
            Bytes::Static(bytes) => bytes.len() as u64,
            Bytes::Shared(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `target` with the bytes from `offset` on. Errors when there are not as many, and when they cannot be read. `path` is
    /// used only in the error.
    pub(crate) fn read(&self, path: &Path, offset: usize, target: &mut [u8]) -> Result<(), ImportError> {
        let bytes: &[u8] = match self {
            Bytes::Opened(file, _) => {
                return read_at(file, offset as u64, target).map_err(|error| match self.check_unchanged(path) {
                    Err(changed) => changed,
                    Ok(()) => io(path, &error),
                });
            }
            Bytes::Static(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        };
        let part = bytes.get(offset..).and_then(|rest| rest.get(..target.len()));
        target.copy_from_slice(part.ok_or_else(|| io(path, &io::ErrorKind::UnexpectedEof.into()))?);
        Ok(())
    }

    /// Errors when the file at `path` was written to or shortened since it was opened. Called before every tensor is read, since
    /// the numbers of another file would be taken for the model's. `path` is used only in the error. Bytes in memory cannot
    /// change.
    pub(crate) fn check_unchanged(&self, path: &Path) -> Result<(), ImportError> {
        let Bytes::Opened(file, stamp) = self else { return Ok(()) };
        let now = Stamp::of(&file.metadata().map_err(|e| io(path, &e))?);
        if now == *stamp {
            return Ok(());
        }
        let reason = match (now.0, stamp.0) {
            (now, then) if now != then => format!("had {then} bytes when it was opened and has {now} now"),
            _ => "was written to since it was opened".to_string(),
        };
        let reason = format!("{reason}: a model must be left alone while it is in use; start again");
        Err(ImportError::Io { path: path.to_owned(), reason })
    }
}

/// Fills `target` with the bytes of `file` from `offset` on, whatever others read of it at the same time. Errors when the file ends
/// before.
#[cfg(not(windows))]
fn read_at(file: &File, offset: u64, target: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, target, offset)
}

/// As on other systems. One read of this system may give fewer bytes than are there.
#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut target: &mut [u8]) -> io::Result<()> {
    while !target.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, target, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                target = &mut target[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads the whole file at `path`. Errors when it is longer than [`MAX_JSON`] or is not a regular file.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, ImportError> {
    let (file, length) = open_plain(path)?;
    let too_long = || ImportError::File {
        path: path.to_owned(),
        offset: MAX_JSON,
        reason: format!("{length} bytes, more than the {MAX_JSON} this kind of file may have"),
    };
    if length > MAX_JSON {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    // The file may have grown since its length was read, so reading stops one byte past the limit.
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(|e| io(path, &e))?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(too_long());
    }
    Ok(bytes)
}

/// Opens the file at `path` and returns it with its length. Errors unless it is a regular file. That is checked before
/// it is opened, because opening a named pipe waits until another process writes to it.
fn open_plain(path: &Path) -> Result<(File, u64), ImportError> {
    let metadata = fs::metadata(path).map_err(|e| io(path, &e))?;
    if !metadata.is_file() {
        return Err(ImportError::Io { path: path.to_owned(), reason: "not a plain file".into() });
    }
    let file = File::open(path).map_err(|e| io(path, &e))?;
    Ok((file, metadata.len()))
}

/// An [`ImportError::Io`] with the operating system's message about `path`.
pub(crate) fn io(path: &Path, error: &io::Error) -> ImportError {
    ImportError::Io { path: path.to_owned(), reason: error.to_string() }
}

/// Whether a path made by joining `name` to a folder is inside that folder, on every operating system. `a/b.json` is;
/// `/x`, `c:x`, `../x` and any name with a backslash are not. Names read from a model's files are checked with this.
pub(crate) fn stays_inside(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Whether `name` is the bare name of a file, without any folder in front: `a.json`, not `b/a.json`.
pub(crate) fn is_plain_name(name: &str) -> bool {
    stays_inside(name) && !name.contains('/')
}

/// Converts a serde_json error about `text` to the byte offset of the fault in `text` and a description of the fault.
pub(crate) fn json_problem(text: &[u8], error: &serde_json::Error) -> (usize, String) {
    let lines_before = error.line().saturating_sub(1);
    let line_start: usize = text.split_inclusive(|&b| b == b'\n').take(lines_before).map(<[u8]>::len).sum();
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let message = error.to_string();
    // serde_json ends its message with a line and a column. They are removed: callers report the byte offset instead.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let kind = if error.is_data() { "not as expected" } else { "not valid JSON" };
    (offset, format!("{kind}: {}", shortened(message, 200)))
}

/// [`json_problem`] as an [`ImportError::File`], where `text` is the whole file at `path`.
pub(crate) fn json_error(path: &Path, text: &[u8], error: &serde_json::Error) -> ImportError {
    let (offset, reason) = json_problem(text, error);
    ImportError::File { path: path.to_owned(), offset: offset as u64, reason }
}

/// The number literals that Python's json module writes and reads although they are not valid JSON.
pub(crate) const PYTHON_CONSTANTS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The key of the JSON object that replaces one of the [`PYTHON_CONSTANTS`]: `{"__float__": "Infinity"}`. transformers
/// 5 writes such numbers in the same way.
pub(crate) const FLOAT_TAG: &str = "__float__";

/// Parses the JSON `text` of the file `path`, and accepts `Infinity`, `-Infinity` and `NaN` as Python's json module
/// does. Each of them becomes an object with the key [`FLOAT_TAG`], which `Config` accepts neither as a number nor as
/// an object.
///
/// Errors when `text` is not valid JSON or does not match `T`.
pub(crate) fn python_json<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ImportError> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Syntax is checked with each constant replaced by a zero padded with spaces to the constant's length, so that the
    // byte offset in an error is also right in the original text.
    let plain = spelt(text, |constant| format!("{:<1$}", 0, constant.len()));
    if plain == text {
        return Err(json_error(path, text, &error));
    }
    serde_json::from_slice::<IgnoredAny>(&plain).map_err(|e| json_error(path, &plain, &e))?;
    let tagged = spelt(text, |constant| format!("{{\"{FLOAT_TAG}\": \"{constant}\"}}"));
    serde_json::from_slice(&tagged).map_err(|e| json_error(path, &tagged, &e))
}

/// Returns `text` with each of the [`PYTHON_CONSTANTS`] replaced by the result of `spell` for it. Constants inside JSON
/// strings are not replaced.
fn spelt(text: &[u8], spell: impl Fn(&str) -> String) -> Vec<u8> {
    let (mut spelt, mut rest, mut quoted) = (Vec::with_capacity(text.len()), text, false);
    while let Some(&byte) = rest.first() {
        let found = PYTHON_CONSTANTS.iter().find(|constant| !quoted && rest.starts_with(constant.as_bytes()));
        let step = match (byte, found) {
            (_, Some(constant)) => {
                spelt.extend(spell(constant).bytes());
                rest = &rest[constant.len()..];
                continue;
            }
            // A backslash is copied together with the next byte, so that an escaped quote does not end the string.
            (b'\\', None) if quoted => rest.len().min(2),
            (b'"', None) => {
                quoted = !quoted;
                1
            }
            _ => 1,
        };
        spelt.extend(&rest[..step]);
        rest = &rest[step..];
    }
    spelt
}

/// Returns the first `limit` characters of `text`, and `...` if there are more. Text from a file is shortened like this
/// before it goes into an error message, because a damaged or malicious file can hold a name of many megabytes.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_seen() {
        for name in ["", "..", "../x", "/x", "a/../../x", "a\\b", "c:x", "a\0b", "./x"] {
            assert!(!stays_inside(name) && !is_plain_name(name), "{name:?}");
        }
        assert!(stays_inside("1_Pooling/config.json") && !is_plain_name("1_Pooling/config.json"));
        assert!(!is_plain_name("x/"));
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", path("zeros.json")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe.json")).status().unwrap();
        assert!(made.success());
        for name in ["zeros.json", "pipe.json", "."] {
            let error = read_small(&path(name)).unwrap_err().to_string();
            assert!(error.ends_with("not a plain file"), "{name}: {error}");
            assert!(Bytes::open(&path(name)).is_err(), "{name}");
        }
        let long = File::create(path("long.json")).unwrap();
        long.set_len(MAX_JSON + 1).unwrap();
        assert!(read_small(&path("long.json")).unwrap_err().to_string().contains("67108865 bytes, more than"));
    }

    #[test]
    fn the_numbers_that_only_python_has_are_read() {
        let read = |text: &str| python_json::<serde_json::Value>(Path::new("c.json"), text.as_bytes());
        let value = read(r#"{"a": [0.0, Infinity], "b": -Infinity, "c": "NaN, \"Infinity", "d": NaN}"#).unwrap();
        assert_eq!(value["a"][1][FLOAT_TAG], "Infinity");
        assert_eq!(value["b"][FLOAT_TAG], "-Infinity");
        assert_eq!(value["c"], "NaN, \"Infinity");
        assert_eq!(value["d"][FLOAT_TAG], "NaN");
        for (text, byte) in [(r#"{"a": Infinity, "b": !}"#, 21), (r#"{"a": Infinite}"#, 6), (r#"{"a": NaNa}"#, 9)] {
            let error = read(text).unwrap_err();
            assert!(matches!(&error, ImportError::File { offset, .. } if *offset == byte), "{error}");
        }
    }

    #[test]
    fn json_problems_point_at_the_byte() {
        for (text, byte) in [("{\"a\": !}", 6), ("{\n\n \"a\": !}", 9), ("{\n\"a\":1\n!", 8)] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(json_problem(text.as_bytes(), &error).0, byte, "{text:?} {error}");
        }
    }
}
