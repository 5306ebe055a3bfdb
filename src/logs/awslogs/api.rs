//! The three calls of CloudWatch Logs that a logger makes, signed, over one kept connection.

use super::credentials::{CredentialsError, CredentialsSource};
use crate::logs::http::{Answer, Client, HttpError, Request};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::Deserialize;
use std::time::SystemTime;

/// The protocol's version, before each operation's name.
const TARGET: &str = "Logs_20140328";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A call that failed, in the words of the SDK that dockerd uses: users look for them.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// CloudWatch said no.
    #[error(
        "operation error CloudWatch Logs: {operation}, https response error StatusCode: {status}, \
         RequestID: {request_id}, {code}: {message}"
    )]
    Refused {
        /// What was called.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// AWS' id of the request.
        request_id: String,
        /// Such as `ResourceNotFoundException`.
        code: String,
        /// In its words.
        message: String,
        /// The sequence token that it wanted.
        expected_token: Option<String>,
    },
    /// It was not asked, or gave no answer.
    #[error("operation error CloudWatch Logs: {operation}, request send failed: {source}")]
    Unreachable {
        /// What was called.
        operation: &'static str,
        /// Why.
        source: HttpError,
    },
    /// There is nothing to sign with.
    #[error("operation error CloudWatch Logs: {operation}, get identity: get credentials: {source}")]
    Credentials {
        /// What was called.
        operation: &'static str,
        /// Why.
        source: CredentialsError,
    },
    /// It can't be signed.
    #[error("operation error CloudWatch Logs: {operation}, the request can't be signed: {reason}")]
    Unsigned {
        /// What was called.
        operation: &'static str,
        /// Why.
        reason: String,
    },
}

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Time heals it: call again after a pause.
    Again,
    /// The credentials are no longer taken: get others, then call again.
    OtherCredentials,
    /// Group or stream is not there.
    Create,
    /// The stream wants another sequence token.
    Token,
    /// It was done before.
    Done,
    /// Nothing helps.
    None,
}

impl CallError {
    /// What is to be done.
    pub fn remedy(&self) -> Remedy {
        let Self::Refused { status, code, .. } = self else {
            return match self {
                Self::Unsigned { .. } => Remedy::None,
                _ => Remedy::Again,
            };
        };
        match code.as_str() {
            "ResourceNotFoundException" => Remedy::Create,
            "InvalidSequenceTokenException" => Remedy::Token,
            "DataAlreadyAcceptedException" | "ResourceAlreadyExistsException" => Remedy::Done,
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException" => Remedy::OtherCredentials,
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestLimitExceeded"
            | "ServiceUnavailableException"
            | "OperationAbortedException"
            | "LimitExceededException"
            | "RequestTimeout"
            | "RequestTimeoutException" => Remedy::Again,
            _ if *status >= 500 || *status == 429 => Remedy::Again,
            _ => Remedy::None,
        }
    }
}

/// The service of one region.
#[derive(Debug)]
pub struct LogsApi {
    client: Client,
    credentials: CredentialsSource,
    region: String,
    /// `x-amzn-logs-format`.
    format: Option<&'static str>,
}

/// Errors as the service writes them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    #[serde(rename = "__type")]
    kind: String,
    message: String,
    #[serde(rename = "Message")]
    other_message: String,
    #[serde(rename = "expectedSequenceToken")]
    expected_token: Option<String>,
}

impl LogsApi {
    /// A service. Nothing is called yet.
    pub fn new(
        client: Client,
        credentials: CredentialsSource,
        region: String,
        format: Option<&'static str>,
    ) -> Self {
        Self { client, credentials, region, format }
    }

    /// Calls an operation; answers the body of the answer.
    ///
    /// # Errors
    /// [`CallError`]
    pub fn call(&mut self, operation: &'static str, body: &[u8]) -> Result<Vec<u8>, CallError> {
        let unsigned = |reason: String| CallError::Unsigned { operation, reason };
        let credentials = self.credentials.get();
        let credentials = credentials.map_err(|source| CallError::Credentials { operation, source })?;
        let target = format!("{TARGET}.{operation}");
        let mut headers = vec![("Content-Type", CONTENT_TYPE), ("X-Amz-Target", target.as_str())];
        headers.extend(self.format.map(|format| ("x-amzn-logs-format", format)));
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("logs")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| unsigned(error.to_string()))?
            .into();
        let host = [("host", self.client.authority())];
        let signed_headers = host.into_iter().chain(headers.iter().copied());
        let url = format!("https://{}/", self.client.authority());
        let request = SignableRequest::new("POST", url, signed_headers, SignableBody::Bytes(body))
            .map_err(|error| unsigned(error.to_string()))?;
        let signed = sign(request, &params).map_err(|error| unsigned(error.to_string()))?;
        let (instructions, _) = signed.into_parts();
        let (signature, _) = instructions.into_parts();
        headers.extend(signature.iter().map(|header| (header.name(), header.value())));
        headers.push(("User-Agent", concat!("ecsd-logger/", env!("CARGO_PKG_VERSION"))));
        let request = Request { method: "POST", path: "/", headers: &headers, body };
        let answer = self.client.send(&request);
        let answer = answer.map_err(|source| CallError::Unreachable { operation, source })?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let refusal = refusal(operation, &answer);
        if refusal.remedy() == Remedy::OtherCredentials {
            self.credentials.forget();
        }
        Err(refusal)
    }
}

fn refusal(operation: &'static str, answer: &Answer) -> CallError {
    let short = |text: &str| -> String { text.chars().take(1024).collect() };
    let failure: Failure = serde_json::from_slice(&answer.body).unwrap_or_default();
    let kind = Some(failure.kind).filter(|kind| !kind.is_empty());
    let kind = kind.or_else(|| answer.header("x-amzn-errortype").map(str::to_owned)).unwrap_or_default();
    // `com.amazonaws.logs#Name`, or `Name:http://...` in the header.
    let code = kind.rsplit('#').next().and_then(|name| name.split(':').next()).unwrap_or_default();
    let message = match failure.message.is_empty() {
        true => failure.other_message,
        false => failure.message,
    };
    CallError::Refused {
        operation,
        status: answer.status,
        request_id: short(answer.header("x-amzn-requestid").unwrap_or_default()),
        code: match code {
            "" => answer.reason.clone(),
            code => short(code),
        },
        message: short(&message),
        expected_token: failure.expected_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, header: Option<&str>, body: &str) -> CallError {
        let mut headers = vec![("x-amzn-requestid".to_owned(), "r1".to_owned())];
        headers.extend(header.map(|value| ("x-amzn-errortype".to_owned(), value.to_owned())));
        refusal(
            "PutLogEvents",
            &Answer { status, reason: "Some Reason".into(), headers, body: body.as_bytes().to_vec() },
        )
    }

    #[test]
    fn refusals_are_told_in_the_sdks_words() {
        let body = r#"{"__type":"com.amazonaws.logs#ResourceNotFoundException","message":"The specified log group does not exist."}"#;
        let error = refused(400, None, body);
        assert_eq!(error.remedy(), Remedy::Create);
        assert_eq!(
            error.to_string(),
            "operation error CloudWatch Logs: PutLogEvents, https response error StatusCode: 400, RequestID: r1, \
             ResourceNotFoundException: The specified log group does not exist."
        );
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        for (status, header, body, remedy) in [
            (400, None, r#"{"__type":"ThrottlingException"}"#, Remedy::Again),
            (400, Some("ServiceUnavailableException:http://x/"), "", Remedy::Again),
            (503, None, "<html>", Remedy::Again),
            (400, None, r#"{"__type":"ExpiredTokenException","Message":"m"}"#, Remedy::OtherCredentials),
            (
                400,
                None,
                r#"{"__type":"InvalidSequenceTokenException","expectedSequenceToken":"t"}"#,
                Remedy::Token,
            ),
            (400, None, r#"{"__type":"DataAlreadyAcceptedException"}"#, Remedy::Done),
            (400, None, r#"{"__type":"InvalidParameterException"}"#, Remedy::None),
            (403, None, "", Remedy::None),
        ] {
            assert_eq!(refused(status, header, body).remedy(), remedy, "{status} {body}");
        }
    }
}
