//! Figures of live programs: `/metrics` of the operator and of agents, read as Prometheus would, and linted; and what
//! agents tell for the times of plans.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use api::VirtualMachine;
use kube::ResourceExt;
use lab::process::run;
use lab::{Lab, host, namespace};

use crate::watch::{busy_host, hosts, on_host, until, vms};

/// What an agent tells of each of its VMs: one family of processor, memory, block and network each.
const OF_EACH_VM: [&str; 4] = [
    "zhengyun_vm_cpu_seconds_total",
    "zhengyun_vm_memory_resident_bytes",
    "zhengyun_vm_block_read_bytes_total",
    "zhengyun_vm_network_receive_bytes_total",
];
/// What the operator tells.
const OF_THE_OPERATOR: [&str; 2] = ["zhengyun_host_state", "zhengyun_business_system_state"];

/// The pages of the operator and of the agent that runs most VMs are whole and well formed.
///
/// # Errors
/// A page can not be read, breaks a rule, or leaves something out.
pub async fn metrics_are_told(lab: &Lab) -> Result<()> {
    let page = fetch(lab, &["http://127.0.0.1:9100/metrics"])?;
    let families = lint(&page).context("the operator's /metrics")?;
    for name in OF_THE_OPERATOR {
        ensure!(families.contains_key(name), "the operator tells no {name}");
    }
    let name = busy_host(&lab.client).await?;
    let pki = lab.files.host(&name).join("etc/upper/pki/zhengyun");
    let file = |file: &str| pki.join(file).display().to_string();
    let address = lab.addresses.management(host::number(&name)?);
    let url = format!("https://{address}:9443/metrics");
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let page = fetch(
        lab,
        &["--cacert", &ca, "--cert", &cert, "--key", &key, &url],
    )?;
    let families = lint(&page).with_context(|| format!("/metrics of the agent of {name}"))?;
    let here = on_host(&lab.client, &name).await?;
    for family in OF_EACH_VM {
        for vm in &here {
            let vm = format!("vm=\"{}\"", vm.name_any());
            let sample = |line: &str| {
                line.split_once('{')
                    .is_some_and(|(name, labels)| name == family && labels.contains(&vm))
            };
            ensure!(
                page.lines().any(sample),
                "the agent of {name} tells no {family} of {vm}"
            );
        }
    }
    println!(
        "/metrics of the operator and of {name}: {} families, {} VMs",
        families.len(),
        here.len()
    );
    Ok(())
}

/// Agents tell what the times of moves are reckoned with: the link of every host, and how fast VMs write to their memory.
///
/// # Errors
/// A host tells no link, or nobody tells of any VM in time.
pub async fn what_plans_reckon_with_is_told(lab: &Lab) -> Result<()> {
    for host in hosts(&lab.client).await? {
        let link = host.reported().and_then(|told| told.migration_link.clone());
        // The lab's hosts are joined by veth pairs, and the kernel says this of them.
        let told = link.map(|link| (link.interface, link.speed_megabits));
        ensure!(
            told == Some(("eth0".to_owned(), 10_000)),
            "{} tells of its link: {told:?}",
            host.name_any()
        );
    }
    let took = until(&lab.client, "the writes of a VM to be told", async || {
        let told = |vm: &VirtualMachine| {
            let runtime = vm.status.as_ref()?.runtime.as_ref()?;
            runtime.dirty_mebibytes_per_second
        };
        Ok(vms(&lab.client).await?.iter().any(|vm| told(vm).is_some()))
    })
    .await?;
    println!("links are told, and after {took:?} what VMs write to their memory");
    Ok(())
}

/// What a web server inside the lab answers, as the control node reaches it.
fn fetch(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let inside = namespace::control(&lab.files.name);
    let mut command = vec!["netns", "exec", inside.as_str(), "curl", "--silent"];
    command.extend(["--show-error", "--fail", "--max-time", "20"]);
    command.extend(arguments);
    run("ip", command)
}

/// The families of a page with their kinds.
///
/// # Errors
/// The first line that breaks the text format or the naming rules of Prometheus.
fn lint(page: &str) -> Result<BTreeMap<String, String>> {
    let (mut helped, mut families) = (Vec::new(), BTreeMap::new());
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            ensure!(!help.is_empty(), "{name} has no help");
            helped.push(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a TYPE without a kind")?;
            ensure!(named_well(name), "{name}: no name for a metric");
            ensure!(
                helped.last().map(String::as_str) == Some(name),
                "{name} has no HELP before its TYPE"
            );
            ensure!(
                (kind == "counter") == name.ends_with("_total"),
                "{name} is a {kind}: counters, and only they, end in _total"
            );
            let former = families.insert(name.to_owned(), kind.to_owned());
            ensure!(former.is_none(), "{name} stands twice");
        } else {
            sample(line, &families)?;
        }
    }
    ensure!(!families.is_empty(), "an empty page");
    Ok(families)
}

fn named_well(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(letter)
        && name
            .bytes()
            .all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// A sample belongs to a family that was begun, and has a number.
fn sample(line: &str, families: &BTreeMap<String, String>) -> Result<()> {
    let end = line.find(['{', ' ']).context("a sample without a value")?;
    let name = &line[..end];
    let parts = ["_bucket", "_sum", "_count"];
    let histogram = |part: &str| {
        let family = name.strip_suffix(part).and_then(|name| families.get(name));
        family.is_some_and(|kind| kind == "histogram" || kind == "summary")
    };
    ensure!(
        families.contains_key(name) || parts.iter().any(|part| histogram(part)),
        "{name} has no HELP and TYPE"
    );
    let value = line.rsplit(' ').next().unwrap_or_default();
    ensure!(
        value.parse::<f64>().is_ok(),
        "{name}: {value:?} is no number"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total of a\n# TYPE a_total counter\na_total{vm=\"x y\"} 2\n\
        # HELP b of b\n# TYPE b gauge\nb 0.5\n\
        # HELP c of c\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\nc_sum 1\nc_count 1\n";

    #[test]
    fn a_page_of_the_rules_passes() {
        let families = lint(GOOD).expect("well formed");
        assert_eq!(families.len(), 3);
        assert_eq!(families["a_total"], "counter");
    }

    #[test]
    fn what_breaks_a_rule_is_told() {
        for (from, to, wanted) in [
            ("# HELP b of b\n", "", "no HELP before its TYPE"),
            ("# HELP b of b", "# HELP b", "has no help"),
            ("b gauge", "b counter", "only they, end in _total"),
            (
                "a_total counter",
                "a_total gauge",
                "only they, end in _total",
            ),
            ("b 0.5", "d 0.5", "d has no HELP and TYPE"),
            ("b 0.5", "b half", "is no number"),
            ("c_sum", "b_sum", "b_sum has no HELP and TYPE"),
        ] {
            let told = lint(&GOOD.replace(from, to)).expect_err(wanted).to_string();
            assert!(told.contains(wanted), "{from} -> {to}: {told}");
        }
        let capital = GOOD
            .replace("b of b", "B of b")
            .replace("b gauge", "B gauge");
        let told = lint(&capital).expect_err("a capital").to_string();
        assert!(told.contains("no name for a metric"), "{told}");
        assert!(lint(&format!("{GOOD}{GOOD}")).is_err(), "twice");
        assert!(lint("").is_err());
    }
}
