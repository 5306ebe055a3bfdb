//! TCS: how connections end, what keeps them, and how large messages are, rule by rule
//! (spec/control-plane.md 4.3, 4.5).

use crate::support::backend::{Backend, Channel};
use crate::tcs::{Told, context};
use ecsd::control::tcs::{TcsContext, run};
use ecsd::model::{ContainerHealth, HealthStatus, TaskHealth, Wall};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// A back-off that no test waits for: what comes back at all came back without it.
const NEVER: Duration = Duration::from_secs(3600);

/// A session that tells nothing by itself, and does not wait for the end of a back-off.
fn impatient(backend: &Backend, change: impl FnOnce(&mut TcsContext)) -> JoinHandle<()> {
    let mut context = context(backend, &Told::tasks(1).0, None);
    context.timings.backoff = (NEVER, NEVER);
    change(&mut context);
    tokio::spawn(run(context))
}

#[tokio::test]
async fn clean_ends_are_followed_by_a_connection_at_once() {
    for code in [1000, 1001, 1011] {
        let mut backend = Backend::start().await;
        let session = impatient(&backend, |_| {});
        backend.accept(Channel::Tcs).await.close(code, "bye").await;
        backend.accept(Channel::Tcs).await;
        session.abort();
    }
    // Cut without a word: code 1006.
    let mut backend = Backend::start().await;
    let session = impatient(&backend, |_| {});
    drop(backend.accept(Channel::Tcs).await);
    backend.accept(Channel::Tcs).await;
    session.abort();
}

#[tokio::test]
async fn other_ends_and_refusals_are_errors_and_wait() {
    for code in [Some(1008), Some(4000), None] {
        let mut backend = Backend::start().await;
        if code.is_none() {
            backend.refuse(Channel::Tcs, 400, r#"{"ServerException":"later"}"#);
        }
        let session = impatient(&backend, |_| {});
        if let Some(code) = code {
            backend.accept(Channel::Tcs).await.close(code, "bye").await;
        }
        // The agent sleeps: it neither connects nor ends.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!backend.knocks(Channel::Tcs) && !session.is_finished(), "{code:?}");
        session.abort();
    }
}

#[tokio::test]
async fn a_failing_discovery_and_refusals_are_tried_again() {
    let mut backend = Backend::start().await;
    backend.answer("DiscoverPollEndpoint", [(400, json!({"__type": "ClientException", "message": "x"}))]);
    backend.refuse(Channel::Tcs, 500, "<html>");
    backend.refuse(Channel::Tcs, 400, r#"{"InvalidParameterException":"no"}"#);
    let session = tokio::spawn(run(context(&backend, &Told::nothing(), None)));
    assert_eq!(backend.accept(Channel::Tcs).await.receive_signed().await.0, "PublishMetricsRequest");
    session.abort();
}

#[tokio::test]
async fn an_old_connection_is_closed_with_the_originals_words() {
    let mut backend = Backend::start().await;
    let age = (Duration::from_millis(100), Duration::from_millis(10));
    let session = impatient(&backend, |context| context.timings.age = age);
    let mut old = backend.accept(Channel::Tcs).await;
    assert_eq!(old.closed().await, (1000, "ConnectionExpired: Reconnect to continue".into()));
    drop(old);
    backend.accept(Channel::Tcs).await;
    session.abort();
}

/// Whether a connection is kept for three times as long as it may be silent, while only this comes.
async fn keeps(kind: &str) -> bool {
    let quiet = Duration::from_secs(2);
    let mut backend = Backend::start().await;
    let session = impatient(&backend, |context| context.timings.inactivity = (quiet, Duration::ZERO));
    let mut connection = backend.accept(Channel::Tcs).await;
    let message = json!({"type": kind, "message": {"message": "x", "healthy": true}}).to_string();
    let until = tokio::time::Instant::now() + quiet * 3;
    let mut closed = false;
    while tokio::time::Instant::now() < until && !closed {
        connection.try_send(Message::text(message.clone())).await;
        closed = tokio::time::timeout(quiet / 10, connection.closed()).await.is_ok();
    }
    session.abort();
    !closed
}

#[tokio::test]
async fn acks_and_heartbeats_are_signs_of_life_and_nothing_else_is() {
    let signs = ["HeartbeatMessage", "AckPublishMetric", "AckPublishHealth", "AckPublishInstanceStatus"];
    let others = ["StopTelemetrySessionMessage", "ServerException", "NewMessage"];
    let kept = futures_util::future::join_all(signs.iter().chain(&others).map(|kind| keeps(kind))).await;
    assert_eq!(kept, [true, true, true, true, false, false, false], "{signs:?} {others:?}");
}

#[tokio::test]
async fn pings_are_answered() {
    let mut backend = Backend::start().await;
    let session = impatient(&backend, |_| {});
    backend.accept(Channel::Tcs).await.answers_pings().await;
    session.abort();
}

#[tokio::test]
async fn health_is_told_in_parts_of_ten_of_one_publication() {
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks(12);
    let of = |spec: &ecsd::model::TaskSpec| TaskHealth {
        arn: spec.arn.clone(),
        family: "family".into(),
        version: "7".into(),
        containers: vec![ContainerHealth {
            name: "main".into(),
            status: HealthStatus::Unknown,
            since: Wall(0),
        }],
    };
    told.health.lock().unwrap().extend(targets.iter().map(|target| of(&target.spec)));
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    let mut ids = BTreeSet::new();
    for (count, fin) in [(10, false), (2, true)] {
        let (kind, body, _) = connection.receive_signed().await;
        assert_eq!((kind.as_str(), body["tasks"].as_array().unwrap().len()), ("PublishHealthRequest", count));
        assert_eq!(body["metadata"]["fin"], fin);
        ids.insert(body["metadata"]["messageId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1);
    session.abort();
}

/// A container's figures are some kilobytes: ten tasks of many would be more than a message may have.
#[tokio::test]
async fn no_message_is_longer_than_a_mebibyte() {
    const MEBIBYTE: usize = 1024 * 1024;
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks_of(8, 150);
    told.sample(&targets, 0);
    told.sample(&targets, 1);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    let (mut tasks, mut frames, mut longest) = (0, 0, 0);
    loop {
        let text = connection.receive_text().await;
        let (_, body, _) = connection.verified(&text);
        let json = text.split_once("\r\n\r\n").unwrap().1.len();
        let held = body["taskMetrics"].as_array().unwrap();
        assert!(json <= MEBIBYTE, "{json} bytes");
        assert!(held.iter().all(|task| task["containerMetrics"].as_array().unwrap().len() == 150));
        tasks += held.len();
        frames += 1;
        longest = longest.max(json);
        if body["metadata"]["fin"] == true {
            break;
        }
    }
    assert_eq!(tasks, 8);
    assert!(frames > 1 && longest > MEBIBYTE / 2, "{frames} of at most {longest} bytes");
    session.abort();
}
