//! Whether the instance has IPv6 only (spec/control-plane.md 0.3): told by the kernel's default
//! routes. Such an instance takes the services' dual-stack endpoints.

use std::path::Path;

/// A route to a gateway that is refused (`RTF_REJECT`).
const REJECT: u32 = 0x0200;
const UP: u32 = 0x0001;

/// Whether there is a default route for IPv6 and none for IPv4. `proc` is `/proc`.
///
/// # Errors
/// Where the routes can't be read; then the instance counts as one with IPv4.
pub fn ipv6_only(proc: &Path) -> std::io::Result<bool> {
    let read = |name: &str| std::fs::read_to_string(proc.join("net").join(name));
    if default_ipv4(&read("route")?) {
        return Ok(false);
    }
    match read("ipv6_route") {
        Ok(text) => Ok(default_ipv6(&text)),
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, after a line of titles.
fn default_ipv4(text: &str) -> bool {
    text.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |at: usize, value: &str| fields.get(at) == Some(&value);
        is(1, "00000000") && is(7, "00000000") && usable(fields.get(3))
    })
}

/// `destination prefix source prefix gateway metric refcnt use flags device`
fn default_ipv6(text: &str) -> bool {
    let nowhere = "0".repeat(32);
    text.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |at: usize, value: &str| fields.get(at) == Some(&value);
        is(0, &nowhere) && is(1, "00") && !is(9, "lo") && usable(fields.get(8))
    })
}

fn usable(flags: Option<&&str>) -> bool {
    let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
    flags & UP != 0 && flags & REJECT == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                      eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const V6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                      fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";
    const V6_NONE: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                           00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";

    #[test]
    fn both_tables_count() {
        let proc = std::env::temp_dir().join(format!("ecsd-routes-{}", std::process::id()));
        std::fs::create_dir_all(proc.join("net")).unwrap();
        let heading = V4.lines().next().unwrap();
        assert!(ipv6_only(&proc).is_err());
        for (v4, v6, only) in
            [(V4, V6, false), (heading, V6, true), (heading, V6_NONE, false), ("", "", false)]
        {
            std::fs::write(proc.join("net/route"), v4).unwrap();
            std::fs::write(proc.join("net/ipv6_route"), v6).unwrap();
            assert_eq!(ipv6_only(&proc).unwrap(), only, "{v4}{v6}");
        }
        std::fs::remove_dir_all(&proc).unwrap();
    }
}
