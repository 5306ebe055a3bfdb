//! Errors of the API in the words that decide what to do about them.

use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The service said no.
    #[error("{operation}: {code}: {message} (HTTP {status})")]
    Service {
        /// Operation.
        operation: &'static str,
        /// Exception, such as `ClientException`; empty where the body told none.
        code: String,
        /// Its message.
        message: String,
        /// HTTP status.
        status: u16,
        /// By which the service knows the request, where it said so.
        request_id: Option<String>,
    },
    /// No usable answer: network, time-out, credentials.
    #[error("{operation}: {message}")]
    Transport {
        /// Operation.
        operation: &'static str,
        /// What happened, all causes.
        message: String,
    },
    /// An answer without a member that it must have.
    #[error("{operation}: the answer has no {member}")]
    Incomplete {
        /// Operation.
        operation: &'static str,
        /// Member.
        member: &'static str,
    },
}

/// Codes for which the service asks to slow down (1.1).
const THROTTLES: [&str; 14] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];

impl ApiError {
    pub(super) fn new<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match &error {
            SdkError::ServiceError(context) => Self::Service {
                operation,
                code: context.err().code().unwrap_or_default().to_owned(),
                message: context.err().message().unwrap_or_default().chars().take(1024).collect(),
                status: context.raw().status().as_u16(),
                request_id: context.raw().headers().get("x-amzn-requestid").map(str::to_owned),
            },
            _ => {
                let message = crate::control::chain(&error);
                Self::Transport { operation, message: message.chars().take(1024).collect() }
            }
        }
    }

    /// The exception's name; empty for transport errors.
    pub fn code(&self) -> &str {
        match self {
            Self::Service { code, .. } => code,
            _ => "",
        }
    }

    /// The service's message; empty for transport errors.
    pub fn message(&self) -> &str {
        match self {
            Self::Service { message, .. } => message,
            _ => "",
        }
    }

    /// Whether the SDK's own rules would try again: no answer, 5xx, throttled.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Service { code, status, .. } => {
                matches!(status, 500 | 502 | 503 | 504)
                    || THROTTLES.contains(&code.as_str())
                    || code.starts_with("RequestTimeout")
            }
            Self::Transport { .. } => true,
            Self::Incomplete { .. } => false,
        }
    }
}
