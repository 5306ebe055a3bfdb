//! How the registry of a container's image is asked for it.

use crate::model::credentials::CredentialsId;

/// `registryAuthentication` of a container (spec/task-engine.md 3.4): where user name and password come
/// from. Holds neither.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RegistryLogin {
    /// `ecr`
    Ecr(EcrLogin),
    /// `asm`
    Secret(SecretLogin),
}

/// A registry of ECR, whose API gives the password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EcrLogin {
    /// Region.
    pub region: String,
    /// Account that has the registry; empty is the own.
    pub registry: String,
    /// Endpoint of ECR's API instead of the region's own; empty is none.
    pub endpoint: String,
    /// Asked in the name of the task's execution role, not of the instance.
    pub execution_role: bool,
}

/// A secret of Secrets Manager, read in the name of the task's execution role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretLogin {
    /// Its ARN or name.
    pub secret: String,
    /// Region.
    pub region: String,
}

/// An image, as a container wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRequest<'a> {
    /// The reference, as written in the task definition.
    pub image: &'a str,
    /// The registry's password; `None` where the task definition says nothing of one.
    pub login: Option<&'a RegistryLogin>,
    /// The execution role of its task.
    pub execution_role: Option<&'a CredentialsId>,
}

impl<'a> From<&'a str> for ImageRequest<'a> {
    fn from(image: &'a str) -> Self {
        Self { image, login: None, execution_role: None }
    }
}

impl<'a> From<&'a String> for ImageRequest<'a> {
    fn from(image: &'a String) -> Self {
        Self::from(image.as_str())
    }
}
