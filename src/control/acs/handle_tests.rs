//! Every recorded message, mutated at will: nothing panics, and every decision is consistent.

use super::check::take;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The recorded payloads, and one message of every other type.
fn seeds() -> Vec<Value> {
    let recorded = include_str!("../../../tests/fixtures/control/payloads.json");
    let mut all: Vec<Value> = serde_json::from_str(recorded).unwrap();
    let others = include_str!("../../../tests/fixtures/control/messages.json");
    all.extend(serde_json::from_str::<Vec<Value>>(others).unwrap());
    all
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(i64::MIN)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("{\"command\":")),
        Just(json!("../../etc")),
        Just(json!("x".repeat(5000))),
        ".{0,12}".prop_map(Value::from),
        Just(json!([null, {"name": "a"}, 7])),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Double,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![3 => junk().prop_map(Change::Replace), 1 => Just(Change::Remove), 1 => Just(Change::Double)]
}

/// Changes the place to which `path` leads: at each level the n-th of what is there.
fn mutate(value: &mut Value, path: &[usize], change: &Change) {
    let Some((step, rest)) = path.split_first() else {
        if let Change::Replace(with) = change {
            *value = with.clone();
        }
        return;
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            let key = members.keys().nth(step % members.len()).unwrap().clone();
            if rest.is_empty() && matches!(change, Change::Remove) {
                members.remove(&key);
            } else {
                mutate(&mut members[&key], rest, change);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = step % items.len();
            match change {
                Change::Remove if rest.is_empty() => drop(items.remove(at)),
                Change::Double if rest.is_empty() => items.push(items[at].clone()),
                _ => mutate(&mut items[at], rest, change),
            }
        }
        // A JSON document within a string is a tree of its own.
        Value::String(text) if !rest.is_empty() => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                mutate(&mut inner, rest, change);
                *text = inner.to_string();
            }
        }
        other => mutate(other, &[], change),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_message_does_harm(
        picks in prop::collection::vec(
            (any::<prop::sample::Index>(),
             prop::collection::vec((prop::collection::vec(0usize..12, 1..8), change()), 0..4)),
            1..4,
        ),
    ) {
        let seeds = seeds();
        let frames: Vec<String> = picks.iter().map(|(which, changes)| {
            let mut frame = which.get(&seeds).clone();
            changes.iter().for_each(|(path, change)| mutate(&mut frame, path, change));
            frame.to_string()
        }).collect();
        take(frames.iter().map(String::as_str));
    }

    #[test]
    fn no_text_does_harm(text in ".{0,200}", cut in any::<prop::sample::Index>(), which in any::<prop::sample::Index>()) {
        let whole = which.get(&seeds()).to_string();
        let cut: String = whole.chars().take(cut.index(whole.len())).collect();
        take([text.as_str(), cut.as_str()]);
    }
}

#[test]
fn every_seed_is_a_message_that_is_known() {
    for seed in seeds() {
        let text = seed.to_string();
        assert!(crate::control::acs::wire::ServerMessage::decode(&text).is_ok(), "{text}");
    }
}
