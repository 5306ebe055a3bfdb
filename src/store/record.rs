//! The stored records and their conversions from and to the model. Version 1.
//!
//! A field may be added with a default; anything else is a new version. Words and times are stored
//! as text and integers that a person can read in a dump: status words as the metadata endpoint
//! spells them, times in nanoseconds since 1970.

use crate::model::{
    Attachment, ContainerAddress, ContainerProgress, ContainerStatus, DesiredStatus, ExitRecord, ImageDigest,
    MacAddress, NetworkBinding, Protocol, Restarts, StopReason, TaskArn, TaskProgress, TaskStatus, Wall,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What was asked: the control plane's JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    pub(crate) source: String,
}

/// A value of the agent itself.
#[derive(Serialize, Deserialize)]
pub(crate) struct MetaRecord {
    pub(crate) value: String,
}

/// An announced network interface.
#[derive(Serialize, Deserialize)]
pub(crate) struct AttachmentRecord {
    arn: String,
    mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    expires_at: u64,
    sent: bool,
}

/// The progress of a task.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProgressRecord {
    desired: String,
    known: String,
    sent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    admitted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pull_started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pull_stopped_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_stopped_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped_at: Option<u64>,
    containers: BTreeMap<String, ContainerRecord>,
}

#[derive(Serialize, Deserialize)]
struct ContainerRecord {
    known: String,
    sent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipv4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bindings: Vec<Binding>,
    /// None: never restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restarts: Option<RestartsRecord>,
}

#[derive(Serialize, Deserialize)]
struct RestartsRecord {
    count: u32,
    last: Option<u64>,
    answers: Option<Exit>,
    under_way: bool,
}

#[derive(Serialize, Deserialize)]
struct Exit {
    code: Option<i32>,
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct Reason {
    name: String,
    message: String,
}

#[derive(Serialize, Deserialize)]
struct Binding {
    bind_ip: Ipv4Addr,
    container_port: u16,
    host_port: u16,
    count: u16,
    is_range: bool,
    protocol: String,
}

// === impl AttachmentRecord ===

impl From<&Attachment> for AttachmentRecord {
    fn from(a: &Attachment) -> Self {
        Self {
            arn: a.arn.clone(),
            mac: a.mac.to_string(),
            task: a.task.as_ref().map(ToString::to_string),
            expires_at: a.expires_at.0,
            sent: a.sent,
        }
    }
}

impl TryFrom<AttachmentRecord> for Attachment {
    type Error = String;

    fn try_from(r: AttachmentRecord) -> Result<Self, String> {
        Ok(Self {
            mac: MacAddress::parse(&r.mac).ok_or_else(|| unknown("hardware address", &r.mac))?,
            arn: r.arn,
            task: r.task.map(|arn| TaskArn::parse(&arn).map_err(|e| e.to_string())).transpose()?,
            expires_at: Wall(r.expires_at),
            sent: r.sent,
        })
    }
}

// === impl ProgressRecord ===

impl From<&TaskProgress> for ProgressRecord {
    fn from(p: &TaskProgress) -> Self {
        Self {
            desired: p.desired.word().to_owned(),
            known: p.known.word().to_owned(),
            sent: p.sent.word().to_owned(),
            reason: p.reason.clone(),
            admitted: p.admitted,
            pull_started_at: nanos(p.pull_started_at),
            pull_stopped_at: nanos(p.pull_stopped_at),
            execution_stopped_at: nanos(p.execution_stopped_at),
            stopped_at: nanos(p.stopped_at),
            containers: p.containers.iter().map(|(name, c)| (name.clone(), c.into())).collect(),
        }
    }
}

impl TryFrom<ProgressRecord> for TaskProgress {
    type Error = String;

    fn try_from(r: ProgressRecord) -> Result<Self, String> {
        let containers = r.containers.into_iter().map(|(name, c)| {
            let progress = ContainerProgress::try_from(c).map_err(|e| format!("container {name:?}: {e}"))?;
            Ok((name, progress))
        });
        Ok(Self {
            desired: desired(&r.desired)?,
            known: TaskStatus::from_word(&r.known).ok_or_else(|| unknown("task status", &r.known))?,
            sent: TaskStatus::from_word(&r.sent).ok_or_else(|| unknown("task status", &r.sent))?,
            reason: r.reason,
            admitted: r.admitted,
            pull_started_at: r.pull_started_at.map(Wall),
            pull_stopped_at: r.pull_stopped_at.map(Wall),
            execution_stopped_at: r.execution_stopped_at.map(Wall),
            stopped_at: r.stopped_at.map(Wall),
            containers: containers.collect::<Result<_, String>>()?,
        })
    }
}

// === impl ContainerRecord ===

impl From<&ContainerProgress> for ContainerRecord {
    fn from(c: &ContainerProgress) -> Self {
        Self {
            known: c.known.word().to_owned(),
            sent: c.sent.word().to_owned(),
            digest: c.digest.as_ref().map(|d| d.as_str().to_owned()),
            image_id: c.image_id.as_ref().map(|d| d.as_str().to_owned()),
            created_at: nanos(c.created_at),
            started_at: nanos(c.started_at),
            exit: c.exit.as_ref().map(Exit::from),
            error: c.error.as_ref().map(|e| Reason { name: e.name.clone(), message: e.message.clone() }),
            ipv4: c.address.ipv4,
            bindings: c.address.bindings.iter().map(Binding::from).collect(),
            restarts: (c.restarts.count > 0).then(|| RestartsRecord::from(&c.restarts)),
        }
    }
}

impl TryFrom<ContainerRecord> for ContainerProgress {
    type Error = String;

    fn try_from(c: ContainerRecord) -> Result<Self, String> {
        let status = |w: &str| ContainerStatus::from_word(w).ok_or_else(|| unknown("container status", w));
        Ok(Self {
            known: status(&c.known)?,
            sent: status(&c.sent)?,
            digest: digest(c.digest)?,
            image_id: digest(c.image_id)?,
            created_at: c.created_at.map(Wall),
            started_at: c.started_at.map(Wall),
            exit: c.exit.map(ExitRecord::from),
            error: c.error.map(|e| StopReason { name: e.name, message: e.message }),
            address: ContainerAddress {
                ipv4: c.ipv4,
                bindings: c.bindings.into_iter().map(NetworkBinding::try_from).collect::<Result<_, _>>()?,
            },
            restarts: c.restarts.map(Restarts::from).unwrap_or_default(),
        })
    }
}

// === impl RestartsRecord, Exit ===

impl From<&Restarts> for RestartsRecord {
    fn from(r: &Restarts) -> Self {
        Self {
            count: r.count,
            last: nanos(r.last),
            answers: r.answers.as_ref().map(Exit::from),
            under_way: r.under_way,
        }
    }
}

impl From<RestartsRecord> for Restarts {
    fn from(r: RestartsRecord) -> Self {
        Self {
            count: r.count,
            last: r.last.map(Wall),
            answers: r.answers.map(ExitRecord::from),
            under_way: r.under_way,
        }
    }
}

impl From<&ExitRecord> for Exit {
    fn from(e: &ExitRecord) -> Self {
        Self { code: e.code, at: e.at.0 }
    }
}

impl From<Exit> for ExitRecord {
    fn from(e: Exit) -> Self {
        Self { code: e.code, at: Wall(e.at) }
    }
}

// === impl Binding ===

impl From<&NetworkBinding> for Binding {
    fn from(b: &NetworkBinding) -> Self {
        Self {
            bind_ip: b.bind_ip,
            container_port: b.container_port,
            host_port: b.host_port,
            count: b.count,
            is_range: b.is_range,
            protocol: b.protocol.word().to_owned(),
        }
    }
}

impl TryFrom<Binding> for NetworkBinding {
    type Error = String;

    fn try_from(b: Binding) -> Result<Self, String> {
        Ok(Self {
            bind_ip: b.bind_ip,
            container_port: b.container_port,
            host_port: b.host_port,
            count: b.count,
            is_range: b.is_range,
            protocol: match b.protocol.as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                other => return Err(unknown("protocol", other)),
            },
        })
    }
}

fn nanos(at: Option<Wall>) -> Option<u64> {
    at.map(|w| w.0)
}

fn desired(word: &str) -> Result<DesiredStatus, String> {
    match word {
        "RUNNING" => Ok(DesiredStatus::Running),
        "STOPPED" => Ok(DesiredStatus::Stopped),
        other => Err(unknown("desired status", other)),
    }
}

fn digest(text: Option<String>) -> Result<Option<ImageDigest>, String> {
    text.map(|t| ImageDigest::parse(&t).ok_or_else(|| unknown("digest", &t))).transpose()
}

fn unknown(what: &str, word: &str) -> String {
    format!("unknown {what} {word:?}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every field away from its default.
    pub(crate) fn full_progress() -> TaskProgress {
        let digest = ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32)));
        let container = ContainerProgress {
            known: ContainerStatus::Stopped,
            sent: ContainerStatus::Running,
            digest: digest.clone(),
            image_id: digest,
            created_at: Some(Wall(3)),
            started_at: Some(Wall(4)),
            exit: Some(ExitRecord { code: Some(137), at: Wall(u64::MAX) }),
            error: Some(StopReason::new("OutOfMemoryError", "killed \u{1F4A5}")),
            address: ContainerAddress {
                ipv4: Some(Ipv4Addr::new(172, 17, 0, 3)),
                bindings: vec![NetworkBinding {
                    bind_ip: Ipv4Addr::UNSPECIFIED,
                    container_port: 80,
                    host_port: 32774,
                    count: 2,
                    is_range: true,
                    protocol: Protocol::Udp,
                }],
            },
            restarts: Restarts::default(),
        };
        TaskProgress {
            desired: DesiredStatus::Stopped,
            known: TaskStatus::Running,
            sent: TaskStatus::Created,
            reason: "why".into(),
            admitted: true,
            pull_started_at: Some(Wall(1)),
            pull_stopped_at: Some(Wall(2)),
            execution_stopped_at: Some(Wall(5)),
            stopped_at: Some(Wall(6)),
            containers: [("web".to_owned(), container), ("side".to_owned(), ContainerProgress::default())]
                .into(),
        }
    }

    fn there_and_back(progress: &TaskProgress) -> TaskProgress {
        let text = serde_json::to_string(&ProgressRecord::from(progress)).unwrap();
        serde_json::from_str::<ProgressRecord>(&text).unwrap().try_into().unwrap()
    }

    #[test]
    fn every_field_survives() {
        let mut restarted = full_progress();
        restarted.containers.get_mut("web").unwrap().restarts = Restarts {
            count: 3,
            last: Some(Wall(7)),
            answers: Some(ExitRecord { code: Some(1), at: Wall(6) }),
            under_way: true,
        };
        for progress in [full_progress(), restarted, TaskProgress::default()] {
            assert_eq!(there_and_back(&progress), progress);
        }
    }

    /// Written once, by the first version, and never again: it must read for ever.
    #[test]
    fn the_first_versions_record_reads() {
        let old = include_str!("../../tests/fixtures/store/progress-v1.json").trim_end();
        let progress: TaskProgress = serde_json::from_str::<ProgressRecord>(old).unwrap().try_into().unwrap();
        assert_eq!(progress, full_progress());
    }

    fn attachments() -> [Attachment; 2] {
        let task = TaskArn::parse("arn:aws:ecs:r:1:task/c/t").ok();
        let of_task = Attachment {
            arn: "arn:aws:ecs:r:1:attachment/a".into(),
            mac: MacAddress([0x0a, 0, 0, 0, 0, 0xff]),
            task,
            expires_at: Wall(7),
            sent: true,
        };
        [Attachment { task: None, sent: false, ..of_task.clone() }, of_task]
    }

    #[test]
    fn attachments_survive_and_bad_ones_are_named() {
        for attachment in attachments() {
            let text = serde_json::to_string(&AttachmentRecord::from(&attachment)).unwrap();
            let record: AttachmentRecord = serde_json::from_str(&text).unwrap();
            assert_eq!(Attachment::try_from(record).unwrap(), attachment);
        }
        let bad = r#"{"arn":"a","mac":"zz","expires_at":1,"sent":false}"#;
        let record: AttachmentRecord = serde_json::from_str(bad).unwrap();
        assert_eq!(Attachment::try_from(record).unwrap_err(), r#"unknown hardware address "zz""#);
    }

    /// As [`the_first_versions_record_reads`].
    #[test]
    fn the_first_versions_attachment_reads() {
        let old = include_str!("../../tests/fixtures/store/attachment-v1.json");
        let record: AttachmentRecord = serde_json::from_str(old.trim_end()).unwrap();
        assert_eq!(Attachment::try_from(record).unwrap(), attachments()[1]);
    }

    #[test]
    fn words_that_mean_nothing_are_named() {
        let bad = r#"{"desired":"MAYBE","known":"NONE","sent":"NONE","admitted":false,"containers":{}}"#;
        let record: ProgressRecord = serde_json::from_str(bad).unwrap();
        assert_eq!(TaskProgress::try_from(record).unwrap_err(), r#"unknown desired status "MAYBE""#);
    }
}
