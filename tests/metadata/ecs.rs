//! What containers ask ECS through the endpoint: protection from scale-in, against recordings of the
//! original, and tags.

use super::*;
use futures_util::future::{BoxFuture, FutureExt};
use std::collections::VecDeque;
use std::sync::Mutex;

/// The recorded task of protection, by its number of the account.
const PROTECTED: &str = "arn:aws:ecs:us-west-2:123456789012:task/peer/48c865cf6050484dbfa1e91d34e96107";
const UNPROTECTED: &str = "arn:aws:ecs:us-west-2:123456789012:task/peer/c1221d7156fc478d978726679dc3dae9";

type Protected = Result<ProtectionAnswer, EcsRefusal>;

/// ECS by a script; `None` never answers.
#[derive(Default)]
struct Scripted {
    tags: Mutex<VecDeque<Option<Tags>>>,
    protection: Mutex<VecDeque<Option<Protected>>>,
    asked: Mutex<Vec<String>>,
}

impl AskEcs for Scripted {
    fn tags(&self, arn: String, container: String) -> BoxFuture<'static, Tags> {
        self.asked.lock().unwrap().push(format!("{arn} {container}"));
        match self.tags.lock().unwrap().pop_front().expect("no tags are scripted") {
            Some(tags) => std::future::ready(tags).boxed(),
            None => std::future::pending().boxed(),
        }
    }

    fn protection(
        &self,
        task: TaskArn,
        role: CredentialsId,
        change: Option<ProtectionChange>,
    ) -> Option<BoxFuture<'static, Protected>> {
        self.asked.lock().unwrap().push(format!("{} {change:?}", task.as_str()));
        if role.0 == "absent" {
            return None;
        }
        Some(match self.protection.lock().unwrap().pop_front().expect("no protection is scripted") {
            Some(answer) => std::future::ready(answer).boxed(),
            None => std::future::pending().boxed(),
        })
    }
}

fn task(arn: &str, endpoint: &str, role: Option<&str>) -> Arc<TaskView> {
    let arn = TaskArn::parse(arn).unwrap();
    let role = role.map(|id| CredentialsId(id.into()));
    let containers = vec![container("main", endpoint, "x")];
    let spec = TaskSpec { task_role: role, containers, ..TaskSpec::empty(arn) };
    Arc::new(TaskView {
        spec: Arc::new(spec),
        progress: TaskProgress::default(),
        waiting_for: None,
        health: BTreeMap::new(),
    })
}

/// The endpoint, asking this; and what must be held for it to go on.
async fn start(ecs: &Arc<Scripted>) -> (SocketAddr, (ServerHandle, watch::Sender<Arc<Snapshot>>)) {
    let mut snapshot = snapshot();
    snapshot.tasks.extend([
        task(PROTECTED, "with", Some("cred-0001")),
        task(UNPROTECTED, "without", None),
        task(UNPROTECTED, "not-yet", Some("absent")),
    ]);
    let (publish, newest) = watch::channel(Arc::new(snapshot));
    let handler = MetadataHandler::new(newest, Arc::new(Roles), RateLimit::default()).with_ecs(ecs.clone());
    let mut server = Server::start("metadata", ([127, 0, 0, 1], 0).into(), Arc::new(handler));
    (server.bound().await.unwrap(), (server, publish))
}

async fn ask(server: SocketAddr, method: &str, endpoint: &str, body: &str) -> Answer {
    let path = format!("/api/{endpoint}/task-protection/v1/state");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    Answer::parse(&raw(server, &(head + body)).await)
}

fn protection(enabled: bool, expires_at: Option<u64>) -> Option<Protected> {
    let expires_at = expires_at.map(|ms| Wall(ms * 1_000_000));
    let told = TaskProtection { task: PROTECTED.into(), enabled, expires_at };
    Some(Ok(ProtectionAnswer { tasks: vec![told], failures: Vec::new() }))
}

#[tokio::test]
async fn protection_is_what_the_original_answers() {
    let ecs = Arc::new(Scripted::default());
    let (server, _held) = start(&ecs).await;
    ecs.protection.lock().unwrap().extend([
        protection(false, None),
        protection(true, Some(1_795_471_327_353)),
        protection(false, None),
    ]);
    for (method, endpoint, body, file) in [
        ("GET", "with", "", "get"),
        ("PUT", "with", r#"{"ProtectionEnabled":true,"ExpiresInMinutes":60}"#, "put"),
        ("PUT", "with", r#"{"ProtectionEnabled":false}"#, "put_off"),
        ("PUT", "with", "{oops", "put_bad"),
        ("PUT", "with", "{}", "put_empty"),
        ("POST", "with", "{}", "post"),
        ("GET", "without", "", "norole"),
    ] {
        let want = Answer::parse(&recorded(&format!("protection_{file}.http")));
        let got = ask(server, method, endpoint, body).await;
        assert_eq!((&got.status, &got.body), (&want.status, &want.body), "{file}");
        assert_eq!(got.comparable_headers(), want.comparable_headers(), "{file}");
    }
    let change = |enabled, minutes| {
        format!("{PROTECTED} {:?}", Some(ProtectionChange { enabled, expires_in_minutes: minutes }))
    };
    let expected = [format!("{PROTECTED} None"), change(true, Some(60)), change(false, None)];
    assert_eq!(*ecs.asked.lock().unwrap(), expected);
}

#[tokio::test]
async fn protection_that_is_refused_is_told_with_ecss_words() {
    let ecs = Arc::new(Scripted::default());
    let (server, _held) = start(&ecs).await;
    let failure = ProtectionFailure { arn: Some("a".into()), reason: Some("MISSING".into()), detail: None };
    let answer = |tasks: usize, failures: usize| {
        let one = || protection(true, None).unwrap().unwrap().tasks.remove(0);
        let tasks = std::iter::repeat_with(one).take(tasks).collect();
        Some(Ok(ProtectionAnswer { tasks, failures: vec![failure.clone(); failures] }))
    };
    let refusal = |status, code: &str, request_id: Option<&str>| {
        let request_id = request_id.map(str::to_owned);
        Some(Err(EcsRefusal { status, code: code.into(), message: "no".into(), request_id }))
    };
    let unexpected = format!(
        r#"{{"error":{{"Arn":"{PROTECTED}","Code":"ServerException","Message":"Unexpected error occurred"}}}}"#
    );
    let error = |code: &str| format!(r#""error":{{"Arn":"{PROTECTED}","Code":"{code}","Message":"no"}}}}"#);
    for (scripted, status, body) in [
        (answer(0, 1), "200", r#"{"failure":{"Arn":"a","Detail":null,"Reason":"MISSING"}}"#.to_owned()),
        (answer(2, 0), "500", unexpected.clone()),
        (answer(0, 2), "500", unexpected.clone()),
        (answer(0, 0), "500", unexpected),
        (
            refusal(Some(400), "ClientException", Some("r-1")),
            "400",
            format!(r#"{{"requestID":"r-1",{}"#, error("ClientException")),
        ),
        (refusal(None, "", None), "500", format!("{{{}", error("ServerException"))),
    ] {
        ecs.protection.lock().unwrap().push_back(scripted);
        let got = ask(server, "GET", "with", "").await;
        assert_eq!((got.status.split(' ').nth(1).unwrap(), got.body.as_str()), (status, body.as_str()));
    }
    let got = ask(server, "GET", "not-yet", "").await;
    assert!(got.status.contains("403") && got.body.contains("no task IAM role credentials"), "{got:?}");
    let got = ask(server, "PUT", "nobody", r#"{"ProtectionEnabled":true}"#).await;
    let text = "Failed to find a task for the request";
    let body = format!(r#"{{"error":{{"Code":"ResourceNotFoundException","Message":"{text}"}}}}"#);
    assert_eq!((got.status.as_str(), got.body), ("HTTP/1.1 404 Not Found", body));
    // Too long to be one.
    let long = format!("{{\"ProtectionEnabled\":true{}}}", " ".repeat(100_000));
    assert!(ask(server, "PUT", "with", &long).await.status.contains("400"));
    assert!(get(server, "/api/with/fault/v1/network-latency/status").await.status.contains("404"));
}

#[tokio::test]
async fn protection_is_waited_for_four_seconds() {
    let ecs = Arc::new(Scripted::default());
    let (server, _held) = start(&ecs).await;
    ecs.protection.lock().unwrap().push_back(None);
    let got = ask(server, "GET", "with", "").await;
    let text = "Timed out calling ECS Task Protection API";
    let body = format!(r#"{{"error":{{"Arn":"{PROTECTED}","Code":"RequestCanceled","Message":"{text}"}}}}"#);
    assert_eq!((got.status.as_str(), got.body), ("HTTP/1.1 504 Gateway Timeout", body));
}

#[tokio::test]
async fn tags_are_those_of_the_instance_and_of_the_task_and_errors_v4s() {
    let ecs = Arc::new(Scripted::default());
    let (server, _held) = start(&ecs).await;
    let instance = snapshot().container_instance_arn.unwrap();
    let tags = |key: &str| Some(Ok(BTreeMap::from([(key.to_owned(), "v".to_owned())])));
    let refusal = || {
        let (code, message) = ("AccessDeniedException".to_owned(), "no".to_owned());
        Some(Err(EcsRefusal { status: Some(400), code, message, request_id: Some("r-1".into()) }))
    };
    let plain = |path: &str| format!("/{path}/{MAIN}/task");
    for version in ["v3", "v4"] {
        let without: serde_json::Value =
            serde_json::from_str(&get(server, &plain(version)).await.body).unwrap();
        // Of v3 nobody is told of an error: there it need not be waited for.
        let late = if version == "v4" { None } else { refusal() };
        for (scripted, has) in [([tags("i"), tags("t")], true), ([refusal(), late], false)] {
            ecs.tags.lock().unwrap().extend(scripted);
            let text = get(server, &format!("/{version}/{MAIN}/taskWithTags")).await.body;
            let mut body: serde_json::Value = serde_json::from_str(&text).unwrap();
            let members = body.as_object_mut().unwrap();
            let (of_task, of_instance) =
                (members.remove("TaskTags"), members.remove("ContainerInstanceTags"));
            let errors = members.remove("Errors");
            assert_eq!(body, without, "the rest is the same");
            if has {
                let expected = |key: &str| Some(serde_json::json!({key: "v"}));
                assert_eq!((of_task, of_instance, errors), (expected("t"), expected("i"), None));
                assert!(text.find("TaskTags") < text.find("ContainerInstanceTags"), "{text}");
                continue;
            }
            assert_eq!((of_task, of_instance), (None, None));
            let expected = serde_json::json!([
                {"ErrorField": "ContainerInstanceTags", "ErrorCode": "AccessDeniedException", "ErrorMessage": "no",
                    "StatusCode": 400, "RequestId": "r-1", "ResourceARN": instance},
                {"ErrorField": "TaskTags", "ErrorMessage": "no answer within 4s", "ResourceARN": TASK},
            ]);
            assert_eq!(errors, (version == "v4").then_some(expected));
        }
    }
    let asked = ecs.asked.lock().unwrap().clone();
    let of = [format!("{instance} main"), format!("{TASK} main")];
    assert!(asked.len() == 8 && asked.chunks(2).all(|pair| pair == of), "{asked:?}");
    // A task of which nothing is there yet is not asked about.
    assert!(!get(server, "/v4/with/taskWithTags").await.body.contains("Errors"));
    assert_eq!(ecs.asked.lock().unwrap().len(), 8);
    assert!(get(server, "/v4/nobody/taskWithTags").await.status.contains("404"));
}
