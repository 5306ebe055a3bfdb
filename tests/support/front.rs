//! A front before a server: TLS, a limit of speed, and connections that are cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the front does to those who come.
#[derive(Clone, Default)]
pub struct Manners {
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Answers of a connection go out at this many bytes a second.
    pub bytes_per_second: Option<usize>,
    /// So many connections are cut after that many bytes of answers.
    pub cut: Option<(usize, usize)>,
}

pub struct Front {
    address: SocketAddr,
    cut: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
}

impl Front {
    /// Leads to `upstream`.
    pub async fn start(upstream: SocketAddr, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicUsize::new(0));
        let count = cut.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manners, count) = (manners.clone(), count.clone());
                tokio::spawn(async move {
                    let Ok(to) = TcpStream::connect(upstream).await else { return };
                    match &manners.tls {
                        None => lead(stream, to, &manners, &count).await,
                        Some(tls) => {
                            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
                            // Who does not like our certificate goes away here.
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            lead(stream, to, &manners, &count).await;
                        }
                    }
                });
            }
        });
        Self { address, cut, server }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that were cut so far.
    pub fn cuts(&self) -> usize {
        self.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn lead(
    client: impl AsyncRead + AsyncWrite + Unpin,
    server: TcpStream,
    manners: &Manners,
    cut: &AtomicUsize,
) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let asking = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let answering = async {
        let (mut buffer, mut sent) = (vec![0; 64 << 10], 0);
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
            sent += length;
            if let Some((times, after)) = manners.cut
                && sent >= after
                && cut
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < times).then_some(n + 1))
                    .is_ok()
            {
                return;
            }
            if let Some(speed) = manners.bytes_per_second {
                tokio::time::sleep(Duration::from_secs_f64(length as f64 / speed as f64)).await;
            }
        }
        let _ = to_client.shutdown().await;
    };
    // The end of the answers is the end: what is cut is not asked on.
    tokio::select! {
        () = answering => {}
        () = async { asking.await; std::future::pending::<()>().await } => {}
    }
}
