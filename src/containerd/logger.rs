//! The configuration file of a container's logger program (`logs::config` reads it), and whether the
//! logger could open its sink.
//!
//! ```text
//!   logger.json          0600: driver, its options as written (they may hold secrets), tag, attributes
//!   logger.json.failed   the logger's word that it could not open its sink: the start fails by it
//! ```

use crate::containerd::create::Creation;
use crate::model::logging::host::{HostNeeds, is_of_credentials};
use crate::model::logging::{LogError, LogHost, LogSettings, TagSource, attributes, render_tag};
use crate::model::{LogDriver, StopReason};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file in the container's directory.
const FILE: &str = "logger.json";
/// What is longer is no failure that a logger wrote.
const FAILURE_MAX: u64 = 4096;

/// What a log may tell of a container.
#[derive(Clone)]
pub(super) struct LoggedContainer {
    source: TagSource,
    environment: BTreeMap<String, String>,
    host: LogHost,
}

impl LoggedContainer {
    pub(super) fn of(creation: &Creation<'_>, host: &LogHost) -> Self {
        let (plan, settings) = (creation.plan, &creation.settings);
        let image = creation.image.config().as_ref();
        let mut labels: BTreeMap<String, String> =
            image.and_then(|image| image.labels().clone()).into_iter().flatten().collect();
        let own = settings.labels.iter().chain(&plan.labels);
        labels.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let of_image = image.and_then(|image| image.env().as_ref()).into_iter().flatten();
        let of_image = of_image.map(|line| line.split_once('=').unwrap_or((line, "")));
        let own = settings.environment.iter().chain(&plan.agent_environment);
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let environment = of_image.chain(own).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let source = TagSource {
            id: plan.id.as_str().to_owned(),
            name: plan.spec.docker_name(&plan.name),
            image_name: creation.image_name.to_owned(),
            image_id: creation.image_id.clone(),
            command: spec_command(creation),
            labels,
            attributes: BTreeMap::new(),
        };
        Self { source, environment, host: host.clone() }
    }
}

fn spec_command(creation: &Creation<'_>) -> Vec<String> {
    crate::containerd::spec::process::command(&creation.settings, &creation.image)
}

/// Path of the file in a container's directory.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// The file's content; `log` is where a driver that writes files writes them.
///
/// # Errors
/// Of the tag's template, and of the expressions that choose attributes.
pub(super) fn content(
    settings: &LogSettings,
    container: &LoggedContainer,
    log: &str,
) -> Result<String, LogError> {
    let driver = settings.driver.name();
    let mut source = container.source.clone();
    source.attributes = attributes(driver, &settings.options, &source.labels, &container.environment)?;
    let tag = render_tag(settings.tag(), &source)?;
    let options: BTreeMap<&str, &str> = settings.options.iter().collect();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut file = json!({
        "driver": driver,
        "options": options,
        "path": log,
        "tag": tag,
        "attributes": source.attributes,
        "container": {
            "id": source.id,
            "name": source.name,
            "image_name": source.image_name,
            "image_id": source.image_id,
            "command": source.command.join(" "),
            "created_ms": u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
        },
    });
    if let (Some(needs), Some(file)) = (settings.driver.needs_of_host(), file.as_object_mut()) {
        file.insert("host".to_owned(), host(&container.host, needs));
    }
    Ok(file.to_string())
}

fn host(host: &LogHost, needs: HostNeeds) -> Value {
    let variables = host.environment.iter();
    let variables: BTreeMap<&str, &str> =
        variables.filter(|(name, _)| needs == HostNeeds::Credentials || !is_of_credentials(name)).collect();
    json!({
        "environment": variables,
        "credentials_endpoint": host.credentials_endpoint,
        "region": host.region,
        "dual_stack": host.dual_stack,
    })
}

/// Whether there is a logger at all: without one the shim gives the container /dev/null. A terminal is
/// made only where its output goes somewhere.
pub(super) fn is_needed(settings: &LogSettings, tty: bool) -> bool {
    tty || settings.driver != LogDriver::None
}

/// What the logger of a container's output said of its sink, once it is ready: the container must not
/// start without its log. A logger that could open its sink takes away what one before it said.
///
/// # Errors
/// `CannotStartContainerError`, in dockerd's words.
pub(super) fn opened(output: &str) -> Result<(), StopReason> {
    let Some((_, config)) = output.split_once("?--config=") else { return Ok(()) };
    let Ok(file) = std::fs::File::open(format!("{config}.failed")) else { return Ok(()) };
    let mut why = String::new();
    // What can't be read is said as well: that the file is there is enough.
    let _ = file.take(FAILURE_MAX).read_to_string(&mut why);
    let words = format!("failed to initialize logging driver: {}", why.trim());
    Err(StopReason::new("CannotStartContainerError", words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogOptions;

    fn container() -> LoggedContainer {
        let labels = BTreeMap::from([("team".to_owned(), "core".to_owned())]);
        let source = TagSource { id: "0123456789abcdef".to_owned(), labels, ..TagSource::default() };
        let variables = [("HTTPS_PROXY", "http://p"), ("AWS_SECRET_ACCESS_KEY", "CANARY")];
        let host = LogHost { environment: variables.into_iter().collect(), ..LogHost::default() };
        LoggedContainer { source, environment: BTreeMap::new(), host }
    }

    #[test]
    fn the_file_holds_what_the_logger_needs() {
        let options: LogOptions = [("tag", "x{{.ID}}"), ("labels", "team")].into_iter().collect();
        let settings = LogSettings::parse("json-file", options).unwrap();
        let text = content(&settings, &container(), "/log").unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["driver"], "json-file");
        assert_eq!(file["options"], json!({"tag": "x{{.ID}}", "labels": "team"}));
        assert_eq!((&file["tag"], &file["attributes"]), (&json!("x0123456789ab"), &json!({"team": "core"})));
        let wrong: LogOptions = [("tag", "{{.Nope}}")].into_iter().collect();
        let settings = LogSettings::parse("json-file", wrong).unwrap();
        assert!(content(&settings, &container(), "/log").unwrap_err().to_string().contains("Nope"));
    }

    #[test]
    fn the_hosts_own_credentials_are_handed_on_only_where_they_are_used() {
        let file = |driver, options: &[(&str, &str)]| -> serde_json::Value {
            let settings = LogSettings::parse(driver, options.iter().copied().collect()).unwrap();
            serde_json::from_str(&content(&settings, &container(), "/log").unwrap()).unwrap()
        };
        assert_eq!(file("json-file", &[]).get("host"), None);
        let own = file("awslogs", &[("awslogs-group", "g")]);
        assert_eq!(own["host"]["environment"]["AWS_SECRET_ACCESS_KEY"], "CANARY");
        assert_eq!(own["tag"], "0123456789abcdef");
        let role = [("awslogs-group", "g"), ("awslogs-credentials-endpoint", "/v2/credentials/x")];
        let splunk = [("splunk-url", "https://x:1"), ("splunk-token", "t")];
        for (driver, options) in [("awslogs", &role), ("splunk", &splunk)] {
            assert_eq!(file(driver, options)["host"]["environment"], json!({"HTTPS_PROXY": "http://p"}));
        }
    }

    #[test]
    fn a_logger_that_failed_fails_the_start() {
        let config = std::env::temp_dir().join(format!("ecsd-logger-opened-{}", std::process::id()));
        let output = format!("binary:///ecsd-logger?--config={}", config.display());
        assert_eq!((opened(""), opened(&output)), (Ok(()), Ok(())));
        let file = format!("{}.failed", config.display());
        std::fs::write(&file, "dial tcp: refused\n").unwrap();
        let reason = opened(&output).unwrap_err();
        assert_eq!(reason.name, "CannotStartContainerError");
        assert_eq!(reason.message, "failed to initialize logging driver: dial tcp: refused");
        std::fs::remove_file(&file).unwrap();
    }
}
