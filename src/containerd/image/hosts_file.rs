//! The text of a `hosts.toml`. Pure: files that it names are not opened.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::path::PathBuf;
use toml_edit::{DocumentMut, Item, TableLike, TomlError, Value};

/// Hosts of one file that are taken.
const HOSTS: usize = 32;

/// What the file says of one host.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// `None` is the registry itself.
    pub server: Option<ServerUrl>,
    /// Capability `resolve`.
    pub resolve: bool,
    /// Capability `pull`.
    pub pull: bool,
    /// CAs, relative to the file's directory.
    pub ca: Vec<PathBuf>,
    /// Client certificates, each with its key where that is in a file of its own.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Where it is said.
    pub skip_verify: Option<bool>,
    /// Sent with each request.
    pub headers: HeaderMap,
}

/// Where a host's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host, perhaps with a port.
    pub host: String,
    /// What goes before the repository.
    pub path: String,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            server: None,
            resolve: true,
            pull: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: None,
            headers: HeaderMap::new(),
        }
    }
}

/// The hosts of the file, in its order, and after them its `server`.
///
/// # Errors
/// What is wrong, without the file's words: headers may be secret.
pub fn parse(text: &str) -> Result<Vec<HostConfig>, String> {
    let root: DocumentMut = text.parse().map_err(|error: TomlError| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })?;
    let mut hosts = Vec::new();
    if let Some(item) = root.get("host") {
        let table = item.as_table_like().ok_or("host is not a table")?;
        if table.len() > HOSTS {
            return Err(format!("{} hosts: {HOSTS} is the most", table.len()));
        }
        for (name, item) in table.iter() {
            let config = item.as_table_like().ok_or_else(|| format!("host {name:?} is not a table"))?;
            hosts.push(host(Some(name), config)?);
        }
    }
    let server = match root.get("server") {
        None => None,
        Some(item) => Some(item.as_str().ok_or("server is not a text")?),
    };
    hosts.push(host(server.filter(|server| !server.is_empty()), root.as_table())?);
    Ok(hosts)
}

fn host(server: Option<&str>, config: &dyn TableLike) -> Result<HostConfig, String> {
    let boolean = |key: &str| match config.get(key) {
        None => Ok(None),
        Some(item) => item.as_bool().map(Some).ok_or_else(|| format!("{key} is neither true nor false")),
    };
    let override_path = boolean("override_path")?.unwrap_or(false);
    let mut host = HostConfig {
        server: server.map(|server| url(server, override_path)).transpose()?,
        skip_verify: boolean("skip_verify")?,
        ca: texts(config.get("ca"), "ca")?.into_iter().map(PathBuf::from).collect(),
        client: client(config.get("client"))?,
        headers: headers(config.get("header"))?,
        ..HostConfig::default()
    };
    let capabilities = texts(config.get("capabilities"), "capabilities")?;
    if !capabilities.is_empty() {
        (host.resolve, host.pull) = (false, false);
    }
    for capability in capabilities {
        match capability.to_lowercase().as_str() {
            "pull" => host.pull = true,
            "resolve" => host.resolve = true,
            "push" => {}
            _ => return Err(format!("unknown capability {capability:?}: there are pull, resolve and push")),
        }
    }
    Ok(host)
}

/// `[scheme://]host[:port][/path]`; the path ends with `/v2` unless it is to stay as it is.
fn url(text: &str, override_path: bool) -> Result<ServerUrl, String> {
    let bad = || {
        // What has a user's name in it may have a password.
        let shown = if text.contains('@') { "[redacted]" } else { text };
        format!("{:?} is not the URL of a host", shown.chars().take(256).collect::<String>())
    };
    let whole = if text.starts_with("http") { text.to_owned() } else { format!("https://{text}") };
    let url = url::Url::parse(&whole).map_err(|_| bad())?;
    let scheme = match url.scheme() {
        "http" => "http",
        "https" => "https",
        _ => return Err(bad()),
    };
    let name = url.host_str().filter(|_| url.username().is_empty() && url.password().is_none());
    let name = name.ok_or_else(bad)?;
    let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    let path = url.path().trim_end_matches('/');
    let path = if override_path || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") };
    Ok(ServerUrl { scheme, host, path })
}

/// A text, or a list of texts.
fn texts(item: Option<&Item>, what: &str) -> Result<Vec<String>, String> {
    let bad = || format!("{what} is neither a text nor a list of texts");
    let Some(item) = item else { return Ok(Vec::new()) };
    if let Some(one) = item.as_str() {
        return Ok(vec![one.to_owned()]);
    }
    let many = item.as_array().ok_or_else(bad)?;
    many.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(bad)).collect()
}

/// A text, or a list of texts and pairs of texts.
fn client(item: Option<&Item>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let bad = || "client must be a file, or a list of files and of pairs [certificate, key]".to_owned();
    let Some(many) = item.and_then(Item::as_array) else {
        let one = texts(item, "client")?;
        return Ok(one.into_iter().map(|file| (file.into(), None)).collect());
    };
    let pair = |value: &Value| -> Result<(PathBuf, Option<PathBuf>), String> {
        if let Some(file) = value.as_str() {
            return Ok((PathBuf::from(file), None));
        }
        let pair = value.as_array().ok_or_else(bad)?;
        let texts: Vec<&str> = pair.iter().filter_map(Value::as_str).collect();
        match (&texts[..], pair.len()) {
            ([certificate, key], 2) => {
                let key = Some(*key).filter(|key| !key.is_empty());
                Ok((PathBuf::from(*certificate), key.map(PathBuf::from)))
            }
            _ => Err(bad()),
        }
    };
    many.iter().map(pair).collect()
}

fn headers(item: Option<&Item>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let Some(item) = item else { return Ok(headers) };
    for (name, item) in item.as_table_like().ok_or("header is not a table")?.iter() {
        let bad = || format!("header {name:?} is none that can be sent");
        let key: HeaderName = name.parse().map_err(|_| bad())?;
        for text in texts(Some(item), "header")? {
            let mut value = HeaderValue::from_str(&text).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_named_and_no_secret_told() {
        for (text, words) in [
            ("[header]\nx = \"CANARY", "line 2"),
            ("capabilities = [\"fly\"]", "unknown capability \"fly\""),
            ("[host.\"https://a\"]\nskip_verify = \"yes\"", "skip_verify is neither"),
            ("server = 5", "server is not a text"),
            ("host = 5", "host is not a table"),
            ("[host]\na = 1", "host \"a\" is not a table"),
            ("server = \"https://u:CANARY@x\"", "is not the URL"),
            ("client = [[\"a\"]]", "client must be"),
            ("ca = 1", "ca is neither"),
            ("[header]\n\"a b\" = \"CANARY\"", "header \"a b\""),
            ("[header]\na = \"CANARY\\n\"", "header \"a\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("CANARY"), "{error}");
        }
        let many: String = (0..40).map(|n| format!("[host.\"h{n}\"]\n")).collect();
        assert!(parse(&many).unwrap_err().contains("40 hosts"));
    }

    #[test]
    fn what_containerds_documentation_shows_is_read() {
        let hosts = parse(
            "server = \"https://registry-1.docker.io\"    # Exclude this to not use upstream\n\
             [host.\"https://public-mirror.example.com\"]\n  capabilities = [\"pull\"]\n\
             [host.\"https://docker-mirror.internal\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"docker-mirror.crt\"\n\
             [host.\"https://m2\"]\n  client = [[\"/etc/certs/client-1.pem\", \"\"], [\"a.cert\", \"a.key\"], \"both.pem\"]\n\
             [host.\"https://m2\".header]\n  x-custom-1 = \"custom header\"\n  x-custom-2 = [\"1\", \"2\"]\n",
        )
        .unwrap();
        assert_eq!(hosts.len(), 4);
        assert!(hosts[0].pull && !hosts[0].resolve);
        assert_eq!(hosts[1].ca, [PathBuf::from("docker-mirror.crt")]);
        assert_eq!(hosts[2].client[0], ("/etc/certs/client-1.pem".into(), None));
        assert_eq!(hosts[2].client[1], ("a.cert".into(), Some("a.key".into())));
        assert_eq!(hosts[2].headers.get_all("x-custom-2").iter().count(), 2);
        assert_eq!(hosts[3].server.as_ref().unwrap().host, "registry-1.docker.io");
    }
}
