use super::*;
use serde_json::{from_value, json};

fn site() -> Site {
    Site {
        systems: from_value(json!([
            {"metadata": {"name": "web", "namespace": "portal"},
             "spec": {"displayName": "政府网站群", "tiers": []},
             "status": {"state": "Ready", "endpointsUp": "18/18", "virtualMachinesRunning": "2/2"}},
            {"metadata": {"name": "oa", "namespace": "oa"},
             "spec": {"displayName": "OA", "tiers": [], "impact": [
                {"name": "units", "value": 2393, "asOf": "2018-08-10", "source": "s"}]},
             "status": {"state": "Down", "message": "no replica answers: portal", "endpointsUp": "0/1"}}])).expect("systems"),
        hosts: from_value(json!([{"metadata": {"name": "h1"}, "spec": {"pool": "main", "managementAddress": "a"},
            "status": {"state": "Suspect", "stateReason": "last seen 4 s ago"}}])).expect("hosts"),
        host_pools: vec![],
        storage_pools: vec![],
        vms: vec![],
        migrations: vec![],
        incidents: vec![],
    }
}

#[test]
fn what_is_down_comes_first_and_says_whom_it_affects() {
    let text = render(Language::English, &site(), Timestamp::UNIX_EPOCH);
    assert!(
        text.starts_with("1 of 2 business systems ready, 1 down; 0 of 1 hosts ready\n"),
        "{text}"
    );
    let oa = text.find("oa/oa").expect("oa stands");
    assert!(oa < text.find("portal/web").expect("web stands"), "{text}");
    assert!(
        text.contains("2393 units") && text.contains("no replica answers: portal"),
        "{text}"
    );
    let chinese = render(Language::Chinese, &site(), Timestamp::UNIX_EPOCH);
    assert!(chinese.contains("没有副本应答:portal"), "{chinese}");
    assert!(
        !text.contains("MOVING"),
        "empty sections are left out: {text}"
    );
}

#[test]
fn strays_and_hosts_that_start_nothing_are_alarms() {
    let mut site = site();
    let quiet = render(Language::English, &site, Timestamp::UNIX_EPOCH);
    assert!(!quiet.contains("ALARMS"), "{quiet}");
    site.hosts = from_value(
        json!([{"metadata": {"name": "h1"}, "spec": {"pool": "main", "managementAddress": "a"},
        "status": {"reported": {
            "incarnation": {"bootId": "b1", "systemUuid": "s"},
            "capacity": {"cpu": 1, "memory": "1Gi"},
            "architecture": "x86_64", "cpuModel": "m", "domainType": "kvm",
            "versions": {"agent": "1", "libvirt": "1", "qemu": "1"}, "hookVerified": true,
            "startsForbidden": "the ledger was lost", "strays": ["u1 somebodys-vm"],
            "closesStuck": ["u2 oa.web-0-u2"],
            "storagePools": [
                {"name": "good", "state": "Ready", "capacityBytes": 1, "availableBytes": 1, "imageLocks": true},
                {"name": "unknown", "state": "Lost", "capacityBytes": 0, "availableBytes": 0},
                {"name": "nolock", "state": "Ready", "capacityBytes": 1, "availableBytes": 1, "imageLocks": false}]}}}]),
    )
    .expect("hosts");
    for language in [Language::English, Language::Chinese] {
        let text = render(language, &site, Timestamp::UNIX_EPOCH);
        assert!(text.contains("the ledger was lost"), "{text}");
        assert!(text.contains("u1 somebodys-vm"), "{text}");
        assert!(text.contains("u2 oa.web-0-u2"), "{text}");
        assert!(text.contains("nolock"), "{text}");
        assert!(
            !text.contains("good") && !text.contains("unknown"),
            "{text}"
        );
    }
    let reported = site.hosts[0].status.as_mut();
    let reported = reported.and_then(|status| status.reported.as_mut());
    reported.expect("a report").starts_forbidden =
        Some("the qemu hook was not checked yet".to_owned());
    let chinese = render(Language::Chinese, &site, Timestamp::UNIX_EPOCH);
    assert!(chinese.contains("尚未检查 qemu 钩子"), "{chinese}");
}

#[test]
fn a_bmc_that_can_not_be_read_is_an_alarm() {
    let mut site = site();
    let told = |site: &mut Site, language, status: &str| {
        site.hosts = from_value(json!([{"metadata": {"name": "h1"}, "spec": {"pool": "main", "managementAddress": "a"},
            "status": {
                "conditions": [{"type": "BmcReady", "status": status, "reason": "NoAnswer",
                    "message": "spec.bmcs[0]: 10.0.0.9 refuses the login; correct the Secret that spec.bmcs.credentials names; spec.bmcs[1]: 10.0.1.9 can not be reached",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "reported": {
                    "incarnation": {"bootId": "b1", "systemUuid": "s"},
                    "capacity": {"cpu": 1, "memory": "1Gi"},
                    "architecture": "x86_64", "cpuModel": "m", "domainType": "kvm",
                    "versions": {"agent": "1", "libvirt": "1", "qemu": "1"}, "hookVerified": true}}}]))
        .expect("hosts");
        render(language, site, Timestamp::UNIX_EPOCH)
    };
    let text = told(&mut site, Language::English, "False");
    assert!(
        text.contains("BMC not ready") && text.contains("10.0.0.9 refuses the login"),
        "{text}"
    );
    let text = told(&mut site, Language::Chinese, "False");
    let why = "spec.bmcs[0]:10.0.0.9 拒绝登录;请更正 spec.bmcs.credentials 所指的 Secret;spec.bmcs[1]:无法连接 10.0.1.9";
    assert!(text.contains("BMC 不可用") && text.contains(why), "{text}");
    let text = told(&mut site, Language::English, "True");
    assert!(!text.contains("ALARMS"), "{text}");
    let _ = told(&mut site, Language::English, "False");
    let status = site.hosts[0].status.as_mut().expect("a status");
    status.conditions[0].reason = NO_BMC.to_owned();
    let text = render(Language::English, &site, Timestamp::UNIX_EPOCH);
    assert!(!text.contains("ALARMS"), "it has none: {text}");
}

/// A promise that stands may hide what nobody could prove, and racks that it does not cover.
#[test]
fn what_is_unproven_and_what_racks_would_lose_is_told() {
    let mut site = site();
    site.host_pools = from_value(json!([{"metadata": {"name": "main"},
        "spec": {"zones": ["Common"], "architecture": "x86_64"},
        "status": {"headroom": {"state": "Proven", "message": "any one host may fail and every VM finds a place", "unknownFailures": 2,
            "racks": ["rack a: survived", "rack b: not proven"], "roomLeft": ["3 more 4C8G", "1 more 8C16G"],
            "worstFailure": "host h7"}}}]))
    .expect("a pool");
    let text = render(Language::English, &site, Timestamp::UNIX_EPOCH);
    let title = text.lines().find(|line| line.starts_with("POOL"));
    let title = title.expect("a title");
    let line = text.lines().find(|line| line.starts_with("main"));
    let line = line.expect("the pool's line");
    let at = |column: &str| &line[title.find(column).expect(column)..];
    assert!(at("UNPROVEN").starts_with("2 "), "{text}");
    assert!(at("WORST FAILURE").starts_with("host h7 "), "{text}");
    assert!(
        at("RACKS").starts_with("rack a: survived; rack b: not proven "),
        "{text}"
    );
    let text = render(Language::Chinese, &site, Timestamp::UNIX_EPOCH);
    for told in [
        "最危险的故障",
        "宿主机 h7",
        "4C8G 还可 3 台、8C16G 还可 1 台",
        "机架 a:可承受;机架 b:未证明",
        "任何一台宿主机故障,所有虚拟机都能找到新位置",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn what_vms_wait_for_is_told_in_chinese() {
    let mut site = site();
    site.vms = from_value(json!([{"metadata": {"name": "web-0", "namespace": "oa"},
        "spec": {"cpu": 1, "memory": "1Gi", "image": "i", "disks": [], "networks": []},
        "status": {"phase": "Pending",
            "message": "no host fits (2 hosts: not enough memory; 1 host: planned work)"}}]))
    .expect("a VM");
    let told = |language| render(language, &site, Timestamp::UNIX_EPOCH);
    let chinese = "没有满足条件的宿主机(2 台宿主机:内存不足;1 台宿主机:计划维护中)";
    let text = told(Language::Chinese);
    assert!(text.contains(chinese), "{text}");
    let text = told(Language::English);
    assert!(
        text.contains("no host fits (2 hosts: not enough memory"),
        "{text}"
    );
}

#[test]
fn a_hosts_reason_is_told_in_the_language_asked_for() {
    let mut site = site();
    let told = |site: &Site, language| render(language, site, Timestamp::UNIX_EPOCH);
    let text = told(&site, Language::Chinese);
    assert!(
        text.contains("last seen 4 s ago"),
        "better than none: {text}"
    );
    let status = site.hosts[0].status.as_mut().expect("a status");
    status.state_reason_chinese = Some("最后一次可见于 4 秒前".to_owned());
    status.power = Some("NoAnswer".to_owned());
    let text = told(&site, Language::Chinese);
    assert!(text.contains("最后一次可见于 4 秒前"), "{text}");
    assert!(text.contains("无应答"), "{text}");
    assert!(!text.contains("last seen"), "{text}");
    let text = told(&site, Language::English);
    assert!(text.contains("last seen 4 s ago"), "{text}");
    assert!(!text.contains("最后"), "{text}");
}

#[test]
fn speaks_chinese() {
    let text = render(Language::Chinese, &site(), Timestamp::UNIX_EPOCH);
    assert!(
        text.contains("中断 1") && text.contains("疑似故障"),
        "{text}"
    );
}
