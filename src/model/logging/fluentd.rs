//! Options of `fluentd`.

use super::address::{host_and_port, scheme, socket_path};
use super::options::{ATTRIBUTES, OptionReader, parse_bytes};
use super::{LogError, LogOptions, ServerAddress};
use std::time::Duration;

const DRIVER: &str = "fluentd";
const OWN: &[&str] = &[
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
];
const DEFAULT_PORT: u16 = 24224;
/// Docker's limit of records that wait.
const DEFAULT_BUFFER: u64 = 1024 * 1024;

/// The forward protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluentdOptions {
    /// Where the server is.
    pub address: ServerAddress,
    /// The container starts, and runs, whether or not there is a server.
    pub asynchronous: bool,
    /// A connection that is older is made anew; `None` is never.
    pub reconnect_interval: Option<Duration>,
    /// How many records wait while it is asynchronous.
    pub buffer_limit: u64,
    /// How often a record is tried again, before it is lost.
    pub max_retries: u32,
    /// Each record is acknowledged by the server.
    pub request_ack: bool,
    /// The first pause between tries; each is half as long again as the one before.
    pub retry_wait: Duration,
    /// Times with nanoseconds.
    pub sub_second_precision: bool,
    /// A connection on which nothing moves for so long is given up.
    pub write_timeout: Option<Duration>,
}

impl FluentdOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let options = OptionReader::new(DRIVER, options, &[OWN, ATTRIBUTES])?;
        if options.text("fluentd-async").is_some() && options.text("fluentd-async-connect").is_some() {
            return Err(LogError::Together(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'",
            ));
        }
        let asynchronous = options.flag("fluentd-async")? || options.flag("fluentd-async-connect")?;
        let between = Duration::from_millis(100)..=Duration::from_secs(10);
        let reconnect_interval = options.duration("fluentd-async-reconnect-interval")?;
        let reconnect_interval = reconnect_interval.filter(|interval| !interval.is_zero());
        if reconnect_interval.is_some_and(|interval| !between.contains(&interval)) {
            return Err(options.wrong("fluentd-async-reconnect-interval", "a duration from 100ms to 10s"));
        }
        let limit = options.parsed("fluentd-buffer-limit", "a number such as 8192 or 1m", |text| {
            parse_bytes(text, 1024).filter(|limit| *limit > 0)
        })?;
        let retries = options.parsed("fluentd-max-retries", "a whole number", |text| text.parse().ok())?;
        let default = || ServerAddress::Tcp("127.0.0.1".to_owned(), DEFAULT_PORT);
        let expected = "tcp://host:port, tls://host:port or unix:///path";
        Ok(Self {
            address: options.parsed("fluentd-address", expected, address)?.unwrap_or_else(default),
            asynchronous,
            reconnect_interval,
            buffer_limit: limit.unwrap_or(DEFAULT_BUFFER),
            max_retries: retries.unwrap_or(u32::MAX),
            request_ack: options.flag("fluentd-request-ack")?,
            retry_wait: options.duration("fluentd-retry-wait")?.unwrap_or(Duration::from_secs(1)),
            sub_second_precision: options.flag("fluentd-sub-second-precision")?,
            write_timeout: options.duration("fluentd-write-timeout")?.filter(|limit| !limit.is_zero()),
        })
    }
}

fn address(text: &str) -> Option<ServerAddress> {
    let server = |text: &str| host_and_port(text, Some(DEFAULT_PORT));
    match scheme(text).unwrap_or(("tcp", text)) {
        ("tcp", rest) => server(rest).map(|(host, port)| ServerAddress::Tcp(host, port)),
        ("tls", rest) => server(rest).map(|(host, port)| ServerAddress::Tls(host, port)),
        ("unix", rest) => socket_path(rest).map(ServerAddress::Unix),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<FluentdOptions, LogError> {
        FluentdOptions::parse(&options.iter().copied().collect())
    }

    #[test]
    fn defaults_and_addresses_are_dockers() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.address, ServerAddress::Tcp("127.0.0.1".into(), 24224));
        assert_eq!((options.max_retries, options.retry_wait), (u32::MAX, Duration::from_secs(1)));
        assert!(!options.asynchronous && !options.request_ack && !options.sub_second_precision);
        for (text, want) in [
            ("host", Some(ServerAddress::Tcp("host".into(), 24224))),
            ("tls://host:1", Some(ServerAddress::Tls("host".into(), 1))),
            ("unix:///var/run/fluent.sock", Some(ServerAddress::Unix("/var/run/fluent.sock".into()))),
            ("unix://", None),
            ("tcp://host/path", None),
            ("udp://host", None),
        ] {
            assert_eq!(parse(&[("fluentd-address", text)]).ok().map(|o| o.address), want, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (options, words) in [
            (vec![("fluentd-async", "1"), ("fluentd-async-connect", "1")], "conflicting options"),
            (vec![("fluentd-async-reconnect-interval", "1m")], "100ms to 10s"),
            (vec![("fluentd-max-retries", "x")], "fluentd-max-retries"),
            (vec![("fluentd-adress", "x")], "unknown log opt 'fluentd-adress' for fluentd log driver"),
        ] {
            let error = parse(&options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
