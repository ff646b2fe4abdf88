//! Models fetched by name from a simulated hub on loopback, and found again without it.
//!
//! The simulated hub answers in the order and with the headers that Hugging Face's own tools expect. It can break
//! connections, send wrong contents and refuse. No other host is ever contacted.
#![cfg(feature = "hub")]

mod common;

use assert_cmd::Command;
use common::fixture;
use fanfold::Model;
use fanfold::hub::HubError;
use fanfold::hub::{Access, Cache, Event, ModelId, pull};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";
const SILENCE: Duration = Duration::from_secs(10);

/// The behaviour of a simulated hub, and the requests that it received.
#[derive(Default)]
struct Behaviour {
    files: BTreeMap<String, Vec<u8>>,
    /// The token that a request must have.
    token: Option<String>,
    /// Answers to all requests that begin with a path: path, status, headers, body.
    fixed: Vec<(String, u16, String, String)>,
    /// The number of bytes of contents that the next connections send before they break. The last number applies to
    /// all later ones.
    breaks: Vec<usize>,
    /// The hub stops sending instead of breaking the connection.
    stalls: bool,
    /// The hub sends a file from its start, whatever range is requested.
    no_ranges: bool,
    /// Contents are sent with this byte changed.
    flipped: Option<usize>,
    /// Contents are sent with this appended.
    appended: Vec<u8>,
    asked: Vec<String>,
}

/// A hub on loopback, and the other host on which it stores large files.
struct Hub {
    behaviour: Arc<Mutex<Behaviour>>,
    ends: Arc<AtomicBool>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Hub {
    fn with(files: BTreeMap<String, Vec<u8>>) -> Hub {
        let behaviour = Arc::new(Mutex::new(Behaviour { files, ..Behaviour::default() }));
        let ends = Arc::new(AtomicBool::new(false));
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, store] = [0, 1].map(|i| listeners[i].local_addr().unwrap());
        let serve = |(listener, is_store): (TcpListener, bool)| {
            let (behaviour, ends) = (behaviour.clone(), ends.clone());
            listener.set_nonblocking(true).unwrap();
            std::thread::spawn(move || {
                let started = Instant::now();
                while !ends.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(300) {
                    let Ok((stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let (behaviour, ends) = (behaviour.clone(), ends.clone());
                    std::thread::spawn(move || answer(stream, &behaviour, &ends, is_store, store));
                }
            })
        };
        let threads = listeners.into_iter().zip([false, true]).map(serve).collect();
        Hub { behaviour, ends, address, threads }
    }

    /// The fixture, and in addition files that fanfold does not read.
    fn new() -> Hub {
        let mut files = BTreeMap::new();
        for name in ["config.json", "generation_config.json", "tokenizer.json", WEIGHTS] {
            files.insert(name.to_string(), fs::read(fixture("llama-uneven").join(name)).unwrap());
        }
        for name in ["pytorch_model.bin", "README.md", "onnx/model.onnx", "model.fp16.safetensors", "a.gguf"] {
            files.insert(name.to_string(), b"not this".to_vec());
        }
        Hub::with(files)
    }

    fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The requests received since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.behaviour.lock().unwrap().asked)
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn access(&self) -> Access {
        let (deadline, pause) = (Duration::from_secs(20), Duration::from_millis(1));
        Access { endpoint: self.endpoint(), deadline, pause, retries: 0, ..Access::default() }
    }

    fn pull(&self, cache: &TempDir) -> Result<PathBuf, HubError> {
        self.pull_as(cache, "owner/name", &self.access())
    }

    fn pull_as(&self, cache: &TempDir, id: &str, access: &Access) -> Result<PathBuf, HubError> {
        pull(&Cache::new(cache.path()), &id.parse().unwrap(), access, &AtomicBool::new(false), &mut |_| ())
    }

    /// The program, configured for this hub and a cache.
    fn program(&self, cache: &TempDir, args: &[&str]) -> Command {
        program(&self.endpoint(), cache, args)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn program(endpoint: &str, home: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("fanfold").unwrap();
    let inherited = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"];
    inherited
        .iter()
        .chain(&["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"])
        .for_each(|name| {
            command.env_remove(name);
        });
    command.env("HF_HOME", home.path()).env("HF_ENDPOINT", endpoint).timeout(Duration::from_secs(120)).args(args);
    command
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// git's hash of these contents, by which a hub names small files.
fn git_name(bytes: &[u8]) -> String {
    use sha1::Sha1;
    let digest = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Large files: another host stores them under their SHA-256.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// Answers one request and closes the connection.
fn answer(stream: TcpStream, behaviour: &Mutex<Behaviour>, ends: &AtomicBool, is_store: bool, store: SocketAddr) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream.set_write_timeout(Some(SILENCE)).unwrap();
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let header =
        |name: &str| headers.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_string));
    let [method, path] = [0, 1].map(|i| request.split(' ').nth(i).unwrap_or_default().to_string());
    let mut behaviour = behaviour.lock().unwrap();
    let who = if header("authorization: ").is_some() { " with a token" } else { "" };
    let place = if is_store { "store " } else { "" };
    let range = header("range: bytes=").map(|range| format!(" from {}", range.trim_end_matches('-')));
    behaviour.asked.push(format!("{place}{method} {path}{}{who}", range.clone().unwrap_or_default()));
    let send = |status: u16, headers: &str, body: &[u8]| {
        let length = if headers.contains("content-length") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!("HTTP/1.1 {status} -\r\n{length}{headers}connection: close\r\n\r\n");
        // The client may have disconnected.
        let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body));
    };
    if let Some((_, status, headers, body)) = behaviour.fixed.iter().find(|(start, ..)| path.starts_with(start)) {
        return send(*status, headers, if method == "HEAD" { b"" } else { body.as_bytes() });
    }
    let known =
        behaviour.token.as_ref().is_none_or(|token| header("authorization: ") == Some(format!("bearer {token}")));
    if !known && !is_store {
        return send(401, "x-error-code: GatedRepo\r\n", b"");
    }
    if let Some(revision) = path.strip_prefix("/api/models/owner/name/revision/") {
        if !["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            return send(404, "x-error-code: RevisionNotFound\r\n", b"");
        }
        let siblings: Vec<_> = behaviour.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let info = serde_json::json!({"id": "owner/name", "sha": COMMIT, "siblings": siblings});
        return send(200, "content-type: application/json\r\n", info.to_string().as_bytes());
    }
    let resolve = format!("/owner/name/resolve/{COMMIT}/");
    let Some(name) = path.strip_prefix(&resolve).or(path.strip_prefix("/store/")) else {
        return send(404, "x-error-code: RepoNotFound\r\n", b"");
    };
    let Some(whole) = behaviour.files.get(name).cloned() else {
        return send(404, "x-error-code: EntryNotFound\r\n", b"");
    };
    let size = whole.len();
    if is_large(name) && !is_store {
        let etag = hex(&whole);
        let headers = format!(
            "location: http://{store}/store/{name}\r\nx-linked-etag: \"{etag}\"\r\nx-linked-size: {size}\r\nx-repo-commit: {COMMIT}\r\n"
        );
        return send(302, &headers, if method == "HEAD" { b"" } else { b"see there" });
    }
    let etag = format!("etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n", git_name(&whole));
    if method == "HEAD" {
        return send(200, &format!("content-length: {size}\r\n{etag}"), b"");
    }
    let mut body = whole;
    if let Some(at) = behaviour.flipped.filter(|at| *at < size) {
        body[at] ^= 1;
    }
    body.extend_from_slice(&behaviour.appended);
    let from = header("range: bytes=").and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0usize);
    let from = if behaviour.no_ranges { 0 } else { from };
    let (status, mut head) =
        if from == 0 { (200, etag) } else { (206, format!("content-range: bytes {from}-{}/{size}\r\n", size - 1)) };
    let part = &body[from..];
    head += &format!("content-length: {}\r\n", part.len());
    let limit = match behaviour.breaks.len() {
        _ if !is_store => usize::MAX,
        0 => usize::MAX,
        1 => behaviour.breaks[0],
        _ => behaviour.breaks.remove(0),
    };
    let stalls = behaviour.stalls;
    drop(behaviour);
    send(status, &head, &part[..part.len().min(limit)]);
    let started = Instant::now();
    while stalls && limit < part.len() && !ends.load(Ordering::Relaxed) && started.elapsed() < SILENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn repository(cache: &Path) -> PathBuf {
    cache.join("models--owner--name")
}

/// The path of the only incomplete file.
fn incomplete(cache: &Path) -> PathBuf {
    repository(cache)
        .join("blobs")
        .join(format!("{}.incomplete", hex(&fs::read(fixture("llama-uneven").join(WEIGHTS)).unwrap())))
}

#[track_caller]
fn is_the_fixture(folder: &Path) {
    for name in ["config.json", "generation_config.json", "tokenizer.json", WEIGHTS] {
        assert_eq!(
            fs::read(folder.join(name)).unwrap(),
            fs::read(fixture("llama-uneven").join(name)).unwrap(),
            "{name}"
        );
    }
    Model::open(folder).unwrap();
}

#[track_caller]
fn refused(result: Result<PathBuf, HubError>) -> HubError {
    result.unwrap_err()
}

#[test]
fn what_is_read_is_fetched_once_and_found_again() {
    let (hub, cache) = (Hub::new(), folder());
    let mut events = Vec::new();
    let id: ModelId = "owner/name".parse().unwrap();
    let known = Access { token: Some("hf_secret".into()), ..hub.access() };
    hub.change(|b| b.token = Some("hf_secret".into()));
    let found =
        pull(&Cache::new(cache.path()), &id, &known, &AtomicBool::new(false), &mut |event| events.push(event)).unwrap();
    assert_eq!(found, repository(cache.path()).join("snapshots").join(COMMIT));
    is_the_fixture(&found);
    assert_eq!(fs::read_dir(&found).unwrap().count(), 4, "nothing else was fetched");
    let total: u64 = fs::read_dir(&found).unwrap().map(|e| fs::metadata(e.unwrap().path()).unwrap().len()).sum();
    assert_eq!(events[0], Event::Files { count: 4, bytes: total });
    assert_eq!(events.last(), Some(&Event::At(total)));
    let asked = hub.asked();
    assert!(asked.contains(&format!("store GET /store/{WEIGHTS}")), "{asked:?}");
    // The token is for the hub and not for the store.
    assert!(asked.iter().all(|line| line.starts_with("store ") != line.ends_with(" with a token")), "{asked:?}");
    #[cfg(unix)]
    {
        let link = fs::read_link(found.join(WEIGHTS)).unwrap();
        assert!(link.starts_with("../../blobs"), "{link:?}");
    }
    assert_eq!(Cache::new(cache.path()).find(&id).unwrap(), found);
    assert_eq!(hub.pull_as(&cache, "owner/name", &known).unwrap(), found);
    let again = hub.asked();
    assert!(again.iter().all(|line| !line.contains("GET") || line.contains("/api/")), "{again:?}");
}

/// A blob of the right name and length with other contents, as a failing disk or another program may leave it.
#[test]
fn what_is_wrong_in_the_cache_is_found_and_fetched_anew() {
    let (hub, cache) = (Hub::new(), folder());
    let found = hub.pull(&cache).unwrap();
    let blobs = repository(cache.path()).join("blobs");
    for name in [WEIGHTS, "config.json", "tokenizer.json"] {
        let right = fs::read(found.join(name)).unwrap();
        let blob = blobs.join(if is_large(name) { hex(&right) } else { git_name(&right) });
        assert!(blob.is_file(), "{name}");
        let mut flipped = right.clone();
        flipped[right.len() / 2] ^= 1;
        for wrong in [flipped, right[..right.len() - 1].to_vec(), vec![]] {
            fs::write(&blob, wrong).unwrap();
            hub.asked();
            is_the_fixture(&hub.pull(&cache).unwrap());
            let asked = hub.asked();
            let fetched =
                |line: &&String| line.contains("GET") && !line.contains("/api/") && !line.starts_with("store");
            assert_eq!(asked.iter().filter(fetched).count(), 1, "{asked:?}");
        }
        // A copy in the place of a link is checked, too.
        let mut wrong = right.clone();
        wrong[0] ^= 1;
        fs::remove_file(found.join(name)).unwrap();
        fs::write(found.join(name), wrong).unwrap();
        is_the_fixture(&hub.pull(&cache).unwrap());
    }
    hub.asked();
    hub.pull(&cache).unwrap();
    let asked = hub.asked();
    assert!(asked.iter().all(|line| !line.contains("GET") || line.contains("/api/")), "{asked:?}");
}

/// A reference is replaced as a whole and never written into: a concurrent reader sees the old one or the new one.
#[test]
fn a_reference_is_replaced_as_a_whole() {
    let (hub, cache) = (Hub::new(), folder());
    let reference = repository(cache.path()).join("refs/main");
    let old = cache.path().join("as a reader has it open");
    fs::create_dir_all(reference.parent().unwrap()).unwrap();
    fs::write(&reference, "f".repeat(40)).unwrap();
    fs::hard_link(&reference, &old).unwrap();
    hub.pull(&cache).unwrap();
    assert_eq!(fs::read_to_string(&reference).unwrap(), COMMIT);
    assert_eq!(fs::read_to_string(&old).unwrap(), "f".repeat(40), "it was written into");
    assert_eq!(fs::read_dir(reference.parent().unwrap()).unwrap().count(), 1, "something is left beside it");
    let left = fs::read_dir(repository(cache.path()).join("blobs")).unwrap();
    assert_eq!(left.filter(|blob| blob.as_ref().unwrap().path().extension().is_some()).count(), 0);
    // A folder where the reference should be gives an error, and nothing is left behind.
    fs::remove_file(&reference).unwrap();
    fs::create_dir_all(reference.join("in the way")).unwrap();
    assert!(matches!(refused(hub.pull(&cache)), HubError::Disk { .. }));
    assert_eq!(fs::read_dir(repository(cache.path()).join("blobs")).unwrap().count(), 4);
}

#[test]
fn branches_tags_and_commits() {
    let (hub, cache) = (Hub::new(), folder());
    for revision in ["v1", "refs/pr/1", COMMIT] {
        let id = format!("owner/name@{revision}");
        let found = hub.pull_as(&cache, &id, &hub.access()).unwrap();
        assert_eq!(Cache::new(cache.path()).find(&id.parse().unwrap()).unwrap(), found);
    }
    // Only the revision that was asked for is stored under its name.
    assert!(Cache::new(cache.path()).find(&"owner/name".parse().unwrap()).is_err());
    let error = refused(hub.pull_as(&cache, "owner/name@v2", &hub.access()));
    assert!(matches!(&error, HubError::NotFound { what, .. } if what.contains("\"v2\" of owner/name")), "{error:?}");
}

#[test]
fn what_was_interrupted_goes_on_where_it_stopped() {
    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.breaks = vec![10_000]);
    let error = refused(hub.pull(&cache));
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert_eq!(fs::metadata(incomplete(cache.path())).unwrap().len(), 10_000);
    assert!(Cache::new(cache.path()).find(&"owner/name".parse().unwrap()).is_err(), "half a model is not found");
    hub.asked();
    hub.change(|b| b.breaks.clear());
    is_the_fixture(&hub.pull(&cache).unwrap());
    let asked = hub.asked();
    assert!(asked.contains(&format!("store GET /store/{WEIGHTS} from 10000")), "{asked:?}");
    assert!(!incomplete(cache.path()).exists());
}

#[test]
fn a_connection_that_breaks_is_made_anew() {
    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.breaks = vec![5_000, 1, 7_000, 0, 0, usize::MAX]);
    let access = Access { retries: 3, ..hub.access() };
    is_the_fixture(&hub.pull_as(&cache, "owner/name", &access).unwrap());
    let asked = hub.asked();
    let from = |n: usize| asked.iter().filter(|line| line.ends_with(&format!("from {n}"))).count();
    // The answers of the hub and of the store.
    assert_eq!([from(5_000), from(5_001), from(12_001)], [2, 2, 6], "{asked:?}");

    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.breaks = vec![5_000, 0]);
    let error = refused(hub.pull_as(&cache, "owner/name", &Access { retries: 2, ..hub.access() }));
    assert!(error.to_string().contains("fetching the model again goes on"), "{error}");
}

#[test]
fn a_hub_that_knows_no_ranges_is_asked_from_the_start() {
    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| (b.breaks, b.no_ranges) = (vec![10_000, usize::MAX], true));
    assert!(hub.pull(&cache).is_err());
    is_the_fixture(&hub.pull(&cache).unwrap());
}

#[test]
fn what_arrives_damaged_is_deleted_and_fetched_anew() {
    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.flipped = Some(20_000));
    // Only weights are long enough to contain the changed byte, and only they are named by their SHA-256.
    let error = refused(hub.pull(&cache));
    assert!(
        matches!(&error, HubError::Damaged { file, reason } if file == WEIGHTS && reason.contains("SHA-256")),
        "{error:?}"
    );
    assert!(!incomplete(cache.path()).exists());
    hub.change(|b| (b.flipped, b.breaks) = (None, vec![10_000, usize::MAX]));
    assert!(matches!(refused(hub.pull(&cache)), HubError::Network { .. }));
    // The file was damaged on disk since.
    fs::write(incomplete(cache.path()), vec![0; 10_000]).unwrap();
    assert!(matches!(refused(hub.pull(&cache)), HubError::Damaged { .. }));
    // A partial file that is longer than the file itself belongs to other contents.
    fs::write(incomplete(cache.path()), vec![0; 10_000_000]).unwrap();
    is_the_fixture(&hub.pull(&cache).unwrap());

    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.appended = vec![0; 3]);
    let error = refused(hub.pull(&cache));
    assert!(matches!(&error, HubError::Damaged { reason, .. } if reason.contains("longer")), "{error:?}");
}

#[test]
fn a_sharded_model_and_its_pooling() {
    let whole = fs::read(fixture("bert").join(WEIGHTS)).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let tensors: Vec<_> = whole.iter().collect();
    let mut files = BTreeMap::new();
    let mut map = serde_json::Map::new();
    for (n, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let name = format!("model-{:05}-of-00002.safetensors", n + 1);
        part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.to_string(), name.clone().into())));
        files.insert(name, safetensors::serialize(part.iter().map(|(name, view)| (name, view)), None).unwrap());
    }
    for name in ["config.json", "tokenizer.json"] {
        files.insert(name.to_string(), fs::read(fixture("bert").join(name)).unwrap());
    }
    let modules = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]"#;
    files.insert("modules.json".into(), modules.into());
    files.insert("1_Pooling/config.json".into(), r#"{"pooling_mode_cls_token": true}"#.into());
    files.insert("model.safetensors.index.json".into(), serde_json::json!({"weight_map": map}).to_string().into());
    files.insert("consolidated.safetensors".into(), b"twice the same".to_vec());
    let (hub, cache) = (Hub::with(files), folder());
    let found = hub.pull(&cache).unwrap();
    assert_eq!(Model::open(&found).unwrap().info().pooling, fanfold::model::Pooling::Cls);
    assert!(!found.join("consolidated.safetensors").exists() && found.join("1_Pooling/config.json").is_file());

    // An index that names files which do not exist, or which are outside the folder.
    for name in ["gone.safetensors", "../../x.safetensors"] {
        let index = serde_json::json!({"weight_map": {"a": name}}).to_string();
        hub.change(|b| drop(b.files.insert("model.safetensors.index.json".into(), index.into())));
        assert!(hub.pull(&folder()).is_err(), "{name}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, cache) = (Hub::new(), folder());
    let says = |fixed: Option<(&str, u16, &str, &str)>, token: Option<&str>, words: &[&str]| {
        let fixed = fixed.map(|(path, status, headers, body)| (path.into(), status, headers.into(), body.into()));
        hub.change(|b| b.fixed = fixed.into_iter().collect());
        let access = Access { token: token.map(Into::into), ..hub.access() };
        let error = refused(hub.pull_as(&cache, "owner/name", &access));
        let said = error.to_string();
        words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
        assert!(!said.contains("hf_wrong"), "{said}");
        error
    };
    let info = "/api/models/";
    let gated = "x-error-code: GatedRepo\r\n";
    says(Some((info, 401, "", "")), None, &["owner/name", "does not exist, or is private", "token of yours"]);
    says(Some((info, 401, "", "")), Some("hf_wrong"), &["the token does not open it"]);
    says(Some((info, 403, gated, "")), None, &["is gated", "token of yours"]);
    says(Some((info, 403, gated, "")), Some("hf_wrong"), &["is gated", "ask for access"]);
    says(Some((info, 404, "x-error-code: RepoNotFound\r\n", "")), None, &["has no model owner/name"]);
    says(Some((info, 429, "", "")), None, &["too many requests"]);
    let error = says(Some((info, 503, "", "")), None, &["the hub fails (503"]);
    assert!(matches!(error, HubError::Network { .. }));
    says(Some((info, 200, "", "<html>a captive portal</html>")), None, &["does not answer as a hub does"]);
    says(Some((info, 200, "", r#"{"sha": "../../..", "siblings": []}"#)), None, &["is no commit"]);
    let listed = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "pytorch_model.bin"}}]}}"#);
    says(Some((info, 200, "", &listed)), None, &["no weights that fanfold reads", "pytorch_model.bin"]);
    let file = "/owner/name/resolve/";
    says(Some((file, 401, gated, "")), None, &["is gated"]);
    says(Some((file, 404, "x-error-code: EntryNotFound\r\n", "")), None, &["has no file"]);
    says(Some((file, 200, "", "")), None, &["ETag"]);
    for etag in ["../../../etc/passwd", "", "a/b", "..", &"a".repeat(200)] {
        says(Some((file, 200, &format!("etag: \"{etag}\"\r\n"), "")), None, &["ETag"]);
    }
    let round = format!("location: {}/owner/name/resolve/again\r\n", hub.endpoint());
    says(Some((file, 302, &round, "")), None, &["without end"]);
    says(Some((file, 302, "location: /owner/name/resolve/again\r\n", "")), None, &["without end"]);
    says(Some((file, 302, "", "")), None, &["sends on to nowhere"]);
    says(Some((file, 302, "location: ftp://elsewhere\r\n", "")), None, &["cannot be read"]);
    assert!(Cache::new(cache.path()).find(&"owner/name".parse().unwrap()).is_err());
}

#[test]
fn no_network_is_told_within_the_deadline() {
    let cache = folder();
    // The port is bound and released, so nothing listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (hub, started) = (Hub::new(), Instant::now());
    let closed = Access { endpoint: format!("http://{address}"), ..hub.access() };
    let error = refused(hub.pull_as(&cache, "owner/name", &closed));
    assert!(matches!(&error, HubError::Network { .. }) && error.to_string().contains("network?"), "{error:?}");
    // The hub stops sending in the middle of the weights.
    hub.change(|b| (b.breaks, b.stalls) = (vec![1_000], true));
    let impatient = Access { deadline: Duration::from_millis(300), ..hub.access() };
    let error = refused(hub.pull_as(&cache, "owner/name", &impatient));
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let error = refused(hub.pull_as(&cache, "owner/name", &Access { endpoint: "file:///etc".into(), ..hub.access() }));
    assert!(error.to_string().contains("https://"), "{error}");
}

#[test]
fn a_person_who_says_stop_is_heard() {
    let (hub, cache) = (Hub::new(), folder());
    hub.change(|b| b.breaks = vec![1_000, 0]);
    let (stop, access) = (AtomicBool::new(false), Access { retries: 9, pause: Duration::from_secs(9), ..hub.access() });
    let id = "owner/name".parse().unwrap();
    let started = Instant::now();
    // In the pause after the connection broke.
    let error = refused(pull(&Cache::new(cache.path()), &id, &access, &stop, &mut |_| {
        if incomplete(cache.path()).exists() {
            stop.store(true, Ordering::Relaxed);
        }
    }));
    assert!(matches!(error, HubError::Stopped), "{error:?}");
    // The same before the next read.
    let error = refused(pull(&Cache::new(cache.path()), &id, &access, &stop, &mut |_| ()));
    assert!(matches!(error, HubError::Stopped), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    hub.change(|b| b.breaks.clear());
    is_the_fixture(&hub.pull(&cache).unwrap());
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let (hub, cache) = (Hub::new(), folder());
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| hub.pull(&cache).unwrap())).collect();
        pulls.into_iter().for_each(|pull| is_the_fixture(&pull.join().unwrap()));
    });
    let asked = hub.asked();
    assert_eq!(asked.iter().filter(|line| line.starts_with("store GET")).count(), 1, "{asked:?}");
}

/// The device /dev/full, which is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let (hub, cache) = (Hub::new(), folder());
    let path = incomplete(cache.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let error = refused(hub.pull(&cache));
    assert!(matches!(&error, HubError::Disk { .. }) && error.to_string().contains("Make room"), "{error:?}");
    fs::write(cache.path().join("file"), "").unwrap();
    let no_folder = Cache::new(cache.path().join("file"));
    let id = "owner/name".parse().unwrap();
    let error = refused(pull(&no_folder, &id, &hub.access(), &AtomicBool::new(false), &mut |_| ()));
    assert!(matches!(error, HubError::Disk { .. }), "{error:?}");
}

const RUN: [&str; 9] = ["run", "owner/name", "-p", "ROMEO: But soft", "-n", "2", "--temp", "0", "--ignore-eos"];
const HOST: [&str; 2] = ["--devices", "host"];

#[test]
fn the_program_pulls_and_then_runs_without_a_network() {
    let (hub, home) = (Hub::new(), folder());
    hub.change(|b| b.token = Some("hf_mine".into()));
    let said = |command: &mut Command, code: i32| {
        let output = command.assert().code(code).get_output().clone();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let run = [RUN.as_slice(), &HOST].concat();
    let (_, before) = said(&mut hub.program(&home, &run), 3);
    assert!(before.contains("no such folder") && before.contains("fanfold pull owner/name"), "{before}");
    let (_, denied) = said(&mut hub.program(&home, &["pull", "owner/name"]), 1);
    assert!(denied.contains("gated"), "{denied}");
    // The token as a login stores it.
    fs::write(home.path().join("token"), "hf_mine\n").unwrap();
    let (offline, _) = said(hub.program(&home, &["pull", "owner/name"]).env("HF_HUB_OFFLINE", "1"), 2);
    assert_eq!(offline, "");
    let (path, _) = said(&mut hub.program(&home, &["pull", "owner/name"]), 0);
    is_the_fixture(Path::new(path.trim_end()));
    assert!(path.starts_with(home.path().join("hub").to_str().unwrap()), "{path}");
    let endpoint = hub.endpoint();
    drop(hub);
    let (out, _) = said(&mut program(&endpoint, &home, &run), 0);
    assert!(!out.is_empty());
    let (_, gone) = said(&mut program(&endpoint, &home, &["pull", "owner/name", "--timeout", "5"]), 1);
    assert!(gone.contains("network?"), "{gone}");
    // A folder of that name takes precedence.
    fs::create_dir_all(home.path().join("owner/name")).unwrap();
    let (_, near) = said(program(&endpoint, &home, &run).current_dir(home.path()), 3);
    assert!(near.contains("is empty"), "{near}");
    for name in ["name", "a/b/c", "owner/../x", "owner/name@", ""] {
        let (_, wrong) = said(&mut program(&endpoint, &home, &["pull", name]), 2);
        assert!(wrong.contains("OWNER/NAME"), "{wrong}");
    }
}

#[test]
fn a_program_that_was_killed_goes_on_the_next_time() {
    let (hub, home) = (Hub::new(), folder());
    hub.change(|b| (b.breaks, b.stalls) = (vec![30_000], true));
    let binary = assert_cmd::cargo::cargo_bin!("fanfold");
    let mut command = std::process::Command::new(binary);
    command.args(["pull", "owner/name"]).env("HF_HOME", home.path()).env("HF_ENDPOINT", hub.endpoint());
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    let mut child = command.spawn().unwrap();
    let partial = incomplete(&home.path().join("hub"));
    let started = Instant::now();
    while fs::metadata(&partial).map_or(0, |m| m.len()) < 30_000 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    hub.change(|b| b.breaks.clear());
    hub.asked();
    hub.program(&home, &["pull", "owner/name"]).assert().success();
    let asked = hub.asked();
    assert!(asked.contains(&format!("store GET /store/{WEIGHTS} from 30000")), "{asked:?}");
}

/// Ctrl-C stops a fetch cleanly, and the exit code says so.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_interrupted_says_so_and_goes_on_the_next_time() {
    let (hub, home) = (Hub::new(), folder());
    hub.change(|b| (b.breaks, b.stalls) = (vec![30_000], true));
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("fanfold"));
    command.args(["pull", "owner/name", "--timeout", "1"]);
    command.env("HF_HOME", home.path()).env("HF_ENDPOINT", hub.endpoint()).stderr(std::process::Stdio::piped());
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    let child = command.spawn().unwrap();
    let partial = incomplete(&home.path().join("hub"));
    let started = Instant::now();
    while fs::metadata(&partial).map_or(0, |m| m.len()) < 30_000 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped; what was fetched is kept"), "{said}");
    hub.change(|b| b.breaks.clear());
    hub.program(&home, &["pull", "owner/name"]).assert().success();
}
