//! The server side of the telemetry websocket (spec/control-plane.md 4): takes frames, each a block of
//! signed headers, a blank line and a JSON envelope, and acknowledges them. Figures are not kept.

use super::{SEND_TIMEOUT, Socket};
use crate::local::error::shortened;
use crate::local::shared::ended;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Agents close after about a minute in which the service said nothing (4.3).
const HEARTBEAT: Duration = Duration::from_secs(40);

/// Speaks TCS until the agent goes or the control plane stops.
pub async fn run(mut socket: Socket, mut stopped: watch::Receiver<bool>) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: frames, ticks and the watch keep what they have.
        let answer = tokio::select! {
            _ = ended(&mut stopped) => break,
            _ = heartbeat.tick() => Some(json!({"type": "HeartbeatMessage", "message": {"healthy": true}})),
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => Some(take(&text)),
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

/// The answer to one frame.
fn take(frame: &str) -> Value {
    let envelope = match parse(frame) {
        Ok(envelope) => envelope,
        Err(message) => return json!({"type": "BadRequestException", "message": {"message": message}}),
    };
    let ack = match envelope["type"].as_str().unwrap_or_default() {
        "PublishMetricsRequest" => "AckPublishMetric",
        "PublishHealthRequest" => "AckPublishHealth",
        "PublishInstanceStatusRequest" => "AckPublishInstanceStatus",
        other => {
            let message = format!("unknown message type '{}'", shortened(other, 80));
            return json!({"type": "BadRequestException", "message": {"message": message}});
        }
    };
    json!({"type": ack, "message": {"message": "OK"}})
}

/// Splits a frame and reads its envelope. The signature's presence is checked, not its value.
fn parse(frame: &str) -> Result<Value, String> {
    let (head, body) =
        frame.split_once("\r\n\r\n").ok_or("no blank line between the signed headers and the message")?;
    let names: Vec<_> = head.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    for needed in ["Authorization", "Host", "X-Amz-Date"] {
        if !names.iter().any(|name| name.eq_ignore_ascii_case(needed)) {
            return Err(format!("the frame has no {needed} header"));
        }
    }
    serde_json::from_str(body).map_err(|error| format!("the message is no JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_frames_are_acknowledged() {
        let head = "Authorization: AWS4\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n";
        for (kind, ack) in [
            ("PublishMetricsRequest", "AckPublishMetric"),
            ("PublishHealthRequest", "AckPublishHealth"),
            ("PublishInstanceStatusRequest", "AckPublishInstanceStatus"),
            ("Nonsense", "BadRequestException"),
        ] {
            let answer = take(&format!("{head}{{\"type\":\"{kind}\",\"message\":{{}}}}"));
            assert_eq!(answer["type"], ack);
        }
    }

    #[test]
    fn what_is_no_signed_frame_is_refused_with_its_reason() {
        for (frame, reason) in [
            ("{}", "no blank line"),
            ("Host: h\r\n\r\n{}", "no Authorization header"),
            ("Authorization: a\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n{", "no JSON"),
        ] {
            let answer = take(frame);
            assert!(answer["message"]["message"].as_str().unwrap().contains(reason), "{answer}");
        }
    }
}
