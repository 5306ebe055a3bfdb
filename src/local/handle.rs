//! Starting the control plane in this process, and the handle by which its host uses it.

use crate::local::api;
use crate::local::error::ApiError;
use crate::local::names::Names;
use crate::local::roles::{self, TaskCredentials};
use crate::local::server;
use crate::local::shared::{Change, Shared, now_ms};
use crate::local::state::State;
use crate::local::task::Task;
use crate::local::telemetry::Telemetry;
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};

/// How a control plane is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Region of all ARNs.
    pub region: String,
    /// Account of all ARNs, twelve digits.
    pub account: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Time between heartbeats on ACS; agents give up after about a minute of silence.
    pub heartbeat: Duration,
    /// What tasks with a role are given.
    pub credentials: TaskCredentials,
}

impl Default for Options {
    /// Region by `AWS_DEFAULT_REGION` or us-east-1, account 000000000000, cluster `local`, a heartbeat
    /// every 30 s, no credentials for tasks.
    fn default() -> Self {
        let region = std::env::var("AWS_DEFAULT_REGION").ok().filter(|region| !region.is_empty());
        Self {
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            account: "000000000000".to_owned(),
            cluster: "local".to_owned(),
            heartbeat: Duration::from_secs(30),
            credentials: TaskCredentials::None,
        }
    }
}

/// Starting it failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The port can't be had.
    #[error("can't listen on {addr} (is another control plane running? choose another port)")]
    Bind {
        /// Address and port.
        addr: SocketAddr,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Tasks shall get credentials, and there are none.
    #[error("there are no credentials for tasks")]
    Credentials {
        /// What the source said.
        #[source]
        source: aws_credential_types::provider::error::CredentialsError,
    },
}

/// The control plane; see [`ControlPlane::bind`].
#[derive(Debug)]
pub struct ControlPlane;

impl ControlPlane {
    /// Binds the port. The future serves until [`Handle::shutdown`] was called, or every handle is
    /// gone; dropping it closes all connections.
    ///
    /// # Errors
    /// [`LocalError`]
    pub async fn bind(
        addr: SocketAddr,
        options: Options,
    ) -> Result<(Handle, impl Future<Output = ()> + Send + 'static), LocalError> {
        let bind_error = |source| LocalError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind_error)?;
        let addr = listener.local_addr().map_err(bind_error)?;
        let names = Names { region: options.region, account: options.account };
        // Agents remember the highest sequence number that they saw, also over a restart of ours.
        let state = State::new(names, &options.cluster, now_ms() / 1000);
        let credentials = roles::first(&options.credentials).await?;
        let shared = Arc::new(Shared::new(state, options.heartbeat, credentials));
        let (stop, stopped) = watch::channel(false);
        let handle = Handle { shared: Arc::clone(&shared), addr, stop: Arc::new(stop) };
        let renewing = roles::renew(options.credentials, Arc::clone(&shared));
        let serving = async move {
            // Cancel-safe: serving ends by itself, and then nobody needs credentials any more.
            tokio::select! {
                () = server::serve(listener, shared, stopped) => {}
                () = renewing => {}
            }
        };
        Ok((handle, serving))
    }
}

/// Uses a running control plane from within its process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: Arc<watch::Sender<bool>>,
}

impl Handle {
    /// `http://host:port`, for `--endpoint-url` and `ECS_BACKEND_HOST`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All changes from now on. A receiver that lags misses the oldest: read [`Handle::task`] then.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.shared.subscribe()
    }

    /// Any operation of the ECS API, as its JSON.
    ///
    /// # Errors
    /// As the operation has.
    pub fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        api::call(&self.shared, operation, input, &self.addr.to_string())
    }

    /// Registers a task definition; answers `family:revision`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn register_task_definition(&self, document: Value) -> Result<String, ApiError> {
        let answer = self.call("RegisterTaskDefinition", document)?;
        let arn = answer["taskDefinition"]["taskDefinitionArn"].as_str().unwrap_or_default();
        Ok(arn.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// Starts one task; answers its ARN.
    ///
    /// # Errors
    /// Also where no instance takes it: then the text says why.
    pub fn run_task(&self, definition: &str, overrides: Value) -> Result<String, ApiError> {
        let input = json!({"taskDefinition": definition, "overrides": overrides, "startedBy": "ecsd-local"});
        let answer = self.call("RunTask", input)?;
        match answer["tasks"][0]["taskArn"].as_str() {
            Some(arn) => Ok(arn.to_owned()),
            None => {
                let failure = &answer["failures"][0];
                let part = |key: &str| failure[key].as_str().unwrap_or_default().to_owned();
                Err(ApiError::client(format!("Not placed: {} {}", part("reason"), part("detail"))))
            }
        }
    }

    /// Asks for a task to be stopped; it stops when its change says so.
    ///
    /// # Errors
    /// Where there is no such task.
    pub fn stop_task(&self, arn: &str, reason: &str) -> Result<(), ApiError> {
        self.call("StopTask", json!({"task": arn, "reason": reason})).map(drop)
    }

    /// A task as it is now.
    pub fn task(&self, arn: &str) -> Option<Task> {
        self.shared.lock().tasks.iter().find(|t| t.arn == arn).cloned()
    }

    /// All tasks that are not stopped.
    pub fn live_tasks(&self) -> Vec<Task> {
        self.shared.lock().tasks.iter().filter(|t| !t.is_stopped()).cloned().collect()
    }

    /// An agent is connected and takes tasks.
    pub fn has_ready_instance(&self) -> bool {
        self.shared.lock().instances.values().any(|i| i.is_ready())
    }

    /// The newest metrics, health and instance status that agents sent; nothing of stopped tasks.
    pub fn telemetry(&self) -> Telemetry {
        self.shared.telemetry().clone()
    }

    /// Ends the serving future: closes the port and all connections.
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }
}
