//! The store has lost something: what containerd holds of the tasks makes up for it.

use crate::durability::{
    STAYS, all_stop_cleanly, counted, instances, run_ready, sigkill, start_again, starts,
};
use crate::support::host::{Host, with_agent};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{Container, UpdateContainerRequest};
use ecsd::model::{TaskArn, TaskId};
use ecsd::ports::{Store, StoreChange};
use ecsd::store::{FILE_NAME, RedbStore};
use prost_types::FieldMask;

fn id_of(arn: &str) -> TaskId {
    TaskArn::parse(arn).unwrap().id()
}

/// Takes records out of the store, whose agent is not running.
fn forget(host: &Host, tasks: &[&str]) {
    let store = RedbStore::open(&host.dir.path().join("data")).unwrap();
    let gone: Vec<StoreChange> = tasks.iter().map(|arn| StoreChange::RemoveTask(id_of(arn))).collect();
    store.commit(&gone).unwrap();
}

/// Damages the progress of a task in the store.
fn damage_progress(host: &Host, task: &str) {
    let table = redb::TableDefinition::<&str, &[u8]>::new("progress");
    let db = redb::Database::create(host.dir.path().join("data").join(FILE_NAME)).unwrap();
    let change = db.begin_write().unwrap();
    change.open_table(table).unwrap().insert(id_of(task).as_str(), b"rubbish".as_slice()).unwrap();
    change.commit().unwrap();
}

/// Takes from a container what it carries of its task, as if an older agent had made it.
async fn strip(host: &Host, task: &str) {
    let channel = containerd_client::connect(host.containerd.socket()).await.unwrap();
    // containerd keeps what an empty map would take away.
    let junk = prost_types::Any { type_url: "junk".to_owned(), value: b"junk".to_vec() };
    let extensions = [("com.ecsd.keepsake".to_owned(), junk)].into();
    let container = Container { id: host.container_id(task, "main"), extensions, ..Container::default() };
    let update_mask = Some(FieldMask { paths: vec!["extensions".to_owned()] });
    let mut request = tonic::Request::new(UpdateContainerRequest { container: Some(container), update_mask });
    request.metadata_mut().insert("containerd-namespace", "ecs".parse().unwrap());
    let updated = ContainersClient::new(channel).update(request).await.unwrap().into_inner();
    assert_eq!(updated.container.unwrap().extensions.len(), 1);
}

#[test]
fn a_task_whose_record_is_lost_goes_on_or_is_told_how_it_ended() {
    with_agent(|mut host| async move {
        let (stays, ends) = (run_ready(&host, "stays").await, run_ready(&host, "ends").await);
        let before = host.control.task(&stays).unwrap();
        let pid = host.container_pid(&stays, "main");
        host.kill_agent();
        sigkill(host.container_pid(&ends, "main").unwrap());
        forget(&host, &[&stays, &ends]);
        start_again(&mut host).await;
        assert_eq!(host.until_status(&ends, "STOPPED").await.containers[0].exit_code, Some(137));
        assert_eq!(host.container_pid(&stays, "main"), pid);
        // What its port leads to, and that nobody else gets it, was known by the container alone.
        let ports = &before.containers[0].network_bindings;
        let port = u16::try_from(ports[0]["hostPort"].as_u64().unwrap()).unwrap();
        host.until("the port is held", |_| std::net::TcpListener::bind(("0.0.0.0", port)).is_err()).await;
        host.until("the port is mapped", |host| host.port_map().len() == 1).await;
        // It is stored again: a second death finds it there.
        host.kill_agent();
        start_again(&mut host).await;
        assert_eq!(host.container_pid(&stays, "main"), pid);
        assert_eq!(&host.control.task(&stays).unwrap().containers[0].network_bindings, ports);
        assert_eq!((starts(&host, "stays"), starts(&host, "ends")), (1, 1));
        all_stop_cleanly(&host, &[stays]).await;
    });
}

#[test]
fn with_the_whole_state_lost_the_instance_and_its_tasks_go_on() {
    with_agent(|mut host| async move {
        let stays = run_ready(&host, "stays").await;
        let before = (instances(&host), host.container_pid(&stays, "main"));
        host.kill_agent();
        std::fs::write(host.dir.path().join("data").join(FILE_NAME), vec![0x5A; 70_000]).unwrap();
        start_again(&mut host).await;
        host.until("it is taken up", |host| host.agent_log().contains("taken up from its containers")).await;
        assert_eq!((instances(&host), host.container_pid(&stays, "main")), before);
        assert_eq!(starts(&host, "stays"), 1);
        assert!(host.dir.path().join("data/ecsd.redb.corrupt-1").exists());
        all_stop_cleanly(&host, &[stays]).await;
    });
}

#[test]
fn a_task_that_nobody_can_name_any_more_is_stopped_and_told() {
    with_agent(|mut host| async move {
        let task = run_ready(&host, "nameless").await;
        host.kill_agent();
        strip(&host, &task).await;
        forget(&host, &[&task]);
        start_again(&mut host).await;
        let stopped = host.until_status(&task, "STOPPED").await;
        assert_eq!(stopped.containers[0].exit_code, Some(7));
        let reason = stopped.details["stoppedReason"].as_str().unwrap();
        assert!(reason.starts_with("TaskStateLostError: "), "{reason}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn what_may_have_run_is_never_started_again_when_its_progress_is_lost() {
    with_agent(|mut host| async move {
        host.set("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1h");
        host.stop_agent().await;
        start_again(&mut host).await;
        let ended = host.run_task(counted(&host, "ended", "exit 0"));
        assert_eq!(host.until_status(&ended, "STOPPED").await.containers[0].exit_code, Some(0));
        let stays = run_ready(&host, "stays").await;
        host.until("its shim is gone", |host| host.containerd.shims().len() == 1).await;
        host.kill_agent();
        damage_progress(&host, &ended);
        damage_progress(&host, &stays);
        host.set("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s");
        start_again(&mut host).await;
        host.until("the port is mapped", |host| host.port_map().len() == 1).await;
        let another = host.run_task(counted(&host, "another", STAYS));
        host.until_status(&another, "RUNNING").await;
        host.until("it is ready", |host| host.logs(&another, "main").contains("ready")).await;
        assert_eq!((starts(&host, "ended"), starts(&host, "stays")), (1, 1));
        all_stop_cleanly(&host, &[stays, another]).await;
    });
}

#[test]
fn directories_of_tasks_that_nobody_knows_are_removed() {
    with_agent(|mut host| async move {
        host.kill_agent();
        std::fs::create_dir_all(host.dir.path().join("data/tasks/0a0b0c/.volumes/v")).unwrap();
        start_again(&mut host).await;
        host.until_nothing_is_left().await;
    });
}
