//! Authorization at registries: which credentials belong to an image, what a 401 asks for, and
//! tokens kept until they expire.

use crate::containerd::image::access::Access;
use crate::containerd::image::error::RegistryError;
use crate::containerd::image::hosts::Endpoint;
use crate::containerd::image::http::{Http, authority};
use crate::containerd::image::reference::Reference;
use crate::containerd::image::registry::refusal;
use crate::model::RegistryAuth;
use base64::Engine;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a token server's answer that are read.
const TOKEN_LIMIT: usize = 256 << 10;
/// Tokens kept at most.
const TOKENS: usize = 256;

/// What a `WWW-Authenticate` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token from a server.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

/// Credentials and tokens of all registries.
#[derive(Debug)]
pub struct Authorizer {
    credentials: Vec<(String, RegistryAuth)>,
    /// By host, repository and user: the header that worked, and until when.
    headers: Mutex<HashMap<Key, Worked>>,
}

/// Host, repository, [`Access::who`].
type Key = (String, String, String);
/// A header that worked, and until when it will.
type Worked = (HeaderValue, Option<Instant>);

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorizer {
    /// With these credentials, by registry key.
    pub fn new(credentials: Vec<(String, RegistryAuth)>) -> Self {
        Self { credentials, headers: Mutex::default() }
    }

    /// The header to send at once, where one is known.
    pub fn known(&self, access: &Access, endpoint: &Endpoint) -> Option<HeaderValue> {
        let key = key(access, endpoint);
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let (header, until) = headers.get(&key)?;
        if until.is_some_and(|until| until <= Instant::now()) {
            headers.remove(&key);
            return None;
        }
        Some(header.clone())
    }

    /// The registry did not take the known header.
    pub fn forget(&self, access: &Access, endpoint: &Endpoint) {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(access, endpoint));
    }

    /// The header that a 401 asks for; `None` where there is none to give.
    ///
    /// # Errors
    /// Where the token server failed.
    pub async fn answer(
        &self,
        http: &Http,
        access: &Access,
        endpoint: &Endpoint,
        challenges: &HeaderMap,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let auth = self.credentials(access, endpoint);
        let challenges: Vec<Challenge> = challenges
            .get_all(http::header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(challenges_of)
            .collect();
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        let (header, life) = match (bearer.or(challenges.first()), auth) {
            (Some(Challenge::Bearer { realm, service, scope }), auth) => {
                let asked = Asked { realm, service: service.as_deref(), scope: scope.as_deref() };
                let token = fetch(http, access.reference(), endpoint, &asked, auth).await?;
                // Renewed a little early, so that none expires on its way.
                let life = Duration::from_secs(token.1.clamp(1, 24 * 3600)).mul_f64(0.9);
                (token.0, Some(life))
            }
            (Some(Challenge::Basic), Some(auth)) => (basic(auth), None),
            _ => return Ok(None),
        };
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        if headers.len() >= TOKENS {
            headers.clear();
        }
        headers.insert(key(access, endpoint), (header.clone(), life.map(|life| Instant::now() + life)));
        Ok(Some(header))
    }

    /// Whether there are credentials for it.
    pub fn has_credentials(&self, access: &Access, endpoint: &Endpoint) -> bool {
        self.credentials(access, endpoint).is_some()
    }

    /// For the registry itself what the task brought along counts, else what is configured; a mirror has
    /// what is configured for the mirror.
    fn credentials<'a>(&'a self, access: &'a Access, endpoint: &Endpoint) -> Option<&'a RegistryAuth> {
        let (reference, configured) = (access.reference(), &self.credentials);
        if endpoint.own {
            access.login().or_else(|| credentials_for(configured, reference.host(), reference.path()))
        } else {
            credentials_for(configured, &endpoint.host, reference.path())
        }
    }
}

fn key(access: &Access, endpoint: &Endpoint) -> Key {
    (endpoint.host.clone(), access.reference().path().to_owned(), access.who().to_owned())
}

/// What a registry wants a token for.
struct Asked<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scope: Option<&'a str>,
}

async fn fetch(
    http: &Http,
    reference: &Reference,
    endpoint: &Endpoint,
    Asked { realm, service, scope }: &Asked<'_>,
    auth: Option<&RegistryAuth>,
) -> Result<(HeaderValue, u64), RegistryError> {
    let what = format!("token for {}/{}", reference.host(), reference.path());
    let answer = |host: &str, problem: &str| RegistryError::Answer {
        host: host.to_owned(),
        what: what.clone(),
        problem: problem.to_owned(),
    };
    let mut url = url::Url::parse(realm)
        .map_err(|_| answer(&endpoint.host, "its WWW-Authenticate header has no usable realm"))?;
    let scope = scope.map_or_else(|| format!("repository:{}:pull", reference.path()), str::to_owned);
    if let Some(service) = *service {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", &scope);
    let uri: Uri = url
        .as_str()
        .parse()
        .map_err(|_| answer(&endpoint.host, "its WWW-Authenticate header has no usable realm"))?;
    let host = authority(&uri);
    let mut headers = HeaderMap::new();
    if let Some(auth) = auth {
        headers.insert(AUTHORIZATION, basic(auth));
    }
    let got = http.send(Method::GET, &uri, &headers, &what, &endpoint.link).await?;
    if !got.status.is_success() {
        return Err(refusal(got, host, what).await);
    }
    let bytes = got.body.all(TOKEN_LIMIT).await?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| answer(&host, "no token in it"))?;
    let text = token.token.filter(|t| !t.is_empty()).or(token.access_token);
    let text = text.filter(|t| !t.is_empty()).ok_or_else(|| answer(&host, "no token in it"))?;
    let mut header = HeaderValue::from_str(&format!("Bearer {text}"))
        .map_err(|_| answer(&host, "a token that fits no header"))?;
    header.set_sensitive(true);
    // 60 s is what the protocol means where nothing is said.
    Ok((header, token.expires_in.unwrap_or(60)))
}

fn basic(auth: &RegistryAuth) -> HeaderValue {
    let pair = format!("{}:{}", auth.username, auth.password);
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut header = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

/// The credentials of the longest key that prefixes the image (spec/task-engine.md 3.4).
fn credentials_for<'a>(
    credentials: &'a [(String, RegistryAuth)],
    registry: &str,
    path: &str,
) -> Option<&'a RegistryAuth> {
    let name = format!("{registry}/{path}");
    let hub = registry == "docker.io";
    let fits = |key: &str| {
        let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
        let host = bare.split('/').next().unwrap_or_default();
        if matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
            return hub;
        }
        let bare = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        host == registry && name.strip_prefix(bare).is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    credentials.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len()).map(|(_, auth)| auth)
}

/// Reads a `WWW-Authenticate` header; what is not understood is left out.
fn challenges_of(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let (scheme, tail) = rest.split_at(end);
        let (parameters, tail) = parameters_of(tail);
        rest = tail;
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let get = |name: &str| parameters.iter().find(|p| p.0 == name).map(|p| p.1.clone());
            if let Some(realm) = get("realm") {
                found.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        }
    }
    found
}

/// `name=value, name="value"`..., up to where the next scheme begins.
fn parameters_of(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let name_end = rest.find(['=', ' ', ',']).unwrap_or(rest.len());
        let Some(value) = rest[name_end..].strip_prefix('=') else { return (parameters, rest) };
        let name = rest[..name_end].to_ascii_lowercase();
        let (text, tail) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([',', ' ']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        parameters.push((name, text));
        rest = tail;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, &quoted[at + 1..]),
            '\\' => text.extend(chars.next().map(|(_, c)| c)),
            c => text.push(c),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = challenges_of(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
        );
        assert_eq!(
            bearer,
            [Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:library/busybox:pull".into()),
            }]
        );
        assert_eq!(challenges_of(r#"Basic realm="x, y""#), [Challenge::Basic]);
        assert_eq!(challenges_of("basic realm=x, Negotiate, bearer realm=\"u\\\"v\"").len(), 2);
        for odd in ["", ",,,", "=", "Bearer", "Bearer realm", "\"", "Bearer realm=\"", "a=b=c", " = , ="] {
            challenges_of(odd);
        }
    }

    #[test]
    fn the_longest_fitting_key_wins() {
        let auth = |name: &str| RegistryAuth { username: name.into(), password: "p".into() };
        let keys = vec![
            ("r.example".to_owned(), auth("host")),
            ("https://r.example/team/".to_owned(), auth("team")),
            ("index.docker.io/v1/".to_owned(), auth("hub")),
            ("r.example/te".to_owned(), auth("part")),
        ];
        let user = |image: &str| {
            let reference = Reference::parse(image).unwrap();
            credentials_for(&keys, reference.host(), reference.path()).map(|a| a.username.as_str())
        };
        assert_eq!(user("r.example/team/app"), Some("team"));
        assert_eq!(user("r.example/other"), Some("host"));
        assert_eq!(user("busybox"), Some("hub"));
        assert_eq!(user("r.example.evil/team/app"), None);
    }
}
