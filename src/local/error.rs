//! Errors of the API as the AWS SDKs read them: an exception name, a status and a text that names
//! the value and the cure.

use serde_json::{Value, json};

/// An exception of the ECS API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct ApiError {
    /// Exception name, the `__type` of the answer.
    pub kind: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Text for people.
    pub message: String,
}

impl ApiError {
    /// `ClientException`: what was asked for can't be.
    pub fn client(message: impl Into<String>) -> Self {
        Self { kind: "ClientException", status: 400, message: message.into() }
    }

    /// `InvalidParameterException`: a parameter names nothing, or can't have that value.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: "InvalidParameterException", status: 400, message: message.into() }
    }

    /// `SerializationException`: no JSON, or a member of the wrong type.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self { kind: "SerializationException", status: 400, message: message.into() }
    }

    /// `ClusterNotFoundException`, with the service's own text.
    pub fn cluster_not_found() -> Self {
        Self { kind: "ClusterNotFoundException", status: 400, message: "Cluster not found.".to_owned() }
    }

    /// `UnknownOperationException`: the operation does not exist here.
    pub fn unknown_operation(message: impl Into<String>) -> Self {
        Self { kind: "UnknownOperationException", status: 400, message: message.into() }
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        json!({ "__type": self.kind, "message": self.message })
    }
}

/// At most `limit` characters of something a caller sent, for an error text.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
