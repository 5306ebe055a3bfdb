//! Reading Docker API documents as Go reads them: keys free in case, `null` as zero value, and a
//! clear error for everything else of the wrong type. Pure.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A value of a document that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{document} {key:?} = {value}: expected {expected}")]
pub struct ValueError {
    /// `config` or `hostConfig`.
    pub document: &'static str,
    /// Its key, in lower case.
    pub key: String,
    /// What it held, cut to a readable length.
    pub value: String,
    /// What it should hold.
    pub expected: &'static str,
}

/// Keys whose values may hold a secret (a token in the environment, in a log driver's options).
const SECRET_KEYS: &[&str] = &["env", "cmd", "entrypoint", "healthcheck", "labels", "logconfig"];

/// A document with lower-cased top-level keys.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    name: &'static str,
    entries: &'a BTreeMap<String, Value>,
}

/// The fields of one object inside a document.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Document<'a> {
    /// A document, by the name that errors give it.
    pub fn new(name: &'static str, entries: &'a BTreeMap<String, Value>) -> Self {
        Self { name, entries }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The error that this key does not hold `expected`.
    pub fn wrong(&self, key: &str, expected: &'static str) -> ValueError {
        let value = match self.entries.get(key) {
            None => "nothing".to_owned(),
            Some(_) if SECRET_KEYS.contains(&key) => "(not shown)".to_owned(),
            Some(value) => show(value),
        };
        ValueError { document: self.name, key: key.to_owned(), value, expected }
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    /// A string; empty is `None`.
    ///
    /// # Errors
    /// Anything but a string or `null`, and strings with a NUL.
    pub fn text(&self, key: &str) -> Result<Option<String>, ValueError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = plain(value).ok_or_else(|| self.wrong(key, "a string"))?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// A boolean; `null` is false.
    ///
    /// # Errors
    /// Anything else.
    pub fn flag(&self, key: &str) -> Result<bool, ValueError> {
        let Some(value) = self.value(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// Anything else but `null`.
    pub fn signed(&self, key: &str) -> Result<Option<i64>, ValueError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// A whole number, not negative.
    ///
    /// # Errors
    /// Anything else but `null`.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, ValueError> {
        let number = self.signed(key)?;
        let fit = number.map(u64::try_from).transpose();
        fit.map_err(|_| self.wrong(key, "a whole number, not negative"))
    }

    /// An array of strings; `null` is empty. A bare string is an array of one (Docker's
    /// `strslice`).
    ///
    /// # Errors
    /// Anything else.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, ValueError> {
        self.each_text(key, |text| Ok(text.to_owned()))
    }

    /// An array of strings, each of which `parse` understands, or says what it wants.
    ///
    /// # Errors
    /// Anything else.
    pub fn each_text<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, ValueError> {
        let items: &[Value] = match self.value(key) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(value @ Value::String(_)) => std::slice::from_ref(value),
            Some(_) => return Err(self.wrong(key, "an array of strings")),
        };
        let one = |item: &Value| plain(item).ok_or("an array of strings").and_then(&parse);
        items.iter().map(|item| one(item).map_err(|expected| self.wrong(key, expected))).collect()
    }

    /// An array of objects, each of which `parse` understands, or says what it wants.
    ///
    /// # Errors
    /// Anything else.
    pub fn each_object<T>(
        &self,
        key: &str,
        parse: impl Fn(&Fields<'_>) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, ValueError> {
        let items: &[Value] = match self.value(key) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.wrong(key, "an array of objects")),
        };
        let one = |item: &Value| {
            let fields = item.as_object().ok_or("an array of objects")?;
            parse(&Fields(fields))
        };
        items.iter().map(|item| one(item).map_err(|expected| self.wrong(key, expected))).collect()
    }

    /// A map of strings, in which `null` is the empty one. `None` is `null`: empty the map.
    ///
    /// # Errors
    /// Anything else.
    pub fn map(&self, key: &str) -> Result<Option<BTreeMap<String, String>>, ValueError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || self.wrong(key, "an object whose values are strings");
        let fields = value.as_object().ok_or_else(wrong)?;
        let one = |(name, value): (&String, &Value)| {
            let text = if value.is_null() { Some("") } else { plain(value) };
            let text = text.filter(|_| !name.contains('\0')).ok_or_else(wrong)?;
            Ok((name.clone(), text.to_owned()))
        };
        fields.iter().map(one).collect::<Result<_, _>>().map(Some)
    }

    /// As [`Document::each_text`], where `null` is not the empty array but nothing said.
    ///
    /// # Errors
    /// Anything else.
    pub fn replaced<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<Vec<T>>, ValueError> {
        self.value(key).map(|_| self.each_text(key, parse)).transpose()
    }

    /// The names of an object's members (Docker's sets are maps to empty objects), each of which
    /// `parse` understands, or says what it wants; `null` is empty.
    ///
    /// # Errors
    /// Anything else.
    pub fn each_key<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, ValueError> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let fields = value.as_object().ok_or_else(|| self.wrong(key, "an object"))?;
        fields.keys().map(|name| parse(name).map_err(|expected| self.wrong(key, expected))).collect()
    }

    /// An object.
    ///
    /// # Errors
    /// Anything else but `null`.
    pub fn object(&self, key: &str) -> Result<Option<Fields<'a>>, ValueError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_object().map(|fields| Some(Fields(fields))).ok_or_else(|| self.wrong(key, "an object"))
    }
}

impl<'a> Fields<'a> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    /// A string, by a lower-case key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key).and_then(plain)
    }

    /// A whole number, by a lower-case key.
    pub fn signed(&self, key: &str) -> Option<i64> {
        self.value(key).and_then(Value::as_i64)
    }

    /// A boolean, by a lower-case key; what is missing is false, `None` is no boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.value(key).filter(|value| !value.is_null()).map_or(Some(false), Value::as_bool)
    }

    /// A map of strings, by a lower-case key; what is missing is empty, `None` is no such map.
    pub fn map(&self, key: &str) -> Option<BTreeMap<String, String>> {
        let Some(value) = self.value(key).filter(|value| !value.is_null()) else {
            return Some(BTreeMap::new());
        };
        let one = |(name, value): (&String, &Value)| Some((name.clone(), plain(value)?.to_owned()));
        value.as_object()?.iter().map(one).collect()
    }

    /// The members as they are.
    pub fn entries(&self) -> &'a Map<String, Value> {
        self.0
    }

    /// An object, by a lower-case key.
    pub fn object(&self, key: &str) -> Option<Fields<'a>> {
        self.value(key).and_then(Value::as_object).map(Fields)
    }
}

/// A string that can be handed to the kernel.
fn plain(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.contains('\0'))
}

/// A value as an error shows it, cut to a readable length.
pub fn show(value: &Value) -> String {
    const LONGEST: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_name_key_and_value_and_stay_short() {
        let entries = BTreeMap::from([("memory".to_owned(), json!("x".repeat(5000)))]);
        let error = Document::new("hostConfig", &entries).unsigned("memory").unwrap_err().to_string();
        assert!(error.starts_with("hostConfig \"memory\" = \"xxx") && error.len() < 250, "{error}");
        assert!(error.ends_with("expected a whole number"), "{error}");
    }
}
