use super::*;
use crate::model::{CredentialsId, NetworkMode, RoleCredentials, TaskProgress, TaskSpec};
use crate::ports::TaskView;
use std::collections::BTreeMap;

fn arn(id: &str) -> TaskArn {
    TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap()
}

fn view(ids: &[&str]) -> TasksView {
    let task = |id: &&str| {
        let spec = TaskSpec { network_mode: NetworkMode::None, ..TaskSpec::empty(arn(id)) };
        let view = TaskView {
            spec: Arc::new(spec),
            progress: TaskProgress::default(),
            waiting_for: None,
            health: Default::default(),
        };
        (arn(id).id(), Arc::new(view))
    };
    Arc::new(ids.iter().map(task).collect::<BTreeMap<_, _>>())
}

#[tokio::test]
async fn credentials_go_with_their_task_and_not_before_it_came() {
    let roles = CredentialsStore::default();
    let put = |task: &str, id: &str| {
        let credentials = RoleCredentials {
            id: CredentialsId(id.into()),
            role_arn: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: String::new(),
            expiration: String::new(),
        };
        assert!(roles.put(&arn(task), credentials));
    };
    put("a", "a-task");
    put("a", "a-execution");
    put("b", "b-task");
    let (tasks, seen) = watch::channel(view(&["a"]));
    let forget = tokio::spawn(forget_credentials(seen, roles.clone()));
    // Fresh ones under a new id belong to the task like the first.
    put("a", "a-fresh");
    while roles.len() != 1 {
        // The view is looked at some time after it changed; it may have been empty before that.
        tasks.send_replace(view(&["a"]));
        tokio::task::yield_now().await;
        tasks.send_replace(view(&[]));
        tokio::task::yield_now().await;
    }
    assert!(roles.get(&CredentialsId("b-task".into())).is_some(), "its task is yet to come");
    drop(tasks);
    forget.await.unwrap();
}
