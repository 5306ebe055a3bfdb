//! Shapes of request documents, and the check of a document against its shape.
//!
//! The SDKs check shapes before they send; raw JSON may hold anything. Checking here once means that
//! all code behind it can read members without asking again, and that a mistake is answered with the
//! path of the member, what was expected and what was found. Unlike the service, which ignores
//! members that it does not know, a member outside the shape is refused: locally it is nearly always
//! a typing mistake.

use crate::local::error::{ApiError, shortened};
use serde_json::Value;

/// What a value may be. `null` always counts as absent.
#[derive(Debug)]
pub enum Shape {
    /// A string.
    Text,
    /// An integer of 32 bits.
    Int,
    /// true or false.
    Flag,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// An object with any keys and values of one shape.
    Map(&'static Shape),
    /// An object with these members.
    Members(&'static [(&'static str, Shape)]),
}

/// Checks a document. `path` is empty at the top.
///
/// # Errors
/// `SerializationException` for a wrong type, `ClientException` for an unknown member or word.
pub fn check(value: &Value, shape: &Shape, path: &str) -> Result<(), ApiError> {
    let wrong = |expected: &str| {
        let at = if path.is_empty() { "the request" } else { path };
        Err(ApiError::serialization(format!("{at}: expected {expected}, found {}", kind_of(value))))
    };
    match (shape, value) {
        (_, Value::Null) | (Shape::Text, Value::String(_)) | (Shape::Flag, Value::Bool(_)) => Ok(()),
        (Shape::Int, Value::Number(number)) => match number.as_i64() {
            Some(n) if i32::try_from(n).is_ok() => Ok(()),
            _ => wrong("an integer between -2147483648 and 2147483647"),
        },
        (Shape::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Shape::OneOf(words), Value::String(text)) => Err(ApiError::client(format!(
            "1 validation error detected: Value '{}' at '{path}' failed to satisfy constraint: Member must \
             satisfy enum value set: [{}]",
            shortened(text, 100),
            words.join(", ")
        ))),
        (Shape::List(inner), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(i, item)| match item {
                Value::Null => Err(ApiError::serialization(format!("{path}[{i}]: a list can't hold null"))),
                _ => check(item, inner, &format!("{path}[{i}]")),
            })
        }
        (Shape::Map(inner), Value::Object(members)) => {
            members.iter().try_for_each(|(key, item)| check(item, inner, &join(path, &shortened(key, 100))))
        }
        (Shape::Members(known), Value::Object(members)) => {
            members.iter().try_for_each(|(key, item)| match known.iter().find(|(name, _)| name == key) {
                Some((_, inner)) => check(item, inner, &join(path, key)),
                None => Err(ApiError::client(format!(
                    "Unknown parameter in {}: \"{}\", must be one of: {}",
                    if path.is_empty() { "input" } else { path },
                    shortened(key, 100),
                    known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                ))),
            })
        }
        (Shape::Text | Shape::OneOf(_), _) => wrong("a string"),
        (Shape::Int, _) => wrong("an integer"),
        (Shape::Flag, _) => wrong("true or false"),
        (Shape::List(_), _) => wrong("a list"),
        (Shape::Map(_) | Shape::Members(_), _) => wrong("an object"),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{}\"", shortened(text, 60)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Removes members that are `null`, at any depth: the service takes them as absent.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, item| !item.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A string member of a checked document; empty where absent.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list member of a checked document; empty where absent.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The strings of a list member; empty where absent.
pub fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHAPE: Shape = Shape::Members(&[
        ("name", Shape::Text),
        ("mode", Shape::OneOf(&["a", "b"])),
        ("ports", Shape::List(&Shape::Int)),
        ("labels", Shape::Map(&Shape::Text)),
    ]);

    #[test]
    fn a_fitting_document_passes_and_null_is_absent() {
        let document = json!({"name": "x", "mode": null, "ports": [1], "labels": {"k": "v"}});
        check(&document, &SHAPE, "").unwrap();
    }

    #[test]
    fn each_mistake_names_its_place() {
        for (document, expected) in [
            (json!([]), "the request: expected an object, found a list"),
            (json!({"name": 1}), "name: expected a string, found the number 1"),
            (json!({"ports": ["x"]}), "ports[0]: expected an integer, found the string \"x\""),
            (json!({"ports": [4294967296u64]}), "ports[0]: expected an integer between"),
            (json!({"ports": [null]}), "ports[0]: a list can't hold null"),
            (json!({"labels": {"k": 1}}), "labels.k: expected a string"),
            (json!({"mode": "c"}), "Member must satisfy enum value set: [a, b]"),
            (json!({"nam": "x"}), "Unknown parameter in input: \"nam\", must be one of: name, mode"),
        ] {
            let error = check(&document, &SHAPE, "").unwrap_err();
            assert!(error.message.contains(expected), "{document}: {error}");
        }
    }

    #[test]
    fn nulls_are_dropped_at_any_depth() {
        let mut value = json!({"a": null, "b": [{"c": null, "d": 1}]});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b": [{"d": 1}]}));
    }
}
