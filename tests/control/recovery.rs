//! ACS connections that end, and what comes after.

use crate::acs::Agent;
use crate::acs_context;
use crate::support::backend::{Backend, Channel};
use ecsd::control::acs::AcsEvent;
use serde_json::json;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn it_connects_again_after_every_kind_of_end() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let first = backend.accept(Channel::Acs).await;
    assert_eq!(first.query["sendCredentials"], "true");
    first.close(1000, "ConnectionExpired").await;
    let second = backend.accept(Channel::Acs).await;
    assert_eq!(second.query["sendCredentials"], "false", "only the first connection asks");
    second.close(4000, "go away").await;
    let third = backend.accept(Channel::Acs).await;
    drop(third);
    let mut fourth = backend.accept(Channel::Acs).await;
    fourth.is_quiet().await;
    assert_eq!(backend.waiting_calls().len(), 1, "the address was discovered once");
}

#[tokio::test]
async fn refused_upgrades_and_a_failing_discovery_are_tried_again() {
    let mut backend = Backend::start().await;
    backend.answer("DiscoverPollEndpoint", [(400, json!({"__type": "ClientException", "message": "x"}))]);
    backend.refuse(Channel::Acs, 500, "<html>");
    backend.refuse(Channel::Acs, 400, r#"{"InvalidInstanceException":"no"}"#);
    let _agent = Agent::start(acs_context(&backend));
    let connection = backend.accept(Channel::Acs).await;
    assert_eq!(connection.query["sendCredentials"], "true", "no connection was made before");
}

#[tokio::test]
async fn an_instance_that_is_not_registered_any_more_waits_and_says_so() {
    let mut backend = Backend::start().await;
    backend.refuse(Channel::Acs, 400, r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#);
    let mut context = acs_context(&backend);
    context.timings.inactive = Duration::from_millis(50);
    let mut agent = Agent::start(context);
    assert!(matches!(agent.event().await, AcsEvent::Deregistered));
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn a_silent_service_is_left() {
    let mut backend = Backend::start().await;
    let mut context = acs_context(&backend);
    context.timings.inactivity = (Duration::from_millis(200), Duration::from_millis(50));
    let _agent = Agent::start(context);
    let silent = backend.accept(Channel::Acs).await;
    silent.gone().await;
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn an_old_connection_is_closed_with_the_originals_words() {
    let mut backend = Backend::start().await;
    let mut context = acs_context(&backend);
    context.timings.age = (Duration::from_millis(100), Duration::from_millis(10));
    let _agent = Agent::start(context);
    let mut old = backend.accept(Channel::Acs).await;
    assert_eq!(old.closed().await, (1000, "ConnectionExpired: Reconnect to continue".into()));
    drop(old);
    backend.accept(Channel::Acs).await;
}

#[tokio::test]
async fn a_frame_beyond_all_bounds_costs_the_connection_not_the_agent() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let mut first = backend.accept(Channel::Acs).await;
    let huge = Message::text("x".repeat(17 * 1024 * 1024));
    // The agent may cut the connection before all of it is written.
    let _ = first.try_send(huge).await;
    backend.accept(Channel::Acs).await.is_quiet().await;
}

#[tokio::test]
async fn the_session_ends_when_nobody_takes_events() {
    let mut backend = Backend::start().await;
    let mut agent = Agent::start(acs_context(&backend));
    let connection = backend.accept(Channel::Acs).await;
    agent.events.close();
    tokio::time::timeout(Duration::from_secs(10), &mut agent.session).await.unwrap().unwrap();
    connection.gone().await;
}
