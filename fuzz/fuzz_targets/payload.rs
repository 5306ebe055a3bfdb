//! Any JSON as a task: converted, stored, and read back the same.
#![no_main]

use ecsd_fuzz::control::payload::{PayloadDecoder, convert, to_stored};
use ecsd_fuzz::ports::TaskDecoder;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(task) = serde_json::from_str(text) else { return };
    let Ok(converted) = convert(&task) else { return };
    let endpoints: Vec<_> =
        converted.spec.containers.iter().map(|c| (c.name.clone(), c.endpoint.clone())).collect();
    let stored = to_stored(&task, &endpoints);
    assert_eq!(PayloadDecoder.decode(&stored), Ok(converted.spec), "what is stored reads back the same");
});
