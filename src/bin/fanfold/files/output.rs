//! Files that a command writes its results to.
//!
//! A file that cannot be written is refused before anything is computed. A regular file is replaced in one step, when the new
//! one is complete on disk, so that a command that fails leaves the old one. Anything else, such as a device or a named pipe,
//! is written to and stays what it is. Nothing here knows a command. Read [`OutputFile`].

use crate::usage::usage;
use anyhow::{Context, Result};
use fanfold::tensor::Tensor;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that can be written, and is not written yet.
pub struct OutputFile {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    /// A regular file, which may not exist yet. Symbolic links in its path are resolved.
    Regular(PathBuf),
    /// A device, a named pipe or the like, opened for writing.
    Stream(File),
}

impl OutputFile {
    /// Makes sure that `path` can be written; `-` is standard output.
    ///
    /// # Errors
    /// With exit code 2 when `path` is a folder, when its folder does not exist, or when the system does not allow writing.
    pub fn open(path: &Path) -> Result<OutputFile> {
        let kind = kind(path).map_err(|reason| usage(format!("{}: cannot be written: {reason}", path.display())))?;
        Ok(OutputFile { path: path.to_owned(), kind })
    }

    /// Writes `parts`, one after the other.
    pub fn write(self, parts: &[&[u8]]) -> Result<()> {
        let written = match self.kind {
            Kind::Regular(target) => replace(&target, parts),
            Kind::Stream(file) => write_all(file, parts),
        };
        written.with_context(|| self.path.display().to_string())
    }

    /// Writes one f32 tensor in the safetensors format.
    pub fn write_tensor(self, name: &str, tensor: &Tensor) -> Result<()> {
        self.write(&[&header(name, tensor.shape(), tensor.bytes().len()), tensor.bytes()])
    }
}

/// The header of a safetensors file of one f32 tensor: the length of its description in JSON, and the description.
fn header(name: &str, shape: &[usize], bytes: usize) -> Vec<u8> {
    let name = serde_json::Value::from(name);
    let shape = serde_json::Value::from(shape);
    let mut text = format!(r#"{{{name}:{{"dtype":"F32","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
    // The format asks for data that begins at a multiple of 8 bytes.
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// Opens `path` to learn what it is. The error is the reason why it cannot be written.
fn kind(path: &Path) -> Result<Kind, String> {
    let path = if path == Path::new("-") { Path::new("/dev/stdout") } else { path };
    let open = || OpenOptions::new().write(true).open(path).map_err(|e| e.to_string());
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err("it is a folder".to_string()),
        // A path such as /dev/stdout may lead to a regular file that another program has open: it must not be replaced.
        Ok(_) if path.starts_with("/dev") || path.starts_with("/proc") => open().map(Kind::Stream),
        Ok(found) if !found.is_file() => open().map(Kind::Stream),
        Ok(_) => {
            open()?;
            regular(fs::canonicalize(path).map_err(|e| e.to_string())?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err("it is a symbolic link to what does not exist".to_string());
            }
            regular(path.to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A regular file at `target`, once it is known that a temporary file can be created beside it.
fn regular(target: PathBuf) -> Result<Kind, String> {
    if target.file_name().is_none() {
        return Err("it names no file".to_string());
    }
    let folder = folder(&target);
    if !folder.is_dir() {
        return Err(format!("there is no folder {}", folder.display()));
    }
    let (_, temporary) = temporary(&target).map_err(|e| format!("in the folder {}: {e}", folder.display()))?;
    fs::remove_file(temporary).map_err(|e| e.to_string())?;
    Ok(Kind::Regular(target))
}

fn folder(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Creates a temporary file beside `target`, on the same file system, so that it can be renamed to `target`.
fn temporary(target: &Path) -> io::Result<(File, PathBuf)> {
    let path = folder(target).join(format!(".fanfold-{}.tmp", std::process::id()));
    Ok((OpenOptions::new().write(true).create_new(true).open(&path)?, path))
}

/// Writes a temporary file and renames it to `target` when it is complete.
fn replace(target: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let (file, path) = temporary(target)?;
    let written = fs::metadata(target)
        .map_or(Ok(()), |old| file.set_permissions(old.permissions()))
        .and_then(|()| write_all(&file, parts))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&path, target));
    if written.is_err() {
        // If removing the file fails as well, the first error is the one to report.
        let _ = fs::remove_file(&path);
    }
    written
}

fn write_all(mut file: impl Write, parts: &[&[u8]]) -> io::Result<()> {
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    #[test]
    fn a_tensor_is_written_as_the_safetensors_crate_writes_it() {
        for (name, shape) in [("logits", vec![3, 5]), ("a \"name\"\n", vec![1]), ("é", vec![0, 7])] {
            let n = shape.iter().product::<usize>();
            let tensor = Tensor::f32(shape.clone(), (0..n).map(|i| i as f32).collect()).unwrap();
            let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), tensor.bytes()).unwrap();
            let theirs = safetensors::serialize([(name, view)], None).unwrap();
            assert_eq!([&header(name, &shape, n * 4), tensor.bytes()].concat(), theirs, "{name}");
        }
    }

    #[test]
    fn a_file_is_replaced_when_it_is_complete_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let names = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let output = OutputFile::open(&path).unwrap();
        // Opening alone leaves no empty file behind, in case the computation fails.
        assert!(names().is_empty());
        output.write(&[b"one", b"two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"onetwo");
        let output = OutputFile::open(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"onetwo");
        output.write(&[b"3"]).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"3".to_vec(), vec!["out".into()]));
        let refused = |path: &Path, says: &str| {
            let error = OutputFile::open(path).map(|_| ()).unwrap_err();
            assert!(error.is::<crate::usage::Usage>() && error.to_string().contains(says), "{error}");
        };
        refused(dir.path(), "is a folder");
        refused(&dir.path().join("no/such/folder/out"), "there is no folder");
        refused(&path.join("below"), "out");
        refused(Path::new(""), "names no file");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_a_link_and_a_pipe_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        OutputFile::open(Path::new("/dev/null")).unwrap().write(&[b"gone"]).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let dir = tempfile::tempdir().unwrap();
        let (file, link, dangling) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("dangling"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        OutputFile::open(&link).unwrap().write(&[b"new"]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        symlink(dir.path().join("nothing"), &dangling).unwrap();
        assert!(OutputFile::open(&dangling).is_err());
        // A named pipe.
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        OutputFile::open(&pipe).unwrap().write(&[b"through"]).unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
}
