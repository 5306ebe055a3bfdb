//! Options of `awslogs`, as dockerd checks them.

use super::hidden::Hidden;
use super::options::OptionReader;
use super::{LogError, LogOptions};
use regex_lite::Regex;
use std::time::Duration;

/// dockerd's interval between batches.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// An interval is not longer: a day.
const FLUSH_INTERVAL_MAX: u64 = 24 * 60 * 60;
const MULTILINE: &str = "awslogs-multiline-pattern";
const DATETIME: &str = "awslogs-datetime-format";
const FORMAT: &str = "awslogs-format";

/// A stream of CloudWatch Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsLogsOptions {
    /// Its group.
    pub group: String,
    /// Its name; `None` is the tag.
    pub stream: Option<String>,
    /// Region; `None` is the instance's.
    pub region: Option<String>,
    /// URL of the service; `None` is the region's.
    pub endpoint: Option<String>,
    /// Path of the role's credentials on the agent's endpoint; `None` is the host's own credentials. Who
    /// knows it has the credentials.
    pub credentials_path: Option<Hidden>,
    /// The group is created where it is missing.
    pub create_group: bool,
    /// The stream is created where it is missing.
    pub create_stream: bool,
    /// A regular expression that fits the first line of each event; `None` makes each line one.
    pub multiline_pattern: Option<String>,
    /// Between two batches.
    pub flush_interval: Duration,
    /// The text of events holds metrics (embedded metric format).
    pub emf: bool,
}

const OWN: &[&str] = &[
    "awslogs-region",
    "awslogs-endpoint",
    "awslogs-group",
    "awslogs-stream",
    "awslogs-create-group",
    "awslogs-create-stream",
    DATETIME,
    MULTILINE,
    "awslogs-credentials-endpoint",
    "awslogs-force-flush-interval-seconds",
    "awslogs-max-buffered-events",
    FORMAT,
    "tag",
];

impl AwsLogsOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let options = OptionReader::new("awslogs", options, &[OWN])?;
        let owned = |option| options.text(option).map(str::to_owned);
        let seconds = |text: &str| text.parse().ok().filter(|n| (1..=FLUSH_INTERVAL_MAX).contains(n));
        let interval =
            options.parsed("awslogs-force-flush-interval-seconds", "a positive integer", seconds)?;
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0);
        // How much waits is bounded in bytes; the number is checked as dockerd does.
        options.parsed("awslogs-max-buffered-events", "a positive integer", count)?;
        let create_stream = options.text("awslogs-create-stream").is_none();
        let path = |text: &str| {
            let plain = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic());
            plain.then(|| Hidden::new(text))
        };
        let (multiline, datetime) = (options.text(MULTILINE), options.text(DATETIME));
        if multiline.is_some() && datetime.is_some() {
            return Err(LogError::Together(
                "you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time",
            ));
        }
        let emf = options.parsed(FORMAT, "json/emf", |text| (text == "json/emf").then_some(()))?.is_some();
        if emf && (multiline.is_some() || datetime.is_some()) {
            return Err(LogError::Together(
                "you cannot configure log opt 'awslogs-datetime-format' or 'awslogs-multiline-pattern' when log opt \
                 'awslogs-format' is set to 'json/emf'",
            ));
        }
        let pattern = multiline.map(str::to_owned).or_else(|| datetime.map(datetime_pattern));
        if let Some(pattern) = pattern.as_deref()
            && Regex::new(pattern).is_err()
        {
            let option = if multiline.is_some() { MULTILINE } else { DATETIME };
            return Err(options.wrong(option, "a regular expression of RE2, without classes of Unicode"));
        }
        Ok(Self {
            group: options.required("awslogs-group")?.to_owned(),
            stream: owned("awslogs-stream"),
            region: options.parsed("awslogs-region", "the name of a region", region)?,
            endpoint: options.parsed("awslogs-endpoint", "a URL such as https://host", endpoint)?,
            credentials_path: options.parsed("awslogs-credentials-endpoint", "a path from /", path)?,
            create_group: options.flag("awslogs-create-group")?,
            create_stream: create_stream || options.flag("awslogs-create-stream")?,
            multiline_pattern: pattern,
            flush_interval: interval.map_or(FLUSH_INTERVAL, Duration::from_secs),
            emf,
        })
    }
}

/// It becomes part of a host's name and of a signature.
fn region(text: &str) -> Option<String> {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-').then(|| text.to_owned())
}

/// A host alone is one of https.
fn endpoint(text: &str) -> Option<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let parsed = url::Url::parse(&url).ok()?;
    (matches!(parsed.scheme(), "http" | "https") && parsed.has_host()).then_some(url)
}

/// The pattern of a strftime format, by dockerd's table. What is not in it fits nothing, as there.
fn datetime_pattern(format: &str) -> String {
    let (mut pattern, mut rest) = (String::new(), format.chars());
    while let Some(c) = rest.next() {
        match (c, rest.clone().next()) {
            ('%', Some(directive)) => {
                rest.next();
                pattern.push_str(directive_pattern(directive));
            }
            (c, _) => pattern.push(c),
        }
    }
    pattern
}

/// docs.docker.com/engine/logging/drivers/awslogs/#awslogs-datetime-format
fn directive_pattern(directive: char) -> &'static str {
    match directive {
        'a' => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
        'A' => "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
        'w' => "[0-6]",
        'd' => "(?:0[1-9]|[12][0-9]|3[01])",
        'b' => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
        'B' => "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
        'm' => "(?:0[1-9]|1[0-2])",
        'Y' => r"\d{4}",
        'y' => r"\d{2}",
        'H' => "(?:[01][0-9]|2[0-3])",
        'I' => "(?:0[0-9]|1[0-2])",
        'p' => "[AP]M",
        'M' | 'S' => "[0-5][0-9]",
        'f' => r"\d{6}",
        'z' => r"[+-]\d{4}",
        'Z' => "[A-Z]{1,4}T",
        // dockerd's leaves out the days that end with 0, such as the tenth.
        'j' => "(?:[0-2][0-9][0-9]|3[0-5][0-9]|36[0-6])",
        'L' => r"\.\d{3}",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<AwsLogsOptions, LogError> {
        let group = [("awslogs-group", "g")];
        AwsLogsOptions::parse(&group.iter().chain(options).copied().collect())
    }

    #[test]
    fn a_group_is_enough_and_the_rest_has_dockerds_defaults() {
        let options = parse(&[]).unwrap();
        assert_eq!((options.group.as_str(), options.stream.as_deref()), ("g", None));
        assert_eq!((options.create_group, options.create_stream, options.emf), (false, true, false));
        assert_eq!(options.flush_interval, Duration::from_secs(5));
        let missing = AwsLogsOptions::parse(&LogOptions::default()).unwrap_err().to_string();
        assert!(missing.starts_with("must specify a value for log opt 'awslogs-group'"), "{missing}");
    }

    #[test]
    fn all_options_are_read() {
        let options = parse(&[
            ("awslogs-stream", "s"),
            ("awslogs-region", "eu-west-1"),
            ("awslogs-endpoint", "logs.example"),
            ("awslogs-credentials-endpoint", "/v2/credentials/CANARY"),
            ("awslogs-create-group", "true"),
            ("awslogs-create-stream", "false"),
            ("awslogs-force-flush-interval-seconds", "2"),
            ("awslogs-max-buffered-events", "10"),
            ("awslogs-format", "json/emf"),
            ("mode", "non-blocking"),
            ("tag", "{{.Name}}"),
        ]);
        let options = options.unwrap();
        assert_eq!((options.create_group, options.create_stream, options.emf), (true, false, true));
        assert_eq!(options.endpoint.as_deref(), Some("https://logs.example"));
        assert_eq!(options.flush_interval, Duration::from_secs(2));
        assert_eq!(options.credentials_path.as_ref().unwrap().get(), "/v2/credentials/CANARY");
        assert!(!format!("{options:?}").contains("CANARY"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("awslogs-steam", "x")], "unknown log opt 'awslogs-steam' for awslogs log driver"),
            (&[("labels", "x")], "unknown log opt 'labels'"),
            (&[("awslogs-create-group", "maybe")], "awslogs-create-group"),
            (&[("awslogs-create-stream", "maybe")], "awslogs-create-stream"),
            (&[("awslogs-force-flush-interval-seconds", "0")], "awslogs-force-flush-interval-seconds"),
            (&[("awslogs-max-buffered-events", "-1")], "awslogs-max-buffered-events"),
            (&[("awslogs-format", "xml")], "awslogs-format"),
            (&[(MULTILINE, "(")], MULTILINE),
            (&[("awslogs-endpoint", "ftp://x")], "awslogs-endpoint"),
            (&[("awslogs-region", "x\r\ny")], "awslogs-region"),
            (&[("awslogs-credentials-endpoint", "http://elsewhere")], "awslogs-credentials-endpoint"),
            (&[(MULTILINE, "x"), (DATETIME, "%Y")], "at the same time"),
            (&[(MULTILINE, "x"), (FORMAT, "json/emf")], "json/emf"),
        ];
        for (options, words) in cases {
            let error = parse(options).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn formats_of_times_fit_the_times_that_they_write() {
        for (format, fits, fits_not) in [
            (r"\[%b %d, %Y %H:%M:%S\]", "[Mar 07, 2026 23:59:01] x", "Mar 7, 2026"),
            ("%Y-%m-%dT%H:%M:%S%L%z", "a 2026-12-31T00:00:00.123+0200", "2026-13-31T00:00:00.123+0200"),
            ("%A %B %j %I %p %y %w %f %Z %a", "Monday May 010 12 PM 26 1 123456 CEST Mon", "Monday"),
            ("%", "100%", "x"),
        ] {
            let options = parse(&[(DATETIME, format)]).unwrap();
            let pattern = Regex::new(&options.multiline_pattern.unwrap()).unwrap();
            assert!(pattern.is_match(fits) && !pattern.is_match(fits_not), "{format}");
        }
    }
}
