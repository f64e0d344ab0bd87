//! What agents and guards take of their host: processor time and resident memory, beside real guests
//! and, in numbers that a laboratory does not hold, beside VMs that are kept in memory only.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::{Lab, LabOptions, declarations, guest};
use serde_json::json;

use crate::watch::{runs, until, vms};

/// How long is observed.
pub(crate) const OBSERVED: Duration = Duration::from_secs(60);
/// Room for the VMs that are in memory only.
const CAPACITY: &str = "cpu=128,memory=64Gi";
/// Clock ticks of a second: the kernel's USER_HZ, which is 100 on Linux.
const TICKS: f64 = 100.0;

/// Measures the agent of a host with so many VMs in memory.
pub(crate) async fn of_agent(count: u16) -> Result<()> {
    let lab = Lab::up(LabOptions {
        name: "footprint".to_owned(),
        hosts: 1,
        capacity: CAPACITY.to_owned(),
        hypervisor: "memory".to_owned(),
        ..LabOptions::default()
    })
    .await?;
    let folder = guest::build()?;
    let values = guest::serve(&lab.files, &folder)?;
    let mut objects = declarations::for_lab(&declarations::folder(), &values)?;
    objects.retain(|object| object["kind"] != "BusinessSystem");
    for object in &mut objects {
        if object["kind"] == "HostPool" {
            object["spec"]["failuresToTolerate"] = json!(0);
        }
    }
    objects.push(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "BusinessSystem",
        "metadata": {"name": "many", "namespace": "egov-center"},
        "spec": {"displayName": "many", "mlpsGrade": 2, "tiers": [{
            "name": "web", "replicas": count, "flavor": "lab-1c128m", "image": values["image.name"],
            "networks": ["common"], "storagePool": "shared", "spread": {"over": "Host", "required": false}}]}
    }));
    declarations::apply(&lab.client, &objects).await?;
    until(&lab.client, "every VM to run", async || {
        let all = vms(&lab.client).await?;
        Ok(all.iter().filter(|vm| runs(vm)).count() == usize::from(count))
    })
    .await?;
    let (before, begin) = (processor_time(&lab)?, Instant::now());
    tokio::time::sleep(OBSERVED).await;
    println!(
        "one host with {count} VMs in memory, over {} s:",
        OBSERVED.as_secs()
    );
    tell_taken(&lab, &before, begin)?;
    lab.down()
}

/// Prints what each agent and guard took since `begin`, when it had used `before`.
pub(crate) fn tell_taken(lab: &Lab, before: &[(String, u64)], begin: Instant) -> Result<()> {
    for ((name, before), (_, after)) in before.iter().zip(processor_time(lab)?) {
        let share = (after - before) as f64 / (begin.elapsed().as_secs_f64() * TICKS) * 100.0;
        println!(
            "  {name:<44} {share:>8.2} % of a core, {:>6.1} MiB resident",
            resident(lab, name)?
        );
    }
    Ok(())
}

/// Processor time of every agent and guard, in clock ticks.
pub(crate) fn processor_time(lab: &Lab) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for host in lab.hosts()? {
        for program in ["zhengyun-agent", "zhengyun-guard"] {
            let pid = process(lab, &host, program)?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // After the name in parentheses: state is field 3, utime 14 and stime 15 (proc(5)).
            let fields: Vec<&str> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let ticks = |index: usize| {
                fields
                    .get(index)
                    .and_then(|text| text.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            found.push((format!("{program} of {host}"), ticks(11) + ticks(12)));
        }
    }
    Ok(found)
}

fn process(lab: &Lab, host: &str, program: &str) -> Result<i32> {
    let pids = lab::host::processes(&lab.files, host, program)?;
    let pid = pids
        .first()
        .copied()
        .with_context(|| format!("{program} does not run on {host}"))?;
    Ok(pid)
}

/// Resident memory, MiB.
fn resident(lab: &Lab, name: &str) -> Result<f64> {
    let (program, host) = name.split_once(" of ").context("a program's name")?;
    let pid = process(lab, host, program)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    Ok(kib.unwrap_or(f64::NAN) / 1024.0)
}
