//! The tag of a container's messages: a Go template over what the container is, such as
//! `{{.ImageName}}/{{.Name}}/{{.ID}}`. Of the template language there is what fits into a line: fields,
//! texts, numbers, parentheses, pipes, and dockerd's functions `lower`, `upper`, `title`, `truncate`,
//! `split`, `join`, `index` and `json`. Pure.

use super::LogError;
use std::collections::BTreeMap;

/// Templates nested deeper are refused.
const DEEPEST: usize = 16;

/// What a tag may tell of a container. Has no Debug: a variable may be a secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TagSource {
    /// The whole id.
    pub id: String,
    /// Docker's name of it, without the slash.
    pub name: String,
    /// Its image, as written.
    pub image_name: String,
    /// Digest of the image's configuration, `sha256:...`.
    pub image_id: String,
    /// Entry point and arguments.
    pub command: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The chosen labels and variables.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Number(usize),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Value {
    /// As Go prints it.
    fn show(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(words) => format!("[{}]", words.join(" ")),
            Self::Map(map) => {
                let pairs: Vec<_> = map.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }

    fn json(&self) -> String {
        let value = match self {
            Self::Text(text) => serde_json::json!(text),
            Self::Number(number) => serde_json::json!(number),
            Self::List(words) => serde_json::json!(words),
            Self::Map(map) => serde_json::json!(map),
        };
        value.to_string()
    }
}

/// Fills a template.
///
/// # Errors
/// [`LogError::Tag`], which names what is not understood.
pub fn render_tag(template: &str, source: &TagSource) -> Result<String, LogError> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, action)) = rest.split_once("{{") {
        let (inside, after) =
            split_action(action).ok_or_else(|| LogError::Tag(format!("unclosed action in {template:?}")))?;
        let trims = (inside.strip_prefix("- "), inside.strip_suffix(" -"));
        let before = if trims.0.is_some() { before.trim_end() } else { before };
        let inside = trims.0.unwrap_or(inside);
        let inside = inside.strip_suffix(" -").unwrap_or(inside);
        out.push_str(before);
        if !inside.trim_start().starts_with("/*") {
            let mut parser = Parser { rest: inside, source, depth: 0 };
            let value = parser.pipeline().and_then(|value| parser.end().map(|()| value));
            out.push_str(&value.map_err(LogError::Tag)?.show());
        }
        rest = if trims.1.is_some() { after.trim_start() } else { after };
    }
    out.push_str(rest);
    Ok(out)
}

/// The action up to its `}}`, which may stand in a text, too.
fn split_action(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text.get(at..)?.starts_with("}}") => return Some((text.get(..at)?, text.get(at + 2..)?)),
            None => {}
        }
    }
    None
}

struct Parser<'a> {
    rest: &'a str,
    source: &'a TagSource,
    depth: usize,
}

impl Parser<'_> {
    fn skip(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn end(&mut self) -> Result<(), String> {
        match self.skip() {
            None => Ok(()),
            Some(_) => Err(format!("unexpected {:?}", self.rest)),
        }
    }

    /// Takes the characters that fit.
    fn word(&mut self, fits: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn pipeline(&mut self) -> Result<Value, String> {
        let mut value = self.command(None)?;
        while self.skip() == Some('|') {
            self.rest = self.rest.get(1..).unwrap_or_default();
            value = self.command(Some(value))?;
        }
        Ok(value)
    }

    /// A function with what it is given, or a value alone.
    fn command(&mut self, piped: Option<Value>) -> Result<Value, String> {
        match self.skip() {
            Some(c) if c.is_ascii_alphabetic() => {
                let name = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
                let mut given = Vec::new();
                while let Some(c) = self.skip()
                    && !matches!(c, '|' | ')')
                {
                    given.push(self.operand()?);
                }
                given.extend(piped);
                call(&name, &given)
            }
            _ if piped.is_some() => Err("only a function can stand after a pipe".to_owned()),
            _ => self.operand(),
        }
    }

    fn operand(&mut self) -> Result<Value, String> {
        match self.skip() {
            Some('.') => {
                self.rest = self.rest.get(1..).unwrap_or_default();
                let name = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
                self.field(&name)
            }
            Some(quote @ ('"' | '`')) => self.text(quote),
            Some('(') => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err("too many parentheses".to_owned());
                }
                self.rest = self.rest.get(1..).unwrap_or_default();
                let value = self.pipeline()?;
                if self.skip() != Some(')') {
                    return Err("unclosed parenthesis".to_owned());
                }
                self.rest = self.rest.get(1..).unwrap_or_default();
                self.depth -= 1;
                Ok(value)
            }
            Some(c) if c.is_ascii_digit() => {
                let digits = self.word(|c| c.is_ascii_digit());
                digits.parse().map(Value::Number).map_err(|_| format!("{digits} is too large"))
            }
            Some(_) => Err(format!("unexpected {:?}", self.rest)),
            None => Err("missing value for command".to_owned()),
        }
    }

    fn text(&mut self, quote: char) -> Result<Value, String> {
        let (mut text, mut chars) = (String::new(), self.rest.char_indices().skip(1));
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(Value::Text(text));
                }
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => return Err(format!("unknown escape in {}", self.rest)),
                },
                c => text.push(c),
            }
        }
        Err(format!("unterminated text {}", self.rest))
    }

    /// The fields and methods of dockerd's `logger.Info`.
    fn field(&self, name: &str) -> Result<Value, String> {
        let source = self.source;
        let short = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).chars().take(12).collect();
        Ok(match name {
            "ID" => Value::Text(short(&source.id)),
            "FullID" | "ContainerID" => Value::Text(source.id.clone()),
            "Name" => Value::Text(source.name.clone()),
            "ContainerName" => Value::Text(format!("/{}", source.name)),
            "ImageName" | "ContainerImageName" => Value::Text(source.image_name.clone()),
            // dockerd cuts the prefix, too, into its twelve.
            "ImageID" => Value::Text(source.image_id.chars().take(12).collect()),
            "ImageFullID" | "ContainerImageID" => Value::Text(source.image_id.clone()),
            "DaemonName" => Value::Text("docker".to_owned()),
            "Command" => Value::Text(source.command.join(" ")),
            "ContainerLabels" => Value::Map(source.labels.clone()),
            "ExtraAttributes" => Value::Map(source.attributes.clone()),
            _ => return Err(format!("can't evaluate field {name}")),
        })
    }
}

fn call(name: &str, given: &[Value]) -> Result<Value, String> {
    Ok(match (name, given) {
        ("lower", [Value::Text(text)]) => Value::Text(text.to_lowercase()),
        ("upper", [Value::Text(text)]) => Value::Text(text.to_uppercase()),
        ("title", [Value::Text(text)]) => {
            let mut start = true;
            let title = text.chars().flat_map(|c| {
                let first = std::mem::replace(&mut start, !c.is_alphanumeric() && c != '_');
                if first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
            });
            Value::Text(title.collect())
        }
        ("truncate", [Value::Text(text), Value::Number(most)]) => {
            Value::Text(text.chars().take(*most).collect())
        }
        ("split", [Value::Text(text), Value::Text(by)]) if !by.is_empty() => {
            Value::List(text.split(by.as_str()).map(str::to_owned).collect())
        }
        ("join", [Value::List(words), Value::Text(by)]) => Value::Text(words.join(by)),
        ("json", [value]) => Value::Text(value.json()),
        ("index", [Value::Map(map), Value::Text(key)]) => {
            Value::Text(map.get(key).cloned().unwrap_or_default())
        }
        ("index", [Value::List(words), Value::Number(at)]) => {
            let word = words.get(*at).ok_or_else(|| format!("index out of range: {at}"))?;
            Value::Text(word.clone())
        }
        ("lower" | "upper" | "title" | "truncate" | "split" | "join" | "json" | "index", _) => {
            return Err(format!("wrong arguments for {name}"));
        }
        _ => return Err(format!("function {name:?} not defined")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> TagSource {
        TagSource {
            id: "0123456789abcdef".to_owned(),
            name: "ecs-web-3-app-00".to_owned(),
            image_name: "registry/web:1.2".to_owned(),
            image_id: "sha256:fedcba9876543210".to_owned(),
            command: vec!["sh".to_owned(), "-c".to_owned(), "x y".to_owned()],
            labels: BTreeMap::from([("team".to_owned(), "core".to_owned())]),
            attributes: BTreeMap::from([("STAGE".to_owned(), "prod".to_owned())]),
        }
    }

    #[test]
    fn templates_are_filled_as_dockerd_fills_them() {
        for (template, want) in [
            ("", ""),
            ("plain", "plain"),
            ("{{.ID}}", "0123456789ab"),
            ("a/{{ .FullID }}/{{.Name}}", "a/0123456789abcdef/ecs-web-3-app-00"),
            (
                "{{.ImageName}}|{{.ImageID}}|{{.ImageFullID}}",
                "registry/web:1.2|sha256:fedcb|sha256:fedcba9876543210",
            ),
            ("{{.DaemonName}} {{.Command}}", "docker sh -c x y"),
            ("{{.ContainerName}}{{.ExtraAttributes}}", "/ecs-web-3-app-00map[STAGE:prod]"),
            ("{{upper .Name}}", "ECS-WEB-3-APP-00"),
            (r#"{{index .ContainerLabels "team"}}"#, "core"),
            (r#"{{index (split .ImageName ":") 1}}"#, "1.2"),
            (r#"{{join (split .ImageName "/") "_" | title}}"#, "Registry_web:1.2"),
            ("x {{- .ID -}} y", "x0123456789aby"),
            (r#"{{truncate .Name 3}}{{"}}\""}}{{`a\`}}"#, "ecs}}\"a\\"),
            ("{{json .ContainerLabels}}", r#"{"team":"core"}"#),
            ("{{/* nothing */}}.", "."),
        ] {
            assert_eq!(render_tag(template, &source()).as_deref(), Ok(want), "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let nested = format!("{{{{{}.ID}}}}", "(".repeat(10_000));
        for (template, words) in [
            ("{{.ID", "unclosed action"),
            ("{{.Nope}}", "field Nope"),
            ("{{frob .ID}}", "\"frob\" not defined"),
            ("{{}}", "missing value"),
            ("{{.ID .ID}}", "unexpected"),
            ("{{.ID | \"x\"}}", "after a pipe"),
            ("{{index (split .Name \"-\") 99}}", "out of range"),
            ("{{\"x}}", "unclosed"),
            ("{{join .Name}}", "wrong arguments for join"),
            ("{{(.ID}}", "parenthesis"),
            (nested.as_str(), "parentheses"),
        ] {
            let error = render_tag(template, &source()).unwrap_err().to_string();
            assert!(error.contains(words), "{template}: {error}");
        }
    }
}
