//! The JSON layers: the configuration file and the instance's user data. Keys are the original's field
//! names, in any case; each value becomes the text that the variable would have had
//! (spec/local-endpoints-config.md 3.1, 3.4).

use super::table::{KEYS_WITHOUT_EFFECT, NO_EFFECT, variables};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a key's value is written, and thereby when it counts as not set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A text; blank is not set.
    Text,
    /// true, false, or null for not set.
    Tri,
    /// true; false is not set.
    Bool,
    /// Nanoseconds; 0 is not set, less than this is fatal.
    Nanoseconds(Duration),
    /// A whole number; 0 is not set.
    Number,
    /// A list or an object; an empty one is not set.
    Json,
    /// A list whose variable has commas in its place.
    Commas,
    /// A number for each word; 0 is not set.
    Words(&'static [&'static str]),
}

/// What a layer says, by the key as the table spells it.
pub(super) type Layer = BTreeMap<&'static str, String>;

/// The layer of a whole file, and the keys of it that nobody knows or that do nothing.
///
/// # Errors
/// Malformed JSON, with its position; a value of the wrong type, with its key.
pub(super) fn read(text: &str) -> Result<(Layer, Vec<String>), String> {
    if text.trim().is_empty() {
        return Ok((Layer::new(), Vec::new()));
    }
    let whole: Value = serde_json::from_str(text).map_err(|error| format!("malformed JSON: {error}"))?;
    members(&whole)
}

/// The layer of an instance's user data, where that is JSON with `ECSAgentConfiguration`; mostly it
/// is a script, which is no error.
pub(super) fn read_user_data(text: &str) -> Result<(Layer, Vec<String>), String> {
    let whole: Option<Value> = serde_json::from_str(text).ok();
    let member = whole
        .as_ref()
        .and_then(Value::as_object)
        .and_then(|object| object.iter().find(|(key, _)| key.eq_ignore_ascii_case("ECSAgentConfiguration")));
    match member {
        Some((_, configuration)) => members(configuration),
        None => Ok((Layer::new(), Vec::new())),
    }
}

fn members(whole: &Value) -> Result<(Layer, Vec<String>), String> {
    let Value::Object(members) = whole else {
        return Err("not a JSON object; write {\"Cluster\":\"...\"}".to_owned());
    };
    let (mut layer, mut remarks) = (Layer::new(), Vec::new());
    for (name, value) in members {
        // The deprecated name gives way to the other.
        let deprecated = name.eq_ignore_ascii_case("ClusterArn");
        let name = if deprecated { "Cluster" } else { name };
        let known = variables().find_map(|v| {
            let (key, form) = v.key?;
            key.eq_ignore_ascii_case(name).then_some((key, form))
        });
        let Some((key, form)) = known else {
            let why = KEYS_WITHOUT_EFFECT
                .iter()
                .copied()
                .chain(NO_EFFECT.iter().map(|(_, key, why)| (*key, *why)))
                .find(|(key, _)| !key.is_empty() && key.eq_ignore_ascii_case(name));
            match (why, value) {
                (Some(_), Value::Null | Value::Bool(false)) => {}
                (Some((key, why)), _) => remarks.push(format!("{key} has no effect: {why}")),
                (None, _) => remarks.push(format!("{name:?} is no known key; ignoring it")),
            }
            continue;
        };
        if deprecated {
            remarks.push("ClusterArn is deprecated; write Cluster".to_owned());
        }
        if let Some(text) = text_of(form, value).map_err(|wanted| format!("{key}: not {wanted}"))?
            && !(deprecated && layer.contains_key(key))
        {
            layer.insert(key, text);
        }
    }
    Ok((layer, remarks))
}

/// The variable's text for a value; `None` where it counts as not set. The error is what was wanted.
fn text_of(form: Form, value: &Value) -> Result<Option<String>, &'static str> {
    if value.is_null() {
        return Ok(None);
    }
    let whole = || value.as_i64().ok_or("a whole number");
    Ok(match form {
        Form::Text => Some(value.as_str().ok_or("a string")?.trim().to_owned()).filter(|t| !t.is_empty()),
        Form::Tri => Some(value.as_bool().ok_or("true, false or null")?.to_string()),
        Form::Bool => value.as_bool().ok_or("true or false")?.then(|| "true".to_owned()),
        Form::Nanoseconds(_) => {
            let nanoseconds = value.as_i64().ok_or("a whole number of nanoseconds")?;
            (nanoseconds != 0).then(|| format!("{nanoseconds}ns"))
        }
        Form::Number => Some(whole()?).filter(|n| *n != 0).map(|n| n.to_string()),
        Form::Words(words) => {
            let number = whole()?;
            let word = usize::try_from(number).ok().and_then(|n| words.get(n)).ok_or("one of its numbers")?;
            (number != 0).then(|| (*word).to_owned())
        }
        Form::Json => match value {
            Value::Array(list) => (!list.is_empty()).then(|| value.to_string()),
            Value::Object(members) => (!members.is_empty()).then(|| value.to_string()),
            _ => return Err("a list or an object"),
        },
        Form::Commas => {
            let list: Option<Vec<&str>> =
                value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
            Some(list.ok_or("a list of strings")?.join(",")).filter(|text| !text.is_empty())
        }
    })
}
