//! What the agent says of itself.

/// Version and build as the control plane sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Such as `0.1.0`.
    pub version: String,
    /// Short commit.
    pub hash: String,
    /// `ECS_DETAILED_OS_FAMILY`, `LINUX` where not set; empty leaves it out.
    pub os_family: String,
}

impl Default for AgentIdentity {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hash: option_env!("ECSD_COMMIT").unwrap_or("unknown").to_owned(),
            os_family: "LINUX".to_owned(),
        }
    }
}

impl AgentIdentity {
    /// `Amazon ECS Agent - v<version> (<hash>)`, also shown by the introspection endpoint.
    pub fn full_version(&self) -> String {
        format!("Amazon ECS Agent - v{} ({})", self.version, self.hash)
    }

    /// The User-Agent of every request (spec/control-plane.md 0.2). Bytes that a header can't hold
    /// are left out.
    pub fn user_agent(&self) -> String {
        let family = if self.os_family.is_empty() { String::new() } else { format!("; {}", self.os_family) };
        let text = format!("{} (linux{family}) (+http://aws.amazon.com/ecs/)", self.full_version());
        text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_has_the_shape_of_the_original() {
        let mut identity =
            AgentIdentity { version: "1.105.1".into(), hash: "*a8b3e7d3".into(), os_family: "LINUX".into() };
        let expected = "Amazon ECS Agent - v1.105.1 (*a8b3e7d3) (linux; LINUX) (+http://aws.amazon.com/ecs/)";
        assert_eq!(identity.user_agent(), expected);
        identity.os_family = "a\r\nX: y".into();
        assert!(!identity.user_agent().contains(['\r', '\n']));
        identity.os_family.clear();
        assert!(identity.user_agent().contains(" (linux) "));
    }
}
