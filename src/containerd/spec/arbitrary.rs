//! Whatever the documents hold, there is a spec or an error that names the member; never a panic.

use super::goldens::outcome;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Keys that mean something, in any case, and one that doesn't.
const CONFIG: &[&str] = &[
    "Hostname",
    "Domainname",
    "User",
    "WorkingDir",
    "StopSignal",
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "Volumes",
    "Tty",
    "OpenStdin",
    "Healthcheck",
    "ENTRYPOINT",
    "Nonsense",
];
const HOST: &[&str] = &[
    "CapAdd",
    "CapDrop",
    "Privileged",
    "ReadonlyRootfs",
    "Binds",
    "Tmpfs",
    "ShmSize",
    "Sysctls",
    "Ulimits",
    "DeviceCgroupRules",
    "Dns",
    "DnsSearch",
    "DnsOptions",
    "ExtraHosts",
    "GroupAdd",
    "SecurityOpt",
    "MaskedPaths",
    "ReadonlyPaths",
    "PidMode",
    "UTSMode",
    "IpcMode",
    "CgroupnsMode",
    "OomScoreAdj",
    "LogConfig",
    "Init",
    "RestartPolicy",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "MemorySwappiness",
    "CpuShares",
    "CpuPeriod",
    "CpuQuota",
    "NanoCpus",
    "CpusetCpus",
    "CpusetMems",
    "PidsLimit",
    "OomKillDisable",
    "Devices",
    "memory",
    "Nonsense",
];

/// Words that some parser looks for, among words of any kind.
fn words() -> impl Strategy<Value = String> {
    let known = [
        "",
        "host",
        "private",
        "none",
        "container:x",
        "/",
        "/a",
        "/a/../..",
        "a",
        "/a:/b",
        "/a:/b:ro,z",
        "a:b",
        "a=b",
        "=",
        "NET_ADMIN",
        "ALL",
        "seccomp=unconfined",
        "seccomp={\"defaultAction\":\"SCMP_ACT_LOG\"}",
        "seccomp={}",
        "apparmor=x",
        "label=type:t",
        "no-new-privileges",
        "c 1:* rw",
        "a *:* rwm",
        "10.0.0.1",
        "db:10.0.0.1",
        "db:::1",
        "size=1m",
        "net.core.somaxconn",
        "kernel.sem",
        "net/a.b",
        "nofile",
        "0-3",
        ".",
        "web:audio",
        "\u{0}",
        "\u{e9}\u{fc}",
        "::::",
        "[",
        "0:0",
        "4294967296",
    ];
    prop_oneof![proptest::sample::select(known.to_vec()).prop_map(str::to_owned), ".{0,12}"]
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2i64..2000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => numbers(),
        4 => words().prop_map(Value::from),
        1 => (words(), numbers(), numbers())
            .prop_map(|(name, soft, hard)| json!({"Name": name, "Soft": soft, "Hard": hard})),
        1 => (words(), words()).prop_map(|(host, inside)| json!({"PathOnHost": host, "PathInContainer": inside})),
        1 => (words(), words()).prop_map(|(kind, size)| json!({"Type": kind, "Config": {"max-size": size}})),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((words(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn document(keys: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::vec((proptest::sample::select(keys), values()), 0..5)
        .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_documents_make_a_spec_or_an_error_that_names_the_member(
        config in document(CONFIG),
        host in document(HOST),
        on_host in any::<bool>(),
    ) {
        let on = if on_host { json!({"network": "host", "cgroups": "v1"}) } else { json!({}) };
        let keys: Vec<String> = config.keys().chain(host.keys()).map(|key| format!("{:?}", key.to_lowercase())).collect();
        if let Err(words) = outcome(&json!({"config": config, "host": host, "on": on})) {
            prop_assert!(!words.contains("could not be put together"), "{}", words);
            // What one document says alone is told by its member's name, the rest by its value.
            let document = words.contains("expected");
            prop_assert!(!document || keys.iter().any(|key| words.contains(key)), "{}", words);
            prop_assert!(words.len() < 1000, "{}", words);
        }
    }
}
