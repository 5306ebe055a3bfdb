//! Options of `syslog`.

use super::address::{host_and_port, scheme, socket_path};
use super::options::{ATTRIBUTES, OptionReader};
use super::{LogError, LogOptions, ServerAddress};
use std::path::PathBuf;

const OWN: &[&str] = &[
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];
const DEFAULT_PORT: u16 = 514;
/// By their numbers (RFC 5424, 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];
const DAEMON: u8 = 3;

/// syslog messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogOptions {
    /// Where the server is.
    pub address: SyslogAddress,
    /// The facility's number.
    pub facility: u8,
    /// How a message looks.
    pub format: SyslogFormat,
    /// PEM with the CA certificates to trust.
    pub ca: Option<PathBuf>,
    /// PEM with a client certificate, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Any certificate will do.
    pub skip_verify: bool,
}

/// Where a syslog server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// The host's own.
    Local,
    /// TCP, TLS, or a unix stream socket.
    Stream(ServerAddress),
    /// UDP.
    Udp(String, u16),
    /// A unix datagram socket.
    Unixgram(PathBuf),
}

/// How a message looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFormat {
    /// As local programs write: no host name.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, to the second.
    Rfc5424,
    /// RFC 5424, to the microsecond.
    Rfc5424Micro,
}

impl SyslogOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let options = OptionReader::new("syslog", options, &[OWN, ATTRIBUTES])?;
        let expected = "tcp://, tcp+tls://, udp://host:port, unix:// or unixgram:///path";
        let facility = options.parsed("syslog-facility", "a facility such as daemon or local0", facility)?;
        let format =
            options.parsed("syslog-format", "rfc3164, rfc5424 or rfc5424micro", |text| match text {
                "rfc3164" => Some(SyslogFormat::Rfc3164),
                "rfc5424" => Some(SyslogFormat::Rfc5424),
                "rfc5424micro" => Some(SyslogFormat::Rfc5424Micro),
                _ => None,
            })?;
        let path = |option| options.text(option).map(PathBuf::from);
        let client = match (path("syslog-tls-cert"), path("syslog-tls-key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(
                    options.wrong("syslog-tls-key", "a key where there is a certificate, and none else")
                );
            }
        };
        Ok(Self {
            address: options.parsed("syslog-address", expected, address)?.unwrap_or(SyslogAddress::Local),
            facility: facility.unwrap_or(DAEMON),
            format: format.unwrap_or(SyslogFormat::Unix),
            ca: path("syslog-tls-ca-cert"),
            client,
            // dockerd looks only whether it is there.
            skip_verify: options.text("syslog-tls-skip-verify").is_some(),
        })
    }
}

fn facility(text: &str) -> Option<u8> {
    let by_name = FACILITIES.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
    by_name.or_else(|| text.parse().ok().filter(|number| usize::from(*number) < FACILITIES.len()))
}

fn address(text: &str) -> Option<SyslogAddress> {
    let (scheme, rest) = scheme(text)?;
    let server = || host_and_port(rest, Some(DEFAULT_PORT));
    match scheme {
        "tcp" => server().map(|(host, port)| SyslogAddress::Stream(ServerAddress::Tcp(host, port))),
        "tcp+tls" => server().map(|(host, port)| SyslogAddress::Stream(ServerAddress::Tls(host, port))),
        "udp" => server().map(|(host, port)| SyslogAddress::Udp(host, port)),
        "unix" => socket_path(rest).map(|path| SyslogAddress::Stream(ServerAddress::Unix(path))),
        "unixgram" => socket_path(rest).map(SyslogAddress::Unixgram),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<SyslogOptions, LogError> {
        SyslogOptions::parse(&options.iter().copied().collect())
    }

    #[test]
    fn defaults_and_addresses_are_dockers() {
        let options = parse(&[]).unwrap();
        assert_eq!((options.address, options.facility), (SyslogAddress::Local, 3));
        assert_eq!(options.format, SyslogFormat::Unix);
        let of = |text: &str| parse(&[("syslog-address", text)]).ok().map(|o| o.address);
        let tcp = SyslogAddress::Stream(ServerAddress::Tcp("h".into(), 514));
        assert_eq!(of("tcp://h"), Some(tcp));
        assert_eq!(of("udp://[::1]:1514"), Some(SyslogAddress::Udp("::1".into(), 1514)));
        let tls = SyslogAddress::Stream(ServerAddress::Tls("h".into(), 6514));
        assert_eq!(of("tcp+tls://h:6514"), Some(tls));
        assert_eq!(of("unixgram:///dev/log"), Some(SyslogAddress::Unixgram("/dev/log".into())));
        assert_eq!((of("h:514"), of("http://h")), (None, None));
    }

    #[test]
    fn facilities_go_by_name_or_number() {
        let of = |text: &str| parse(&[("syslog-facility", text)]).ok().map(|o| o.facility);
        assert_eq!((of("local7"), of("kern"), of("23")), (Some(23), Some(0), Some(23)));
        assert_eq!((of("24"), of("nonsense")), (None, None));
        assert!(parse(&[("syslog-tls-cert", "/c")]).is_err(), "a certificate without its key");
    }
}
