//! A machine whose clock is off: the service's answers tell, and all signatures follow.

use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::{account, acs_context, tcs};
use ecsd::control::EcsApi;
use ecsd::control::acs::run;
use ecsd::control::tcs::TcsContext;

#[tokio::test]
async fn a_refused_signature_teaches_the_time() {
    for (ahead, code) in
        [(3600, "InvalidSignatureException"), (-7200, "RequestTimeTooSkewed"), (900, "SignatureDoesNotMatch")]
    {
        let mut backend = Backend::start().await;
        backend.clock_ahead(ahead, code);
        let account = account(&backend, None);
        let api = EcsApi::new(&account);
        api.discover_poll_endpoint("peer", INSTANCE).await.unwrap();
        assert_eq!(backend.waiting_calls().len(), 2, "{code}: once refused, once well signed");
        let learned = account.clock.now();
        let off = match learned.duration_since(std::time::SystemTime::now()) {
            Ok(by) => by.as_secs() as i64,
            Err(by) => -(by.duration().as_secs() as i64),
        };
        assert!((off - ahead).abs() < 60, "{off}");
    }
}

#[tokio::test]
async fn websockets_and_frames_are_signed_by_the_services_time() {
    let mut backend = Backend::start().await;
    backend.clock_ahead(3600, "InvalidSignatureException");
    let mut context = acs_context(&backend);
    context.api = EcsApi::new(&context.account);
    let telemetry = tcs::Told::nothing();
    let telemetry = TcsContext {
        api: context.api.clone(),
        account: context.account.clone(),
        ..tcs::context(&backend, &telemetry, None)
    };
    let (events, _inbox) = tokio::sync::mpsc::channel(8);
    let acs = tokio::spawn(run(context, events));
    let tcs = tokio::spawn(ecsd::control::tcs::run(telemetry));
    // A handshake that is signed by the wrong clock is a failure of the back end.
    backend.accept(Channel::Acs).await;
    let mut connection = backend.accept(Channel::Tcs).await;
    connection.receive_signed().await;
    acs.abort();
    tcs.abort();
}
