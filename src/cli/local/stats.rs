//! `ecsd local stats`: what the containers of the running local cluster use, from the telemetry that its
//! agent sent over TCS, every 20 s.

use super::args::StatsArgs;
use super::http::get;
use super::process::Interrupts;
use super::show::{say, short, table};
use super::statedir::StateDir;
use crate::local::TELEMETRY_PATH;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// The agent publishes no oftener.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Runs the command.
pub async fn show(args: &StatsArgs) -> anyhow::Result<u8> {
    let endpoint = StateDir::new(&args.state.dir)?.endpoint()?;
    let mut interrupts = Interrupts::new()?;
    loop {
        let received = get(&endpoint, TELEMETRY_PATH).await?;
        let rows = rows(&received);
        if args.json {
            say(Value::Array(rows));
        } else if rows.is_empty() {
            say("no container was measured yet: figures come 20 s to 40 s after its start");
        } else {
            print(&rows);
        }
        if !args.watch {
            return Ok(0);
        }
        // Cancel-safe: a signal stays in its stream.
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = interrupts.next() => return Ok(0),
        }
    }
}

/// One object for each container. What was not measured is `null`.
fn rows(received: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for (arn, entry) in received["metrics"].as_object().into_iter().flatten() {
        let task = &entry["body"];
        for container in task["containerMetrics"].as_array().into_iter().flatten() {
            let (net, disk) = (&container["networkStatsSet"], &container["storageStatsSet"]);
            rows.push(json!({
                "taskArn": arn, "family": task["taskDefinitionFamily"],
                "container": container["containerName"], "timestamp": entry["timestamp"],
                "cpuPercent": mean(&container["cpuStatsSet"]),
                "memoryMiB": container["memoryStatsSet"]["max"].as_f64(),
                "netRxBytes": net["rxBytes"]["max"].as_u64(), "netTxBytes": net["txBytes"]["max"].as_u64(),
                "readBytes": disk["readSizeBytes"]["max"].as_u64(),
                "writtenBytes": disk["writeSizeBytes"]["max"].as_u64(),
            }));
        }
    }
    rows
}

fn mean(set: &Value) -> Option<f64> {
    let count = set["sampleCount"].as_f64().filter(|count| *count > 0.0)?;
    Some(set["sum"].as_f64()? / count)
}

fn print(rows: &[Value]) {
    let head = ["TASK", "FAMILY", "CONTAINER", "CPU %", "MEMORY", "NET RX / TX", "DISK READ / WRITTEN"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let pair = |one: &str, other: &str| format!("{} / {}", bytes(&row[one]), bytes(&row[other]));
        let arn = text("taskArn");
        lines.push(vec![
            short(arn.rsplit('/').next().unwrap_or_default()).to_owned(),
            text("family"),
            text("container"),
            row["cpuPercent"].as_f64().map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}")),
            row["memoryMiB"].as_f64().map_or_else(|| "-".to_owned(), |mib| format!("{mib:.0} MiB")),
            pair("netRxBytes", "netTxBytes"),
            pair("readBytes", "writtenBytes"),
        ]);
    }
    table(&lines);
}

/// In the unit that leaves one to four digits before the point.
fn bytes(value: &Value) -> String {
    let Some(count) = value.as_u64() else { return "-".to_owned() };
    let mut scaled = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_what_is_missing_is_null() {
        let metrics = json!([
            {"containerName": "web", "cpuStatsSet": {"sum": 3.0, "sampleCount": 2}, "memoryStatsSet": {"max": 7},
             "networkStatsSet": {"rxBytes": {"max": 2048}, "txBytes": {"max": 5}}},
            {"containerName": "db"},
        ]);
        let received = json!({"metrics": {"arn:x/0a": {"timestamp": 1.5,
            "body": {"taskDefinitionFamily": "f", "containerMetrics": metrics}}}});
        let rows = rows(&received);
        assert_eq!((rows[0]["cpuPercent"].as_f64(), rows[0]["memoryMiB"].as_f64()), (Some(1.5), Some(7.0)));
        assert_eq!(
            (bytes(&rows[0]["netRxBytes"]), bytes(&rows[0]["netTxBytes"])),
            ("2.0 KiB".into(), "5 B".into())
        );
        assert_eq!((rows[1]["container"].as_str(), &rows[1]["readBytes"]), (Some("db"), &Value::Null));
        assert!(super::rows(&json!({})).is_empty());
    }
}
