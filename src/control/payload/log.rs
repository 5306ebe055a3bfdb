//! What the agent adds to a container's log configuration before its driver sees it
//! (spec/task-engine.md 7.1).

use super::{PayloadError, bad};
use crate::control::acs::wire;
use crate::model::{RoleCredentials, TaskId};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const PREFIX: &str = "awslogs-stream-prefix";
const STREAM: &str = "awslogs-stream";
/// Where the driver gets the execution role's credentials, on the agent's endpoint.
const CREDENTIALS: &str = "awslogs-credentials-endpoint";

/// Of `awslogs`: the stream that a prefix stands for, and where the credentials of `logsAuthStrategy`
/// are. `host` is the host configuration, its keys in lower case.
pub(super) fn complete(
    host: &mut BTreeMap<String, Value>,
    source: &wire::Container,
    task: &TaskId,
    execution_role: Option<&RoleCredentials>,
) -> Result<(), PayloadError> {
    let Some(Value::Object(log)) = host.get_mut("logconfig") else { return Ok(()) };
    let key = |log: &Map<String, Value>, name: &str| {
        log.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned().unwrap_or_else(|| name.to_owned())
    };
    if log.get(&key(log, "Type")).and_then(Value::as_str) != Some("awslogs") {
        return Ok(());
    }
    let config = log.entry(key(log, "Config")).or_insert(Value::Null);
    if config.is_null() {
        *config = Value::Object(Map::new());
    }
    // Anything else is an error of the container's creation.
    let Value::Object(options) = config else { return Ok(()) };
    if let Some(Value::String(prefix)) = options.remove(PREFIX) {
        let stream = format!("{prefix}/{}/{task}", source.name);
        let has_stream = options.get(STREAM).and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        if !prefix.is_empty() && !has_stream {
            options.insert(STREAM.to_owned(), Value::String(stream));
        }
    }
    if source.logs_auth_strategy == "ExecutionRole" {
        let none = || {
            let what = format!("container {:?}: logsAuthStrategy", source.name);
            bad(&what, "ExecutionRole", "no execution credentials are set for the task")
        };
        let role = execution_role.ok_or_else(none)?;
        let path = format!("/v2/credentials/{}", role.id.0);
        options.insert(CREDENTIALS.to_owned(), Value::String(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CredentialsId;
    use serde_json::json;

    fn completed(log: Value, strategy: &str, role: Option<&str>) -> Result<Value, String> {
        let mut host = BTreeMap::from([("logconfig".to_owned(), log)]);
        let source = wire::Container {
            name: "web".into(),
            logs_auth_strategy: strategy.into(),
            ..wire::Container::default()
        };
        let task = crate::model::TaskArn::parse("arn:aws:ecs:r:1:task/c/abc").unwrap().id();
        let role = role.map(|id| RoleCredentials {
            id: CredentialsId(id.into()),
            role_arn: "arn".into(),
            access_key_id: "a".into(),
            secret_access_key: "s".into(),
            session_token: "t".into(),
            expiration: String::new(),
        });
        let done = complete(&mut host, &source, &task, role.as_ref()).map_err(|error| error.to_string());
        done.map(|()| host.remove("logconfig").unwrap())
    }

    #[test]
    fn a_prefix_becomes_the_stream_unless_there_is_one() {
        let log = json!({"type": "awslogs", "config": {"awslogs-group": "g", "awslogs-stream-prefix": "p"}});
        let done = completed(log, "", None).unwrap();
        assert_eq!(done["config"], json!({"awslogs-group": "g", "awslogs-stream": "p/web/abc"}));
        let log = json!({"Type": "awslogs", "Config": {"awslogs-stream": "s", "awslogs-stream-prefix": "p"}});
        assert_eq!(completed(log, "", None).unwrap()["Config"], json!({"awslogs-stream": "s"}));
    }

    #[test]
    fn the_execution_role_is_found_by_its_path() {
        let log = json!({"Type": "awslogs", "Config": null});
        let done = completed(log.clone(), "ExecutionRole", Some("id-1")).unwrap();
        assert_eq!(done["Config"], json!({"awslogs-credentials-endpoint": "/v2/credentials/id-1"}));
        let error = completed(log, "ExecutionRole", None).unwrap_err();
        assert!(error.contains("no execution credentials are set"), "{error}");
    }

    #[test]
    fn other_drivers_and_what_is_no_object_stay_as_they_are() {
        for log in [
            json!({"Type": "json-file", "Config": {"awslogs-stream-prefix": "p"}}),
            json!({"Type": "awslogs", "Config": [1]}),
            json!("awslogs"),
        ] {
            assert_eq!(completed(log.clone(), "ExecutionRole", Some("id")).unwrap(), log);
        }
    }
}
