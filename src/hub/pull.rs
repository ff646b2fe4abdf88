//! Fetches the files of a repository that fanfold reads into the cache, in the layout of Hugging Face's own tools.
//!
//! A file is fetched into `blobs/ETAG.incomplete`, where an interrupted fetch continues. It gets its final name once
//! it is complete and, if the hub names it by its SHA-256, verified; a snapshot links to it. Contents that the cache
//! already holds are hashed before they are trusted. The module deliberately talks to a hub only through `client.rs`.
//! Read [`super::Cache`] for how the files are found again.

use super::client::{Access, Client, FileInfo};
use super::{Cache, ModelId, is_commit, reads};
use crate::hub::HubError;

use crate::import::files::index::Index;
use crate::wait::{Progress, Wait};
use fd_lock::RwLock;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The file of unsharded weights, and the index of sharded ones.
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The number of bytes read at a time.
const BLOCK: usize = 1 << 16;

/// The progress of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Event {
    /// The files to fetch are known.
    Files {
        /// The number of files.
        count: usize,
        /// Their bytes, including those already in the cache.
        bytes: u64,
    },
    /// The number of bytes that the cache holds now.
    At(u64),
}

/// Fetches `id` into `cache` and returns the folder of its files.
///
/// Complete files are not fetched again, and interrupted ones continue. When `stop` becomes true the fetch ends soon.
/// Errors when the hub has no such model, cannot be reached or refuses; when the repository contains no safetensors;
/// when a file arrives damaged; and when the disk is full. After an error, too, every file under its final name is
/// complete.
pub fn pull(
    cache: &Cache,
    id: &ModelId,
    access: &Access,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Event),
) -> Result<PathBuf, HubError> {
    let client = Client::new(access, id)?;
    let info = client.info()?;
    let mut puller = Puller { cache, client, commit: &info.commit, stop, progress, done: 0 };
    let mut names: Vec<String> = info.files.iter().filter(|name| reads(name)).cloned().collect();
    if info.files.iter().any(|name| name == SINGLE) {
        names.push(SINGLE.to_string());
    } else if info.files.iter().any(|name| name == INDEX) {
        // The index comes first: it says which files are weights, and which only have similar names.
        let index = puller.client.head(&info.commit, INDEX)?;
        puller.fetch(&index)?;
        names.extend(puller.shards(&index)?);
    } else {
        let other = |name: &&String| {
            [".bin", ".gguf", ".pth", ".pt", ".onnx", ".safetensors"].iter().any(|e| name.ends_with(e))
        };
        return Err(HubError::NoWeights { id: id.to_string(), found: info.files.iter().find(other).cloned() });
    }
    let files: Vec<FileInfo> =
        names.iter().map(|name| puller.client.head(&info.commit, name)).collect::<Result<_, HubError>>()?;
    puller.done = 0;
    (puller.progress)(Event::Files { count: files.len(), bytes: files.iter().map(|file| file.size).sum() });
    for file in &files {
        puller.fetch(file)?;
    }
    // The reference is written last, so that a revision that can be found is complete.
    if !is_commit(id.revision()) {
        let reference = cache.reference(id);
        reference.parent().map_or(Ok(()), create_folder)?;
        replace(&reference, &info.commit, &cache.blobs(id))?;
    }
    Ok(cache.snapshot(id, &info.commit))
}

struct Puller<'a> {
    cache: &'a Cache,
    client: Client<'a>,
    commit: &'a str,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(Event),
    /// Bytes of the files before this one.
    done: u64,
}

impl Puller<'_> {
    /// The files of weights that the index in the cache names.
    fn shards(&self, index: &FileInfo) -> Result<Vec<String>, HubError> {
        let path = self.cache.snapshot(self.client.id, self.commit).join(&index.name);
        let text = fs::read(&path).map_err(|error| disk(&path, &error))?;
        let index = Index::parse(path, text)?;
        Ok(index.files().into_iter().map(str::to_string).collect())
    }

    /// Fetches `file` unless the cache already holds it.
    fn fetch(&mut self, file: &FileInfo) -> Result<(), HubError> {
        let blobs = self.cache.blobs(self.client.id);
        let blob = blobs.join(&file.etag);
        if !self.is_right(&blob, file)? {
            create_folder(&blobs)?;
            let mut lock = self.lock(file)?;
            // The process that holds the lock makes progress as long as its file grows.
            let (partial, progress) = (incomplete(&blob, file), Progress::default());
            let (mut wait, mut length) = (Wait::new(&progress, self.client.access.deadline), None);
            loop {
                match lock.try_write() {
                    // The process that held the lock may have fetched the file.
                    Ok(_guard) if self.is_right(&blob, file)? => break,
                    Ok(_guard) => {
                        self.download(file, &blob)?;
                        break;
                    }
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(disk(&blob, &error)),
                    Err(_) if wait.expired() => {
                        let reason = "another process is fetching it: wait until it is done".to_string();
                        return Err(HubError::Disk { path: blob, reason });
                    }
                    Err(_) => {
                        let now = fs::metadata(&partial).ok().map(|metadata| metadata.len());
                        if std::mem::replace(&mut length, now) != now {
                            progress.step();
                        }
                        self.sleep(wait.slice())?;
                    }
                }
            }
        }
        self.link(&blob, &self.cache.snapshot(self.client.id, self.commit), file)?;
        self.done += file.size;
        (self.progress)(Event::At(self.done));
        Ok(())
    }

    /// Whether `path` holds the complete contents of `file`, as far as its ETag can tell.
    ///
    /// Hugging Face names large files by their SHA-256 and others by git's SHA-1. Another hub may use 40 digits for
    /// something else; its small files are then fetched at every pull.
    fn is_right(&self, path: &Path, file: &FileInfo) -> Result<bool, HubError> {
        if !is_whole(path, file) {
            return Ok(false);
        }
        match file.etag.len() {
            64 if is_hex(&file.etag) => self.is_named(path, file, Sha256::new()),
            40 if is_hex(&file.etag) => {
                self.is_named(path, file, Sha1::new().chain_update(format!("blob {}\0", file.size)))
            }
            _ => Ok(true),
        }
    }

    /// Whether the hash of the contents at `path`, begun by `digest`, is the file's ETag.
    fn is_named<D: Digest>(&self, path: &Path, file: &FileInfo, mut digest: D) -> Result<bool, HubError> {
        let wrong = |error: io::Error| disk(path, &error);
        let mut contents = File::open(path).map_err(wrong)?;
        let mut block = vec![0; BLOCK];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            match contents.read(&mut block) {
                Ok(0) => return Ok(hex(&digest.finalize()) == file.etag.to_ascii_lowercase()),
                Ok(n) => digest.update(&block[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(wrong(error)),
            }
        }
    }

    /// Gives the contents `blob` the file's name in the snapshot. The contents of a commit's file never change.
    fn link(&self, blob: &Path, snapshot: &Path, file: &FileInfo) -> Result<(), HubError> {
        let pointer = snapshot.join(&file.name);
        // The name is a link to the contents, or a copy on systems that cannot make links.
        let points = || fs::canonicalize(&pointer).ok().is_some_and(|to| fs::canonicalize(blob).is_ok_and(|b| b == to));
        if points() || self.is_right(&pointer, file)? {
            return Ok(());
        }
        create_folder(pointer.parent().unwrap_or(snapshot))?;
        let removed = match fs::remove_file(&pointer) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        match removed.and_then(|()| point(&pointer, blob, file)) {
            // Another process has created it in the meantime.
            Err(_) if points() || self.is_right(&pointer, file)? => Ok(()),
            result => result.map_err(|error| disk(&pointer, &error)),
        }
    }

    /// Locks the contents, so that no other process fetches them.
    fn lock(&self, file: &FileInfo) -> Result<RwLock<File>, HubError> {
        let path = self.cache.lock(self.client.id, &file.etag);
        path.parent().map_or(Ok(()), create_folder)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        Ok(RwLock::new(file.map_err(|error| disk(&path, &error))?))
    }

    /// Fetches `file` and gives it its final name. A broken connection is opened again.
    fn download(&mut self, file: &FileInfo, blob: &Path) -> Result<(), HubError> {
        let path = incomplete(blob, file);
        let mut partial = Partial::open(path.clone(), file)?;
        let access = self.client.access;
        // How many connections in a row have delivered nothing.
        let mut failures = 0;
        loop {
            let before = partial.length;
            match self.stream(file, &mut partial) {
                Ok(()) => break,
                Err(error @ HubError::Network { .. }) => {
                    if partial.length > before {
                        failures = 0;
                    }
                    if failures >= access.retries {
                        return Err(error);
                    }
                    self.sleep(access.pause * 2u32.saturating_pow(failures.min(10)))?;
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let found = partial.finish()?;
        if file.etag.len() == 64 && is_hex(&file.etag) && found != file.etag.to_ascii_lowercase() {
            fs::remove_file(&path).map_err(|error| disk(&path, &error))?;
            let reason = format!("its SHA-256 is {found}, the hub says {}", file.etag);
            return Err(HubError::Damaged { file: file.name.clone(), reason });
        }
        fs::rename(&path, blob).map_err(|error| disk(blob, &error))
    }

    /// Appends the missing bytes, as many as one connection delivers.
    fn stream(&mut self, file: &FileInfo, partial: &mut Partial) -> Result<(), HubError> {
        if partial.length == file.size {
            return Ok(());
        }
        let (start, mut contents) = self.client.contents(self.commit, &file.name, partial.length)?;
        if start < partial.length {
            partial.restart()?;
        }
        let broken = |reason: String| HubError::Network { url: self.client.file_url(self.commit, &file.name), reason };
        let mut block = vec![0; BLOCK];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            let n = match contents.read(&mut block) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error.to_string())),
            };
            if partial.length + n as u64 > file.size {
                partial.restart()?;
                let reason = format!("it is longer than the {} bytes that the hub says", file.size);
                return Err(HubError::Damaged { file: file.name.clone(), reason });
            }
            partial.append(&block[..n])?;
            (self.progress)(Event::At(self.done + partial.length));
        }
        match partial.length == file.size {
            true => Ok(()),
            false => {
                let (got, size) = (partial.length, file.size);
                Err(broken(format!("the connection ended after {got} of {size} bytes of {}", file.name)))
            }
        }
    }

    fn sleep(&self, time: Duration) -> Result<(), HubError> {
        let started = Instant::now();
        while started.elapsed() < time {
            if self.stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(20).min(time));
        }
        Ok(())
    }
}

/// A file that is not complete yet.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    digest: Sha256,
}

impl Partial {
    /// Opens the file that an earlier attempt has left, or creates it.
    fn open(path: PathBuf, info: &FileInfo) -> Result<Partial, HubError> {
        let wrong = |error: io::Error| disk(&path, &error);
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(wrong)?;
        let length = file.metadata().map_err(wrong)?.len();
        let mut partial = Partial { file, length, digest: Sha256::new(), path };
        if length > info.size {
            // An earlier attempt left other contents.
            partial.restart()?;
            return Ok(partial);
        }
        let mut left = (&partial.file).take(length);
        let mut block = vec![0; BLOCK];
        loop {
            match left.read(&mut block) {
                Ok(0) => return Ok(partial),
                Ok(n) => partial.digest.update(&block[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(disk(&partial.path, &error)),
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|error| disk(&self.path, &error))?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(|error| disk(&self.path, &error))?;
        self.length = 0;
        self.digest = Sha256::new();
        Ok(())
    }

    /// Flushes the file to disk and returns its SHA-256.
    fn finish(self) -> Result<String, HubError> {
        self.file.sync_all().map_err(|error| disk(&self.path, &error))?;
        Ok(hex(&self.digest.finalize()))
    }
}

/// The path of the contents `blob` until they are complete.
fn incomplete(blob: &Path, file: &FileInfo) -> PathBuf {
    blob.with_file_name(format!("{}.incomplete", file.etag))
}

/// Writes `contents` to `path` so that a reader finds either the old contents or all of the new ones, even after a
/// crash.
///
/// The file is first written in `folder`, on the same disk: other tools take every file beside a reference for a
/// reference.
fn replace(path: &Path, contents: &str, folder: &Path) -> Result<(), HubError> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let own = (std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    let whole = folder.join(format!("{contents}.{}.{}.incomplete", own.0, own.1));
    let write = || -> io::Result<()> {
        let mut file = File::create(&whole)?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        fs::rename(&whole, path)
    };
    write().map_err(|error| {
        // A remaining temporary file does no harm.
        let _ = fs::remove_file(&whole);
        disk(path, &error)
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether all of `file` is at `path`.
fn is_whole(path: &Path, file: &FileInfo) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.size)
}

/// The link is relative, so that the cache can be moved.
#[cfg(unix)]
fn point(pointer: &Path, _blob: &Path, file: &FileInfo) -> io::Result<()> {
    // The path is models--O--N/snapshots/COMMIT/[folder/]name.
    let up = "../".repeat(2 + file.name.matches('/').count());
    std::os::unix::fs::symlink(format!("{up}blobs/{}", file.etag), pointer)
}

/// Some systems do not allow every user to create symbolic links.
#[cfg(not(unix))]
fn point(pointer: &Path, blob: &Path, _file: &FileInfo) -> io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(drop))
}

fn create_folder(path: &Path) -> Result<(), HubError> {
    fs::create_dir_all(path).map_err(|error| disk(path, &error))
}

/// The system's error at `path`.
fn disk(path: &Path, error: &io::Error) -> HubError {
    let reason = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("{error}. Make room, or name another cache; what was fetched is kept")
        }
        _ => error.to_string(),
    };
    HubError::Disk { path: path.to_owned(), reason }
}
