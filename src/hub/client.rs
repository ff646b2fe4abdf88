//! What is asked of a hub: a repository's files at a revision, what each is, and its contents from a byte on.
//!
//! It deliberately knows no cache and writes no file. Every wait has a deadline, every answer kept in memory a limit.
//! Read [`super::pull`] next for what is done with the answers.

use super::{ModelId, is_commit};
use crate::hub::HubError;

use serde::Deserialize;
use std::io::Read;
use std::time::Duration;
pub use ureq::Proxy;
use ureq::http::{HeaderMap, Method, Response, StatusCode, header};
use ureq::{Agent, Body};

/// The longest description of a repository that is read: a few bytes per file, and no repository has a million.
const MAX_INFO: u64 = 64 << 20;

/// How often a hub may send on to elsewhere.
const MAX_REDIRECTS: usize = 10;

/// Names the contents of a file that lies elsewhere.
const LINKED_ETAG: &str = "x-linked-etag";

/// How a hub is reached.
#[derive(Clone)]
#[doc(hidden)]
pub struct Access {
    /// The hub: `https://..`, or `http://..` on a network of one's own.
    pub endpoint: String,
    /// What proves who asks, for models that are not for everyone.
    pub token: Option<String>,
    /// The way out of the network.
    pub proxy: Option<Proxy>,
    /// No wait is longer.
    pub deadline: Duration,
    /// How often a broken connection is made anew without a byte gained in between.
    pub retries: u32,
    /// The pause before it is made anew the first time; it doubles from time to time.
    pub pause: Duration,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            endpoint: super::ENDPOINT.to_string(),
            token: None,
            proxy: None,
            deadline: Duration::from_secs(30),
            retries: 3,
            pause: Duration::from_millis(500),
        }
    }
}

/// A repository at one commit.
pub(super) struct Info {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says a file is.
#[derive(Clone, Debug)]
pub(super) struct FileInfo {
    pub(super) name: String,
    /// Names the contents: their SHA-256 where they are large.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// A hub, and one model on it.
pub(super) struct Client<'a> {
    agent: Agent,
    pub(super) access: &'a Access,
    pub(super) id: &'a ModelId,
}

impl<'a> Client<'a> {
    pub(super) fn new(access: &'a Access, id: &'a ModelId) -> Result<Client<'a>, HubError> {
        let endpoint = &access.endpoint;
        if !["https://", "http://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            let reason = "is no address of a hub: it begins with neither https:// nor http://".to_string();
            return Err(HubError::Answer { url: endpoint.clone(), reason });
        }
        let deadline = Some(access.deadline);
        let config = Agent::config_builder()
            // Not the environment's, which is the caller's to read.
            .proxy(access.proxy.clone())
            .user_agent(concat!("fanfold/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Followed by hand in `ask`: who is sent on is told apart there.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(deadline)
            .timeout_connect(deadline)
            .timeout_per_read(deadline)
            .timeout_per_write(deadline)
            .build();
        Ok(Client { agent: config.new_agent(), access, id })
    }

    /// The repository at the revision asked for.
    pub(super) fn info(&self) -> Result<Info, HubError> {
        #[derive(Deserialize)]
        struct Raw {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = encoded(self.id.revision()).replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint(), self.id.repository());
        let (url, mut response) = self.ask(Method::GET, url, 0)?;
        self.check(&url, response.status(), response.headers(), None)?;
        let answer = |reason: String| HubError::Answer { url: url.clone(), reason };
        let bytes = response.body_mut().with_config().limit(MAX_INFO).read_to_vec();
        let bytes = bytes.map_err(|error| network(&url, &error))?;
        let raw: Raw = serde_json::from_slice(&bytes)
            .map_err(|error| answer(format!("does not answer as a hub does: {error}")))?;
        if !is_commit(&raw.sha) {
            return Err(answer(format!("{:?} is no commit", raw.sha.chars().take(60).collect::<String>())));
        }
        Ok(Info { commit: raw.sha, files: raw.siblings.into_iter().map(|s| s.rfilename).collect() })
    }

    /// What the file `name` is at `commit`.
    pub(super) fn head(&self, commit: &str, name: &str) -> Result<FileInfo, HubError> {
        let (url, response) = self.ask(Method::HEAD, self.file_url(commit, name), 0)?;
        let (status, headers) = (response.status(), response.headers());
        if !status.is_redirection() {
            self.check(&url, status, headers, Some(name))?;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let answer = |reason: &str| HubError::Answer { url: url.clone(), reason: reason.to_string() };
        let etag = text(LINKED_ETAG).or(text("etag"));
        let etag = etag.ok_or_else(|| answer("does not say which contents it has (no ETag)"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(plain) {
            return Err(answer("names its contents in a way that is no name (ETag)"));
        }
        // The length of an answer that sends on is its own, not the file's.
        let own = text("content-length").filter(|_| status.is_success());
        let size = text("x-linked-size").or(own).and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| answer("does not say how long it is"))?;
        Ok(FileInfo { name: name.to_string(), etag: etag.to_string(), size })
    }

    /// The contents of the file `name` at `commit`, and the byte they start at: `from`, or 0 where the hub knows no
    /// other.
    pub(super) fn contents(&self, commit: &str, name: &str, from: u64) -> Result<(u64, impl Read + use<>), HubError> {
        let (url, response) = self.ask(Method::GET, self.file_url(commit, name), from)?;
        self.check(&url, response.status(), response.headers(), Some(name))?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let start = range.and_then(|r| r.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                let reason = || format!("asked for the bytes from {from} on, it gives {}", range.unwrap_or("others"));
                start.filter(|start| *start == from).ok_or_else(|| HubError::Answer { url, reason: reason() })?
            }
            _ => 0,
        };
        Ok((start, response.into_body().into_reader()))
    }

    /// Where the file `name` of `commit` is asked for.
    pub(super) fn file_url(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint(), self.id.repository(), encoded(name))
    }

    fn endpoint(&self) -> &str {
        self.access.endpoint.trim_end_matches('/')
    }

    /// The answer of `url`, or of where it sends on to, and which of them it was.
    ///
    /// A HEAD ends at the answer that names the contents, though that sends on to where they lie. Weights lie elsewhere,
    /// and those who keep them are not to see the token.
    fn ask(&self, method: Method, mut url: String, from: u64) -> Result<(String, Response<Body>), HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::HEAD => self.agent.head(&url),
                _ => self.agent.get(&url),
            };
            // Compressed, a file would have another length than it has.
            request = request.header(header::ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            if let Some(token) = self.token(&url) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| network(&url, &error))?;
            let named = method == Method::HEAD && response.headers().contains_key(LINKED_ETAG);
            if !response.status().is_redirection() || named {
                return Ok((url, response));
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            url = self.location(&url, location)?;
        }
        Err(HubError::Answer { url, reason: "sends on to elsewhere without end".to_string() })
    }

    /// The token, where `url` is the hub's: no other host is to see it, wherever the hub sends on to.
    fn token(&self, url: &str) -> Option<&str> {
        let own = url.strip_prefix(self.endpoint()).is_some_and(|path| path.starts_with('/'));
        self.access.token.as_deref().filter(|_| own)
    }

    /// The address that `url` sends on to.
    ///
    /// From https it may not lead to http: whoever is in between could then read what is fetched, and change what no
    /// SHA-256 is known of.
    fn location(&self, url: &str, location: Option<&str>) -> Result<String, HubError> {
        let answer = |reason: &str| HubError::Answer { url: url.to_string(), reason: reason.to_string() };
        let location = location.ok_or_else(|| answer("sends on to nowhere"))?;
        // The scheme of an address may be written in any case.
        let is =
            |address: &str, scheme: &str| address.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
        if is(location, "http://") && is(url, "https://") {
            let elsewhere: String = location.chars().take(200).collect();
            let reason = format!("sends on from https to http, where anyone may listen: {elsewhere} is not asked");
            return Err(answer(&reason));
        }
        if is(location, "https://") || is(location, "http://") {
            return Ok(location.to_string());
        }
        let host = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        match location.starts_with('/') && !location.starts_with("//") {
            true => Ok(host + location),
            false => Err(answer("sends on to an address that cannot be read")),
        }
    }

    /// The error that an answer's status and headers are, if any.
    fn check(&self, url: &str, status: StatusCode, headers: &HeaderMap, file: Option<&str>) -> Result<(), HubError> {
        let id = self.id.to_string();
        let code = headers.get("x-error-code").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = self.access.token.is_some();
        let not_found = |what: String| HubError::NotFound { endpoint: self.endpoint().to_string(), what };
        let denied = |reason: &str| HubError::Denied { id: id.clone(), reason: reason.to_string() };
        Err(match (status.as_u16(), code) {
            (200..=299, _) => return Ok(()),
            (401 | 403, "GatedRepo") if known => {
                denied("is gated, and the token is not of someone who has been let in: ask for access on its page")
            }
            (401 | 403, "GatedRepo") => denied("is gated: ask for access on its page, and give a token of yours"),
            // A hub does not tell strangers which private models there are.
            (401, _) if known => denied("does not exist, or the token does not open it"),
            (401, _) => denied("does not exist, or is private: check its spelling, or give a token of yours"),
            (403, _) => denied("is not for the one whose token this is"),
            (404, "RevisionNotFound") => {
                not_found(format!("revision {:?} of {}", self.id.revision(), self.id.repository()))
            }
            (404, _) => match file {
                Some(file) => not_found(format!("file {file} of {id}")),
                None => not_found(format!("model {id}")),
            },
            (429, _) => HubError::Answer { url: url.into(), reason: "too many requests: wait a while".into() },
            (500..=599, _) => HubError::Network { url: url.into(), reason: format!("the hub fails ({status})") },
            _ => HubError::Answer { url: url.into(), reason: format!("unexpected answer {status}") },
        })
    }
}

/// What went wrong on the way.
fn network(url: &str, error: &ureq::Error) -> HubError {
    HubError::Network { url: url.to_string(), reason: error.to_string() }
}

/// A path as it stands in an address.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(endpoint: &str) -> Access {
        Access { endpoint: endpoint.to_string(), token: Some("hf_secret".to_string()), ..Access::default() }
    }

    #[test]
    fn https_is_never_left_for_http() {
        let (access, id) = (access("https://hub.example"), "owner/name".parse().unwrap());
        let client = Client::new(&access, &id).unwrap();
        for location in ["http://hub.example/a", "HTTP://hub.example/a", "http://store.example/a"] {
            for url in ["https://hub.example/b", "HTTPS://hub.example/b"] {
                let said = client.location(url, Some(location)).unwrap_err().to_string();
                assert!(said.contains("from https to http"), "{said}");
            }
        }
        let goes = |url: &str, location: &str| client.location(url, Some(location)).unwrap();
        assert_eq!(goes("https://hub.example/b", "https://store.example/a"), "https://store.example/a");
        assert_eq!(goes("https://hub.example/b", "/a"), "https://hub.example/a");
        assert_eq!(goes("http://hub.example/b", "https://hub.example/a"), "https://hub.example/a");
        // On a network of one's own.
        assert_eq!(goes("http://hub.example/b", "http://store.example/a"), "http://store.example/a");
        for location in ["//elsewhere/a", "ftp://elsewhere", "a", "", "\u{e9}"] {
            assert!(client.location("https://hub.example/b", Some(location)).is_err(), "{location}");
        }
    }

    #[test]
    fn the_token_is_for_the_hub_alone() {
        let id = "owner/name".parse().unwrap();
        for endpoint in ["https://hub.example", "https://hub.example/"] {
            let access = access(endpoint);
            let client = Client::new(&access, &id).unwrap();
            assert_eq!(client.token("https://hub.example/api/models/x"), Some("hf_secret"));
            for other in [
                "https://store.example/api",
                "http://hub.example/api",
                "https://hub.example.evil/api",
                "https://hub.example:8080/api",
                "https://hub.example@evil/api",
                "https://hub.example\\@evil/api",
                "https://hub.example",
            ] {
                assert_eq!(client.token(other), None, "{other}");
            }
        }
    }
}
