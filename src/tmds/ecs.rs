//! What only ECS knows of a task, asked on behalf of its containers: tags, and the protection from
//! scale-in at `/api/<id>/task-protection/v1/state` (spec/local-endpoints-config.md 1.8, 1.9). Who asks ECS
//! is `app`'s choice; these are the questions, the words of the answers and their statuses.

use super::gojson::opt_time;
use super::reply::Reply;
use super::snapshot::Snapshot;
use crate::model::{
    CredentialsId, EcsRefusal, ProtectionAnswer, ProtectionChange, ProtectionFailure, TaskArn,
    TaskProtection, Wall,
};
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One question, its attempts together.
const LIMIT: Duration = Duration::from_secs(4);

/// Tags by their keys, or why there are none.
pub type Tags = Result<BTreeMap<String, String>, EcsRefusal>;

/// Asks ECS.
pub trait AskEcs: Send + Sync {
    /// Tags of a task or of the instance, on behalf of a container.
    fn tags(&self, arn: String, container: String) -> BoxFuture<'static, Tags>;
    /// Protection of a task, asked for or changed by its own role. `None` where that has no credentials.
    fn protection(
        &self,
        task: TaskArn,
        role: CredentialsId,
        change: Option<ProtectionChange>,
    ) -> Option<BoxFuture<'static, Result<ProtectionAnswer, EcsRefusal>>>;
}

/// Tags within the limit.
pub(super) async fn tags(ecs: &dyn AskEcs, arn: String, container: String) -> Tags {
    match tokio::time::timeout(LIMIT, ecs.tags(arn.clone(), container)).await {
        Ok(Ok(tags)) => Ok(tags),
        Ok(Err(error)) => {
            tracing::warn!(%arn, code = error.code, error = error.message, "no tags");
            Err(error)
        }
        Err(_) => {
            tracing::warn!(%arn, limit = ?LIMIT, "no tags in time");
            Err(EcsRefusal {
                status: None,
                code: String::new(),
                message: format!("no answer within {LIMIT:?}"),
                request_id: None,
            })
        }
    }
}

/// Tags that could not be had, as v4 tells it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagsError {
    error_field: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(rename = "ResourceARN")]
    resource_arn: String,
}

impl TagsError {
    pub(super) fn new(field: &'static str, arn: &str, error: EcsRefusal) -> Self {
        Self {
            error_field: field,
            error_code: error.code,
            error_message: error.message,
            status_code: error.status,
            request_id: error.request_id,
            resource_arn: arn.to_owned(),
        }
    }
}

/// The answer about protection; `body` is a PUT's.
pub(super) async fn protection(
    ecs: Option<Arc<dyn AskEcs>>,
    snapshot: Arc<Snapshot>,
    endpoint: String,
    method: Method,
    body: Bytes,
) -> Reply {
    let asked = match method {
        Method::PUT => match decode(&body) {
            Some(asked) => Some(asked),
            None => {
                let text = "UpdateTaskProtection: failed to decode request";
                return refused(StatusCode::BAD_REQUEST, None, "InvalidParameterException", text);
            }
        },
        _ => None,
    };
    let Some(view) = snapshot.endpoint(&endpoint) else {
        let text = "Failed to find a task for the request";
        return refused(StatusCode::NOT_FOUND, None, "ResourceNotFoundException", text);
    };
    let spec = &view.task.spec;
    let arn = Some(spec.arn.as_str());
    let change = match asked {
        None => None,
        Some((Some(enabled), expires_in_minutes)) => Some(ProtectionChange { enabled, expires_in_minutes }),
        Some((None, _)) => {
            let text = "Invalid request: does not contain 'ProtectionEnabled' field";
            return refused(StatusCode::BAD_REQUEST, arn, "InvalidParameterException", text);
        }
    };
    let role = spec.task_role.clone();
    let call = role.zip(ecs).and_then(|(role, ecs)| ecs.protection(spec.arn.clone(), role, change));
    let Some(call) = call else {
        let text = "Invalid Request: no task IAM role credentials available for task";
        return refused(StatusCode::FORBIDDEN, arn, "AccessDeniedException", text);
    };
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(answer)) => answered(answer, arn),
        Ok(Err(error)) => {
            let status = error.status.and_then(|status| StatusCode::from_u16(status).ok());
            let told = |code: String| if code.is_empty() { "ServerException".to_owned() } else { code };
            let body = Body {
                request_id: error.request_id,
                error: Some(ErrorBody { arn, code: told(error.code), message: error.message }),
                ..Body::default()
            };
            Reply::json(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
        }
        Err(_) => {
            let text = "Timed out calling ECS Task Protection API";
            refused(StatusCode::GATEWAY_TIMEOUT, arn, "RequestCanceled", text)
        }
    }
}

/// `ProtectionEnabled` and `ExpiresInMinutes` of a PUT, as Go decodes them: the first JSON value, keys in any
/// case, null for not there; `None` where it is no such object, or has other members.
fn decode(body: &[u8]) -> Option<(Option<bool>, Option<i32>)> {
    let (mut enabled, mut minutes) = (None, None);
    let members = match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next()?.ok()? {
        Value::Null => return Some((None, None)),
        Value::Object(members) => members,
        _ => return None,
    };
    for (key, value) in &members {
        if key.eq_ignore_ascii_case("ProtectionEnabled") {
            enabled = if value.is_null() { None } else { Some(value.as_bool()?) };
        } else if key.eq_ignore_ascii_case("ExpiresInMinutes") {
            minutes = if value.is_null() { None } else { Some(i32::try_from(value.as_i64()?).ok()?) };
        } else {
            return None;
        }
    }
    Some((enabled, minutes))
}

/// Of the one task that was asked about.
fn answered(answer: ProtectionAnswer, arn: Option<&str>) -> Reply {
    let ProtectionAnswer { mut tasks, mut failures } = answer;
    if tasks.len() > 1 || failures.len() > 1 {
        let text = "Unexpected error occurred";
        return refused(StatusCode::INTERNAL_SERVER_ERROR, arn, "ServerException", text);
    }
    let body = match (tasks.pop(), failures.pop()) {
        (_, Some(failure)) => Body { failure: Some(failure.into()), ..Body::default() },
        (Some(task), None) => Body { protection: Some(task.into()), ..Body::default() },
        (None, None) => {
            let text = "Unexpected error occurred";
            return refused(StatusCode::INTERNAL_SERVER_ERROR, arn, "ServerException", text);
        }
    };
    Reply::json(StatusCode::OK, &body)
}

fn refused(status: StatusCode, arn: Option<&str>, code: &str, message: &str) -> Reply {
    let error = ErrorBody { arn, code: code.to_owned(), message: message.to_owned() };
    Reply::json(status, &Body { error: Some(error), ..Body::default() })
}

#[derive(Serialize, Default)]
struct Body<'a> {
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<ProtectionBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProtectionBody {
    #[serde(serialize_with = "opt_time")]
    expiration_date: Option<Wall>,
    protection_enabled: bool,
    task_arn: String,
}

impl From<TaskProtection> for ProtectionBody {
    fn from(told: TaskProtection) -> Self {
        Self { expiration_date: told.expires_at, protection_enabled: told.enabled, task_arn: told.task }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FailureBody {
    arn: Option<String>,
    detail: Option<String>,
    reason: Option<String>,
}

impl From<ProtectionFailure> for FailureBody {
    fn from(told: ProtectionFailure) -> Self {
        Self { arn: told.arn, detail: told.detail, reason: told.reason }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<&'a str>,
    code: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_decoded_as_go_does() {
        for (body, asked) in [
            (r#"{"ProtectionEnabled":true,"ExpiresInMinutes":60}"#, Some((Some(true), Some(60)))),
            (r#"{"protectionENABLED":false} and more"#, Some((Some(false), None))),
            (r#"{"ProtectionEnabled":null}"#, Some((None, None))),
            ("{}", Some((None, None))),
            ("null", Some((None, None))),
            ("", None),
            ("[]", None),
            (r#"{"ProtectionEnabled":"yes"}"#, None),
            (r#"{"ExpiresInMinutes":1.5}"#, None),
            (r#"{"ExpiresInMinutes":99999999999}"#, None),
            (r#"{"ProtectionEnabled":true,"Other":1}"#, None),
            (r#"{"ProtectionEnabled":true"#, None),
        ] {
            assert_eq!(decode(body.as_bytes()), asked, "{body}");
        }
    }
}
