//! Task sizes as people write them: `256`, `.25 vCPU`, `512`, `1 GB`.

/// CPU units of a vCPU.
pub const UNITS_PER_VCPU: u64 = 1024;
const MIN_UNITS: u64 = 128;
const MAX_UNITS: u64 = 196_608;
const MAX_MIB: u64 = 33_554_432;

/// CPU units of a task-level `cpu`.
///
/// # Errors
/// A text that names the value and what is allowed.
pub fn cpu_units(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let units = match lower.strip_suffix("vcpu") {
        Some(number) => scaled(number, UNITS_PER_VCPU),
        None => whole(&lower),
    };
    match units {
        Some(units) if (MIN_UNITS..=MAX_UNITS).contains(&units) => Ok(units),
        _ => Err(format!(
            "Invalid 'cpu' setting for task: '{}'. Give CPU units between {MIN_UNITS} and {MAX_UNITS} \
             (\"256\"), or vCPUs between 0.125 and 192 (\".25 vCPU\").",
            super::super::error::shortened(text, 40)
        )),
    }
}

/// MiB of a task-level `memory`.
///
/// # Errors
/// A text that names the value and what is allowed.
pub fn memory_mib(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let mib = match lower.strip_suffix("gb") {
        Some(number) => scaled(number, 1024),
        None => whole(lower.strip_suffix("mb").unwrap_or(&lower)),
    };
    match mib {
        Some(mib) if (1..=MAX_MIB).contains(&mib) => Ok(mib),
        _ => Err(format!(
            "Invalid 'memory' setting for task: '{}'. Give MiB between 1 and {MAX_MIB} (\"512\"), or GB \
             (\"1 GB\", \"0.5GB\").",
            super::super::error::shortened(text, 40)
        )),
    }
}

fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A decimal number times `factor`, rounded; digits and one point only.
fn scaled(text: &str, factor: u64) -> Option<u64> {
    let text = text.trim();
    let plain = text.len() <= 16 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = plain.then(|| text.parse().ok()).flatten()?;
    Some((number * factor as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_all_their_spellings() {
        for (text, units) in
            [("256", 256), (".25 vCPU", 256), ("1 vcpu", 1024), ("0.5vCPU", 512), ("192 vCPU", 196_608)]
        {
            assert_eq!(cpu_units(text), Ok(units), "{text}");
        }
        for (text, mib) in [("512", 512), ("1 GB", 1024), ("0.5GB", 512), ("2gb", 2048), ("300 MB", 300)] {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
    }

    #[test]
    fn nonsense_names_the_value() {
        for text in ["", "x", "-1", "0", "1e9", "64", "99999999999999999999", "1 2 vCPU", "NaN vCPU", "."] {
            assert!(cpu_units(text).unwrap_err().contains(&format!("'{text}'")), "{text}");
        }
        for text in ["", "lots", "0", "1.2.3 GB", "1 TB", "inf gb"] {
            assert!(memory_mib(text).unwrap_err().contains(&format!("'{text}'")), "{text}");
        }
    }
}
