//! Parses and validates the header of a safetensors file: 8 bytes with the header's length, a JSON header, then the
//! elements of all tensors.
//!
//! This module deliberately knows nothing of folders, indexes or models, and copies no element. It does not use the
//! format's own crate: that silently keeps one of two tensors with the same name, and its errors name neither the
//! tensor nor the byte at fault. Read [`crate::import::Folder`] next for how the files of a model are opened.

use crate::import::ImportError;
use crate::import::files::bytes::{Bytes, json_problem, shortened};
use crate::shape::display_shape;
use crate::tensor::DType;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The element types that weights may have, as the format spells them and messages list them.
pub const SUPPORTED: &str = "F32, F16, BF16";

/// The longest header that is accepted, in bytes. This is the format's own limit.
pub const MAX_HEADER: u64 = 100_000_000;

/// The number of bytes at the start of a file that hold the header's length.
const PREFIX: usize = 8;

/// One tensor of a file. Its byte range is inside the file and, if its type is one that the format defines, has the
/// length that its shape and type imply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The tensor's name, unique in its file.
    pub name: String,
    /// The element type as the file spells it, such as `BF16`. It may be a type that is not supported, such as `F64`.
    pub file_type: String,
    /// The dimensions, outermost first. Their product does not overflow a `usize`, even if zeros are counted as ones.
    pub shape: Vec<usize>,
    /// The byte range of the tensor's elements, counted from the start of the file.
    pub range: Range<usize>,
}

impl Entry {
    /// The element type, or `None` if it is not one of [`SUPPORTED`]. A file may hold tensors of such a type, for
    /// example integer buffers; only using one as a weight is an error.
    pub fn dtype(&self) -> Option<DType> {
        match self.file_type.as_str() {
            "F32" => Some(DType::F32),
            "F16" => Some(DType::F16),
            "BF16" => Some(DType::BF16),
            _ => None,
        }
    }

    /// An [`ImportError::Tensor`] about this tensor in the file `path`, with the byte offset of its elements.
    pub(crate) fn error(&self, path: &Path, reason: impl Into<String>) -> ImportError {
        tensor_error(path, &self.name, self.range.start, reason.into())
    }
}

/// A safetensors file whose header has been validated.
#[derive(Debug)]
pub(crate) struct File {
    /// The path that error messages name.
    pub(crate) path: PathBuf,
    /// The bytes of the whole file, header included.
    pub(crate) bytes: Bytes,
    /// The file's tensors, in the order in which their elements are stored.
    pub(crate) entries: Vec<Entry>,
}

impl File {
    /// Opens the file at `path` and validates its header. Errors as [`parse`], and when the file cannot be opened.
    pub(crate) fn open(path: PathBuf) -> Result<File, ImportError> {
        let bytes = Bytes::open(&path)?;
        File::from_bytes(path, bytes)
    }

    /// Validates the header of the file whose bytes are `bytes`. Errors as [`parse`].
    pub(crate) fn from_bytes(path: PathBuf, bytes: Bytes) -> Result<File, ImportError> {
        let entries = entries(&path, bytes.len(), |offset, target| bytes.read(&path, offset, target))?;
        Ok(File { path, bytes, entries })
    }
}

/// The tensors of the file whose bytes are `bytes`, in the order in which their elements are stored. `path` is the file
/// that error messages name.
///
/// Errors with [`ImportError::File`] or [`ImportError::Tensor`] when the header is not valid, when two tensors have the
/// same name, when a tensor's byte range is not as long as its shape and type say, and when a byte after the header
/// belongs to no tensor or to two.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>, ImportError> {
    entries(path, bytes.len() as u64, |offset, target| {
        target.copy_from_slice(&bytes[offset..][..target.len()]);
        Ok(())
    })
}

/// As [`parse`], for a file of `length` bytes of which `read` fills its second argument with those from an offset on. Reads the
/// header only.
fn entries(
    path: &Path,
    length: u64,
    read: impl Fn(usize, &mut [u8]) -> Result<(), ImportError>,
) -> Result<Vec<Entry>, ImportError> {
    let file = usize::try_from(length).map_err(|_| {
        let reason = format!("{length} bytes are more than this system can address");
        ImportError::File { path: path.to_owned(), offset: 0, reason }
    })?;
    let header = header(path, file, read)?;
    let data = PREFIX + header.len();
    let raw = raw_entries(path, &header)?;
    let mut names = HashSet::with_capacity(raw.len());
    for (name, entry) in &raw {
        if !names.insert(name.as_str()) {
            let at = entry.data_offsets.0.saturating_add(data as u64);
            let reason = "the header names it twice".into();
            return Err(ImportError::Tensor { path: path.to_owned(), tensor: display_name(name), offset: at, reason });
        }
    }
    drop(names);
    let mut entries = raw
        .into_iter()
        .map(|(name, raw)| checked(path, file, data, name, raw))
        .collect::<Result<Vec<_>, ImportError>>()?;
    entries.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
    check_tiling(path, file, data, &entries)?;
    Ok(entries)
}

/// The bytes of the JSON header of a file of `file` bytes. Errors when the file is too short for the length that it states for its
/// header, or when that length is above [`MAX_HEADER`].
fn header(
    path: &Path,
    file: usize,
    read: impl Fn(usize, &mut [u8]) -> Result<(), ImportError>,
) -> Result<Vec<u8>, ImportError> {
    let error = |offset: usize, reason: String| -> ImportError {
        ImportError::File { path: path.to_owned(), offset: offset as u64, reason }
    };
    if file == 0 {
        return Err(error(0, "the file is empty".into()));
    }
    let mut start = [0; 64];
    let start = &mut start[..file.min(64)];
    read(0, start)?;
    // A repository that was cloned without Git LFS has a short text file in place of the weights. Without this check
    // its first 8 characters would be taken for a header length of about 2 * 10^18 bytes.
    if start.starts_with(b"version ") && start.windows(7).any(|w| w == b"git-lfs") {
        return Err(error(0, "this is a Git LFS pointer, not the weights: run `git lfs pull` in the folder".into()));
    }
    let Some((prefix, _)) = start.split_first_chunk::<PREFIX>() else {
        return Err(error(
            file,
            format!("the file is truncated: it ends within the {PREFIX} bytes of the header's length"),
        ));
    };
    let (length, rest) = (u64::from_le_bytes(*prefix), file - PREFIX);
    if length > MAX_HEADER {
        return Err(error(0, format!("a header length of {length} is absurd: at most {MAX_HEADER} bytes are read")));
    }
    if length > rest as u64 {
        let reason = format!("the file is truncated: its header should have {length} bytes, {rest} are there");
        return Err(error(file, reason));
    }
    // At most MAX_HEADER bytes, all of which the file has.
    let mut header = vec![0; length as usize];
    read(PREFIX, &mut header)?;
    Ok(header)
}

/// A tensor as the header states it, unchecked. `data_offsets` are the begin and end of its bytes, counted from the end
/// of the header.
#[derive(Deserialize)]
struct Raw {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A serde visitor that collects the header's entries in file order. A name that appears twice is kept twice, where a
/// map would silently keep one entry.
struct Collect<'a> {
    entries: &'a mut Vec<(String, Raw)>,
    /// The name of the tensor that is being parsed. After an error it is still set, so that the error can name it.
    current: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let name = self.current.insert(name).clone();
            self.entries.push((name, map.next_value()?));
            *self.current = None;
        }
        Ok(())
    }
}

fn raw_entries(path: &Path, header: &[u8]) -> Result<Vec<(String, Raw)>, ImportError> {
    let (mut entries, mut current) = (Vec::new(), None);
    let mut json = serde_json::Deserializer::from_slice(header);
    let read = Collect { entries: &mut entries, current: &mut current }.deserialize(&mut json);
    match read.and_then(|()| json.end()) {
        Ok(()) => Ok(entries),
        Err(problem) => {
            let (at, reason) = json_problem(header, &problem);
            let (path, offset, reason) = (path.to_owned(), (PREFIX + at) as u64, format!("the header is {reason}"));
            Err(match current {
                Some(name) => ImportError::Tensor { path, tensor: display_name(&name), offset, reason },
                None => ImportError::File { path, offset, reason },
            })
        }
    }
}

/// Checks that one tensor's byte range is inside the file and has the length that its shape and type imply. `file` is
/// the length of the file, `data` the offset of the first byte after the header.
fn checked(path: &Path, file: usize, data: usize, name: String, raw: Raw) -> Result<Entry, ImportError> {
    let (begin, end) = raw.data_offsets;
    let absolute = |offset: u64| usize::try_from(offset).ok().and_then(|offset| offset.checked_add(data));
    let fail = |reason: String| {
        Err(ImportError::Tensor {
            path: path.to_owned(),
            tensor: display_name(&name),
            offset: begin.saturating_add(data as u64),
            reason,
        })
    };
    if begin > end {
        return fail(format!("its data ends before it begins: data_offsets [{begin}, {end}]"));
    }
    let range = match (absolute(begin), absolute(end)) {
        (Some(start), Some(stop)) if stop <= file => start..stop,
        _ => {
            let reason = format!(
                "data_offsets [{begin}, {end}] leave the file, which has {} bytes of data: is it truncated?",
                file - data
            );
            return fail(reason);
        }
    };
    // The product with zeros counted as ones is checked too: it bounds the strides, which then cannot overflow either.
    let bounded = raw.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    let numel = if raw.shape.contains(&0) { bounded.map(|_| 0) } else { bounded };
    let bits = bits(&raw.dtype);
    let Some(needed) = numel.and_then(|n| n.checked_mul(bits.unwrap_or(8))) else {
        return fail(format!("the product of its shape {} overflows", shortened(&display_shape(&raw.shape), 80)));
    };
    if bits.is_some() && (needed % 8 != 0 || needed / 8 != range.len()) {
        return fail(format!(
            "shape {} of {} takes {} bytes, its data_offsets [{begin}, {end}] hold {}",
            shortened(&display_shape(&raw.shape), 80),
            raw.dtype,
            needed.div_ceil(8),
            range.len()
        ));
    }
    Ok(Entry { name, file_type: raw.dtype, shape: raw.shape, range })
}

/// Checks that every byte after the header belongs to exactly one tensor, as the format requires. `entries` are sorted
/// by byte range; `file` and `data` are as in [`checked`].
fn check_tiling(path: &Path, file: usize, data: usize, entries: &[Entry]) -> Result<(), ImportError> {
    let mut reached = data;
    let mut previous: Option<&Entry> = None;
    for entry in entries {
        if entry.range.start < reached {
            let other = previous.map_or_else(String::new, |p| format!(" {:?}", display_name(&p.name)));
            return Err(entry.error(path, format!("its data overlaps that of tensor{other}")));
        }
        if entry.range.start > reached {
            let gap = entry.range.start - reached;
            return Err(entry.error(path, format!("the {gap} bytes before its data belong to no tensor")));
        }
        reached = entry.range.end;
        previous = Some(entry);
    }
    if reached != file {
        let reason = format!("the last {} bytes belong to no tensor", file - reached);
        return Err(ImportError::File { path: path.to_owned(), offset: reached as u64, reason });
    }
    Ok(())
}

/// The number of bits of one element. `None` for an unknown type; the length of such a tensor is not checked.
fn bits(file_type: &str) -> Option<usize> {
    Some(match file_type {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

fn tensor_error(path: &Path, name: &str, offset: usize, reason: String) -> ImportError {
    ImportError::Tensor { path: path.to_owned(), tensor: display_name(name), offset: offset as u64, reason }
}

/// A tensor name shortened for a message, because a damaged header may contain a name of up to 100 MB.
pub(super) fn display_name(name: &str) -> String {
    shortened(name, 200)
}
