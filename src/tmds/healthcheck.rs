//! `ecsd -healthcheck`: asks a running agent whether it lives (spec/local-endpoints-config.md 2).

use super::INTROSPECTION_PORT;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that the whole check may take.
const LIMIT: Duration = Duration::from_secs(25);

/// The agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// No connection, or one that broke.
    #[error("no answer from the agent at {address}: is it running, and registered?")]
    Unreachable {
        /// What was asked.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing came within the limit.
    #[error("no answer from the agent at {address} within {LIMIT:?}")]
    Timeout {
        /// What was asked.
        address: String,
    },
    /// Something else answers on the port.
    #[error("what answers at {address} is not the agent: it does not speak HTTP")]
    NotHttp {
        /// What was asked.
        address: String,
    },
}

/// HEAD `/v1/metadata` of the agent on `host` (`ECS_AGENT_HEALTHCHECK_HOST`, else `localhost`).
/// Any HTTP answer is a sign of life, whatever its status.
///
/// # Errors
/// Where there is no HTTP answer within 25 seconds.
pub async fn healthcheck(host: &str) -> Result<(), HealthcheckError> {
    check(host, INTROSPECTION_PORT, LIMIT).await
}

async fn check(host: &str, port: u16, limit: Duration) -> Result<(), HealthcheckError> {
    let address = format!("{host}:{port}");
    let ask = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        let request = format!("HEAD /v1/metadata HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(&start == b"HTTP/")
    };
    match tokio::time::timeout(limit, ask).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(HealthcheckError::NotHttp { address }),
        Ok(Err(source)) => Err(HealthcheckError::Unreachable { address, source }),
        Err(_) => Err(HealthcheckError::Timeout { address }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn against(answer: Option<&'static [u8]>) -> Result<(), HealthcheckError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            match answer {
                Some(bytes) => stream.write_all(bytes).await.unwrap(),
                None => std::future::pending().await,
            }
        });
        check("127.0.0.1", port, Duration::from_millis(200)).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn any_http_answer_is_life() {
        assert!(against(Some(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")).await.is_ok());
        assert!(matches!(against(Some(b"SSH-2.0-x")).await, Err(HealthcheckError::NotHttp { .. })));
        assert!(matches!(against(Some(b"")).await, Err(HealthcheckError::Unreachable { .. })));
        assert!(matches!(against(None).await, Err(HealthcheckError::Timeout { .. })));
    }
}
