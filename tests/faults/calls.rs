//! Which calls a task costs. One more on the way to RUNNING is seen here before it is measured.

use crate::support::faulty::FaultyContainerd;
use crate::{run_stays, stops, until_ready, with_faults};
use std::collections::BTreeMap;

/// How often each method was called since there were `before` calls; without the pings, and the notes of
/// which images are in use, which come when they like.
fn calls_since(faulty: &FaultyContainerd, before: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for method in faulty.seen().into_iter().skip(before) {
        let whenever = ["Events/Publish", "Version/Version", "Images/List", "Images/Update"];
        if !whenever.contains(&method.as_str()) {
            *counts.entry(method).or_default() += 1;
        }
    }
    counts
}

fn expected(calls: &[(&str, usize)]) -> BTreeMap<String, usize> {
    calls.iter().map(|(method, count)| ((*method).to_owned(), *count)).collect()
}

#[test]
fn a_launch_and_a_stop_of_what_is_here_make_these_calls_and_no_more() {
    with_faults(&[("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached")], |host, faulty| async move {
        // The first one learns what the image has in it.
        let first = run_stays(&host, "first");
        until_ready(&host, &first, "first").await;
        let before = faulty.seen().len();
        let second = run_stays(&host, "second");
        until_ready(&host, &second, "second").await;
        let launch = [
            // Looked up to learn the digest, to fetch nothing, and to be used.
            ("Images/Get", 3),
            ("Snapshots/Stat", 2),
            ("Snapshots/Prepare", 1),
            ("Containers/Create", 1),
            ("Tasks/Create", 1),
            ("Tasks/Start", 1),
            ("Tasks/Wait", 1),
        ];
        assert_eq!(calls_since(&faulty, before), expected(&launch));
        stops(&host, &first).await;
        host.until("it is cleaned up", |host| !host.task_dir(&first).exists()).await;
        let before = faulty.seen().len();
        stops(&host, &second).await;
        host.until_nothing_is_left().await;
        let stop = [
            ("Tasks/Kill", 1),
            // As it ended, and once more by the clean-up, in case that did not work.
            ("Tasks/Delete", 2),
            ("Containers/Delete", 1),
            ("Snapshots/Remove", 1),
        ];
        assert_eq!(calls_since(&faulty, before), expected(&stop));
    });
}
