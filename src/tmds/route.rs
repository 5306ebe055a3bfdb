//! From a path to what is meant by it; pure. The original's router (gorilla/mux) decides what is a
//! 301, what a 404 and what an empty id (spec/local-endpoints-config.md 1.1, 1.4 to 1.7).

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What Go leaves alone in a path, less what would end it.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// The two versions that share their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V4,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v1/credentials`; the id is in the query.
    CredentialsV1,
    /// `/v2/credentials/<id>`
    CredentialsV2(String),
    /// `/v2/metadata`, `/v2/metadataWithTags`
    TaskByAddress,
    /// `/v2/metadata/<container id>`
    ContainerById(String),
    /// `/v2/stats`, `/v2/stats/<container id>`
    StatsByAddress,
    /// `/v3/<id>`, `/v4/<id>`
    Container(Version, String),
    /// `.../task`
    Task(Version, String),
    /// `.../taskWithTags`
    TaskWithTags(Version, String),
    /// `.../stats`
    ContainerStats(Version, String),
    /// `.../task/stats`
    TaskStats(Version, String),
    /// `.../associations/<type>`
    Associations(Version, String),
    /// `.../associations/<type>/<name>`; the name may be missing.
    Association { version: Version, id: String, kind: String, name: String },
    /// `/api/<id>/task-protection/v1/state`
    Protection(String),
    /// Clean the path first.
    Moved(String),
    /// Nothing.
    NotFound,
}

/// Finds the route of a percent-encoded path.
pub(crate) fn route(encoded: &str) -> Route {
    let path = percent_decode_str(encoded).decode_utf8_lossy();
    let cleaned = clean(&path);
    if cleaned != path {
        return Route::Moved(utf8_percent_encode(&cleaned, PATH).to_string());
    }
    let parts: Vec<&str> = cleaned.split('/').skip(1).collect();
    let own = |s: &str| s.to_owned();
    match parts.as_slice() {
        ["v1", "credentials"] => Route::CredentialsV1,
        ["v2", "credentials", ..] => match cleaned.strip_prefix("/v2/credentials/") {
            Some(id) => Route::CredentialsV2(own(id)),
            None => Route::NotFound,
        },
        ["v2", "metadata" | "metadataWithTags"] | ["v2", "metadata" | "metadataWithTags", ""] => {
            Route::TaskByAddress
        }
        ["v2", "metadata" | "metadataWithTags", id] => Route::ContainerById(own(id)),
        ["v2", "stats"] | ["v2", "stats", _] => Route::StatsByAddress,
        ["v3", id, rest @ ..] => endpoint(Version::V3, id, rest),
        ["v4", id, rest @ ..] => endpoint(Version::V4, id, rest),
        ["api", id, "task-protection", "v1", "state"] => Route::Protection(own(id)),
        _ => Route::NotFound,
    }
}

fn endpoint(version: Version, id: &str, rest: &[&str]) -> Route {
    let id = id.to_owned();
    match rest {
        [] => Route::Container(version, id),
        ["task"] => Route::Task(version, id),
        ["taskWithTags"] => Route::TaskWithTags(version, id),
        ["stats"] => Route::ContainerStats(version, id),
        ["task", "stats"] => Route::TaskStats(version, id),
        ["associations", kind] if !kind.is_empty() => Route::Associations(version, id),
        ["associations", kind, name @ ..] if !name.is_empty() => {
            Route::Association { version, id, kind: (*kind).to_owned(), name: name.join("/") }
        }
        _ => Route::NotFound,
    }
}

/// Go's `path.Clean` as mux applies it: rooted, no empty, `.` or `..` parts, a final slash kept.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

/// The first value of a query's key; `None` where the key is absent.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    query?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name) == key).then(|| decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_they_mean_to_the_original() {
        use Version::{V3, V4};
        let id = || "x".to_owned();
        for (path, want) in [
            ("/v1/credentials", Route::CredentialsV1),
            ("/v1/credentials/", Route::NotFound),
            ("/v2/credentials", Route::NotFound),
            ("/v2/credentials/", Route::CredentialsV2(String::new())),
            ("/v2/credentials/a/b", Route::CredentialsV2("a/b".into())),
            ("/v2/metadata/", Route::TaskByAddress),
            ("/v2/stats", Route::StatsByAddress),
            ("/v3/x", Route::Container(V3, id())),
            ("/v4/", Route::Container(V4, String::new())),
            ("/v4", Route::NotFound),
            ("/v4/x/", Route::NotFound),
            ("/v4/x/task", Route::Task(V4, id())),
            ("/v3/x/taskWithTags", Route::TaskWithTags(V3, id())),
            ("/api/x/task-protection/v1/state", Route::Protection(id())),
            ("/api/x/task-protection/v1", Route::NotFound),
            ("/v4/x/task/stats", Route::TaskStats(V4, id())),
            ("/v4/x/stats", Route::ContainerStats(V4, id())),
            ("/v4/x/nope", Route::NotFound),
            ("/v4/%78/task", Route::Task(V4, id())),
            ("/v3/x/associations/gpu", Route::Associations(V3, id())),
            ("//v3//x", Route::Moved("/v3/x".into())),
            ("/v3/../v4/x/", Route::Moved("/v4/x/".into())),
            ("/v3/%3F/..", Route::Moved("/v3".into())),
            ("/", Route::NotFound),
            ("", Route::Moved("/".into())),
        ] {
            assert_eq!(route(path), want, "{path}");
        }
        let (kind, name) = ("t".to_owned(), "a/b".to_owned());
        assert_eq!(
            route("/v4/x/associations/t/a/b"),
            Route::Association { version: V4, id: id(), kind, name }
        );
    }

    #[test]
    fn queries_are_read_as_forms() {
        assert_eq!(query_value(Some("a=1&id=x%2By+z&id=2"), "id").as_deref(), Some("x+y z"));
        assert_eq!(query_value(Some("id"), "id").as_deref(), Some(""));
        assert_eq!(query_value(Some("ID=1"), "id"), None);
        assert_eq!(query_value(None, "id"), None);
    }
}
