//! What of a lab runs, as text.

use std::fs;

use anyhow::Result;

use crate::files::LabFiles;
use crate::host::{is_on, processes};
use crate::lifecycle::hosts;
use crate::namespace;

/// Describes a lab: programs of the control node, power and programs of each host.
///
/// # Errors
/// The lab does not run.
pub fn describe(files: &LabFiles) -> Result<String> {
    let addresses = files.addresses()?;
    let server = if files.is_on_existing_cluster() {
        "API server of an existing cluster".to_owned()
    } else {
        format!(
            "API server at https://127.0.0.1:{}",
            addresses.forward_port()
        )
    };
    let mut text = format!("lab {}: {server}\n", files.name);
    text.push_str(&format!(
        "  export KUBECONFIG={}\n",
        files.kubeconfig("admin").display()
    ));
    for program in [
        "etcd",
        "server",
        "kube-apiserver",
        "kube-controller-manager",
        "zhengyun-operator",
        "ipmi_sim",
    ] {
        let count = processes(files, "control", program)?.len();
        if count > 0 {
            text.push_str(&format!("  control  {program} x{count}\n"));
        }
    }
    for host in hosts(files)? {
        let frozen =
            fs::read_to_string(namespace::cgroup(&files.name, &host)?.join("cgroup.freeze"))
                .is_ok_and(|state| state.trim() == "1");
        let state = match (is_on(files, &host), frozen) {
            (false, _) => "off",
            (true, true) => "hung",
            (true, false) => "on",
        };
        let mut running = Vec::new();
        for program in [
            "bindfs",
            "libvirtd",
            "zhengyun-guard",
            "zhengyun-agent",
            "qemu-system-x86_64",
        ] {
            match processes(files, &host, program)?.len() {
                0 => {}
                1 => running.push(program.to_owned()),
                count => running.push(format!("{program} x{count}")),
            }
        }
        text.push_str(&format!("  {host}  {state:4}  {}\n", running.join(", ")));
    }
    Ok(text)
}
