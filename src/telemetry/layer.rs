//! From `tracing` to lines.

use super::format::{LogFormat, Value, line};
use std::fs::File;
use std::io::Write;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where lines go.
pub(super) struct Sinks {
    pub(super) file: Option<File>,
    pub(super) stdout: bool,
}

impl Sinks {
    /// One write a line, so that lines of threads don't mix. A sink that fails (a full disk, a closed
    /// pipe) loses the line: the agent goes on.
    fn write(&self, line: &str) {
        if self.stdout {
            let _ = std::io::stdout().lock().write_all(line.as_bytes());
        }
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// Writes each event that passes the filter. Libraries are heard from warnings on: their debug lines
/// hold what must not be in a log.
pub(super) struct LineLayer {
    sinks: Sinks,
    format: LogFormat,
    filter: LevelFilter,
}

impl LineLayer {
    pub(super) fn new(sinks: Sinks, format: LogFormat, filter: LevelFilter) -> Self {
        Self { sinks, format, filter }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().split("::").next().is_some_and(|root| root.starts_with("ecsd"));
        *metadata.level() <= self.filter && (ours || *metadata.level() <= Level::WARN)
    }
}

/// Fields of a span, kept with it.
struct SpanFields(Vec<(String, Value)>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter)
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
        let level = *event.metadata().level();
        self.sinks.write(&line(self.format, level, SystemTime::now(), &fields.message, &fields.all));
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
            let (Value::Text(text) | Value::Plain(text)) = value;
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

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, Value::formatted(format!("{value:?}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Value::text(value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn events_and_their_spans_become_lines_of_the_file() {
        let path = std::env::temp_dir().join(format!("ecsd-log-{}", uuid::Uuid::new_v4()));
        let sinks = Sinks { file: Some(File::create(&path).unwrap()), stdout: false };
        let layer = LineLayer::new(sinks, LogFormat::Logfmt, LevelFilter::INFO);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("task", task = %"t1");
            let _inside = span.enter();
            tracing::info!(count = 3, name = "a b", "Done");
            tracing::debug!("not this");
            tracing::info!(target: "hyper::client", "nor this");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("level=info time=20"), "{text}");
        assert!(text.ends_with("Z msg=\"Done\" count=3 name=\"a b\" task=t1\n"), "{text}");
    }
}
