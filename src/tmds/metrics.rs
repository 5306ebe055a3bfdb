//! What is under way on this host as Prometheus reads it (text exposition format 0.0.4), by the
//! introspection endpoint: `/metrics`.

use crate::model::PullUnderWay;
use std::fmt::Write;

/// One gauge of each pull: name, help, value.
type Gauge = (&'static str, &'static str, fn(&PullUnderWay) -> u64);

const OF_A_PULL: &[Gauge] = &[
    ("ecsd_pull_bytes_done", "Bytes on the disk, of the layers that have to be fetched.", |p| p.bytes_done),
    ("ecsd_pull_bytes_total", "All bytes of those layers.", |p| p.bytes_total),
    ("ecsd_pull_bytes_per_second", "How fast they came in the last seconds.", |p| p.bytes_per_second),
    ("ecsd_pull_layers_done", "Layers unpacked.", |p| p.layers_done as u64),
    ("ecsd_pull_layers_total", "All layers.", |p| p.layers_total as u64),
    ("ecsd_pull_waiting", "1 where it waits for something else than bytes that come.", |p| {
        u64::from(p.waiting_for.is_some())
    }),
];

/// The whole page.
pub(crate) fn page(pulls: &[PullUnderWay]) -> String {
    let mut page = String::new();
    head(&mut page, "ecsd_pulls", "Pulls under way.");
    // Writing to a String can't fail.
    let _ = writeln!(page, "ecsd_pulls {}", pulls.len());
    for (name, help, value) in OF_A_PULL {
        head(&mut page, name, help);
        for (at, pull) in pulls.iter().enumerate() {
            // Of one image under two digests the first stands for both: a series has one value.
            if pulls[..at].iter().all(|before| before.image != pull.image) {
                let _ = writeln!(page, "{name}{{image=\"{}\"}} {}", escaped(&pull.image), value(pull));
            }
        }
    }
    page
}

fn head(page: &mut String, name: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Wall;

    #[test]
    fn each_pull_has_its_series_and_there_is_a_page_without_any() {
        let pull = PullUnderWay {
            image: "r/\"app\\\":1".into(),
            started_at: Wall(0),
            bytes_done: 1,
            bytes_total: 2,
            bytes_per_second: 3,
            layers_done: 4,
            layers_total: 5,
            waiting_for: Some("x".into()),
        };
        let text = page(&[pull.clone(), PullUnderWay { bytes_done: 9, ..pull }]);
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(values[..2], ["ecsd_pulls 2", r#"ecsd_pull_bytes_done{image="r/\"app\\\":1"} 1"#]);
        assert_eq!((values.len(), values[6]), (7, r#"ecsd_pull_waiting{image="r/\"app\\\":1"} 1"#));
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), 7);
        assert!(page(&[]).contains("\necsd_pulls 0\n"));
    }
}
