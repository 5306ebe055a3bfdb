//! Whether containerd is well, as the control plane and the operator are told.

use crate::support::faulty::Calls;
use crate::support::host::Host;
use crate::{run_stays, stops, until_ready, with_faults};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use tonic::Code;

/// Status and body of the endpoint's answer.
fn health() -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect("127.0.0.1:51678").ok()?;
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

async fn until_told(host: &Host, status: &str) {
    host.until(&format!("the control plane is told {status}"), |host| {
        let told = host.control.telemetry().instance_status;
        let is = |check: &Value| check["type"] == "ContainerRuntime" && check["status"] == status;
        told.values().any(|told| told.body.as_array().unwrap().iter().any(is))
    })
    .await;
}

/// The check, once it has that status, and the status of the answer.
async fn until_shown(host: &Host, status: &str) -> (u16, Value) {
    let mut shown = (0, Value::Null);
    host.until(&format!("the endpoint shows {status}"), |_| {
        let Some((code, body)) = health() else { return false };
        shown = (code, body["Checks"][0].clone());
        shown.1["Status"] == status
    })
    .await;
    shown
}

#[test]
fn a_containerd_that_hangs_fails_or_is_gone_is_told_with_the_reason_and_told_well_again() {
    with_faults(&[], |mut host, faulty| async move {
        let stays = run_stays(&host, "stays");
        until_ready(&host, &stays, "stays").await;
        until_told(&host, "OK").await;
        assert_eq!(until_shown(&host, "OK").await.0, 200);

        let held = faulty.hold(Calls::of("Version/Version"));
        let (code, check) = until_shown(&host, "IMPAIRED").await;
        assert_eq!((code, check["Reason"].as_str()), (503, Some("containerd did not answer within 2s")));
        until_told(&host, "IMPAIRED").await;
        drop(held);
        until_told(&host, "OK").await;
        let (code, check) = until_shown(&host, "OK").await;
        assert!(code == 200 && check.get("Reason").is_none() && check["Since"].is_string(), "{check}");

        let fault = faulty.fail(Calls::of("Version/Version"), Code::Internal, "scripted");
        let (_, check) = until_shown(&host, "IMPAIRED").await;
        assert_eq!(check["Reason"], "ContainerRuntimeError: version: scripted");
        drop(fault);
        until_shown(&host, "OK").await;

        host.containerd.kill();
        let (_, check) = until_shown(&host, "IMPAIRED").await;
        assert!(check["Reason"].as_str().unwrap().contains("containerd does not answer"), "{check}");
        host.containerd.restart();
        until_shown(&host, "OK").await;
        // What ran through it all can be stopped.
        stops(&host, &stays).await;
        host.until_nothing_is_left().await;
    });
}
