//! Telling systemd how the agent is (sd_notify(3)): ready, what it does, alive, ending. One datagram to
//! `$NOTIFY_SOCKET` each; without that variable nothing is said. Never waits: a supervisor that does not
//! read must not hold the agent up.

use futures_util::future::BoxFuture;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The way to the supervisor, or nowhere. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Notifier {
    way: Option<Arc<(UnixDatagram, SocketAddr)>>,
}

impl Notifier {
    /// By the environment.
    pub fn from_env() -> Self {
        Self::to(std::env::var("NOTIFY_SOCKET").ok().as_deref())
    }

    /// To a socket: a path, or `@` and an abstract name.
    pub fn to(socket: Option<&str>) -> Self {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::default() };
        let open = || {
            let address = match socket.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(socket)?,
            };
            let datagram = UnixDatagram::unbound()?;
            datagram.set_nonblocking(true)?;
            Ok::<_, std::io::Error>((datagram, address))
        };
        match open() {
            Ok(way) => Self { way: Some(Arc::new(way)) },
            Err(error) => {
                tracing::warn!(%error, socket, "NOTIFY_SOCKET can't be used");
                Self::default()
            }
        }
    }

    /// Everything is up.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What the agent is at, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// It ends.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// Says at every `period` that the agent is alive, for as long as `responds` comes true within it.
    pub async fn keep_alive(self, period: Duration, responds: impl Fn() -> BoxFuture<'static, bool> + Send) {
        loop {
            match tokio::time::timeout(period, responds()).await {
                Ok(true) => self.send("WATCHDOG=1"),
                Ok(false) => tracing::error!("the engine has ended; the watchdog will end the agent"),
                Err(_) => {
                    tracing::error!(?period, "the engine does not answer; the watchdog may end the agent")
                }
            }
            tokio::time::sleep(period).await;
        }
    }

    fn send(&self, message: &str) {
        if let Some((datagram, address)) = self.way.as_deref()
            && let Err(error) = datagram.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, message, "the supervisor was not told");
        }
    }
}

/// Half of what the watchdog allows, where there is one and it is for this process.
pub(super) fn watchdog_period(vars: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let for_other = vars("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string());
    let us: u64 = vars("WATCHDOG_USEC")?.parse().ok()?;
    (us > 1 && !for_other).then(|| Duration::from_micros(us / 2))
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_told() {
        let path = std::env::temp_dir().join(format!("ecsd-notify-{}", std::process::id()));
        let by_path = UnixDatagram::bind(&path).unwrap();
        Notifier::to(path.to_str()).ready("registered\nREADY=0");
        assert_eq!(received(&by_path), "READY=1\nSTATUS=registered READY=0");
        std::fs::remove_file(&path).unwrap();

        let name = format!("ecsd-notify-{}", std::process::id());
        let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(Some(&format!("@{name}")));
        notifier.status("s");
        notifier.stopping("bye");
        assert_eq!(received(&abstract_one), "STATUS=s");
        assert_eq!(received(&abstract_one), "STOPPING=1\nSTATUS=bye");
        for nobody in [None, Some(""), Some("/nonexistent/socket")] {
            Notifier::to(nobody).ready("nobody hears it");
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_holds_nothing_up() {
        let name = format!("ecsd-notify-full-{}", std::process::id());
        let _full = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(Some(&format!("@{name}")));
        (0..100_000).for_each(|_| notifier.status("again"));
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let of = |us: &'static str, pid: Option<String>| {
            watchdog_period(
                move |name| if name == "WATCHDOG_PID" { pid.clone() } else { Some(us.to_owned()) },
            )
        };
        assert_eq!(of("2000000", None), Some(Duration::from_secs(1)));
        assert_eq!(of("2000000", Some(std::process::id().to_string())), Some(Duration::from_secs(1)));
        assert_eq!(of("2000000", Some("1".into())), None);
        assert_eq!(of("0", None), None);
        assert_eq!(of("soon", None), None);
        assert_eq!(watchdog_period(|_| None), None);
    }

    #[tokio::test]
    async fn only_an_engine_that_answers_keeps_the_watchdog_quiet() {
        let name = format!("ecsd-watchdog-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UnixDatagram::from_std(socket).unwrap();
        let well = Arc::new(AtomicBool::new(true));
        let (asked, mut asks) = tokio::sync::mpsc::channel(64);
        let responds = {
            let well = well.clone();
            move || {
                let (well, asked) = (well.load(Ordering::SeqCst), asked.clone());
                async move {
                    asked.send(well).await.unwrap();
                    well || std::future::pending().await
                }
                .boxed()
            }
        };
        let notifier = Notifier::to(Some(&format!("@{name}")));
        let kept = tokio::spawn(notifier.keep_alive(Duration::from_millis(20), responds));
        let mut buffer = [0; 64];
        for _ in 0..2 {
            let length = socket.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"WATCHDOG=1");
        }
        well.store(false, Ordering::SeqCst);
        while asks.recv().await.unwrap() {}
        while socket.try_recv(&mut buffer).is_ok() {}
        // The next question comes only after the one before went unanswered.
        assert!(!asks.recv().await.unwrap());
        assert!(socket.try_recv(&mut buffer).is_err(), "nothing is said for an engine that hangs");
        kept.abort();
    }
}
