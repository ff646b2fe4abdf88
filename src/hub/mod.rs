//! Models by the name of their repository, `OWNER/NAME`, and the cache where Hugging Face's tools keep their files.
//!
//! Finding a model in the cache needs only paths: no network and no feature. The module deliberately reads no
//! environment, so that the caller says where the cache is, and knows nothing of the contents of a model's files. Read
//! `pull.rs` next for how files get into the cache, with the feature `hub`.

#[cfg(feature = "hub")]
mod client;
mod error;
#[cfg(feature = "hub")]
mod pull;

#[cfg(feature = "hub")]
pub use client::{Access, Proxy};
pub use error::HubError;
#[cfg(feature = "hub")]
pub use pull::{Event, pull};

use crate::import::files::sentence::TRANSFORMER_SETTINGS;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The hub that is used unless another is named.
#[doc(hidden)]
pub const ENDPOINT: &str = "https://huggingface.co";

/// The revision that is used unless another is named.
const MAIN: &str = "main";

/// The files of a repository that fanfold reads, beside its weights and [`TRANSFORMER_SETTINGS`]. A test compares the
/// list with the code that reads them.
const FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/default.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
];

/// Whether fanfold reads the file `name` of a model's folder. Weights are not considered.
#[doc(hidden)]
pub fn reads(name: &str) -> bool {
    // modules.json may name any subfolder for its pooling.
    let listed = FILES.contains(&name) || TRANSFORMER_SETTINGS.contains(&name);
    listed || name.strip_suffix("/config.json").is_some_and(is_plain)
}

/// Whether `name` is a single component of a path on every system, and not a hidden file.
fn is_plain(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(letter)
}

/// The name of a model's repository and one of its revisions: `OWNER/NAME` or `OWNER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    owner: String,
    name: String,
    revision: Option<String>,
}

impl ModelId {
    /// The branch, tag or commit.
    #[doc(hidden)]
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// `OWNER/NAME`.
    #[doc(hidden)]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl FromStr for ModelId {
    type Err = HubError;

    /// Errors when `text` cannot be a name on a hub. No name that is accepted leads out of the cache.
    fn from_str(text: &str) -> Result<ModelId, HubError> {
        let wrong = |reason| HubError::Name { name: text.chars().take(200).collect(), reason };
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/').ok_or_else(|| wrong("is not of the form OWNER/NAME"))?;
        let part = |part: &str| {
            let edge = |c: char| c == '.' || c == '-';
            let whole = part.len() <= 96 && !part.starts_with(edge) && !part.ends_with(edge);
            is_plain(part) && whole && !part.contains("--") && !part.contains("..")
        };
        if !part(owner) || !part(name) {
            let reason = "is not of the form OWNER/NAME, each of letters, digits, `-`, `_` and `.`";
            return Err(wrong(reason));
        }
        if revision.is_some_and(|r| r.len() > 200 || !r.split('/').all(is_plain)) {
            return Err(wrong("names no branch, tag or commit after the @"));
        }
        Ok(ModelId { owner: owner.into(), name: name.into(), revision: revision.map(Into::into) })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// Whether `revision` is a commit, whose files never change.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The cache of Hugging Face's tools: a folder with a subfolder for each model.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The cache's path.
    #[doc(hidden)]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the revision's files. Errors when the cache does not contain it; the error says how to fetch it.
    pub fn find(&self, id: &ModelId) -> Result<PathBuf, HubError> {
        let missing = || HubError::NotCached { id: id.to_string(), cache: self.root.clone() };
        let commit = if is_commit(id.revision()) {
            id.revision().to_string()
        } else {
            // A commit has 40 letters; a longer text is not one.
            let mut text = String::new();
            let file = std::fs::File::open(self.reference(id)).map_err(|_| missing())?;
            file.take(64).read_to_string(&mut text).map_err(|_| missing())?;
            text.trim().to_string()
        };
        let snapshot = self.snapshot(id, &commit);
        if is_commit(&commit) && snapshot.is_dir() { Ok(snapshot) } else { Err(missing()) }
    }

    fn folder_name(id: &ModelId) -> String {
        format!("models--{}--{}", id.owner, id.name)
    }

    /// The file that records which commit a branch or tag was when it was last fetched.
    fn reference(&self, id: &ModelId) -> PathBuf {
        self.root.join(Cache::folder_name(id)).join("refs").join(id.revision())
    }

    /// The folder of a commit's files.
    fn snapshot(&self, id: &ModelId, commit: &str) -> PathBuf {
        self.root.join(Cache::folder_name(id)).join("snapshots").join(commit)
    }

    /// The folder of the contents of files, which are named by their ETags.
    #[cfg(feature = "hub")]
    fn blobs(&self, id: &ModelId) -> PathBuf {
        self.root.join(Cache::folder_name(id)).join("blobs")
    }

    /// The file that is locked while the contents named `etag` are fetched. Hugging Face's tools lock the same file.
    #[cfg(feature = "hub")]
    fn lock(&self, id: &ModelId, etag: &str) -> PathBuf {
        self.root.join(".locks").join(Cache::folder_name(id)).join(format!("{etag}.lock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["owner/name", "Qwen/Qwen3-0.6B", "a/b@v1.0", "a_b/c.d@refs/pr/1"] {
            assert_eq!(text.parse::<ModelId>().unwrap().to_string(), text);
        }
        assert_eq!("a/b".parse::<ModelId>().unwrap().revision(), "main");
        assert_eq!("a/b@v1".parse::<ModelId>().unwrap().repository(), "a/b");
    }

    #[test]
    fn no_name_leads_out_of_the_cache() {
        let hostile = [
            "",
            "a",
            "/",
            "a/",
            "/a",
            "../a",
            "a/..",
            "a/b/c",
            "./a",
            "a/.",
            "a/b@",
            "a/b@..",
            "a/b@../x",
            "a/b@/x",
            "a/b@x/",
            "a/b@x//y",
            "a/b@x/../y",
            "a\\b/c",
            "C:/x",
            "a/b c",
            "a--b/c",
            "a/b@c d",
            "a/\u{e9}",
            "a/b@x\n",
        ];
        for text in hostile {
            assert!(matches!(text.parse::<ModelId>(), Err(HubError::Name { .. })), "{text:?}");
        }
        assert!(format!("a/{}", "b".repeat(97)).parse::<ModelId>().is_err());
    }

    #[test]
    fn the_cache_is_read_without_a_network() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let id: ModelId = "owner/name".parse().unwrap();
        let missing = |id: &ModelId| match cache.find(id) {
            Err(error @ HubError::NotCached { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(missing(&id).contains("owner/name is not in the cache"));
        let folder = dir.path().join("models--owner--name");
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
        missing(&id);
        let snapshot = folder.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(cache.find(&id).unwrap(), snapshot);
        assert_eq!(cache.find(&format!("owner/name@{COMMIT}").parse().unwrap()).unwrap(), snapshot);
        missing(&"owner/name@other".parse().unwrap());
        for hostile in ["../..", "", "main", &"a".repeat(4096)] {
            std::fs::write(folder.join("refs/main"), hostile).unwrap();
            missing(&id);
        }
    }

    /// Every file that the importers and the tokenizer name is fetched. The test takes string literals that look like
    /// file names as such names.
    #[test]
    fn what_is_read_is_fetched() {
        fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap().lines();
                    // Comments name files too, and included files are part of the program.
                    let read = |line: &&str| !line.trim_start().starts_with("//") && !line.contains("include_str!");
                    for line in code.filter(read) {
                        let literals = line.split('"').skip(1).step_by(2);
                        let named = literals.filter(|l| l.ends_with(".json") || l.ends_with(".jinja"));
                        let plain = named.filter(|l| l.split('/').all(is_plain));
                        found.extend(plain.map(|name| (path.clone(), name.to_string())));
                    }
                }
            }
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        ["import", "text"].iter().for_each(|room| walk(&source.join(room), &mut found));
        assert!(found.len() >= 10, "the walk finds nothing: {found:?}");
        for (path, name) in found.into_iter().filter(|(_, name)| name != "model.safetensors.index.json") {
            assert!(reads(&name), "{} reads {name}, which a pull does not fetch", path.display());
        }
        assert!(reads("1_Pooling/config.json"));
        for name in ["a/b/config.json", "../config.json", "/config.json", "C:/config.json", "pytorch_model.bin"] {
            assert!(!reads(name), "{name}");
        }
    }
}
