//! Options of `splunk`, as dockerd checks them.

use super::hidden::Hidden;
use super::options::{ATTRIBUTES, OptionReader};
use super::{LogError, LogOptions};
use std::path::PathBuf;
use url::Url;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplunkFormat {
    /// An object with the line as text.
    Inline,
    /// The same, with a line that is JSON as such.
    Json,
    /// A text: tag, attributes, line.
    Raw,
}

/// An HTTP event collector of Splunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplunkOptions {
    /// `scheme://host:port`.
    pub url: Url,
    /// Who has it may write.
    pub token: Hidden,
    /// `source` of each event.
    pub source: Option<String>,
    /// `sourcetype` of each event.
    pub source_type: Option<String>,
    /// `index` of each event.
    pub index: Option<String>,
    /// How a message is written.
    pub format: SplunkFormat,
    /// A file of CA certificates.
    pub ca_path: Option<PathBuf>,
    /// The name that the certificate has to be for.
    pub ca_name: Option<String>,
    /// Any certificate is taken.
    pub insecure: bool,
    /// Splunk is asked before the container starts.
    pub verify: bool,
    /// Level of gzip; `None` is uncompressed.
    pub gzip: Option<u32>,
    /// Each request names a channel, as collectors with acknowledgments want it.
    pub index_acknowledgment: bool,
}

const OWN: &[&str] = &[
    "splunk-url",
    "splunk-token",
    "splunk-source",
    "splunk-sourcetype",
    "splunk-index",
    "splunk-capath",
    "splunk-caname",
    "splunk-insecureskipverify",
    "splunk-format",
    "splunk-verify-connection",
    "splunk-gzip",
    "splunk-gzip-level",
    "splunk-index-acknowledgment",
];

impl SplunkOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let options = OptionReader::new("splunk", options, &[OWN, ATTRIBUTES])?;
        let owned = |option| options.text(option).map(str::to_owned);
        options.required("splunk-url")?;
        let want = "scheme://dns_name_or_ip:port";
        let url = options.parsed("splunk-url", want, collector)?.ok_or(options.wrong("splunk-url", want))?;
        let token = options.required("splunk-token")?;
        // It stands in a header.
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(options.wrong("splunk-token", "letters, digits and signs"));
        }
        let format = options.parsed("splunk-format", "inline, json or raw", |text| match text {
            "inline" => Some(SplunkFormat::Inline),
            "json" => Some(SplunkFormat::Json),
            "raw" => Some(SplunkFormat::Raw),
            _ => None,
        })?;
        let level = |text: &str| text.parse::<i32>().ok().filter(|level| (-1..=9).contains(level));
        let level = options.parsed("splunk-gzip-level", "a level from -1 to 9", level)?.unwrap_or(-1);
        let verify = options.text("splunk-verify-connection").is_none();
        Ok(Self {
            url,
            token: Hidden::new(token),
            source: owned("splunk-source"),
            source_type: owned("splunk-sourcetype"),
            index: owned("splunk-index"),
            format: format.unwrap_or(SplunkFormat::Inline),
            ca_path: owned("splunk-capath").map(PathBuf::from),
            ca_name: owned("splunk-caname"),
            insecure: options.flag("splunk-insecureskipverify")?,
            verify: verify || options.flag("splunk-verify-connection")?,
            // -1 is zlib's own choice, which is 6.
            gzip: options.flag("splunk-gzip")?.then_some(u32::try_from(level).unwrap_or(6)),
            index_acknowledgment: options.flag("splunk-index-acknowledgment")?,
        })
    }
}

fn collector(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (bare && anonymous && url.has_host()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<SplunkOptions, LogError> {
        let base = [("splunk-url", "https://splunk:8088"), ("splunk-token", "CANARY")];
        SplunkOptions::parse(&base.iter().chain(options).copied().collect())
    }

    #[test]
    fn url_and_token_are_enough() {
        let options = parse(&[]).unwrap();
        assert_eq!((options.format, options.gzip), (SplunkFormat::Inline, None));
        assert!(options.verify && !options.insecure && !options.index_acknowledgment);
        assert!(!format!("{options:?}").contains("CANARY"));
        assert_eq!(options.token.get(), "CANARY");
    }

    #[test]
    fn all_options_are_read() {
        let options = parse(&[
            ("splunk-source", "a"),
            ("splunk-sourcetype", "b"),
            ("splunk-index", "c"),
            ("splunk-format", "raw"),
            ("splunk-capath", "/ca.pem"),
            ("splunk-caname", "name"),
            ("splunk-insecureskipverify", "true"),
            ("splunk-verify-connection", "false"),
            ("splunk-gzip", "true"),
            ("splunk-gzip-level", "9"),
            ("splunk-index-acknowledgment", "1"),
            ("labels", "x"),
        ]);
        let options = options.unwrap();
        assert_eq!((options.format, options.gzip), (SplunkFormat::Raw, Some(9)));
        assert!(!options.verify && options.insecure && options.index_acknowledgment);
        assert_eq!(options.ca_path, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn what_does_not_fit_is_named_and_no_token_shown() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("splunk-tokem", "x")], "unknown log opt 'splunk-tokem' for splunk log driver"),
            (&[("splunk-url", "https://x/services/collector")], "splunk-url"),
            (&[("splunk-url", "https://u:CANARY@x")], "splunk-url"),
            (&[("splunk-url", "")], "must specify a value for log opt 'splunk-url'"),
            (&[("splunk-token", "")], "must specify a value for log opt 'splunk-token'"),
            (&[("splunk-token", "CANARY\r\nX: y")], "splunk-token"),
            (&[("splunk-format", "xml")], "inline, json or raw"),
            (&[("splunk-gzip-level", "10")], "splunk-gzip-level"),
            (&[("splunk-gzip", "x")], "splunk-gzip"),
        ];
        for (options, words) in cases {
            let error = parse(options).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("CANARY"), "{error}");
        }
    }
}
