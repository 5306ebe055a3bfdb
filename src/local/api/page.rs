//! `maxResults` and `nextToken`.

use crate::local::error::{ApiError, shortened};
use serde_json::{Value, json};

const MAX_RESULTS: u64 = 100;

/// `{key: [...], nextToken?}` with the part of `items` that was asked for.
///
/// # Errors
/// `InvalidParameterException` for a `maxResults` out of range, or a token that is not ours.
pub fn page(items: Vec<String>, input: &Value, key: &str) -> Result<Value, ApiError> {
    let most = match input.get("maxResults") {
        None | Some(Value::Null) => MAX_RESULTS,
        Some(value) => value.as_u64().filter(|n| (1..=MAX_RESULTS).contains(n)).ok_or_else(|| {
            ApiError::invalid(format!(
                "maxResults is {}: allowed are 1 to {MAX_RESULTS}.",
                shortened(&value.to_string(), 40)
            ))
        })?,
    };
    let start = match super::string(input, "nextToken")?.as_str() {
        "" => 0,
        token => token.strip_prefix("from-").and_then(|n| n.parse::<usize>().ok()).ok_or_else(|| {
            ApiError::invalid(format!(
                "Invalid token: nextToken '{}' did not come from here.",
                shortened(token, 80)
            ))
        })?,
    };
    let end = start.saturating_add(usize::try_from(most).unwrap_or(usize::MAX));
    let more = end < items.len();
    let part: Vec<_> = items.into_iter().skip(start).take(end - start).collect();
    let mut out = json!({ key: part });
    if more {
        out["nextToken"] = json!(format!("from-{end}"));
    }
    Ok(out)
}
