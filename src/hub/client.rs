//! The requests to a hub: a repository's files at a revision, the facts about each file, and its contents from some
//! byte on.
//!
//! It deliberately knows no cache and writes no file. Every wait has a deadline, and every answer kept in memory a
//! limit.
//! Read [`super::pull`] next for how the answers are used.

use super::{ModelId, is_commit};
use crate::hub::HubError;

use serde::Deserialize;
use std::io::Read;
use std::time::Duration;
pub use ureq::Proxy;
use ureq::http::{HeaderMap, Method, Response, StatusCode, header};
use ureq::{Agent, Body};

/// The most bytes of a repository's description. It has a few bytes per file, and no repository has a million files.
const MAX_INFO: u64 = 64 << 20;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// The header that names the contents of a file to which the hub redirects.
const LINKED_ETAG: &str = "x-linked-etag";

/// How a hub is reached.
#[derive(Clone)]
#[doc(hidden)]
pub struct Access {
    /// The hub's address: `https://..`, or `http://..` in a private network.
    pub endpoint: String,
    /// The token that identifies the user, for models with restricted access.
    pub token: Option<String>,
    /// The proxy through which the network is reached.
    pub proxy: Option<Proxy>,
    /// The longest that any wait may last.
    pub deadline: Duration,
    /// After how many failures in a row without a received byte a fetch ends with the error.
    pub retries: u32,
    /// The pause before a connection is opened again for the first time. It doubles each time.
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

/// The facts that the hub states about a file.
#[derive(Clone, Debug)]
pub(super) struct FileInfo {
    pub(super) name: String,
    /// The name of the contents: their SHA-256 for large files.
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
            // The environment's proxy is not used here: reading the environment is left to the caller.
            .proxy(access.proxy.clone())
            .user_agent(concat!("fanfold/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Redirects are followed by hand in `ask`, which treats the hub and other hosts differently.
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

    /// The facts about the file `name` at `commit`.
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
        // The length of a redirect's body is not that of the file.
        let own = text("content-length").filter(|_| status.is_success());
        let size = text("x-linked-size").or(own).and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| answer("does not say how long it is"))?;
        Ok(FileInfo { name: name.to_string(), etag: etag.to_string(), size })
    }

    /// The contents of the file `name` at `commit`, and the byte at which they start: `from`, or 0 if the hub cannot
    /// start there.
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

    /// The address of the file `name` at `commit`.
    pub(super) fn file_url(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint(), self.id.repository(), encoded(name))
    }

    fn endpoint(&self) -> &str {
        self.access.endpoint.trim_end_matches('/')
    }

    /// The answer of `url`, or of the address that it redirects to, and which of the addresses gave it.
    ///
    /// A HEAD request ends at the answer that names the contents, even if that answer redirects to where they are
    /// stored. Weights are stored by other hosts, and these must not see the token.
    fn ask(&self, method: Method, mut url: String, from: u64) -> Result<(String, Response<Body>), HubError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::HEAD => self.agent.head(&url),
                _ => self.agent.get(&url),
            };
            // A compressed answer would have another length than the file.
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

    /// The token, if `url` belongs to the hub. No other host may see it, wherever the hub redirects to.
    fn token(&self, url: &str) -> Option<&str> {
        let own = url.strip_prefix(self.endpoint()).is_some_and(|path| path.starts_with('/'));
        self.access.token.as_deref().filter(|_| own)
    }

    /// The address that `url` redirects to.
    ///
    /// A redirect from https to http is refused: anybody on the path could then read the contents, and change those of
    /// which no SHA-256 is known.
    fn location(&self, url: &str, location: Option<&str>) -> Result<String, HubError> {
        let answer = |reason: &str| HubError::Answer { url: url.to_string(), reason: reason.to_string() };
        let location = location.ok_or_else(|| answer("sends on to nowhere"))?;
        // The scheme of an address may be written in either case.
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

    /// The error that an answer's status and headers mean, if any.
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
            // A hub does not reveal to strangers which private models exist.
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

/// An error of the connection.
fn network(url: &str, error: &ureq::Error) -> HubError {
    HubError::Network { url: url.to_string(), reason: error.to_string() }
}

/// A path with its characters escaped for an address.
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
        // In a private network http is allowed.
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
