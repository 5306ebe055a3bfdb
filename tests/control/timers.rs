//! The original's timers (spec/control-plane.md 1.5, 1.7, 3.3, 4.3, 4.5, 6.4): other tests shorten them, so
//! that what the agent runs with is held here.

use ecsd::app::lifecycle::WarmPoolTimings;
use ecsd::control::acs::AcsTimings;
use ecsd::control::api::{RegisterTimings, SubmitTimings};
use ecsd::control::ec2::Ec2Timings;
use ecsd::control::tcs::TcsTimings;
use std::time::Duration;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_websockets_are() {
    let AcsTimings { inactivity, age, backoff, inactive } = AcsTimings::default();
    assert_eq!((inactivity, age), ((MINUTE, MINUTE), (MINUTE * 30, MINUTE * 5)));
    assert_eq!((backoff, inactive), ((MILLISECOND * 250, MINUTE * 2), MINUTE * 60));
    let TcsTimings { publish, inactivity, age, backoff } = TcsTimings::default();
    assert_eq!((inactivity, age), ((MINUTE, MINUTE), (MINUTE * 30, MINUTE * 5)));
    assert_eq!((backoff, publish), ((SECOND, MINUTE), SECOND * 20));
}

#[test]
fn the_apis_are() {
    let RegisterTimings { least, give_up } = RegisterTimings::default();
    assert_eq!((least, give_up), (SECOND * 3, MINUTE * 60));
    let SubmitTimings { transient_unit, transient_most, other_least } = SubmitTimings::default();
    assert_eq!((transient_unit, transient_most, other_least), (MILLISECOND, MINUTE * 5, SECOND));
    assert_eq!(Ec2Timings::default().unit, SECOND);
}

#[test]
fn the_metadata_services_are() {
    let WarmPoolTimings { poll, most, .. } = WarmPoolTimings::default();
    assert_eq!((poll, most), (MINUTE, 120));
    assert_eq!(ecsd::app::spot::POLL, SECOND);
}
