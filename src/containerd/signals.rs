//! Signals by the names that images and task definitions give them. Pure.

/// The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`. `None` is no signal.
pub fn number(name: &str) -> Option<u32> {
    const FIRST_REALTIME: u32 = 34; // as libc counts: glibc keeps 32 and 33 for itself
    const LAST: u32 = 64;
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<u32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(FIRST_REALTIME),
        (Some(rest), _) => FIRST_REALTIME.checked_add(rest.strip_prefix('+')?.parse().ok()?),
        (_, Some("")) => Some(LAST),
        (_, Some(rest)) => LAST.checked_sub(rest.strip_prefix('-')?.parse().ok()?),
        _ => None,
    };
    if realtime.is_some() {
        return realtime.filter(|number| (FIRST_REALTIME..=LAST).contains(number));
    }
    let signal = format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok()?;
    u32::try_from(signal as i32).ok()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        for (name, want) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGWINCH", 28), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(number(name), Some(want), "{name}");
        }
        for name in ["", "0", "65", "SIG", "SIGNOPE", "RTMIN+40", "RTMAX-40", "RTMIN3", "-15", "99999999999"]
        {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
