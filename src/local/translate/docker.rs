//! The two Docker API documents of a container (spec/task-engine.md 2.2, 2.3): everything of a
//! container definition that has no typed member in the payload.

use crate::local::shape::{list, text, texts};
use serde_json::{Map, Value, json};

const MIB: i64 = 1024 * 1024;
const NANOS: i64 = 1_000_000_000;

/// `dockerConfig.config`
pub fn config(c: &Value) -> Value {
    let mut out = Map::new();
    for (from, to) in [("user", "User"), ("workingDirectory", "WorkingDir"), ("hostname", "Hostname")] {
        if !text(c, from).is_empty() {
            out.insert(to.to_owned(), json!(text(c, from)));
        }
    }
    for (from, to) in
        [("pseudoTerminal", "Tty"), ("interactive", "OpenStdin"), ("disableNetworking", "NetworkDisabled")]
    {
        if c.get(from) == Some(&Value::Bool(true)) {
            out.insert(to.to_owned(), json!(true));
        }
    }
    if let Some(labels) = c.get("dockerLabels") {
        out.insert("Labels".to_owned(), labels.clone());
    }
    if let Some(check) = c.get("healthCheck") {
        let nanos = |key: &str| check.get(key).and_then(Value::as_i64).unwrap_or_default() * NANOS;
        out.insert(
            "Healthcheck".to_owned(),
            json!({
                "Test": texts(check, "command"),
                "Interval": nanos("interval"),
                "Timeout": nanos("timeout"),
                "StartPeriod": nanos("startPeriod"),
                "Retries": check.get("retries").cloned().unwrap_or(json!(3)),
            }),
        );
    }
    Value::Object(out)
}

/// `dockerConfig.hostConfig`; `over` is the container's override or `null`.
pub fn host_config(c: &Value, over: &Value, network_mode: &str) -> Value {
    let mut out = Map::new();
    let linux = c.get("linuxParameters").unwrap_or(&Value::Null);
    let capabilities = linux.get("capabilities").unwrap_or(&Value::Null);
    out.insert("NetworkMode".to_owned(), json!(network_mode));
    out.insert("CapAdd".to_owned(), json!(texts(capabilities, "add")));
    out.insert("CapDrop".to_owned(), json!(texts(capabilities, "drop")));
    for (from, to) in [("privileged", "Privileged"), ("readonlyRootFilesystem", "ReadonlyRootfs")] {
        if c.get(from) == Some(&Value::Bool(true)) {
            out.insert(to.to_owned(), json!(true));
        }
    }
    let mib = |value: &Value, key: &str| value.get(key).and_then(Value::as_i64);
    if let Some(reserved) = mib(over, "memoryReservation").or(mib(c, "memoryReservation")) {
        out.insert("MemoryReservation".to_owned(), json!(reserved.saturating_mul(MIB)));
    }
    for (from, to) in
        [("dnsServers", "Dns"), ("dnsSearchDomains", "DnsSearch"), ("dockerSecurityOptions", "SecurityOpt")]
    {
        if !list(c, from).is_empty() {
            out.insert(to.to_owned(), json!(texts(c, from)));
        }
    }
    if !list(c, "extraHosts").is_empty() {
        let hosts = list(c, "extraHosts").iter();
        let hosts: Vec<_> =
            hosts.map(|h| format!("{}:{}", text(h, "hostname"), text(h, "ipAddress"))).collect();
        out.insert("ExtraHosts".to_owned(), json!(hosts));
    }
    if !list(c, "ulimits").is_empty() {
        let limits = list(c, "ulimits").iter();
        let limits: Vec<_> = limits
            .map(|l| json!({"Name": l["name"], "Soft": l["softLimit"], "Hard": l["hardLimit"]}))
            .collect();
        out.insert("Ulimits".to_owned(), json!(limits));
    }
    if !list(c, "systemControls").is_empty() {
        let controls = list(c, "systemControls").iter();
        let controls: Map<_, _> =
            controls.map(|s| (text(s, "namespace").to_owned(), json!(text(s, "value")))).collect();
        out.insert("Sysctls".to_owned(), Value::Object(controls));
    }
    if let Some(log) = c.get("logConfiguration") {
        let options = log.get("options").cloned().unwrap_or_else(|| json!({}));
        out.insert("LogConfig".to_owned(), json!({"Type": text(log, "logDriver"), "Config": options}));
    }
    linux_parameters(c, linux, &mut out);
    Value::Object(out)
}

fn linux_parameters(c: &Value, linux: &Value, out: &mut Map<String, Value>) {
    let int = |value: &Value, key: &str| value.get(key).and_then(Value::as_i64);
    if linux.get("initProcessEnabled") == Some(&Value::Bool(true)) {
        out.insert("Init".to_owned(), json!(true));
    }
    if let Some(mib) = int(linux, "sharedMemorySize") {
        out.insert("ShmSize".to_owned(), json!(mib.saturating_mul(MIB)));
    }
    // Docker counts swap on top of memory; ECS's maxSwap is the swap alone.
    if let (Some(swap), Some(memory)) = (int(linux, "maxSwap"), int(c, "memory")) {
        out.insert("MemorySwap".to_owned(), json!(memory.saturating_add(swap).saturating_mul(MIB)));
    }
    if let Some(swappiness) = int(linux, "swappiness") {
        out.insert("MemorySwappiness".to_owned(), json!(swappiness));
    }
    if !list(linux, "tmpfs").is_empty() {
        let mounts = list(linux, "tmpfs").iter();
        let mounts: Map<_, _> = mounts
            .map(|mount| {
                let mut options = vec![format!("size={}m", int(mount, "size").unwrap_or_default())];
                options.extend(texts(mount, "mountOptions"));
                (text(mount, "containerPath").to_owned(), json!(options.join(",")))
            })
            .collect();
        out.insert("Tmpfs".to_owned(), Value::Object(mounts));
    }
    if !list(linux, "devices").is_empty() {
        let devices: Vec<_> = list(linux, "devices").iter().map(device).collect();
        out.insert("Devices".to_owned(), json!(devices));
    }
}

fn device(device: &Value) -> Value {
    let host = text(device, "hostPath");
    let inside = match text(device, "containerPath") {
        "" => host,
        path => path,
    };
    let asked = texts(device, "permissions");
    let letters: String = [("read", 'r'), ("write", 'w'), ("mknod", 'm')]
        .into_iter()
        .filter(|(word, _)| asked.is_empty() || asked.iter().any(|a| a == word))
        .map(|(_, letter)| letter)
        .collect();
    json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": letters})
}
