//! Passwords of registries in Secrets Manager (spec/task-engine.md 3.4, type `asm`).

use super::account::Account;
use super::ecr::role_credentials;
use super::service::{self, Operation, ServiceError};
use crate::model::{RegistryAuth, RoleCredentials, SecretLogin};
use serde::Deserialize;
use serde_json::json;

const GET_SECRET: Operation = Operation {
    service: "secretsmanager",
    host: "secretsmanager",
    dual_stack_host: "secretsmanager",
    target: "secretsmanager.GetSecretValue",
};

/// No password in the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager did not give it.
    #[error("secret {secret}")]
    Service {
        /// ARN or name.
        secret: String,
        /// Why.
        #[source]
        source: ServiceError,
    },
    /// It is not what it must be.
    #[error("secret {secret} must be JSON text {{\"username\": \"...\", \"password\": \"...\"}}")]
    Form {
        /// ARN or name.
        secret: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "SecretString", default)]
    text: String,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// Reads user name and password from a secret, in the name of `role`. `endpoint` instead of the region's
/// own where it is not empty.
///
/// # Errors
/// [`SecretError`]
pub async fn registry_login(
    account: &Account,
    endpoint: &str,
    login: &SecretLogin,
    role: &RoleCredentials,
) -> Result<RegistryAuth, SecretError> {
    let secret = login.secret.chars().take(256).collect::<String>();
    let body = json!({ "SecretId": login.secret });
    let credentials = role_credentials(role);
    let answer: Answer = service::call(account, &credentials, &GET_SECRET, &login.region, endpoint, &body)
        .await
        .map_err(|source| SecretError::Service { secret: secret.clone(), source })?;
    // serde's words would show the secret.
    let read: Login =
        serde_json::from_str(&answer.text).map_err(|_| SecretError::Form { secret: secret.clone() })?;
    if read.username.is_empty() || read.password.is_empty() {
        return Err(SecretError::Form { secret });
    }
    Ok(RegistryAuth { username: read.username, password: read.password })
}
