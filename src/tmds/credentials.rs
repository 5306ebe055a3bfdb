//! `/v1/credentials?id=` and `/v2/credentials/<id>` (spec/local-endpoints-config.md 1.4).

use super::reply::Reply;
use crate::model::RoleCredentials;
use hyper::StatusCode;
use serde::Serialize;

/// What is known about a credentials id.
#[derive(Debug)]
pub enum CredentialsAnswer {
    /// These are they.
    Found(RoleCredentials),
    /// A task known from before a restart has them; the control plane has not sent them again yet.
    KnownButAbsent,
    /// No task has them.
    Unknown,
}

/// Where role credentials are looked up. Called for each request; must not block.
pub trait CredentialsLookup: Send + Sync {
    /// Credentials by id, of task roles and of execution roles alike.
    fn get(&self, id: &str) -> CredentialsAnswer;
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsBody<'a> {
    role_arn: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: &'a str,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: String,
    #[serde(rename = "HTTPErrorCode")]
    http_error_code: u16,
}

/// Answers for one id; `request` is `CredentialsV1Request` or `CredentialsV2Request`.
pub(crate) fn answer(lookup: &dyn CredentialsLookup, request: &str, id: &str) -> Reply {
    let error = |status: StatusCode, code, text: &str| {
        let message = format!("{request}: {text}");
        Reply::json(status, &ErrorBody { code, message, http_error_code: status.as_u16() })
    };
    if id.is_empty() {
        return error(StatusCode::BAD_REQUEST, "NoIdInRequest", "No Credential ID in the request");
    }
    match lookup.get(id) {
        CredentialsAnswer::Found(found) => Reply::json(
            StatusCode::OK,
            &CredentialsBody {
                role_arn: &found.role_arn,
                access_key_id: &found.access_key_id,
                secret_access_key: &found.secret_access_key,
                token: &found.session_token,
                expiration: &found.expiration,
            },
        ),
        // An SDK retries a 5xx and gives up on a 4xx: a restart must not cost a task its role.
        CredentialsAnswer::KnownButAbsent => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "CredentialsUninitialized",
            "Credentials uninitialized for ID",
        ),
        CredentialsAnswer::Unknown => {
            error(StatusCode::BAD_REQUEST, "InvalidIdInRequest", "Credentials not found")
        }
    }
}
