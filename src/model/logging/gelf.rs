//! Options of `gelf`.

use super::address::{host_and_port, scheme};
use super::options::{ATTRIBUTES, OptionReader};
use super::{LogError, LogOptions};
use std::time::Duration;

const DRIVER: &str = "gelf";
const OWN: &[&str] = &[
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
];

/// Graylog's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GelfOptions {
    /// Where the server is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is reached.
    pub transport: GelfTransport,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GelfTransport {
    /// Chunked datagrams.
    Udp {
        /// How they are compressed.
        compression: GelfCompression,
        /// 0 (none) to 9 (most).
        level: u32,
    },
    /// A stream of messages that end with a zero byte.
    Tcp {
        /// After how many tries a message is lost; `None` is never.
        max_reconnect: Option<u32>,
        /// Between the tries.
        reconnect_delay: Duration,
    },
}

/// How datagrams are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GelfCompression {
    /// gzip.
    Gzip,
    /// zlib.
    Zlib,
    /// Not.
    None,
}

impl GelfOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let options = OptionReader::new(DRIVER, options, &[OWN, ATTRIBUTES])?;
        options.required("gelf-address")?;
        let expected = "udp://host:port or tcp://host:port";
        let address = options.parsed("gelf-address", expected, |text| {
            let (scheme, rest) = scheme(text).filter(|(scheme, _)| matches!(*scheme, "udp" | "tcp"))?;
            Some((scheme == "tcp", host_and_port(rest, None)?))
        })?;
        let missing = LogError::Missing { driver: DRIVER, option: "gelf-address" };
        let (is_tcp, (host, port)) = address.ok_or(missing)?;
        let compression =
            options.parsed("gelf-compression-type", "gzip, zlib or none", |text| match text {
                "gzip" => Some(GelfCompression::Gzip),
                "zlib" => Some(GelfCompression::Zlib),
                "none" => Some(GelfCompression::None),
                _ => None,
            })?;
        let level = options.parsed("gelf-compression-level", "-1 to 9", |text| {
            text.parse::<i32>().ok().filter(|level| (-1..=9).contains(level))
        })?;
        let count = |text: &str| text.parse::<u32>().ok();
        let max_reconnect = options.parsed("gelf-tcp-max-reconnect", "a whole number", count)?;
        let delay = options.parsed("gelf-tcp-reconnect-delay", "whole seconds", count)?;
        let transport = match is_tcp {
            true if compression.is_some() || level.is_some() => {
                return Err(LogError::Together("compression is only supported on UDP"));
            }
            true => GelfTransport::Tcp {
                max_reconnect,
                reconnect_delay: Duration::from_secs(delay.unwrap_or(1).into()),
            },
            false if max_reconnect.is_some() || delay.is_some() => {
                return Err(LogError::Together(
                    "gelf-tcp-max-reconnect and gelf-tcp-reconnect-delay are only valid for TCP",
                ));
            }
            false => GelfTransport::Udp {
                compression: compression.unwrap_or(GelfCompression::Gzip),
                // -1 is the library's own choice.
                level: level.map_or(1, |level| u32::try_from(level).unwrap_or(6)),
            },
        };
        Ok(Self { host, port, transport })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<GelfOptions, LogError> {
        GelfOptions::parse(&options.iter().copied().collect())
    }

    #[test]
    fn options_belong_to_their_transport() {
        let udp = parse(&[("gelf-address", "udp://h:12201"), ("gelf-compression-level", "-1")]).unwrap();
        assert_eq!((udp.host.as_str(), udp.port), ("h", 12201));
        assert_eq!(udp.transport, GelfTransport::Udp { compression: GelfCompression::Gzip, level: 6 });
        let tcp = parse(&[("gelf-address", "tcp://h:1"), ("gelf-tcp-max-reconnect", "5")]).unwrap();
        let want = GelfTransport::Tcp { max_reconnect: Some(5), reconnect_delay: Duration::from_secs(1) };
        assert_eq!(tcp.transport, want);
        for (options, words) in [
            (vec![], "must specify a value for log opt 'gelf-address'"),
            (vec![("gelf-address", "udp://h")], "udp://host:port"),
            (vec![("gelf-address", "tcp://h:1"), ("gelf-compression-type", "gzip")], "only supported on UDP"),
            (vec![("gelf-address", "udp://h:1"), ("gelf-tcp-max-reconnect", "1")], "only valid for TCP"),
            (vec![("gelf-address", "udp://h:1"), ("gelf-compression-level", "10")], "-1 to 9"),
        ] {
            let error = parse(&options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
