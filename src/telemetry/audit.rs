//! The audit log: who was given which role's credentials, and who was refused
//! (spec/local-endpoints-config.md 1.10). Lines are the original's, to its file and to standard
//! output. A line never holds a credential, nor the id by which credentials are asked for.

use super::writer::{Targets, Writer};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::SystemTime;

/// Longer texts of clients are cut.
const TEXT_MAX: usize = 512;

/// One answer of the metadata endpoint.
#[derive(Debug, Clone, Copy)]
pub struct AuditRecord<'a> {
    /// When.
    pub at: SystemTime,
    /// HTTP status.
    pub status: u16,
    /// Who asked.
    pub peer: SocketAddr,
    /// The URL's path without what identifies credentials.
    pub path: &'a str,
    /// User agent; may be blank.
    pub user_agent: &'a str,
    /// What was given; `None` where nothing was.
    pub granted: Option<Granted<'a>>,
}

/// Credentials that were given.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// The task's ARN.
    pub task_arn: &'a str,
    /// They are of the execution role, not of the task's.
    pub execution_role: bool,
    /// Cluster.
    pub cluster: &'a str,
    /// ARN of the container instance; may be blank.
    pub container_instance: &'a str,
}

/// Writes the audit log. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct AuditLog(Writer);

impl AuditLog {
    pub(super) fn new(writer: Writer) -> Self {
        Self(writer)
    }

    /// Writes one line.
    pub fn write(&self, record: &AuditRecord<'_>) {
        self.0.write(Targets { stdout: true, file: false, audit: true }, line(record));
    }
}

fn line(record: &AuditRecord<'_>) -> String {
    let AuditRecord { at, status, peer, path, user_agent, granted } = record;
    let at = humantime::format_rfc3339_seconds(*at);
    let mut out = format!("{at} {status} {peer} \"{}\" \"{}\" ", quotable(path), quotable(user_agent));
    // Writing to a String can't fail.
    let _ = match granted {
        Some(granted) => writeln!(
            out,
            "{} {} 2 {} {}",
            word(granted.task_arn),
            if granted.execution_role { "GetCredentialsExecutionRole" } else { "GetCredentials" },
            word(granted.cluster),
            word(granted.container_instance)
        ),
        // The original ends here, too: it has no columns for what was not given.
        None => writeln!(out, "- "),
    };
    out
}

fn word(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// What a client sent, so that it can end neither its column nor its line.
fn quotable(text: &str) -> String {
    let fit = |c: char| if c == '"' || c.is_control() { '?' } else { c };
    text.chars().take(TEXT_MAX).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn lines_are_the_originals() {
        let mut record = AuditRecord {
            at: UNIX_EPOCH + Duration::from_secs(1_136_214_245),
            status: 200,
            peer: ([172, 17, 0, 3], 43210).into(),
            path: "/v2/credentials",
            user_agent: "aws-cli/2",
            granted: Some(Granted {
                task_arn: "arn:t",
                execution_role: false,
                cluster: "c",
                container_instance: "",
            }),
        };
        assert_eq!(
            line(&record),
            "2006-01-02T15:04:05Z 200 172.17.0.3:43210 \"/v2/credentials\" \"aws-cli/2\" arn:t GetCredentials 2 c -\n"
        );
        record.granted = record.granted.map(|g| Granted { execution_role: true, ..g });
        assert!(line(&record).contains(" arn:t GetCredentialsExecutionRole 2 c -"));
        record = AuditRecord { status: 429, user_agent: "", granted: None, ..record };
        record.path = "/v4/\"x\n";
        assert_eq!(line(&record), "2006-01-02T15:04:05Z 429 172.17.0.3:43210 \"/v4/?x?\" \"\" - \n");
    }
}
