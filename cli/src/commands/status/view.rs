//! The screen as text, from the objects alone: what is wrong first, then systems, hosts,
//! what moves, open incidents.

use api::{
    BusinessSystem, Condition, Host, HostStoragePool, MigrationPhase, NO_BMC,
    VirtualMachineMigration, VirtualMachinePhase,
};
use jiff::Timestamp;

use crate::client::{Site, full_name_of, name_of};
use crate::commands::incident;
use crate::language::Language;
use crate::said;
use crate::table::Table;

/// Renders the site.
pub fn render(language: Language, site: &Site, now: Timestamp) -> String {
    let mut text = headline(language, site);
    let mut section = |title: &str, body: String| {
        if !body.is_empty() {
            text.push_str(&format!("\n{title}\n{body}"));
        }
    };
    section(
        language.pick("BUSINESS SYSTEMS", "业务系统"),
        systems(language, &site.systems),
    );
    section(
        language.pick("HOSTS", "宿主机"),
        hosts(language, &site.hosts, now),
    );
    section(
        language.pick("FAULTS", "硬件故障"),
        faults(language, &site.hosts),
    );
    section(
        language.pick("ALARMS", "告警"),
        alarms(language, &site.hosts),
    );
    section(
        language.pick("MOVING", "迁移"),
        moving(language, &site.migrations),
    );
    section(
        language.pick("WAITING", "等待中的虚拟机"),
        waiting(language, site),
    );
    section(
        language.pick("REDUNDANCY", "冗余 N+1"),
        redundancy(language, site),
    );
    section(
        language.pick("OPEN INCIDENTS", "未关闭事件"),
        incidents(language, site, now),
    );
    text
}

fn state_of(system: &BusinessSystem) -> String {
    system
        .status
        .as_ref()
        .map_or_else(|| "Progressing".to_owned(), |status| status.state.clone())
}

/// The first line answers the first question: is any business system down?
fn headline(language: Language, site: &Site) -> String {
    let count = |wanted: &str| {
        site.systems
            .iter()
            .filter(|system| state_of(system) == wanted)
            .count()
    };
    let (total, ready, down) = (site.systems.len(), count("Ready"), count("Down"));
    let hosts_ready = site
        .hosts
        .iter()
        .filter(|host| host_state(host) == "Ready")
        .count();
    match language {
        Language::English => format!(
            "{ready} of {total} business systems ready, {down} down; {hosts_ready} of {} hosts ready\n",
            site.hosts.len()
        ),
        Language::Chinese => format!(
            "业务系统 {total} 个:正常 {ready},中断 {down};宿主机 {} 台:正常 {hosts_ready}\n",
            site.hosts.len()
        ),
    }
}

fn systems(language: Language, systems: &[BusinessSystem]) -> String {
    let mut table = match language {
        Language::English => Table::new([
            "SYSTEM",
            "NAME",
            "STATE",
            "ENDPOINTS",
            "VMS",
            "AFFECTS",
            "MESSAGE",
        ]),
        Language::Chinese => {
            Table::new(["系统", "名称", "状态", "端点", "虚拟机", "影响范围", "说明"])
        }
    };
    let mut sorted: Vec<&BusinessSystem> = systems.iter().collect();
    sorted.sort_by_key(|system| {
        (
            state_of(system) == "Ready",
            system.spec.priority,
            full_name_of(*system),
        )
    });
    for system in sorted {
        let status = system.status.clone().unwrap_or_default();
        let impact: Vec<String> = system
            .spec
            .impact
            .iter()
            .map(|fact| format!("{} {}", fact.value, fact.name))
            .collect();
        table.row([
            full_name_of(system),
            system.spec.display_name.clone(),
            language.state(&state_of(system)),
            status.endpoints_up,
            status.virtual_machines_running,
            impact.join(language.pick(", ", "、")),
            said::sentence(language, &status.message).into_owned(),
        ]);
    }
    table.render_rows()
}

fn host_state(host: &Host) -> String {
    host.status
        .as_ref()
        .and_then(|status| status.state)
        .map_or_else(|| "NotRegistered".to_owned(), |state| format!("{state:?}"))
}

fn hosts(language: Language, hosts: &[Host], now: Timestamp) -> String {
    let mut table = match language {
        Language::English => Table::new(["HOST", "POOL", "STATE", "SINCE", "VMS", "POWER", "WHY"]),
        Language::Chinese => {
            Table::new(["宿主机", "主机池", "状态", "持续", "虚拟机", "电源", "原因"])
        }
    };
    for host in hosts {
        let status = host.status.clone().unwrap_or_default();
        let why = match language {
            Language::English => status.state_reason,
            // An operator of before wrote English alone.
            Language::Chinese => status.state_reason_chinese.or(status.state_reason),
        };
        table.row([
            name_of(host),
            host.spec.pool.clone(),
            language.state(&host_state(host)),
            status
                .state_since
                .map_or_else(String::new, |since| age(now, since.0)),
            status.virtual_machines.unwrap_or(0).to_string(),
            language.state(&status.power.unwrap_or_default()),
            why.unwrap_or_default(),
        ]);
    }
    table.render_rows()
}

fn faults(language: Language, hosts: &[Host]) -> String {
    let mut table = match language {
        Language::English => Table::new(["HOST", "SEVERITY", "COMPONENT", "EVIDENCE"]),
        Language::Chinese => Table::new(["宿主机", "级别", "部件", "证据"]),
    };
    for host in hosts {
        let reported = host.reported();
        for fault in reported.into_iter().flat_map(|reported| &reported.faults) {
            table.row([
                name_of(host),
                language.state(&format!("{:?}", fault.severity)),
                fault.component.clone(),
                fault.evidence.clone(),
            ]);
        }
    }
    table.render_rows()
}

/// What a person must act on: a host's agent found a reason to start nothing, copies that do not end, strays, or storage
/// without image locks; or a BMC of it can not be read.
fn alarms(language: Language, hosts: &[Host]) -> String {
    let mut table = match language {
        Language::English => Table::new(["HOST", "WHAT", "DETAIL"]),
        Language::Chinese => Table::new(["宿主机", "事项", "详情"]),
    };
    for host in hosts {
        let Some(status) = &host.status else {
            continue;
        };
        let Some(reported) = &status.reported else {
            continue;
        };
        if let Some(why) = &reported.starts_forbidden {
            let what = language.pick("starts nothing", "不启动虚拟机");
            let why = said::sentence(language, why).into_owned();
            table.row([name_of(host), what.to_owned(), why]);
        }
        for stuck in &reported.closes_stuck {
            let what = language.pick("copy does not end", "虚拟机进程无法结束");
            table.row([name_of(host), what.to_owned(), stuck.clone()]);
        }
        for stray in &reported.strays {
            let what = language.pick("stray: not made by this platform", "非本平台创建的虚拟机");
            table.row([name_of(host), what.to_owned(), stray.clone()]);
        }
        let without = |pool: &&HostStoragePool| pool.image_locks == Some(false);
        for pool in reported.storage_pools.iter().filter(without) {
            let what = language.pick(
                "image locks do not work: a second writer is not refused",
                "映像锁无效:无法阻止重复写入",
            );
            table.row([name_of(host), what.to_owned(), pool.name.clone()]);
        }
        let mut conditions = status.conditions.iter();
        // A host that declares none has none that could fail.
        let fails = |one: &&Condition| {
            one.type_ == "BmcReady" && one.status == "False" && one.reason != NO_BMC
        };
        let bmc = conditions.find(fails);
        if let Some(bmc) = bmc {
            let what = language.pick("BMC not ready", "BMC 不可用");
            let why = said::sentence(language, &bmc.message).into_owned();
            table.row([name_of(host), what.to_owned(), why]);
        }
    }
    table.render_rows()
}

fn moving(language: Language, migrations: &[VirtualMachineMigration]) -> String {
    let mut table = match language {
        Language::English => Table::new(["VM", "FROM", "TO", "PHASE", "WHY", "MESSAGE"]),
        Language::Chinese => Table::new(["虚拟机", "源", "目标", "阶段", "缘由", "说明"]),
    };
    for migration in migrations {
        let status = migration.status.clone().unwrap_or_default();
        if matches!(
            status.phase,
            MigrationPhase::Succeeded | MigrationPhase::Cancelled | MigrationPhase::Failed
        ) {
            continue;
        }
        table.row([
            format!(
                "{}/{}",
                migration.metadata.namespace.clone().unwrap_or_default(),
                migration.spec.virtual_machine
            ),
            status
                .source_assignment
                .map_or_else(String::new, |assignment| assignment.host.to_string()),
            status
                .target_assignment
                .map_or_else(String::new, |assignment| assignment.host.to_string()),
            language.state(&format!("{:?}", status.phase)),
            language.state(&format!("{:?}", migration.spec.reason)),
            said::sentence(language, &status.message.unwrap_or_default()).into_owned(),
        ]);
    }
    table.render_rows()
}

/// VMs that should run and do not, with what they wait for.
fn waiting(language: Language, site: &Site) -> String {
    let mut table = match language {
        Language::English => Table::new(["VM", "PHASE", "WHY"]),
        Language::Chinese => Table::new(["虚拟机", "阶段", "原因"]),
    };
    for vm in &site.vms {
        let status = vm.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or(VirtualMachinePhase::Pending);
        let quiet = matches!(
            phase,
            VirtualMachinePhase::Running
                | VirtualMachinePhase::Stopped
                | VirtualMachinePhase::Migrating
        );
        if !quiet {
            table.row([
                full_name_of(vm),
                language.state(&format!("{phase:?}")),
                said::sentence(language, &status.message.unwrap_or_default()).into_owned(),
            ]);
        }
    }
    table.render_rows()
}

fn redundancy(language: Language, site: &Site) -> String {
    let mut table = match language {
        Language::English => Table::new([
            "POOL",
            "N+1",
            "UNPROVEN",
            "WORST FAILURE",
            "ROOM LEFT",
            "RACKS",
            "MESSAGE",
        ]),
        Language::Chinese => Table::new([
            "主机池",
            "N+1",
            "未证明",
            "最危险的故障",
            "余量",
            "机架",
            "说明",
        ]),
    };
    for pool in &site.host_pools {
        let headroom = pool
            .status
            .clone()
            .unwrap_or_default()
            .headroom
            .unwrap_or_default();
        let room = headroom.room_left.iter();
        let room = room.map(|room| said::sentence(language, room));
        table.row([
            name_of(pool),
            language.state(&headroom.state),
            headroom.unknown_failures.to_string(),
            said::sentence(language, &headroom.worst_failure.unwrap_or_default()).into_owned(),
            room.collect::<Vec<_>>().join(language.pick(", ", "、")),
            said::list(language, &headroom.racks),
            said::sentence(language, &headroom.message).into_owned(),
        ]);
    }
    table.render_rows()
}

fn incidents(language: Language, site: &Site, now: Timestamp) -> String {
    let mut table = match language {
        Language::English => Table::new(["INCIDENT", "STATE", "AGE", "SYSTEMS", "WHAT"]),
        Language::Chinese => Table::new(["事件", "状态", "已过", "业务系统", "内容"]),
    };
    for incident in &site.incidents {
        let status = incident.status.clone().unwrap_or_default();
        if status.state == "Closed" {
            continue;
        }
        table.row([
            name_of(incident),
            language.state(&status.state),
            age(now, incident.spec.opened_at.0),
            status.systems_affected.to_string(),
            incident::title(language, incident).to_owned(),
        ]);
    }
    table.render_rows()
}

/// An age as people say it: `14s`, `3m`, `2h`, `5d`.
fn age(now: Timestamp, since: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
