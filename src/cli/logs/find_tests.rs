use super::*;

struct Tasks(PathBuf);

impl Tasks {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("ecsd-find-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        Self(root)
    }

    fn add(&self, task: &str, container: &str, driver: &str) {
        let home = self.0.join(task).join(container);
        fs::create_dir_all(&home).unwrap();
        let path = home.join("x-json.log");
        fs::write(&path, "").unwrap();
        let config =
            serde_json::json!({"driver": driver, "path": path, "options": {"splunk-token": "CANARY"}});
        fs::write(home.join("logger.json"), config.to_string()).unwrap();
    }

    fn find(&self, text: &str) -> Result<Vec<String>, String> {
        let found = find(&self.0, &Target::parse(text)?).map_err(|error| error.to_string())?;
        let shown =
            |log: &Log| log.path.strip_prefix(&self.0).unwrap().parent().unwrap().display().to_string();
        Ok(found.logs.iter().map(shown).collect())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_task_is_found_by_arn_id_or_the_beginning_of_it() {
    let tasks = Tasks::new("names");
    for (task, container) in [("0a1b", "web"), ("0a1b", "db"), ("0aff", "web"), ("0a1b2c", "app")] {
        tasks.add(task, container, "json-file");
    }
    let both = Ok(vec!["0a1b/db".to_owned(), "0a1b/web".to_owned()]);
    // One id is the beginning of another, and means itself.
    for of in ["0a1b", "arn:aws:ecs:r:1:task/prod/0a1b", "arn:aws:ecs:r:1:task/0a1b"] {
        assert_eq!(tasks.find(of), both, "{of}");
    }
    let one = |of: &str| Ok(vec![of.to_owned()]);
    for of in ["0a1b/web", "arn:aws:ecs:r:1:task/prod/0a1b/web", "arn:aws:ecs:r:1:task/0a1b/web"] {
        assert_eq!(tasks.find(of), one("0a1b/web"), "{of}");
    }
    assert_eq!(tasks.find("0af"), one("0aff/web"));
    assert_eq!(tasks.find("0a1b2/app"), one("0a1b2c/app"));
    let wrong = |of: &str| tasks.find(of).unwrap_err();
    assert_eq!(wrong("0a"), "0a is the beginning of more than one task: 0a1b, 0a1b2c, 0aff");
    assert!(wrong("ff").starts_with("no task ff in ") && wrong("ff").contains("--data-dir"));
    assert!(wrong("arn:aws:ecs:r:1:task/prod/0a1").starts_with("no task arn:"), "an ARN is no beginning");
    assert_eq!(wrong("0a1b/we"), "task 0a1b has no container we; it has db, web");
    for of in ["", "/", "0a1b/", "../x", "0a1b/..", "arn:aws:ecs:r:1:task/", "arn:aws:s3:::x", "a/b/c"] {
        assert!(wrong(of).starts_with("write a task's ARN"), "{of}: {}", wrong(of));
    }
}

#[test]
fn a_log_that_is_elsewhere_is_told_with_its_driver() {
    let tasks = Tasks::new("drivers");
    assert!(tasks.find("0a").unwrap_err().starts_with("no task 0a"), "no directory at all");
    tasks.add("0a1b", "web", "json-file");
    tasks.add("0a1b", "far", "splunk");
    tasks.add("ffff", "far", "awslogs");
    fs::create_dir_all(tasks.0.join("0a1b/new")).unwrap();
    let found = find(&tasks.0, &Target::parse("0a1b").unwrap()).unwrap();
    assert_eq!((found.logs.len(), found.elsewhere), (1, vec![("far".to_owned(), "splunk".to_owned())]));
    let elsewhere = "container far has no log on this host: its log driver is";
    assert_eq!(tasks.find("0a1b/far"), Err(format!("{elsewhere} splunk")));
    assert_eq!(tasks.find("ffff"), Err(format!("{elsewhere} awslogs")));
    assert_eq!(
        tasks.find("0a1b/new"),
        Err("no container of task 0a1b/new has a log on this host (yet)".into())
    );
    fs::write(tasks.0.join("0a1b/far/logger.json"), "{\"driver\": \"CANARY").unwrap();
    let error = tasks.find("0a1b").unwrap_err();
    assert!(error.contains("logger.json can't be read") && !error.contains("CANARY"), "{error}");
}
