//! What is told at each publication: frames are made, signed and written one after the other, and what
//! was written is confirmed at once. So a connection that dies costs no data point, and none is told
//! twice.

use super::TcsContext;
use super::chunk::chunks;
use super::wire::{
    Envelope, Metadata, Number, PublishHealthRequest, PublishInstanceStatusRequest, PublishMetricsRequest,
    Status, StatusMetadata, TaskHealthEntry, TaskMetric,
};
use crate::control::sigv4;
use crate::control::ws::{self, Ended, Socket, WsError};
use crate::model::InstanceCheck;
use futures_util::SinkExt;
use serde::Serialize;
use std::time::SystemTime;
use tokio_tungstenite::tungstenite::Message;

/// Writes the publications of one connection.
pub(super) struct Publisher<'a> {
    pub(super) context: &'a TcsContext,
    /// Of the connection: every frame's signature covers it.
    pub(super) url: &'a url::Url,
}

impl Publisher<'_> {
    /// Metrics: idle where nothing runs, nothing where nothing new is known.
    pub(super) async fn metrics(&self, socket: &mut Socket) -> Result<(), Ended> {
        let metrics = self.context.telemetry.metrics();
        let id = uuid::Uuid::new_v4().to_string();
        let message = |fin, idle, task_metrics| PublishMetricsRequest {
            metadata: Metadata { idle: Some(idle), ..self.metadata(fin, &id) },
            task_metrics,
            timestamp: now(),
        };
        if metrics.is_idle {
            return self.send(socket, "PublishMetricsRequest", message(true, true, Vec::new())).await;
        }
        let entries: Vec<TaskMetric<'_>> = metrics.tasks.iter().map(TaskMetric::from).collect();
        for range in chunks(&entries, length(&message(false, false, Vec::new()))) {
            let fin = range.end == entries.len();
            let part = message(fin, false, entries[range.clone()].to_vec());
            self.send(socket, "PublishMetricsRequest", part).await?;
            self.context.telemetry.confirm(&metrics.tasks[range]);
        }
        Ok(())
    }

    /// Health of the containers that have a health check.
    pub(super) async fn health(&self, socket: &mut Socket) -> Result<(), Ended> {
        let health = self.context.telemetry.health();
        let id = uuid::Uuid::new_v4().to_string();
        let message =
            |fin, tasks| PublishHealthRequest { metadata: self.metadata(fin, &id), tasks, timestamp: now() };
        let entries: Vec<TaskHealthEntry<'_>> = health.iter().map(TaskHealthEntry::from).collect();
        for range in chunks(&entries, length(&message(false, Vec::new()))) {
            let fin = range.end == entries.len();
            self.send(socket, "PublishHealthRequest", message(fin, entries[range].to_vec())).await?;
        }
        Ok(())
    }

    /// Status of the instance.
    pub(super) async fn instance_status(
        &self,
        socket: &mut Socket,
        checks: &[InstanceCheck],
    ) -> Result<(), Ended> {
        let message = PublishInstanceStatusRequest {
            metadata: StatusMetadata {
                cluster: &self.context.cluster,
                container_instance: &self.context.instance,
                request_id: &uuid::Uuid::new_v4().to_string(),
            },
            statuses: checks.iter().map(Status::from).collect(),
            timestamp: now(),
        };
        self.send(socket, "PublishInstanceStatusRequest", message).await
    }

    fn metadata<'b>(&'b self, fin: bool, message_id: &'b str) -> Metadata<'b> {
        Metadata {
            cluster: &self.context.cluster,
            container_instance: &self.context.instance,
            fin,
            idle: None,
            message_id,
        }
    }

    async fn send<M: Serialize>(&self, socket: &mut Socket, kind: &str, message: M) -> Result<(), Ended> {
        // Strings and numbers always have a JSON form.
        let json = serde_json::to_string(&Envelope { r#type: kind, message }).unwrap_or_default();
        let account = &self.context.account;
        let credentials = account.credentials.get().await;
        let credentials = credentials.map_err(|e| Ended::Failed(WsError::Credentials(e)))?;
        let frame = sigv4::sign_frame(&credentials, &account.region, self.url, &json, account.clock.now());
        let frame = frame.map_err(|e| Ended::Failed(e.into()))?;
        let host = || sigv4::host_header(self.url);
        match tokio::time::timeout(ws::WRITE, socket.send(Message::text(frame))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ws::broke(host(), error)),
            Err(_) => Err(Ended::Failed(WsError::Late { host: host(), limit: ws::WRITE })),
        }
    }
}

/// Bytes of a message's JSON in its envelope.
fn length(message: &impl Serialize) -> usize {
    let envelope = Envelope { r#type: "PublishMetricsRequest", message };
    serde_json::to_vec(&envelope).map_or(0, |json| json.len()) + r#","taskMetrics":[]"#.len()
}

fn now() -> Number {
    Number::seconds(SystemTime::now().into())
}
