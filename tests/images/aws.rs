//! Passwords that tasks bring along: from ECR and from Secrets Manager, in this process, where every
//! signature is checked.

use super::support::registry::{FakeRegistry, TestImage};
use super::support::sigv4::{ACCESS_KEY, REGION, SECRET, verify_for};
use super::{Setup, options, setup, small_image};
use aws_credential_types::Credentials;
use base64::Engine as _;
use ecsd::app::registries::{Endpoints, Logins};
use ecsd::containerd::images::{ImageOptions, ImageService};
use ecsd::control::credentials::CredentialsCache;
use ecsd::control::{Account, AgentIdentity, CredentialsStore};
use ecsd::model::{
    CredentialsId, EcrLogin, ImageRequest, RegistryLogin, RoleCredentials, SecretLogin, TaskArn,
};
use ecsd::ports::Images;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// A call as the service got it; its signature was right.
#[derive(Debug, Clone)]
struct Call {
    target: String,
    body: Value,
    /// Session token of who signed.
    token: Option<String>,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// Answers in order; the last one stays.
    answers: VecDeque<(u16, Value)>,
    wrong: Vec<String>,
}

/// A service of AWS JSON 1.1.
struct FakeService {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeService {
    fn start(service: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = served.clone();
                std::thread::spawn(move || answer(service, stream, &state));
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn answers(&self, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.state.lock().unwrap().answers = answers.into_iter().collect();
    }

    /// What was asked so far, each with a signature that is right.
    fn calls(&self) -> Vec<Call> {
        let state = self.state.lock().unwrap();
        assert!(state.wrong.is_empty(), "{:?}", state.wrong);
        state.calls.clone()
    }
}

fn answer(service: &str, mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut line, mut headers) = (String::new(), BTreeMap::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let mut state = state.lock().unwrap();
        let (status, answer) = match verify_for(service, &method, &path, "", &headers, &body) {
            Ok(signed) => {
                for header in ["host", "x-amz-date", "x-amz-target", "content-type"] {
                    assert!(signed.split(';').any(|name| name == header), "{signed}");
                }
                state.calls.push(Call {
                    target: headers["x-amz-target"].clone(),
                    body: serde_json::from_slice(&body).unwrap(),
                    token: headers.get("x-amz-security-token").cloned(),
                });
                match state.answers.len() {
                    1 => state.answers[0].clone(),
                    _ => state.answers.pop_front().expect("an answer for it"),
                }
            }
            Err(why) => {
                state.wrong.push(why);
                (403, json!({ "__type": "InvalidSignatureException" }))
            }
        };
        drop(state);
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all((head + &text).as_bytes()).unwrap();
    }
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What ECR answers: the password of the registry at `proxy`, good for that long.
fn token(proxy: &str, password: &str, good_for: Duration) -> (u16, Value) {
    let expires = SystemTime::now() + good_for;
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let data = json!({
        "authorizationToken": base64(&format!("AWS:{password}")),
        "proxyEndpoint": proxy, "expiresAt": expires,
    });
    (200, json!({ "authorizationData": [data] }))
}

const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);

/// The agent's way to passwords, in the name of an instance, with one task's role delivered.
fn logins(secrets: &FakeService) -> (Arc<Logins>, CredentialsId) {
    let instance = Credentials::new(ACCESS_KEY, SECRET, None, None, "test");
    let account = Account::new(REGION, None, AgentIdentity::default())
        .with_credentials(CredentialsCache::from_provider(instance));
    let (roles, id) = (CredentialsStore::default(), CredentialsId("role-1".into()));
    let arn = TaskArn::parse("arn:aws:ecs:us-west-2:1:task/c/t").unwrap();
    roles.put(
        &arn,
        RoleCredentials {
            id: id.clone(),
            role_arn: "arn:role".into(),
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET.into(),
            session_token: "OF-THE-ROLE".into(),
            expiration: String::new(),
        },
    );
    let url = secrets.url();
    let endpoints =
        Endpoints::from_env(|name| (name == "AWS_ENDPOINT_URL_SECRETS_MANAGER").then(|| url.clone()));
    (Arc::new(Logins::new(account, roles, endpoints)), id)
}

struct Ground {
    _setup: Setup,
    registry: FakeRegistry,
    ecr: FakeService,
    secrets: FakeService,
    role: CredentialsId,
    service: ImageService,
}

fn ground() -> Ground {
    let setup = setup();
    let (ecr, secrets) = (FakeService::start("ecr"), FakeService::start("secretsmanager"));
    let (logins, role) = logins(&secrets);
    let service = setup.service(ImageOptions { logins: Some(logins), ..options() });
    Ground { _setup: setup, registry: FakeRegistry::start(), ecr, secrets, role, service }
}

impl Ground {
    fn put(&self, name: &str, image: &TestImage) -> String {
        self.registry.put(name, "1", image);
        format!("{}/{name}:1", self.registry.host())
    }

    fn own(&self) -> String {
        format!("https://{}", self.registry.host())
    }

    fn ecr_login(&self, execution_role: bool) -> RegistryLogin {
        RegistryLogin::Ecr(EcrLogin {
            region: REGION.into(),
            registry: "123456789012".into(),
            endpoint: self.ecr.url(),
            execution_role,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_in_ecr_are_pulled_with_the_password_that_it_gives() {
    let ground = ground();
    let images = [ground.put("one", &small_image(100)), ground.put("two", &small_image(110))];
    let guard = format!("Basic {}", base64("AWS:CANARY-ECR"));
    ground.registry.guard(&guard, "Basic realm=\"ecr\"");
    let by_instance = ground.ecr_login(false);
    let throttled = (400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }));
    ground.ecr.answers([throttled, token(&ground.own(), "CANARY-ECR", HALF_A_DAY)]);
    for image in &images {
        let request = ImageRequest { login: Some(&by_instance), ..image.into() };
        let resolved = ground.service.resolve(request).await.unwrap();
        ground.service.pull(request, resolved.digest.as_ref()).await.unwrap();
    }
    let calls = ground.ecr.calls();
    assert_eq!(calls.len(), 2, "throttled once, and then kept: {calls:?}");
    assert_eq!(calls[1].target, "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    assert_eq!(calls[1].body, json!({ "registryIds": ["123456789012"] }));
    assert_eq!(calls[1].token, None);

    // Another identity is another password, and none that is about to end is kept.
    let by_role = ground.ecr_login(true);
    ground.ecr.answers([token(&ground.own(), "CANARY-ECR", Duration::from_secs(25 * 60))]);
    let role = Some(&ground.role);
    let request = ImageRequest { login: Some(&by_role), execution_role: role, ..(&images[0]).into() };
    for expected in [3, 4] {
        ground.service.resolve(request).await.unwrap();
        let calls = ground.ecr.calls();
        assert_eq!((calls.len(), calls[expected - 1].token.as_deref()), (expected, Some("OF-THE-ROLE")));
    }
    // What one was let in with lets nobody else in.
    let denied = ground.service.resolve((&images[0]).into()).await.unwrap_err();
    assert!(denied.reason.message.contains("401"), "{denied:?}");
    assert!(!format!("{:?} {denied:?}", ground.service).contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_with_ecr_is_told_by_the_originals_name() {
    let ground = ground();
    let image = ground.put("app", &small_image(120));
    ground.registry.guard("Basic nothing", "Basic realm=\"ecr\"");
    let login = ground.ecr_login(false);
    let request = ImageRequest { login: Some(&login), ..(&image).into() };
    let denied = json!({
        "__type": "com.amazonaws.ecr#AccessDeniedException",
        "message": "User: u is not authorized to perform: ecr:GetAuthorizationToken",
    });
    let elsewhere = token("https://123456789012.dkr.ecr.us-west-2.amazonaws.com", "CANARY", HALF_A_DAY);
    for (answer, words) in [
        ((400, denied), "AccessDeniedException: User: u is not authorized to perform"),
        (elsewhere, "AuthorizationData is malformed"),
        ((200, json!({ "authorizationData": [] })), "missing AuthorizationData"),
        ((200, json!({ "authorizationData": "CANARY" })), "can't be read"),
    ] {
        ground.ecr.answers([answer]);
        let failed = ground.service.resolve(request).await.unwrap_err();
        assert_eq!(failed.reason.name, "CannotPullECRContainerError", "{failed:?}");
        assert!(
            failed.reason.message.contains(words) && failed.reason.message.contains(&image),
            "{failed:?}"
        );
        assert!(!format!("{failed:?}").contains("CANARY"), "{failed:?}");
    }
    // The registry never saw a password that is not its own.
    assert!(ground.registry.seen("").iter().all(|seen| seen.authorization.is_none()));
    let by_role = ground.ecr_login(true);
    let request = ImageRequest { login: Some(&by_role), ..(&image).into() };
    let failed = ground.service.pull(request, None).await.unwrap_err();
    assert!(failed.reason.to_string().contains("engine ecr credentials: not found"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_read_from_secrets_in_the_name_of_the_execution_role() {
    let ground = ground();
    let image = ground.put("app", &small_image(130));
    ground.registry.guard(&format!("Basic {}", base64("robot:CANARY-ASM")), "Basic realm=\"private\"");
    let secret = "arn:aws:secretsmanager:us-west-2:1:secret:registry-AbCdEf";
    let login = RegistryLogin::Secret(SecretLogin { secret: secret.into(), region: REGION.into() });
    let role = Some(&ground.role);
    let request = ImageRequest { login: Some(&login), execution_role: role, ..(&image).into() };
    let gives = |text: &str| (200, json!({ "ARN": secret, "SecretString": text }));
    ground.secrets.answers([gives(r#"{"username":"robot","password":"CANARY-ASM"}"#)]);
    let resolved = ground.service.resolve(request).await.unwrap();
    ground.service.pull(request, resolved.digest.as_ref()).await.unwrap();
    let call = ground.secrets.calls().remove(0);
    assert_eq!(call.target, "secretsmanager.GetSecretValue");
    assert_eq!((call.body, call.token.as_deref()), (json!({ "SecretId": secret }), Some("OF-THE-ROLE")));

    let missing =
        json!({ "__type": "ResourceNotFoundException", "Message": "can't find the specified secret" });
    for (answer, words) in [
        ((400, missing), "ResourceNotFoundException: can't find the specified secret"),
        (gives("CANARY"), "must be JSON text"),
        (gives(r#"{"username":"robot"}"#), "must be JSON text"),
        ((200, json!({ "SecretBinary": "CANARY" })), "must be JSON text"),
    ] {
        ground.secrets.answers([answer]);
        let failed = ground.service.resolve(request).await.unwrap_err();
        assert_eq!(failed.reason.name, "ResourceInitializationError");
        assert!(failed.reason.message.contains(words), "{failed:?}");
        assert!(
            failed.reason.message.contains(secret) && !format!("{failed:?}").contains("CANARY"),
            "{failed:?}"
        );
        // The image is here, and serves (pull behaviour default).
        assert!(failed.local.is_some());
    }
    ground.secrets.answers([gives(r#"{"username":"robot","password":"CANARY-WRONG"}"#)]);
    let failed = ground.service.resolve(request).await.unwrap_err();
    assert!(failed.reason.message.contains("401") && !format!("{failed:?}").contains("CANARY"), "{failed:?}");
}
