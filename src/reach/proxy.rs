//! Which proxy leads to a host, by the rules of Go that the original follows (spec/control-plane.md
//! 0.2): `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, upper case first; HTTPS takes `HTTP_PROXY` where it
//! has none of its own. This machine and link-local addresses are always reached directly. Where
//! `REQUEST_METHOD` is set, `HTTP_PROXY` is not taken: a CGI program gets it from who asks. Pure; a proxy's
//! password is in no `Debug` and in no error.

use base64::Engine as _;
use http::HeaderValue;
use std::net::IpAddr;

/// What `NO_PROXY` is where it is not set: IMDS and the credentials endpoint of containers.
const NO_PROXY: &str = "169.254.169.254,169.254.170.2";

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The proxy itself speaks TLS.
    pub tls: bool,
    /// `Proxy-Authorization`, where its URL names a user.
    pub authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A variable that names no proxy. The value is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not the address of a proxy: use http://[user:password@]host:port")]
pub struct ProxyError {
    /// The variable.
    pub variable: &'static str,
}

/// The proxies of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxies {
    http: Result<Option<Proxy>, ProxyError>,
    https: Result<Option<Proxy>, ProxyError>,
    except: Vec<Exception>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    /// A domain with a leading dot; `itself` where the name without the dot counts too.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// From the environment of this process.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// From variables. A value that can't be used is an error of the requests that would need it.
    pub fn from_vars(vars: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let set = |name: &str| vars(name).filter(|value| !value.is_empty());
            set(name).or_else(|| set(&name.to_lowercase()))
        };
        let blank = |value: &String| value.trim().is_empty();
        let is_cgi = vars("REQUEST_METHOD").is_some_and(|method| !method.is_empty());
        let http = if is_cgi { None } else { get("HTTP_PROXY") }.map(|value| ("HTTP_PROXY", value));
        let https = get("HTTPS_PROXY").map(|value| ("HTTPS_PROXY", value));
        let https = https.filter(|(_, value)| !blank(value)).or_else(|| http.clone());
        let proxy = |named: Option<(&'static str, String)>| {
            named
                .filter(|(_, value)| !blank(value))
                .map(|(name, value)| parse(name, value.trim()))
                .transpose()
        };
        let except = get("NO_PROXY").unwrap_or_else(|| NO_PROXY.to_owned());
        Self {
            http: proxy(http),
            https: proxy(https),
            except: except.split(',').filter_map(|entry| exception(&entry.trim().to_lowercase())).collect(),
        }
    }

    /// The proxy to a host; `None` is directly.
    ///
    /// # Errors
    /// [`ProxyError`]
    pub fn to(&self, https: bool, host: &str, port: u16) -> Result<Option<&Proxy>, ProxyError> {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || ip.is_some_and(is_near) {
            return Ok(None);
        }
        if self.except.iter().any(|exception| exception.covers(&host, ip, port)) {
            return Ok(None);
        }
        let proxy = if https { &self.https } else { &self.http };
        proxy.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }
}

/// On this machine, or on this link: no proxy can reach it for us.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        // The second is the metadata service's own.
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0xec2]
        }
    }
}

fn parse(variable: &'static str, value: &str) -> Result<Proxy, ProxyError> {
    let bad = || ProxyError { variable };
    let has_scheme = value.contains("://");
    let text = if has_scheme { value.to_owned() } else { format!("http://{value}") };
    let url = url::Url::parse(&text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let authorization = if url.username().is_empty() && url.password().is_none() {
        None
    } else {
        let pair =
            [&decoded(url.username())[..], b":", &decoded(url.password().unwrap_or_default())].concat();
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let mut header = HeaderValue::try_from(text).map_err(|_| bad())?;
        header.set_sensitive(true);
        Some(header)
    };
    Ok(Proxy {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().ok_or_else(bad)?,
        tls: url.scheme() == "https",
        authorization,
    })
}

fn exception(entry: &str) -> Option<Exception> {
    if entry.is_empty() {
        return None;
    }
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return Some(Exception::Network(network.parse().ok()?, bits.parse().ok()?));
    }
    if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address(address, None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(Exception::Address(address, port));
    }
    let name = host.strip_prefix('*').unwrap_or(host);
    let itself = !name.starts_with('.');
    let suffix = if itself { format!(".{name}") } else { name.to_owned() };
    (suffix.len() > 1).then_some(Exception::Domain { suffix, itself, port })
}

impl Exception {
    fn covers(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => ip.is_some_and(|ip| in_network(ip, *network, *bits)),
            Self::Address(address, of) => ip == Some(*address) && of.is_none_or(|of| of == port),
            Self::Domain { suffix, itself, port: of } => {
                (host.ends_with(suffix) || (*itself && host == &suffix[1..]))
                    && of.is_none_or(|of| of == port)
            }
        }
    }
}

fn in_network(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    match width - u32::from(bits).min(width) {
        128 => true,
        free => ip >> free == network >> free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(vars: &[(&str, &str)]) -> Proxies {
        Proxies::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn to(proxies: &Proxies, https: bool, host: &str, port: u16) -> Option<String> {
        proxies.to(https, host, port).unwrap().map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_own_and_https_falls_back() {
        let both = proxies(&[("HTTP_PROXY", "plain:1"), ("https_proxy", "http://secure:2")]);
        assert_eq!(to(&both, false, "h", 80).as_deref(), Some("plain:1"));
        assert_eq!(to(&both, true, "h", 443).as_deref(), Some("secure:2"));
        let blank = proxies(&[("HTTP_PROXY", "plain:1"), ("HTTPS_PROXY", " ")]);
        assert_eq!(to(&blank, true, "h", 443).as_deref(), Some("plain:1"));
        assert_eq!(to(&proxies(&[("HTTPS_PROXY", "s:2")]), false, "h", 80), None);
        assert_eq!(to(&proxies(&[]), true, "h", 443), None);
        let cgi = proxies(&[("HTTP_PROXY", "plain:1"), ("REQUEST_METHOD", "GET")]);
        assert_eq!((to(&cgi, false, "h", 80), to(&cgi, true, "h", 443)), (None, None));
    }

    #[test]
    fn near_hosts_are_never_behind_a_proxy() {
        let all = proxies(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", "x")]);
        for host in ["localhost", "127.0.0.9", "[::1]", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]"] {
            assert_eq!(to(&all, false, host, 80), None, "{host}");
        }
    }

    #[test]
    fn exceptions_are_domains_addresses_networks_and_ports() {
        let all = proxies(&[
            ("HTTPS_PROXY", "p:1"),
            (
                "NO_PROXY",
                " Example.com , .sub.only,10.0.0.0/8, 2001:db8::/32,192.0.2.1:444, host:81,*.star.org,",
            ),
        ]);
        for (host, port, direct) in [
            ("example.com", 443, true),
            ("a.EXAMPLE.com", 443, true),
            ("anexample.com", 443, false),
            ("sub.only", 443, false),
            ("a.sub.only", 443, true),
            ("10.200.0.1", 443, true),
            ("11.0.0.1", 443, false),
            ("[2001:db8::7]", 443, true),
            ("192.0.2.1", 444, true),
            ("192.0.2.1", 443, false),
            ("host", 81, true),
            ("host", 82, false),
            ("star.org", 443, false),
            ("a.star.org", 443, true),
            // An own NO_PROXY replaces the default, but not what is near.
            ("169.254.170.2", 80, true),
        ] {
            assert_eq!(to(&all, true, host, port).is_none(), direct, "{host}:{port}");
        }
        assert_eq!(to(&proxies(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "*")]), true, "h", 1), None);
    }

    #[test]
    fn passwords_are_sent_and_never_shown() {
        let proxy = proxies(&[("HTTPS_PROXY", "https://us%40er:pa%3Ass@p")]);
        let proxy = proxy.to(true, "h", 443).unwrap().unwrap();
        assert_eq!((proxy.port, proxy.tls), (443, true));
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic dXNAZXI6cGE6c3M=");
        assert_eq!(format!("{proxy:?}"), "Proxy(p:443)");
        for bad in ["socks5://user:secret@h:1", "http://user:secret@", "http://user:secret@h:99999"] {
            let bad = proxies(&[("HTTPS_PROXY", bad)]);
            let error = bad.to(true, "h", 443).unwrap_err();
            assert!(!format!("{error}{error:?}{bad:?}").contains("secret"), "{error}");
            assert!(error.to_string().contains("HTTPS_PROXY"));
        }
    }
}
