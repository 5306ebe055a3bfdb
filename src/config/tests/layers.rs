//! Which source wins, and what malformed ones do.

use super::*;

fn load(vars: &[(&str, &str)], file: &str, user_data: &str) -> Result<LoadedConfig, ConfigError> {
    let vars: BTreeMap<String, String> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::load(Sources {
        env: Some(&|name| vars.get(name).cloned()),
        file: Some(("/etc/c.json".into(), file.to_owned())),
        user_data: Some(user_data.to_owned()),
    })
}

fn effective(loaded: &LoadedConfig, name: &str) -> (String, String) {
    let all = loaded.effective();
    let one = all.iter().find(|e| e.name == name).unwrap();
    (one.value.clone(), one.origin.to_string())
}

#[test]
fn the_first_source_that_says_something_wins() {
    let user_data =
        r#"{"ECSAgentConfiguration":{"Cluster":"u","AWSRegion":" u ","ReservedMemory":7,"TaskPidsLimit":9}}"#;
    let file = r#"{"Cluster":"f","AWSRegion":"f","ReservedMemory":0}"#;
    let loaded = load(&[("ECS_CLUSTER", "e"), ("AWS_DEFAULT_REGION", " ")], file, user_data).unwrap();
    for (name, value, origin) in [
        ("ECS_CLUSTER", "e", "environment"),
        ("AWS_DEFAULT_REGION", "f", "/etc/c.json"),
        ("ECS_RESERVED_MEMORY", "7", "user data"),
        ("ECS_TASK_PIDS_LIMIT", "9", "user data"),
        ("ECSD_BRIDGE", "ecs-br0", "default"),
    ] {
        assert_eq!(effective(&loaded, name), (value.to_owned(), origin.to_owned()), "{name}");
    }
    // An unusable value is as good as none.
    let loaded = load(&[("ECS_RESERVED_MEMORY", "lots")], r#"{"ReservedMemory":3}"#, "").unwrap();
    assert_eq!(effective(&loaded, "ECS_RESERVED_MEMORY").0, "3");
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn false_wins_where_there_are_three_states() {
    let tri = load(&[("ECS_DISABLE_METRICS", "false")], r#"{"DisableMetrics":true}"#, "").unwrap();
    assert!(!tri.config.metrics_disabled);
    let tri =
        load(&[], r#"{"DisableMetrics":false}"#, r#"{"ECSAgentConfiguration":{"DisableMetrics":true}}"#);
    assert!(!tri.unwrap().config.metrics_disabled);
    let plain = load(&[], r#"{"NoIID":false}"#, r#"{"ECSAgentConfiguration":{"NoIID":true}}"#).unwrap();
    assert!(plain.config.no_identity_document);
}

#[test]
fn a_file_is_read_as_go_reads_it() {
    let file = r#"{"clusterarn":"old","dockerSTOPtimeout":1500000000,"ImagePullBehavior":2,
        "ContainerInstancePropagateTagsFrom":1,"ImageCleanupExclusionList":["a","b"],"TaskMetadataBurstRate":90,
        "EngineAuthType":"docker","EngineAuthData":{"r":{}},"DisableMetrics":null,"Unheard":1,"DockerEndpoint":"x"}"#;
    let loaded = load(&[], file, "").unwrap();
    let config = &loaded.config;
    assert_eq!((config.cluster.as_str(), config.container_stop_timeout.as_millis()), ("old", 1500));
    assert_eq!((config.image_pull_behavior, config.propagate_ec2_tags), (PullBehavior::Once, true));
    assert_eq!((config.excluded_untracked_images.len(), config.task_metadata_rps), (2, (40, 90)));
    assert_eq!(config.engine_auth_data.0, r#"{"r":{}}"#);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    for words in [
        "/etc/c.json: ClusterArn is deprecated",
        "\"Unheard\" is no known key",
        "DockerEndpoint has no effect",
    ] {
        assert!(warnings.iter().any(|w| w.contains(words)), "{words}: {warnings:?}");
    }
    let both = load(&[], r#"{"Cluster":"new","ClusterArn":"old"}"#, "").unwrap();
    assert_eq!(both.config.cluster, "new");
    let both = load(&[], r#"{"ClusterArn":"old","Cluster":"new"}"#, "").unwrap();
    assert_eq!(both.config.cluster, "new");
}

#[test]
fn a_malformed_file_is_fatal_and_names_the_place() {
    for (file, words) in [
        ("{\n \"Cluster\": }", "/etc/c.json: malformed JSON: expected value at line 2 column 13"),
        ("[]", "/etc/c.json: not a JSON object"),
        (r#"{"Cluster":5}"#, "/etc/c.json: Cluster: not a string"),
        (r#"{"ContainerStartTimeout":"3m"}"#, "ContainerStartTimeout: not a whole number of nanoseconds"),
        (r#"{"DockerStopTimeout":5}"#, "/etc/c.json: DockerStopTimeout: \"5ns\" is less than 1s"),
        (r#"{"ContainerStartTimeout":44000000000}"#, "is less than 45s"),
        (r#"{"ImagePullBehavior":4}"#, "ImagePullBehavior: not one of its numbers"),
        (r#"{"AvailableLoggingDrivers":["papyrus"]}"#, "papyrus"),
    ] {
        let error = load(&[], file, "").unwrap_err().to_string();
        assert!(error.contains(words), "{file}: {error}");
    }
    for file in ["", " \n", "{}", "null"] {
        let loaded = load(&[], file, "");
        assert_eq!(loaded.is_ok(), file != "null", "{file}: {loaded:?}");
    }
    // The environment says otherwise, so that what the file says does not matter.
    let env = [("ECS_CONTAINER_STOP_TIMEOUT", "5s")];
    assert!(load(&env, r#"{"DockerStopTimeout":5}"#, "").is_ok());
}

#[test]
fn user_data_of_any_kind_does_no_harm() {
    for user_data in
        ["#!/bin/sh\necho ECS_CLUSTER=x", "[]", "{\"a\":1}", "{\"ECSAgentConfiguration\":", "\u{0}"]
    {
        assert_eq!(load(&[], "", user_data).unwrap().warnings, [], "{user_data}");
    }
    let bad = load(&[], "", r#"{"ECSAgentConfiguration":{"Cluster":5,"AWSRegion":"x"}}"#).unwrap();
    assert_eq!((bad.config.region, bad.warnings.len()), (None, 1));
}
