//! Pulls under way are shown by the introspection endpoint.

use crate::support::host::{container, family, with_agent};
use crate::support::registry::{FakeRegistry, Fault, TestImage, noise};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect("127.0.0.1:51678").ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn pulls() -> Option<Vec<Value>> {
    let body: Value = serde_json::from_str(&get("/v1/pulls")?).ok()?;
    body["Pulls"].as_array().cloned()
}

#[test]
fn a_pull_that_hangs_tells_how_far_it_is_and_what_it_waits_for() {
    with_agent(|host| async move {
        assert_eq!(pulls(), Some(Vec::new()));
        let registry = FakeRegistry::start();
        let image = TestImage::new(&[&[("small", &noise(1, 1000))], &[("large", &noise(2, 3 << 20))]]);
        registry.put("team/app", "1", &image);
        registry.fault(&image.layers[1], Fault::HangAfter(2 << 20), usize::MAX);
        let name = format!("{}/team/app:1", registry.host());
        let arn = host.run_task(family("hangs", [container("main", "", json!({"image": name}))]));
        let waits = |pull: &Value| {
            let why = pull["WaitingFor"].as_str().unwrap_or_default();
            pull["LayersDone"] == 1 && why.starts_with("the registry: nothing has come for")
        };
        host.until("the pull waits", |_| pulls().is_some_and(|all| all.len() == 1 && waits(&all[0]))).await;
        let pull = pulls().unwrap().remove(0);
        assert_eq!((&pull["Image"], &pull["LayersTotal"]), (&json!(name), &json!(2)));
        let (done, total) = (pull["BytesDone"].as_u64().unwrap(), pull["BytesTotal"].as_u64().unwrap());
        assert!((1 << 20..total).contains(&done), "{pull}");
        let metrics = get("/metrics").unwrap();
        assert!(metrics.contains(&format!("ecsd_pull_bytes_done{{image=\"{name}\"}} ")), "{metrics}");
        drop(registry);
        host.until_status(&arn, "STOPPED").await;
        assert_eq!(pulls(), Some(Vec::new()));
    });
}
