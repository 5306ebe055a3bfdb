//! A small HTTP client for two uses: the control plane of another `ecsd local`, and the check that a
//! task's published port answers.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A server may need a moment from the start of its process to its first accept.
const PROBE_FOR: Duration = Duration::from_secs(5);

/// Calls an operation of the ECS API at `endpoint`, `http://host:port`.
///
/// # Errors
/// Where nobody answers, or with the exception's text.
pub async fn call(endpoint: &str, operation: &str, input: &Value) -> anyhow::Result<Value> {
    let addr =
        endpoint.strip_prefix("http://").with_context(|| format!("{endpoint} is no http:// endpoint"))?;
    let request = Request::post("/")
        .header("host", addr)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{operation}"))
        .body(Full::new(Bytes::from(input.to_string())))?;
    let answer = timeout(REQUEST_TIMEOUT, exchange(addr, request)).await;
    let (status, body) = answer.with_context(|| format!("{endpoint} did not answer in time"))??;
    let value: Value =
        serde_json::from_slice(&body).with_context(|| format!("{endpoint} did not answer in JSON"))?;
    if status != 200 {
        bail!("{}", value["message"].as_str().unwrap_or("the control plane refused"));
    }
    Ok(value)
}

/// What a GET of a path at `endpoint` answers, which must be JSON.
///
/// # Errors
/// Where nobody answers, or not with that.
pub async fn get(endpoint: &str, path: &str) -> anyhow::Result<Value> {
    let addr =
        endpoint.strip_prefix("http://").with_context(|| format!("{endpoint} is no http:// endpoint"))?;
    let request = Request::get(path).header("host", addr).body(Full::new(Bytes::new()))?;
    let answer = timeout(REQUEST_TIMEOUT, exchange(addr, request)).await;
    let (status, body) = answer.with_context(|| format!("{endpoint} did not answer in time"))??;
    if status != 200 {
        bail!("{endpoint}{path} answered {status}: is it an older ecsd?");
    }
    serde_json::from_slice(&body).with_context(|| format!("{endpoint}{path} did not answer in JSON"))
}

/// What `http://addr/` answers to a GET; asks for some seconds until something does.
pub async fn probe(addr: &str) -> Result<String, String> {
    let until = Instant::now() + PROBE_FOR;
    loop {
        let error = match Request::get("/").header("host", addr).body(Full::new(Bytes::new())) {
            Ok(request) => match timeout(PROBE_TIMEOUT, exchange(addr, request)).await {
                Ok(Ok((status, body))) => return Ok(format!("answers: {status}, {} bytes", body.len())),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer in time".to_owned(),
            },
            Err(error) => return Err(error.to_string()),
        };
        if Instant::now() >= until {
            return Err(error);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn exchange(addr: &str, request: Request<Full<Bytes>>) -> anyhow::Result<(u16, Bytes)> {
    let stream = TcpStream::connect(addr).await.with_context(|| format!("can't connect to {addr}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    // The connection does the reading and writing while the answer waits for it.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        result = &mut connection => {
            result?;
            answer.await
        }
    }
}
