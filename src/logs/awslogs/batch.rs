//! What goes into one PutLogEvents, by the limits of CloudWatch Logs
//! (docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html). Pure.

use serde::Serialize;

/// What CloudWatch counts for each event besides its text, in bytes.
pub const EVENT_OVERHEAD: usize = 26;
/// The longest text of one event, in bytes.
pub const EVENT_MAX: usize = 262_144 - EVENT_OVERHEAD;
/// The most that CloudWatch may count of one batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 1_048_576;
/// The most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// From the earliest to the latest event of a batch it is less than this, in milliseconds.
pub const BATCH_SPAN_MS: i64 = 24 * 60 * 60 * 1000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its text, not empty.
    pub message: String,
}

impl Event {
    fn size(&self) -> usize {
        self.message.len() + EVENT_OVERHEAD
    }
}

/// Cuts a text into pieces of at most [`EVENT_MAX`] bytes, never within a character.
pub fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at_checked(text.floor_char_boundary(EVENT_MAX))?;
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Events that go together.
#[derive(Debug, Default)]
pub struct Batch {
    events: Vec<Event>,
    bytes: usize,
    earliest: i64,
    latest: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PutLogEvents<'a> {
    log_group_name: &'a str,
    log_stream_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_token: Option<&'a str>,
    log_events: &'a [Event],
}

impl Batch {
    /// Adds an event, or gives it back where the batch has no room for it. An empty batch has.
    ///
    /// # Errors
    /// The event: send the batch first.
    pub fn put(&mut self, event: Event) -> Result<(), Event> {
        let (earliest, latest) = match self.events.is_empty() {
            true => (event.timestamp, event.timestamp),
            false => (self.earliest.min(event.timestamp), self.latest.max(event.timestamp)),
        };
        let fits = self.events.is_empty()
            || (self.events.len() < BATCH_EVENTS_MAX
                && self.bytes + event.size() <= BATCH_BYTES_MAX
                && latest.saturating_sub(earliest) < BATCH_SPAN_MS);
        if !fits {
            return Err(event);
        }
        (self.earliest, self.latest) = (earliest, latest);
        self.bytes += event.size();
        self.events.push(event);
        Ok(())
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Forgets all events. The memory of a large batch is given back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The request, its events in the order of their times; equal times stay as they came.
    ///
    /// # Errors
    /// Those of writing to memory: none.
    pub fn request(
        &mut self,
        group: &str,
        stream: &str,
        sequence_token: Option<&str>,
    ) -> serde_json::Result<Vec<u8>> {
        self.events.sort_by_key(|event| event.timestamp);
        let (log_group_name, log_stream_name) = (group, stream);
        serde_json::to_vec(&PutLogEvents {
            log_group_name,
            log_stream_name,
            sequence_token,
            log_events: &self.events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn event(timestamp: i64, message: &str) -> Event {
        Event { timestamp, message: message.to_owned() }
    }

    /// Every batch that a series of events makes, as it is sent.
    fn batches(events: Vec<Event>) -> Vec<Vec<(i64, String)>> {
        let (mut batch, mut sent) = (Batch::default(), Vec::new());
        let mut send = |batch: &mut Batch| {
            let request: Value = serde_json::from_slice(&batch.request("g", "s", None).unwrap()).unwrap();
            let events = request["logEvents"].as_array().unwrap().iter();
            let read =
                |e: &Value| (e["timestamp"].as_i64().unwrap(), e["message"].as_str().unwrap().to_owned());
            sent.push(events.map(read).collect());
            batch.clear();
        };
        for event in events {
            if let Err(event) = batch.put(event) {
                send(&mut batch);
                batch.put(event).unwrap();
            }
        }
        if !batch.is_empty() {
            send(&mut batch);
        }
        sent
    }

    #[test]
    fn a_request_names_group_and_stream_and_is_sorted() {
        let mut batch = Batch::default();
        for (at, text) in [(3, "c"), (1, "a"), (3, "d"), (2, "b")] {
            batch.put(event(at, text)).unwrap();
        }
        let request: Value = serde_json::from_slice(&batch.request("g", "s", Some("t")).unwrap()).unwrap();
        let events = serde_json::json!([
            {"timestamp": 1, "message": "a"}, {"timestamp": 2, "message": "b"},
            {"timestamp": 3, "message": "c"}, {"timestamp": 3, "message": "d"},
        ]);
        let expected = serde_json::json!({
            "logGroupName": "g", "logStreamName": "s", "sequenceToken": "t", "logEvents": events
        });
        assert_eq!(request, expected);
    }

    #[test]
    fn each_limit_is_reached_and_not_passed() {
        let count = |events: Vec<Event>| batches(events).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(count(vec![event(0, "x"); BATCH_EVENTS_MAX + 1]), [BATCH_EVENTS_MAX, 1]);
        // Four of the longest are the batch exactly.
        assert_eq!(count(vec![event(0, &"x".repeat(EVENT_MAX)); 5]), [4, 1]);
        let mut over = vec![event(0, &"x".repeat(EVENT_MAX)); 3];
        over.extend([event(0, &"x".repeat(EVENT_MAX - EVENT_OVERHEAD)), event(0, "y")]);
        assert_eq!(count(over), [4, 1]);
        assert_eq!(
            count(vec![event(BATCH_SPAN_MS - 1, "a"), event(0, "b"), event(BATCH_SPAN_MS, "c")]),
            [2, 1]
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = format!("{}é{}", "x".repeat(EVENT_MAX - 1), "y".repeat(EVENT_MAX));
        let lengths: Vec<usize> = pieces(&text).map(str::len).collect();
        assert_eq!(lengths, [EVENT_MAX - 1, EVENT_MAX, 2]);
        assert_eq!(pieces(&text).collect::<String>(), text);
        assert_eq!(pieces("").count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_written_arrives_once_within_the_limits(
            lines in proptest::collection::vec((0..3 * BATCH_SPAN_MS, 0..3 * EVENT_MAX, 1..60_usize), 1..40),
            copies in 1..400_usize,
        ) {
            let texts = lines.iter().flat_map(|(at, length, step)| {
                // Characters of one to four bytes, at changing offsets.
                let text: String = "aé€𝄞".chars().cycle().skip(*step).take(length / step.max(&8)).collect();
                std::iter::once((*at, text)).chain((0..copies / 8).map(move |n| (*at, format!("line {n}"))))
            });
            let events: Vec<Event> =
                texts.flat_map(|(at, text)| pieces(&text).map(|p| event(at, p)).collect::<Vec<_>>()).collect();
            let mut expected: Vec<(i64, String)> =
                events.iter().map(|e| (e.timestamp, e.message.clone())).collect();
            let sent = batches(events);
            for batch in &sent {
                prop_assert!(batch.len() <= BATCH_EVENTS_MAX && !batch.is_empty());
                prop_assert!(batch.iter().map(|(_, m)| m.len() + 26).sum::<usize>() <= 1_048_576);
                prop_assert!(batch.iter().all(|(_, m)| !m.is_empty() && m.len() <= 262_118));
                prop_assert!(batch.windows(2).all(|pair| pair[0].0 <= pair[1].0));
                prop_assert!(batch.last().unwrap().0 - batch[0].0 < 24 * 3_600_000);
            }
            let mut arrived: Vec<(i64, String)> = sent.into_iter().flatten().collect();
            expected.sort();
            arrived.sort();
            prop_assert_eq!(arrived, expected);
        }

        #[test]
        fn pieces_add_up(text in "[aé€𝄞]{0,2000}", repeat in 1..400_usize) {
            let text = text.repeat(repeat);
            prop_assert!(pieces(&text).all(|piece| piece.len() <= EVENT_MAX && !piece.is_empty()));
            prop_assert!(pieces(&text).all_but_the_last_are_full());
            prop_assert_eq!(pieces(&text).collect::<String>(), text);
        }
    }

    trait Full {
        fn all_but_the_last_are_full(self) -> bool;
    }

    impl<'a, I: Iterator<Item = &'a str>> Full for I {
        /// No piece but the last has room for another character.
        fn all_but_the_last_are_full(self) -> bool {
            let lengths: Vec<usize> = self.map(str::len).collect();
            lengths.iter().rev().skip(1).all(|length| *length > EVENT_MAX - 4)
        }
    }
}
