//! The server side of the telemetry websocket (spec/control-plane.md 4): takes frames, each a block of
//! signed headers, a blank line and a JSON envelope, keeps what they tell for
//! [`crate::local::Handle::telemetry`] and acknowledges them.

use super::{SEND_TIMEOUT, Socket};
use crate::local::error::shortened;
use crate::local::shared::{Shared, ended};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Agents close after about a minute in which the service said nothing (4.3).
const HEARTBEAT: Duration = Duration::from_secs(40);

/// Speaks TCS until the agent goes or the control plane stops.
pub async fn run(mut socket: Socket, shared: &Shared, instance: &str, mut stopped: watch::Receiver<bool>) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: frames, ticks and the watch keep what they have.
        let answer = tokio::select! {
            _ = ended(&mut stopped) => break,
            _ = heartbeat.tick() => Some(json!({"type": "HeartbeatMessage", "message": {"healthy": true}})),
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => Some(take(shared, instance, &text)),
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => None,
            },
        };
        if let Some(answer) = answer {
            match timeout(SEND_TIMEOUT, socket.send(Message::text(answer.to_string()))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
    }
    let _ = timeout(SEND_TIMEOUT, socket.close(None)).await;
}

/// Keeps what a frame tells; answers the answer to it.
fn take(shared: &Shared, instance: &str, frame: &str) -> Value {
    let envelope = match parse(frame) {
        Ok(envelope) => envelope,
        Err(message) => return json!({"type": "BadRequestException", "message": {"message": message}}),
    };
    let kind = envelope["type"].as_str().unwrap_or_default();
    let ack = match kind {
        "PublishMetricsRequest" => "AckPublishMetric",
        "PublishHealthRequest" => "AckPublishHealth",
        "PublishInstanceStatusRequest" => "AckPublishInstanceStatus",
        other => {
            let message = format!("unknown message type '{}'", shortened(other, 80));
            return json!({"type": "BadRequestException", "message": {"message": message}});
        }
    };
    let mut state = shared.lock();
    shared.telemetry().keep(&state, instance, kind, &envelope["message"]);
    if kind == "PublishHealthRequest" {
        state.take_health(&envelope["message"]);
    }
    drop(state);
    json!({"type": ack, "message": {"message": "OK"}})
}

/// Splits a frame and reads its envelope. The signature's form is checked, not its value: that takes
/// the agent's secret.
fn parse(frame: &str) -> Result<Value, String> {
    let (head, body) =
        frame.split_once("\r\n\r\n").ok_or("no blank line between the signed headers and the message")?;
    let names: Vec<_> = head.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    for needed in ["Authorization", "Host", "X-Amz-Date"] {
        if !names.iter().any(|name| name.eq_ignore_ascii_case(needed)) {
            return Err(format!("the frame has no {needed} header"));
        }
    }
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("Authorization").then_some(value.trim())
    });
    check_signature(authorization.unwrap_or_default())?;
    serde_json::from_str(body).map_err(|error| format!("the message is no JSON: {error}"))
}

/// `AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/ecs/aws4_request, SignedHeaders=..., Signature=<64 hex>`
fn check_signature(authorization: &str) -> Result<(), String> {
    let rest =
        authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("Authorization is not AWS4-HMAC-SHA256")?;
    let part = |name: &str| {
        let found = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("Authorization has no {name}"))
    };
    if !part("Credential")?.ends_with("/ecs/aws4_request") {
        return Err("the scope of the signature is not <date>/<region>/ecs/aws4_request".to_owned());
    }
    let signed: Vec<_> = part("SignedHeaders")?.split(';').collect();
    if !["host", "x-amz-date"].iter().all(|needed| signed.contains(needed)) {
        return Err("host and x-amz-date must be among the SignedHeaders".to_owned());
    }
    let signature = part("Signature")?;
    if signature.len() != 64 || !signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("the signature is not 64 hexadecimal digits".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::names::Names;
    use crate::local::state::State;

    fn answer_to(frame: &str) -> Value {
        let names = Names { region: "r".into(), account: "000000000000".into() };
        let shared = Shared::new(State::new(names, "local", 0), HEARTBEAT, None);
        let answer = take(&shared, "instance", frame);
        // Nothing is kept of tasks and instances that the control plane does not know.
        assert_eq!(*shared.telemetry(), crate::local::Telemetry::default());
        answer
    }

    #[test]
    fn signed_frames_are_acknowledged() {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=k/d/r/ecs/aws4_request, SignedHeaders=host;x-amz-date, Signature={}",
            "0a".repeat(32)
        );
        let head = format!("Authorization: {signed}\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n");
        for (kind, ack) in [
            ("PublishMetricsRequest", "AckPublishMetric"),
            ("PublishHealthRequest", "AckPublishHealth"),
            ("PublishInstanceStatusRequest", "AckPublishInstanceStatus"),
            ("Nonsense", "BadRequestException"),
        ] {
            let message = json!({"taskMetrics": [{"taskArn": "a"}], "tasks": 3, "statuses": []});
            let answer = answer_to(&format!("{head}{}", json!({"type": kind, "message": message})));
            assert_eq!(answer["type"], ack);
        }
    }

    #[test]
    fn what_is_no_signed_frame_is_refused_with_its_reason() {
        for (frame, reason) in [
            ("{}", "no blank line"),
            ("Host: h\r\n\r\n{}", "no Authorization header"),
            ("Authorization: a\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n{}", "not AWS4-HMAC-SHA256"),
            ("Authorization: AWS4-HMAC-SHA256 x\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n{}", "no Credential"),
        ] {
            let answer = answer_to(frame);
            assert!(answer["message"]["message"].as_str().unwrap().contains(reason), "{answer}");
        }
    }
}
