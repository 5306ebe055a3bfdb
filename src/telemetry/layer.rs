//! From `tracing` to lines.

use super::format::{LogFormat, Value, line, word};
use super::writer::{Targets, Writer};
use super::{CRITICAL, LogLevel};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Writes each event to the sinks whose level it has. Libraries are heard from warnings on: their debug
/// lines hold what must not be in a log.
pub(super) struct LineLayer {
    writer: Writer,
    format: LogFormat,
    stdout: LogLevel,
    file: LogLevel,
}

impl LineLayer {
    pub(super) fn new(writer: Writer, format: LogFormat, stdout: LogLevel, file: LogLevel) -> Self {
        Self { writer, format, stdout, file }
    }

    fn targets(&self, metadata: &Metadata<'_>) -> Targets {
        let ours = metadata.target().split("::").next().is_some_and(|root| root.starts_with("ecsd"));
        let heard = ours || *metadata.level() <= Level::WARN;
        Targets {
            stdout: heard && passes(self.stdout, metadata),
            file: heard && passes(self.file, metadata),
            audit: false,
        }
    }
}

fn passes(level: LogLevel, metadata: &Metadata<'_>) -> bool {
    match level {
        LogLevel::Critical => metadata.target() == CRITICAL,
        level => *metadata.level() <= level.filter(),
    }
}

/// Fields of a span, kept with it.
struct SpanFields(Vec<(String, Value)>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let targets = self.targets(metadata);
        targets.stdout || targets.file
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.stdout.filter().max(self.file.filter()))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.all));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = context.span(id)
            && let Some(known) = span.extensions_mut().get_mut::<SpanFields>()
        {
            known.0.append(&mut fields.all);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(known) = span.extensions().get::<SpanFields>() {
                fields.all.extend(known.0.iter().cloned());
            }
        }
        let metadata = event.metadata();
        let text = line(self.format, word(metadata), SystemTime::now(), &fields.message, &fields.all);
        self.writer.write(self.targets(metadata), text);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    all: Vec<(String, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            let (Value::Text(text) | Value::Plain(text) | Value::Json(text)) = value;
            self.message = text;
        } else {
            self.all.push((field.name().to_owned(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::text(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Json(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Json(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        // JSON has no infinity.
        self.add(field, if value.is_finite() { Value::Json(text) } else { Value::Plain(text) });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Json(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, Value::formatted(format!("{value:?}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Value::text(value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::roll::RollingFile;
    use super::super::writer::Sinks;
    use super::*;
    use std::path::Path;
    use tracing_subscriber::layer::SubscriberExt;

    /// What a log file of this level has of a few events.
    fn logged(level: LogLevel, path: &Path) -> Vec<String> {
        let file = RollingFile::plain(path);
        let sinks = Sinks { file: Some(file), ..Sinks::default() };
        let writer = Writer::start(sinks, LogFormat::Logfmt).unwrap();
        let layer = LineLayer::new(writer.clone(), LogFormat::Logfmt, LogLevel::None, level);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::error_span!("task", task = %"t1");
            let _inside = span.enter();
            tracing::error!(target: CRITICAL, "critical");
            tracing::error!("error");
            tracing::warn!("warn");
            tracing::info!(count = 3, name = "a b", "info");
            tracing::debug!("debug");
            tracing::info!(target: "hyper::client", "a library's");
        });
        assert!(writer.flush());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_level_has_its_events_with_the_fields_of_their_spans() {
        let path = std::env::temp_dir().join(format!("ecsd-log-{}", uuid::Uuid::new_v4()));
        for (level, lines) in [
            (LogLevel::Debug, 5),
            (LogLevel::Info, 4),
            (LogLevel::Warn, 3),
            (LogLevel::Error, 2),
            (LogLevel::Critical, 1),
            (LogLevel::None, 0),
        ] {
            let logged = logged(level, &path);
            assert_eq!(logged.len(), lines, "{level:?}: {logged:?}");
        }
        let logged = logged(LogLevel::Info, &path);
        assert!(logged[0].starts_with("level=critical time=20"), "{logged:?}");
        assert!(logged[3].ends_with("Z msg=\"info\" count=3 name=\"a b\" task=t1"), "{logged:?}");
    }
}
