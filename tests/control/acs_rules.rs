//! ACS: how connections end and what keeps them, rule by rule (spec/control-plane.md 3.2, 3.3).

use crate::acs::Agent;
use crate::acs_context;
use crate::support::backend::{Backend, CLUSTER_ARN, Channel, INSTANCE};
use ecsd::control::acs::AcsEvent;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// A back-off that no test waits for: what comes back at all came back without it.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn clean_ends_are_followed_by_a_connection_at_once() {
    for code in [1000, 1001, 1011] {
        let mut backend = Backend::start().await;
        let mut context = acs_context(&backend);
        context.timings.backoff = (NEVER, NEVER);
        let _agent = Agent::start(context);
        backend.accept(Channel::Acs).await.close(code, "bye").await;
        backend.accept(Channel::Acs).await;
    }
    // Cut without a word: code 1006.
    let mut backend = Backend::start().await;
    let mut context = acs_context(&backend);
    context.timings.backoff = (NEVER, NEVER);
    let _agent = Agent::start(context);
    drop(backend.accept(Channel::Acs).await);
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn other_ends_are_errors_and_wait() {
    for code in [1002, 1008, 4000] {
        let mut backend = Backend::start().await;
        let mut context = acs_context(&backend);
        context.timings.backoff = (NEVER, NEVER);
        let mut agent = Agent::start(context);
        backend.accept(Channel::Acs).await.close(code, "bye").await;
        // The agent sleeps: as long as nothing else is due it neither connects nor ends.
        let quiet = tokio::time::timeout(Duration::from_millis(300), agent.events.recv()).await;
        assert!(quiet.is_err() && !backend.knocks(Channel::Acs) && !agent.session.is_finished(), "{code}");
    }
}

#[tokio::test]
async fn an_inactive_instance_is_told_by_a_close_reason_too() {
    let mut backend = Backend::start().await;
    let mut context = acs_context(&backend);
    context.timings.inactive = Duration::from_millis(20);
    let mut agent = Agent::start(context);
    backend.accept(Channel::Acs).await.close(4001, "InactiveInstanceException: gone").await;
    assert!(matches!(agent.event().await, AcsEvent::Deregistered));
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn pings_are_answered() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    connection.answers_pings().await;
    connection.is_quiet().await;
}

#[tokio::test]
async fn unknown_messages_are_no_sign_of_life() {
    let mut backend = Backend::start().await;
    let mut context = acs_context(&backend);
    context.timings.inactivity = (Duration::from_millis(300), Duration::ZERO);
    let _agent = Agent::start(context);
    let mut first = backend.accept(Channel::Acs).await;
    let unknown = || Message::text(json!({"type": "NewMessage", "message": {}}).to_string());
    // Ends only because the agent cuts the connection in spite of them.
    while first.try_send(unknown()).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn recognised_messages_without_effect_are_dropped_quietly() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    for kind in [
        "CloseMessage",
        "ErrorMessage",
        "ServerException",
        "BadRequestException",
        "InvalidClusterException",
        "InvalidInstanceException",
        "AccessDeniedException",
        "InactiveInstanceException",
        "AckRequest",
        "NackRequest",
        "HeartbeatAckRequest",
        "IAMRoleCredentialsAckRequest",
        "TaskStopVerificationMessage",
    ] {
        connection.send(kind, json!({"message": "x", "messageId": "m"})).await;
    }
    connection.is_quiet().await;
}

/// While the engine takes nothing, reading stops: what waits is bounded by the backlog, not by what the
/// service sends. Nothing is lost.
#[tokio::test]
async fn a_flood_waits_in_the_service_not_in_the_agent() {
    const MESSAGES: usize = 400;
    let mut backend = Backend::start().await;
    let mut agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let task = json!({"arn": format!("arn:aws:ecs:r:1:task/c/t{n}"), "desiredStatus": "RUNNING",
                "containers": [{"name": "main", "image": "bb:1", "environment": {"A": "x".repeat(100_000)}}]});
            let message = json!({"messageId": format!("m{n}"), "clusterArn": CLUSTER_ARN,
                "containerInstanceArn": INSTANCE, "tasks": [task]});
            let frame = json!({"type": "PayloadMessage", "message": message}).to_string();
            assert!(connection.try_send(Message::text(frame)).await);
            counter.fetch_add(1, Ordering::SeqCst);
        }
        connection
    });
    let mut before = usize::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(before < MESSAGES, "all was read though nobody took it");
    for n in 0..MESSAGES {
        let AcsEvent::Payload { message_id, respond, .. } = agent.event().await else { panic!() };
        assert_eq!(message_id, format!("m{n}"));
        respond.send(Ok(())).unwrap();
    }
    let mut connection = flood.await.unwrap();
    let mut acks = std::collections::BTreeSet::new();
    while acks.len() < MESSAGES {
        acks.insert(connection.receive().await.1["messageId"].to_string());
    }
}
