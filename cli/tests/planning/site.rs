//! A small site, and the API server that lists it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Two new systems; of one that stands a tier has fewer replicas and another flavor.
pub const DECLARED: &str = "\
apiVersion: zhengyun.io/v1alpha1
kind: BusinessSystem
metadata: {name: mail, namespace: office}
spec:
  displayName: 邮件
  tiers:
  - {name: front, replicas: 2, flavor: 2c4g, image: linux, networks: [common], storagePool: shared, restartOrder: 2}
  - {name: store, replicas: 1, flavor: 2c4g, image: linux, networks: [common], storagePool: shared, restartOrder: 1}
---
apiVersion: zhengyun.io/v1alpha1
kind: BusinessSystem
metadata: {name: seal, namespace: office}
spec:
  displayName: 电子签章
  priority: Critical
  tiers:
  - {name: app, replicas: 1, flavor: 2c4g, image: linux, networks: [common], storagePool: shared, restartOrder: 5}
---
apiVersion: zhengyun.io/v1alpha1
kind: BusinessSystem
metadata: {name: web, namespace: office}
spec:
  displayName: 网站群
  tiers:
  - {name: site, replicas: 1, flavor: 4c8g, image: linux, networks: [common], storagePool: shared}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: office}
";

fn vm(name: &str, system: Option<&str>, host: Option<&str>) -> Value {
    let labels = system.map_or(
        json!({}),
        |system| json!({"zhengyun.io/system": system, "zhengyun.io/tier": "site"}),
    );
    let status = host.map_or(
        json!({"phase": "Pending"}),
        |host| json!({"phase": "Running", "assignment": {"host": host, "bootId": "b", "epoch": 1}}),
    );
    let disks = system.map_or(
        json!([]),
        |_| json!([{"name": "system", "volume": format!("{name}-system")}]),
    );
    json!({"metadata": {"name": name, "namespace": "office", "uid": format!("uid-{name}"), "labels": labels},
        "spec": {"cpu": 2, "memory": "4Gi", "image": "linux", "networks": ["common"], "disks": disks},
        "status": status})
}

fn host(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"pool": "main", "managementAddress": "10.0.0.1"},
        "status": {
            "conditions": [{"type": "Schedulable", "status": "True", "reason": "Open", "message": "",
                "lastTransitionTime": "2026-11-25T08:00:00Z"}],
            "reported": {"incarnation": {"bootId": "b", "systemUuid": "u"}, "domainType": "kvm",
                "capacity": {"cpu": 8, "memory": "16Gi"}, "cpuModel": "m", "architecture": "x86_64",
                "vtepAddress": "10.1.0.1",
                "storagePools": [{"name": "shared", "state": "Ready", "capacityBytes": 1_099_511_627_776_i64,
                    "availableBytes": 1_099_511_627_776_i64}]}}})
}

/// What is there of a kind: four VMs run on host a or b, one waits.
fn items(plural: &str) -> Vec<Value> {
    let volume = |vm: &str| {
        json!({"metadata": {"name": format!("{vm}-system"), "namespace": "office"},
            "spec": {"pool": "shared", "size": "40Gi", "image": "linux"},
            "status": {"lastJob": 1, "reported": {"phase": "Done",
                "assignment": {"host": "a", "bootId": "b", "epoch": 1}}}})
    };
    match plural {
        "hostpools" => vec![
            json!({"metadata": {"name": "main"}, "spec": {"zones": ["Common"], "architecture": "x86_64"}}),
        ],
        "hosts" => ["a", "b", "c"].map(host).into(),
        "virtualmachines" => vec![
            vm("web-site-0", Some("web"), Some("a")),
            vm("web-site-1", Some("web"), Some("b")),
            vm("one", None, Some("a")),
            vm("two", None, Some("a")),
            vm("asks", None, None),
        ],
        "volumes" => vec![volume("web-site-0"), volume("web-site-1")],
        "networks" => vec![
            json!({"metadata": {"name": "common"}, "spec": {"zone": "Common", "overlay": {"id": 7}, "subnets": []}}),
        ],
        "images" => vec![
            json!({"metadata": {"name": "linux"}, "spec": {"architecture": "x86_64", "minimumSize": "40Gi",
            "disk": {"url": "http://images/linux", "sha256": "0"}}}),
        ],
        "storagepools" => vec![
            json!({"metadata": {"name": "shared"}, "spec": {"kind": "Directory", "path": "/pools/shared", "shared": true}}),
        ],
        "flavors" => vec![
            json!({"metadata": {"name": "2c4g"}, "spec": {"cpu": 2, "memory": "4Gi"}}),
            json!({"metadata": {"name": "4c8g"}, "spec": {"cpu": 4, "memory": "8Gi"}}),
        ],
        "departments" => vec![
            json!({"metadata": {"name": "office"}, "spec": {"displayName": "办公室",
            "quota": {"cpu": 14, "memory": "900Gi", "storage": "9Ti"}}}),
        ],
        "cloudpolicies" | "virtualmachinemigrations" => Vec::new(),
        other => panic!("nobody should list {other}"),
    }
}

/// Answers lists for as long as the test runs; the kubeconfig that leads there.
pub fn serve(folder: &Path) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.expect("a connection")));
        }
    });
    let kubeconfig = folder.join("kubeconfig");
    let content = json!({"apiVersion": "v1", "kind": "Config", "current-context": "site",
        "clusters": [{"name": "site", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "person", "user": {}}],
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": "person"}}]});
    std::fs::write(&kubeconfig, content.to_string()).expect("the kubeconfig is written");
    kubeconfig
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().expect("a connection")).lines();
    let first = lines.next().expect("a request").expect("text");
    for line in lines {
        if line.expect("text").is_empty() {
            break;
        }
    }
    let path = first.split_whitespace().nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let plural = path.rsplit('/').next().unwrap_or_default();
    let list = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "List",
        "metadata": {"resourceVersion": "1"}, "items": items(plural)})
    .to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{list}",
        list.len()
    )
    .expect("the answer is sent");
}
