//! Which hosts serve a registry, in which order, and how they are spoken to: containerd's directory of
//! `hosts.toml` and certificates, read as containerd reads it
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).
//!
//! It is read anew for each pull: a change counts from the next one on.

use crate::containerd::image::hosts_file::{self, HostConfig};
use crate::containerd::image::reference::{Reference, is_loopback};
use crate::containerd::image::tls::{Link, TlsFiles};
use http::HeaderMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where it is, where nothing else is configured.
pub const DIRECTORY: &str = "/etc/containerd/certs.d";
/// The directory of all registries that have none of their own.
const DEFAULT: &str = "_default";
/// Bytes of a file that are read.
const LIMIT: u64 = 1 << 20;

/// A file that is named and can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct HostsError {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A host that serves a registry's API. Debug shows no header's value.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host, perhaps with a port.
    pub host: String,
    /// What goes before the repository, such as `/v2`.
    pub path: String,
    /// It may be asked what a tag stands for.
    pub resolve: bool,
    /// It may be asked for content.
    pub pull: bool,
    /// Sent with each request.
    pub headers: HeaderMap,
    /// How it is spoken to.
    pub link: Link,
    /// It is the registry itself: its passwords are for it. Of a mirror they are not.
    pub own: bool,
}

impl Endpoint {
    /// The registry itself, where nothing is configured.
    pub fn of(reference: &Reference) -> Self {
        let host = reference.api_host();
        let scheme = if is_loopback(host) { "http" } else { "https" };
        Self {
            scheme,
            host: host.to_owned(),
            path: "/v2".to_owned(),
            resolve: true,
            pull: true,
            headers: HeaderMap::new(),
            link: Link::default(),
            own: true,
        }
    }
}

/// The hosts that serve a registry, those to be asked first in front; at least one. Blocks.
///
/// # Errors
/// [`HostsError`] for certificates that are named and can't be read. A `hosts.toml` that can't be read
/// as such gets a warning, and counts as not there.
pub fn endpoints(directory: &Path, reference: &Reference) -> Result<Vec<Endpoint>, HostsError> {
    let Some(found) = directory_of(directory, reference.host()) else {
        return Ok(vec![Endpoint::of(reference)]);
    };
    let file = found.join("hosts.toml");
    let configured = match read(&file) {
        Ok(Some(bytes)) => match hosts_file::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(hosts) => Some(hosts),
            Err(problem) => {
                tracing::warn!(file = %file.display(), problem, "registry hosts are not taken from this file");
                None
            }
        },
        Ok(None) => None,
        Err(error) => return Err(error),
    };
    let hosts = match configured {
        Some(hosts) => hosts,
        None => vec![certificates(&found)?],
    };
    hosts.into_iter().map(|host| endpoint(host, &found, reference)).collect()
}

/// The first that is there: `host_port_`, `host:port`, `_default`.
fn directory_of(root: &Path, host: &str) -> Option<PathBuf> {
    let with_port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    let underscored = with_port.map(|(name, port)| format!("{name}_{port}_"));
    let names = underscored.into_iter().chain([host.to_owned(), DEFAULT.to_owned()]);
    names.map(|name| root.join(name)).find(|path| path.is_dir())
}

fn endpoint(config: HostConfig, directory: &Path, reference: &Reference) -> Result<Endpoint, HostsError> {
    let mut endpoint = Endpoint::of(reference);
    let mut files = TlsFiles { skip_verify: config.skip_verify.unwrap_or(false), ..TlsFiles::default() };
    for path in &config.ca {
        files.ca.push(named(&directory.join(path))?);
    }
    for (certificate, key) in &config.client {
        let certificate = named(&directory.join(certificate))?;
        let key = match key {
            Some(key) => named(&directory.join(key))?,
            None => certificate.clone(),
        };
        files.client.push((certificate, key));
    }
    let explicit = config.skip_verify.is_some() || !files.ca.is_empty() || !files.client.is_empty();
    if let Some(server) = config.server {
        // As containerd says it: Docker Hub's API has another name than the Hub.
        endpoint.own = server.host == endpoint.host || server.host == reference.host();
        (endpoint.scheme, endpoint.host, endpoint.path) = (server.scheme, server.host, server.path);
    } else if explicit {
        endpoint.scheme = "https";
    }
    (endpoint.resolve, endpoint.pull) = (config.resolve, config.pull);
    endpoint.headers = config.headers;
    endpoint.link.plain = endpoint.scheme == "http";
    endpoint.link.tls = explicit.then(|| Arc::new(files));
    Ok(endpoint)
}

/// Docker's way: `*.crt` are CAs, `x.cert` and `x.key` a client's certificate and its key.
fn certificates(directory: &Path) -> Result<HostConfig, HostsError> {
    let mut config = HostConfig::default();
    let listed = std::fs::read_dir(directory).map_err(|error| problem(directory, &error))?;
    let mut names: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.file_name().into())).collect();
    names.sort();
    for name in names {
        match name.extension().and_then(|end| end.to_str()) {
            Some("crt") => config.ca.push(name),
            Some("cert") => {
                let key = name.with_extension("key");
                config.client.push((name, Some(key)));
            }
            _ => {}
        }
    }
    Ok(config)
}

/// A file that must be there.
fn named(path: &Path) -> Result<Vec<u8>, HostsError> {
    let missing = || HostsError { path: path.display().to_string(), problem: "no such file".to_owned() };
    read(path)?.ok_or_else(missing)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, HostsError> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => std::io::Read::take(file, LIMIT),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(path, &error)),
    };
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| problem(path, &error))?;
    Ok(Some(bytes))
}

fn problem(path: &Path, error: &std::io::Error) -> HostsError {
    HostsError { path: path.display().to_string(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ecsd-hosts-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn found(&self, image: &str) -> Vec<Endpoint> {
            endpoints(&self.0, &Reference::parse(image).unwrap()).unwrap()
        }

        fn urls(&self, image: &str) -> Vec<String> {
            let url = |e: Endpoint| format!("{}://{}{} {}", e.scheme, e.host, e.path, e.own);
            self.found(image).into_iter().map(url).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_registry_without_a_directory_serves_itself() {
        let directory = Directory::new("none");
        assert_eq!(directory.urls("busybox"), ["https://registry-1.docker.io/v2 true"]);
        assert_eq!(directory.urls("127.0.0.1:5000/x"), ["http://127.0.0.1:5000/v2 true"]);
        directory.put("_default/hosts.toml", "[host.\"http://mirror:5000\"]");
        assert_eq!(
            directory.urls("r.example/x"),
            ["http://mirror:5000/v2 false", "https://r.example/v2 true"]
        );
    }

    #[test]
    fn a_registrys_own_directory_comes_first_and_the_server_last() {
        let directory = Directory::new("order");
        directory.put("_default/hosts.toml", "[host.\"https://other\"]");
        directory.put(
            "docker.io/hosts.toml",
            "server = \"https://registry-1.docker.io\"\n[host.\"b.example\"]\n[host.\"https://a.example/hub\"]\n\
             [host.\"https://c.example/v2/x\"]\noverride_path = true\n",
        );
        assert_eq!(
            directory.urls("busybox"),
            [
                "https://b.example/v2 false",
                "https://a.example/hub/v2 false",
                "https://c.example/v2/x false",
                "https://registry-1.docker.io/v2 true",
            ]
        );
        directory.put("r.example:5000/hosts.toml", "server = \"http://r.example:5000\"");
        assert_eq!(directory.urls("r.example:5000/x"), ["http://r.example:5000/v2 true"]);
        directory.put("r.example_5000_/hosts.toml", "server = \"https://elsewhere\"");
        assert_eq!(directory.urls("r.example:5000/x"), ["https://elsewhere/v2 false"]);
    }

    #[test]
    fn certificates_come_with_their_host_or_in_dockers_way() {
        let directory = Directory::new("certificates");
        directory.put("r.example/ca.crt", "CA");
        directory.put("r.example/me.cert", "CERT");
        directory.put("r.example/me.key", "KEY");
        let found = directory.found("r.example/x").remove(0);
        let tls = found.link.tls.unwrap();
        assert_eq!((&tls.ca[0][..], &tls.client[0].1[..], tls.skip_verify), (&b"CA"[..], &b"KEY"[..], false));
        directory.put("r.example/hosts.toml", "this is [ no toml");
        assert!(directory.found("r.example/x")[0].link.tls.is_some(), "as if the file were not there");
        directory.put(
            "r.example/hosts.toml",
            "[host.\"m.example\"]\nca = [\"ca.crt\"]\nclient = [[\"me.cert\", \"me.key\"]]\nskip_verify = true\n\
             capabilities = [\"Pull\"]\n[host.\"m.example\".header]\nx-secret = \"CANARY\"\n",
        );
        let [mirror, own] = &directory.found("r.example/x")[..] else { panic!("two") };
        assert!(mirror.link.tls.as_ref().is_some_and(|tls| tls.skip_verify && tls.client.len() == 1));
        assert!(mirror.pull && !mirror.resolve && own.resolve && own.link.tls.is_none());
        assert!(!format!("{mirror:?}").contains("CANARY"));
        directory.put("r.example/hosts.toml", "ca = \"missing.crt\"");
        let reference = Reference::parse("r.example/x").unwrap();
        let error = endpoints(&directory.0, &reference).unwrap_err();
        assert!(error.to_string().contains("missing.crt: no such file"), "{error}");
    }
}
