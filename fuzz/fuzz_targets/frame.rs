//! Any text as frames of ACS, one a line: decoded, handled, and what follows is held to be consistent.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| ecsd_fuzz::take(text.lines()));
