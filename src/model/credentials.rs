//! Role credentials. Their secret parts never reach a Debug, a log or the store.

use std::fmt;

/// The id by which a container asks for its role's credentials; safe to store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialsId(pub String);

/// Credentials of a task's role or execution role, as ACS delivered them.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleCredentials {
    /// The id in `/v2/credentials/<id>`.
    pub id: CredentialsId,
    /// The role.
    pub role_arn: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret.
    pub secret_access_key: String,
    /// Secret.
    pub session_token: String,
    /// Echoed as ACS wrote it.
    pub expiration: String,
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleCredentials")
            .field("id", &self.id)
            .field("role_arn", &self.role_arn)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_secrets() {
        let secret = RoleCredentials {
            id: CredentialsId("id".into()),
            role_arn: "arn".into(),
            access_key_id: "AKIDCANARY".into(),
            secret_access_key: "SECRETCANARY".into(),
            session_token: "TOKENCANARY".into(),
            expiration: String::new(),
        };
        assert!(!format!("{secret:?}").contains("CANARY"));
    }
}
