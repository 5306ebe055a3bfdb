//! What an operator can ask of a running agent.

use crate::support::host::{container, family, with_agent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

#[test]
fn sigusr1_shows_the_state_whatever_the_level_and_the_agent_goes_on() {
    with_agent(|mut host| async move {
        host.stop_agent().await;
        host.set("ECS_LOGLEVEL", "crit");
        host.start().await;
        let before = host.agent_log().len();
        let more = json!({"environment": [{"name": "PASSWORD", "value": "CANARY"}]});
        let arn = host.run_task(family("shown", [container("main", "sleep 3600", more)]));
        host.until_status(&arn, "RUNNING").await;
        kill(Pid::from_raw(host.agent_pid()), Signal::SIGUSR1).unwrap();
        host.until("the state is shown", |host| host.agent_log().contains("end of the state")).await;
        let log = host.agent_log().split_off(before);
        assert!(log.lines().all(|line| line.starts_with("level=critical ")), "{log}");
        for words in [
            "tasks=1 credentials=0 memory=\"",
            &format!("task={arn} family=\"shown\" version=\"1\" known=\"RUNNING\" desired=\"RUNNING\""),
            "container=\"main\"",
        ] {
            assert!(log.contains(words), "{words} is not in {log}");
        }
        assert!(!log.contains("CANARY"), "{log}");
        host.until_status(
            &host.run_task(family("next", [container("main", "sleep 3600", json!({}))])),
            "RUNNING",
        )
        .await;
        assert_eq!(host.stop_agent().await.0, Some(0));
    });
}
