//! The commands on a cluster that another process holds: they use its API like anyone else.

use super::args::{StateArgs, StopArgs};
use super::http::call;
use super::show::{bindings, say, short, table};
use super::statedir::StateDir;
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const DOWN_TIMEOUT: Duration = Duration::from_secs(180);

/// `ecsd local ps`
pub async fn ps(state: &StateArgs) -> anyhow::Result<u8> {
    let endpoint = StateDir::new(&state.dir)?.endpoint()?;
    let tasks = tasks(&endpoint).await?;
    let mut rows = vec![
        ["TASK", "DEFINITION", "STATUS", "CONTAINER", "STATUS", "HEALTH", "EXIT", "PORTS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for task in &tasks {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = text(&task["taskArn"]).rsplit('/').next().unwrap_or_default().to_owned();
        let definition = text(&task["taskDefinitionArn"]).rsplit('/').next().unwrap_or_default().to_owned();
        for container in task["containers"].as_array().into_iter().flatten() {
            rows.push(vec![
                short(&id).to_owned(),
                definition.clone(),
                text(&task["lastStatus"]),
                text(&container["name"]),
                text(&container["lastStatus"]),
                text(&container["healthStatus"]).replace("UNKNOWN", ""),
                container["exitCode"].as_i64().map(|code| code.to_string()).unwrap_or_default(),
                bindings(&container["networkBindings"]).join(" "),
            ]);
        }
    }
    table(&rows);
    Ok(0)
}

/// All tasks that are known, stopped ones last.
async fn tasks(endpoint: &str) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for desired in ["RUNNING", "STOPPED"] {
        let mut token = Value::Null;
        loop {
            let input = json!({"desiredStatus": desired, "nextToken": token});
            let listed = call(endpoint, "ListTasks", &input).await?;
            let arns = listed["taskArns"].clone();
            if arns.as_array().is_some_and(|arns| !arns.is_empty()) {
                let shown = call(endpoint, "DescribeTasks", &json!({"tasks": arns})).await?;
                found.extend(shown["tasks"].as_array().cloned().unwrap_or_default());
            }
            token = listed["nextToken"].clone();
            if token.is_null() {
                break;
            }
        }
    }
    Ok(found)
}

/// `ecsd local stop`
pub async fn stop(args: &StopArgs) -> anyhow::Result<u8> {
    let endpoint = StateDir::new(&args.state.dir)?.endpoint()?;
    let tasks = tasks(&endpoint).await?;
    let arns = tasks.iter().filter_map(|task| task["taskArn"].as_str());
    let matching: Vec<_> = arns
        .filter(|arn| *arn == args.task || (!args.task.is_empty() && id_of(arn).starts_with(&args.task)))
        .collect();
    let arn = match matching.as_slice() {
        [one] => *one,
        [] => bail!("no task '{}': see `ecsd local ps`", args.task),
        _ => bail!("'{}' is the beginning of {} tasks' ids: give more of it", args.task, matching.len()),
    };
    call(&endpoint, "StopTask", &json!({"task": arn, "reason": "Stopped by ecsd local stop"})).await?;
    let until = Instant::now() + STOP_TIMEOUT;
    // Another process's state is known by asking only.
    loop {
        let shown = call(&endpoint, "DescribeTasks", &json!({"tasks": [arn]})).await?;
        let task = shown["tasks"].get(0).context("the task is gone")?;
        if task["lastStatus"] == "STOPPED" {
            say(format_args!("task        {} STOPPED", short(id_of(arn))));
            return Ok(0);
        }
        if Instant::now() >= until {
            bail!("task {} did not stop within {} s", short(id_of(arn)), STOP_TIMEOUT.as_secs());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn id_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// `ecsd local down`
pub async fn down(state: &StateArgs) -> anyhow::Result<u8> {
    let dir = StateDir::new(&state.dir)?;
    let pid = dir.holder()?;
    kill(pid, Signal::SIGTERM).with_context(|| format!("can't signal process {pid}"))?;
    let until = Instant::now() + DOWN_TIMEOUT;
    while dir.holder().is_ok_and(|holder| holder == pid) {
        if Instant::now() >= until {
            bail!("process {pid} did not end within {} s: see what it prints", DOWN_TIMEOUT.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
    say(format_args!("cluster     in {} taken down", dir.root().display()));
    Ok(0)
}
