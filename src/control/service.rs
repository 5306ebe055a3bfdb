//! Services that speak AWS JSON 1.1 (ECR, Secrets Manager): one signed POST a call, by hand. A whole SDK
//! client for each would be megabytes of program.

use super::account::Account;
use super::endpoints;
use super::http::GetError;
use super::sigv4::{self, SignError};
use aws_credential_types::Credentials;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// One attempt.
const ROUND_TRIP: Duration = Duration::from_secs(10);
/// Attempts, as the SDK makes them.
const ATTEMPTS: u32 = 3;
/// Up to twice that before the second attempt, four times before the third.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest answer: a secret has up to 64 KiB.
const MAX_ANSWER: usize = 512 * 1024;

/// Which operation of which service.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// Name in signatures.
    pub service: &'static str,
    /// Where the service is: the host's name up to the region.
    pub host: &'static str,
    /// The same in the domain with IPv6 addresses.
    pub dual_stack_host: &'static str,
    /// `X-Amz-Target`.
    pub target: &'static str,
}

/// A call that failed. Holds nothing of what was answered but the service's own words about the error.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Not an address.
    #[error("{endpoint:?} is no address of a service: use a host, or https://host")]
    Endpoint {
        /// The address.
        endpoint: String,
    },
    /// Could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No answer.
    #[error("{operation}: {host} does not answer")]
    Transport {
        /// Operation.
        operation: &'static str,
        /// Host.
        host: String,
        /// Why.
        #[source]
        source: GetError,
    },
    /// The service said no.
    #[error("{operation}: {host} answered {status} {code}: {message}")]
    Refused {
        /// Operation.
        operation: &'static str,
        /// Host.
        host: String,
        /// HTTP status.
        status: u16,
        /// The service's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// An answer that is not what it should be.
    #[error("{operation}: the answer of {host} can't be read")]
    Answer {
        /// Operation.
        operation: &'static str,
        /// Host.
        host: String,
    },
}

impl ServiceError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status, code, .. } => {
                *status >= 500
                    || *status == 429
                    || code.contains("Throttl")
                    || code.contains("TooManyRequests")
            }
            _ => false,
        }
    }
}

/// Calls an operation in a region; `endpoint` instead of the region's own where it is not empty.
///
/// # Errors
/// [`ServiceError`], after three attempts where another may help.
pub async fn call<T: DeserializeOwned>(
    account: &Account,
    credentials: &Credentials,
    operation: &Operation,
    region: &str,
    endpoint: &str,
    body: &Value,
) -> Result<T, ServiceError> {
    let url = match endpoint {
        "" if account.dual_stack => {
            format!("https://{}.{region}.{}", operation.dual_stack_host, endpoints::domain(region, true))
        }
        "" => format!("https://{}.{region}.{}", operation.host, endpoints::domain(region, false)),
        written => written.to_owned(),
    };
    let bad = || ServiceError::Endpoint { endpoint: url.chars().take(256).collect() };
    let url = endpoints::written(&url).ok_or_else(bad)?;
    let mut attempt = 1;
    loop {
        let error = match ask(account, credentials, operation, region, &url, body).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if attempt == ATTEMPTS || !error.is_transient() {
            return Err(error);
        }
        tracing::debug!(error = super::chain(&error), attempt, "a service is asked again");
        tokio::time::sleep(PAUSE.mul_f64(f64::from(1 << attempt) * super::backoff::random_fraction())).await;
        attempt += 1;
    }
}

async fn ask<T: DeserializeOwned>(
    account: &Account,
    credentials: &Credentials,
    operation: &Operation,
    region: &str,
    url: &url::Url,
    body: &Value,
) -> Result<T, ServiceError> {
    let body = body.to_string().into_bytes();
    let mut headers = vec![
        ("Content-Type", "application/x-amz-json-1.1".to_owned()),
        ("X-Amz-Target", operation.target.to_owned()),
    ];
    let now = account.clock.now();
    let signed = sigv4::sign_post(operation.service, credentials, region, url, &headers, &body, now)?;
    headers.extend(signed);
    headers.push(("User-Agent", account.identity.user_agent()));
    let host = sigv4::host_header(url);
    let name = operation.target.rsplit('.').next().unwrap_or_default();
    let (status, answer) = account
        .http
        .post(url, &headers, body, ROUND_TRIP, MAX_ANSWER)
        .await
        .map_err(|source| ServiceError::Transport { operation: name, host: host.clone(), source })?;
    if status != 200 {
        let (code, message) = refusal(&answer);
        return Err(ServiceError::Refused { operation: name, host, status, code, message });
    }
    // serde's words would show the answer, which is a password.
    serde_json::from_slice(&answer).map_err(|_| ServiceError::Answer { operation: name, host })
}

/// Code and message of `{"__type": "...#Code", "message": "..."}`; of anything else its beginning.
fn refusal(body: &[u8]) -> (String, String) {
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).map(|text| text.chars().take(512).collect::<String>())
    };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (String::new(), String::from_utf8_lossy(body).chars().take(512).collect());
    };
    let code = text(&value, "__type").unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().to_owned();
    (code, text(&value, "message").or_else(|| text(&value, "Message")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_words_are_kept() {
        let said =
            br#"{"__type":"com.amazonaws.ecr#AccessDeniedException","message":"User: x is not authorized"}"#;
        let expected = ("AccessDeniedException".to_owned(), "User: x is not authorized".to_owned());
        assert_eq!(refusal(said), expected);
        assert_eq!(refusal(br#"{"__type":"E","Message":"m"}"#), ("E".to_owned(), "m".to_owned()));
        assert_eq!(refusal(b"<html>"), (String::new(), "<html>".to_owned()));
        assert_eq!(refusal(b"[]"), (String::new(), String::new()));
    }
}
