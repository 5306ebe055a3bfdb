//! Host names of AWS services, by region.

/// The domain of a region's services; with `dual_stack` the one whose names have IPv6 addresses too.
pub fn domain(region: &str, dual_stack: bool) -> &'static str {
    const DOMAINS: [(&str, &str, &str); 6] = [
        ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
        ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ];
    let of_partition = DOMAINS.iter().find(|(begin, ..)| region.starts_with(begin));
    let (_, plain, dual) = of_partition.unwrap_or(&("", "amazonaws.com", "api.aws"));
    if dual_stack { dual } else { plain }
}

/// An address that somebody wrote: `https` where no scheme is named. `None` for what is no address.
pub fn written(text: &str) -> Option<url::Url> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = url::Url::parse(&whole).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_follow_the_partition() {
        assert_eq!(domain("us-gov-west-1", false), "amazonaws.com");
        assert_eq!(domain("cn-north-1", false), "amazonaws.com.cn");
        assert_eq!(domain("us-isob-east-1", false), "sc2s.sgov.gov");
        assert_eq!(domain("eu-west-1", true), "api.aws");
    }

    #[test]
    fn an_address_without_a_scheme_is_https() {
        assert_eq!(written("ecr.example").unwrap().as_str(), "https://ecr.example/");
        assert_eq!(written("http://127.0.0.1:1").unwrap().as_str(), "http://127.0.0.1:1/");
        for bad in ["", "ftp://x", "http://", "a b", "unix:///x"] {
            assert!(written(bad).is_none(), "{bad}");
        }
    }
}
