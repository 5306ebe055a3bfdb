//! `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA`: user names and passwords of private registries,
//! in the two formats of the Docker client (spec/task-engine.md 3.4).

use super::Config;
use crate::model::RegistryAuth;
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One registry, of either format: `auth` is base64 of `user:password`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

impl Config {
    /// Credentials by registry key, as written there.
    ///
    /// # Errors
    /// What can't be read, without a word of its content.
    pub fn registry_auth(&self) -> Result<Vec<(String, RegistryAuth)>, String> {
        let kind = self.engine_auth_type.as_str();
        if kind.is_empty() {
            return Ok(Vec::new());
        }
        if !matches!(kind, "docker" | "dockercfg") {
            return Err(format!("ECS_ENGINE_AUTH_TYPE is {kind:?}: use docker or dockercfg"));
        }
        let entries: BTreeMap<String, Entry> =
            serde_json::from_str(&self.engine_auth_data.0).map_err(|error| {
                let (line, column) = (error.line(), error.column());
                format!(
                    "ECS_ENGINE_AUTH_DATA is not a JSON object of registries (line {line}, column {column})"
                )
            })?;
        let mut all = Vec::new();
        for (registry, entry) in entries {
            let auth = if entry.auth.is_empty() {
                RegistryAuth { username: entry.username, password: entry.password }
            } else {
                decode(&entry.auth).ok_or_else(|| {
                    format!("ECS_ENGINE_AUTH_DATA: auth of {registry:?} is not base64 of user:password")
                })?
            };
            all.push((registry, auth));
        }
        Ok(all)
    }
}

fn decode(auth: &str) -> Option<RegistryAuth> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.trim_end_matches('\0').split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;

    fn auth(kind: &str, data: &str) -> Result<Vec<(String, RegistryAuth)>, String> {
        Config { engine_auth_type: kind.into(), engine_auth_data: Secret(data.into()), ..Config::default() }
            .registry_auth()
    }

    #[test]
    fn both_formats_are_read() {
        let expected = RegistryAuth { username: "me".into(), password: "pw".into() };
        for (kind, data) in [
            ("dockercfg", r#"{"r.example:5000":{"auth":"bWU6cHc=","email":"x"}}"#),
            ("docker", r#"{"r.example:5000":{"username":"me","password":"pw","email":"x"}}"#),
        ] {
            assert_eq!(auth(kind, data).unwrap(), vec![("r.example:5000".to_owned(), expected.clone())]);
        }
        assert!(auth("", "whatever").unwrap().is_empty());
    }

    #[test]
    fn errors_keep_secrets() {
        for (kind, data) in
            [("docker", "{SECRETCANARY"), ("dockercfg", r#"{"r":{"auth":"SECRETCANARY!"}}"#), ("x", "")]
        {
            assert!(!auth(kind, data).unwrap_err().contains("CANARY"));
        }
    }
}
