//! Cuts a publication into messages (spec/control-plane.md 4.5). Pure.

use serde::Serialize;
use std::ops::Range;

/// Tasks of one message.
pub(super) const TASKS_MAX: usize = 10;
/// Bytes of one message's JSON.
pub(super) const BYTES_MAX: usize = 1024 * 1024;

/// Which entries go into which message, in their order. `around` is how much a message without any
/// takes. An entry that is too large for every message has one of its own, as in the original.
pub(super) fn chunks<T: Serialize>(entries: &[T], around: usize) -> Vec<Range<usize>> {
    cut(entries, BYTES_MAX.saturating_sub(around))
}

fn cut<T: Serialize>(entries: &[T], room: usize) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (at, entry) in entries.iter().enumerate() {
        // And a comma.
        let size = serde_json::to_vec(entry).map_or(0, |json| json.len()) + 1;
        match found.last_mut() {
            Some(last) if last.len() < TASKS_MAX && used + size <= room => {
                last.end = at + 1;
                used += size;
            }
            _ => {
                found.push(at..at + 1);
                used = size;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_entry_is_in_one_message_and_none_is_too_long(
            sizes in prop::collection::vec(prop_oneof![0usize..20, 0usize..300, 450usize..600], 0..40),
            room in 400usize..500,
        ) {
            let entries: Vec<String> = sizes.iter().map(|size| "x".repeat(*size)).collect();
            let ranges = cut(&entries, room);
            let covered: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..entries.len()).collect::<Vec<_>>());
            for range in ranges {
                prop_assert!((1..=TASKS_MAX).contains(&range.len()));
                // Without the brackets, which are around.
                let bytes = serde_json::to_vec(&entries[range.clone()]).unwrap().len() - 2;
                prop_assert!(range.len() == 1 || bytes <= room, "{} entries of {bytes} bytes", range.len());
            }
        }
    }

    #[test]
    fn a_mebibyte_is_the_limit() {
        let entry = "x".repeat(BYTES_MAX / 2 - 10);
        assert_eq!(chunks(&[&entry, &entry], 0).len(), 1);
        assert_eq!(chunks(&[&entry, &entry], 20), [0..1, 1..2]);
    }
}
