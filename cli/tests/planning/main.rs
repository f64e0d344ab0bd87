//! The planning commands as people run them: `zyctl fleet save` from an API server that answers here, then every
//! question to the saved file, in both languages, compared with the texts in `golden/`.
//!
//! `GOLDEN=write cargo test -p cli --test planning` writes the texts anew; read the difference before it is kept.

mod site;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Programs and files of one test.
struct Desk {
    folder: tempfile::TempDir,
    fleet: PathBuf,
    saved_at: String,
}

fn zyctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zyctl"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
        // The API server of this test is here, not behind a proxy.
        command.env_remove(name);
    }
    command.args(arguments).output().expect("zyctl runs")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

impl Desk {
    /// Saves the site's fleet.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = site::serve(folder.path());
        let fleet = folder.path().join("fleet.json");
        let save = [
            "--language",
            "en",
            "--kubeconfig",
            text(&kubeconfig),
            "fleet",
            "save",
            text(&fleet),
        ];
        let told = stdout(&zyctl(&save));
        assert_eq!(
            told,
            format!("3 hosts and 5 VMs saved to {}\n", fleet.display())
        );
        let saved = std::fs::read_to_string(&fleet).expect("the file");
        let saved: Value = serde_json::from_str(&saved).expect("JSON");
        Self {
            folder,
            fleet,
            saved_at: saved["savedAt"].as_str().expect("a time").to_owned(),
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path
    }

    fn asked(&self, language: &str, question: &[&str]) -> Output {
        let mut all = vec!["--language", language];
        all.extend(question);
        all.extend(["--fleet", text(&self.fleet)]);
        zyctl(&all)
    }

    /// What is printed in both languages is as in the golden files.
    fn answers(&self, name: &str, question: &[&str]) {
        for (language, short) in [("en", "en"), ("zh-CN", "zh")] {
            let told = stdout(&self.asked(language, question)).replace(&self.saved_at, "SAVED");
            let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
            let golden = golden.join(format!("tests/planning/golden/{name}.{short}.txt"));
            if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
                std::fs::write(&golden, &told).expect("the golden text is written");
            }
            let wanted = std::fs::read_to_string(&golden).expect("a golden text");
            assert_eq!(told, wanted, "{question:?} in {language}");
        }
    }

    fn json(&self, question: &[&str]) -> Value {
        let mut all = question.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&stdout(&self.asked("en", &all))).expect("JSON")
    }

    /// The file without its departments, as it was saved before they were.
    fn forget_departments(&mut self) {
        let mut snapshot = std::fs::read_to_string(&self.fleet).expect("the file");
        let read = fleet::snapshot::Snapshot::from_text(&snapshot).expect("a snapshot");
        let old = fleet::snapshot::Snapshot {
            departments: None,
            ..read
        };
        snapshot = old.to_text().expect("text");
        assert!(!snapshot.contains("departments"));
        self.fleet = self.file("old.json", &snapshot);
    }
}

#[test]
fn the_failure_of_a_host() {
    let desk = Desk::new();
    desk.answers("host-down", &["what-if", "host-down", "a"]);
    let json = desk.json(&["what-if", "host-down", "a"]);
    assert_eq!(json["restarts"].as_array().map(Vec::len), Some(3), "{json}");
    assert!(json["after"]["worstFailure"].is_string(), "{json}");
}

#[test]
fn a_host_more() {
    let desk = Desk::new();
    desk.answers("add-host", &["what-if", "add-host", "--like", "a"]);
    let json = desk.json(&["what-if", "add-host", "--like", "a"]);
    let more = |when: &str| {
        let room = json[when]["roomLeft"].as_array().expect("sizes");
        let room = room.iter().find(|room| room["flavor"] == "2c4g");
        room.and_then(|room| room["more"].as_u64())
            .expect("a number")
    };
    assert!(more("after") > more("before"), "{json}");
}

#[test]
fn moves_that_even_out_and_hosts_that_are_emptied() {
    let desk = Desk::new();
    desk.answers("rebalance", &["rebalance", "--dry-run"]);
    desk.answers(
        "consolidate",
        &[
            "rebalance",
            "--dry-run",
            "--consolidate",
            "a",
            "--pool",
            "main",
        ],
    );
    desk.answers("drain", &["drain", "a", "--dry-run"]);
    let json = desk.json(&["rebalance", "--dry-run"]);
    let pool = &json["pools"][0];
    assert_eq!(pool["after"]["state"], "Proven", "{json}");
    assert!(
        pool["moves"]
            .as_array()
            .is_some_and(|moves| !moves.is_empty()),
        "{json}"
    );
}

#[test]
fn declarations_are_answered_as_the_operator_would() {
    let desk = Desk::new();
    let file = desk.file("new.yaml", site::DECLARED);
    let question = ["what-if", "apply", "-f", text(&file)];
    desk.answers("apply", &question);
    let json = desk.json(&question);
    let names = |list: &str| -> Vec<String> {
        let vms = json[list].as_array().expect("VMs");
        let name = |vm: &Value| vm["virtualMachine"].as_str().unwrap_or_default().to_owned();
        vms.iter().map(name).collect()
    };
    // The one of the highest priority, each system's first tier, then its second.
    assert_eq!(
        names("virtualMachines"),
        [
            "office/seal-app-0",
            "office/mail-store-0",
            "office/mail-front-0",
            "office/mail-front-1"
        ]
    );
    assert_eq!(names("waitedAlready"), ["office/asks"]);
    assert_eq!(json["leftOut"], serde_json::json!(["Secret key"]));
}

/// A department's quota is that of the file where it declares one, else the site's.
#[test]
fn a_quota_is_counted_with_and_a_file_without_departments_says_so() {
    let mut desk = Desk::new();
    let quota = "apiVersion: zhengyun.io/v1alpha1\nkind: Department\nmetadata: {name: office}\nspec:\n  displayName: 办公室\n  quota: {cpu: 100, memory: 900Gi, storage: 9Ti}\n---\n";
    let file = desk.file("new.yaml", site::DECLARED);
    let raised = desk.file("raised.yaml", &format!("{quota}{}", site::DECLARED));
    let over = |desk: &Desk, file: &Path| {
        let json = desk.json(&["what-if", "apply", "-f", text(file)]);
        let vms = json["virtualMachines"].as_array().expect("VMs").clone();
        let why = vms.iter().filter_map(|vm| vm["why"].as_str());
        let over = why.filter(|why| why.starts_with("spec.quota.cpu of department office"));
        (over.count(), json["quotasCounted"].clone())
    };
    assert_eq!(over(&desk, &file), (2, Value::Bool(true)));
    assert_eq!(over(&desk, &raised), (0, Value::Bool(true)));
    // Then N+1 is what keeps the last one waiting.
    desk.answers("apply-raised", &["what-if", "apply", "-f", text(&raised)]);
    desk.forget_departments();
    assert_eq!(over(&desk, &file), (0, Value::Bool(false)));
    let told = stdout(&desk.asked("en", &["what-if", "apply", "-f", text(&file)]));
    assert!(told.contains("quotas are not counted with"), "{told}");
}

#[test]
fn what_can_not_be_answered_is_told_in_the_language_asked_for() {
    let desk = Desk::new();
    let empty = desk.file("empty.yaml", "kind: Secret\nmetadata: {name: key}\n");
    let no_flavor = desk.file(
        "no-flavor.yaml",
        &site::DECLARED.replace("flavor: 2c4g", "flavor: 9c9g"),
    );
    let too_many = desk.file(
        "too-many.yaml",
        &site::DECLARED.replace("replicas: 2", "replicas: 2000000000"),
    );
    let cases: [(&[&str], &str, &str); 7] = [
        (
            &["what-if", "host-down", "z"],
            "host z does not exist",
            "宿主机 z 不存在",
        ),
        (
            &["rebalance", "--dry-run", "--pool", "z"],
            "host pool z does not exist",
            "主机池 z 不存在",
        ),
        (
            &["what-if", "add-host", "--cpu", "8"],
            "say --like HOST",
            "请给出 --like HOST",
        ),
        (
            &["what-if", "add-host", "--cpu", "8", "--memory", "many"],
            "--memory many: ",
            "--memory many:不是有效的大小",
        ),
        (
            &["what-if", "apply", "-f", text(&empty)],
            "neither a BusinessSystem nor a VirtualMachine is declared there, only Secret key",
            "其中既未声明 BusinessSystem,也未声明 VirtualMachine,只有 Secret key",
        ),
        (
            &["what-if", "apply", "-f", text(&no_flavor)],
            "mail spec.tiers[front].flavor: Flavor 9c9g does not exist",
            "mail spec.tiers[front].flavor:Flavor 9c9g 不存在",
        ),
        (
            &["what-if", "apply", "-f", text(&too_many)],
            "mail spec.tiers[front].replicas: 2000000000 is not from 0 to 64",
            "mail spec.tiers[front].replicas:2000000000 不在 0 到 64 之间",
        ),
    ];
    for (question, english, chinese) in cases {
        for (language, wanted) in [("en", english), ("zh-CN", chinese)] {
            let output = desk.asked(language, question);
            assert!(!output.status.success(), "{question:?}");
            let told = String::from_utf8(output.stderr).expect("text");
            assert!(told.contains(wanted), "{question:?}: {told}");
        }
    }
    let broken = desk.file("broken.json", "{");
    for (language, wanted) in [("en", "it is not JSON"), ("zh-CN", "不是 JSON")] {
        let question = [
            "--language",
            language,
            "what-if",
            "host-down",
            "a",
            "--fleet",
            text(&broken),
        ];
        let told = String::from_utf8(zyctl(&question).stderr).expect("text");
        assert!(
            told.contains(wanted) && told.contains("zyctl fleet save"),
            "{told}"
        );
    }
}
