//! The probes on captures of real hardware (not in this repository; skipped where absent).

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hardware::{
    Bmc, Inputs, Moment, Poll, Probe, Probes, Quantity, RedfishError, RedfishSource, Roots,
    Thresholds, judge_arrays, judge_disk, parse_mdstat, probe_redfish,
};
use model::{Fault, FaultKind, Severity};
use serde_json::Value;

use support::{captures, unpack};

fn at(boot_seconds: i64) -> Moment {
    Moment {
        boot_seconds,
        unix_seconds: 1_700_000_000 + boot_seconds,
    }
}

/// Component, kind and severity of each.
fn short(faults: &[Fault]) -> BTreeSet<(String, FaultKind, Severity)> {
    faults
        .iter()
        .map(|fault| (fault.component.clone(), fault.kind, fault.severity))
        .collect()
}

#[test]
fn disks_get_the_verdicts_that_a_person_would_give() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let failing = (FaultKind::DiskFailing, Severity::Degraded);
    let errors = (FaultKind::DiskErrors, Severity::Info);
    // All others are healthy.
    let expected: BTreeMap<&str, Vec<(FaultKind, Severity)>> = BTreeMap::from([
        (
            "nvme-null-SAMSUNG_MZWLL3T2HAJQ-00005-nvme0.json",
            vec![failing],
        ),
        ("SEAGATE_ST373453LC_26.json", vec![failing, errors]),
        ("ST3200820AS_16.json", vec![errors]),
        (
            "sat-Western_Digital_RE3_Serial_ATA-WDC_WD5002ABYS-02B1B0-sda.json",
            vec![errors],
        ),
        ("ST3500418AS_12.json", vec![errors]),
        ("MB0500EBNCR_13.json", vec![errors]),
    ]);
    let mut disks = 0;
    for entry in fs::read_dir(captures.join("smartctl"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let answer: Value =
            serde_json::from_slice(&fs::read(entry.path())?).with_context(|| name.clone())?;
        let found = judge_disk("disk/x", &answer, &Thresholds::default());
        let verdicts: Vec<_> = found
            .findings
            .iter()
            .map(|finding| (finding.kind, finding.severity))
            .collect();
        assert_eq!(
            verdicts,
            expected.get(name.as_str()).cloned().unwrap_or_default(),
            "{name}: {:?}",
            found.findings
        );
        assert!(found.errors.is_empty(), "{name}");
        let known = found
            .readings
            .iter()
            .find(|reading| reading.quantity == Quantity::DiskHealthKnown)
            .map(|reading| reading.value);
        assert_eq!(known, Some(1.0), "{name}");
        disks += 1;
    }
    assert!(disks >= 90, "{disks} disks");
    println!("{disks} disks judged");
    Ok(())
}

#[test]
fn wear_is_read_from_every_kind_of_disk_that_tells() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    for (name, wear) in [
        ("nvme-null-INTEL_SSDPE2KX020T7-nvme6.json", 75.0),
        (
            "sat-Intel_730_and_DC_S35x0_3610_3700_Series_SSDs-INTEL_SSDSC2BB240G4-sde.json",
            78.0,
        ),
        ("SAMSUNG_MZ7WD240HAFV-00003_22.json", 10.0),
    ] {
        let answer: Value =
            serde_json::from_slice(&fs::read(captures.join("smartctl").join(name))?)?;
        let found = judge_disk("disk/x", &answer, &Thresholds::default());
        let read = found
            .readings
            .iter()
            .find(|reading| reading.quantity == Quantity::DiskWear)
            .map(|reading| reading.value);
        assert_eq!(read, Some(wear), "{name}");
    }
    Ok(())
}

#[test]
fn arrays_of_mdstat() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let arrays = parse_mdstat(&fs::read_to_string(captures.join("linux/proc/mdstat"))?);
    assert_eq!(arrays.len(), 17);
    let found = judge_arrays(&arrays);
    let rated: BTreeMap<&str, Severity> = found
        .findings
        .iter()
        .map(|finding| (finding.component.as_str(), finding.severity))
        .collect();
    let expected = BTreeMap::from([
        ("md/md4", Severity::Critical), // inactive, its disks faulty and spare
        ("md/md6", Severity::Degraded), // rebuilding onto a spare
        ("md/md7", Severity::Degraded), // RAID 6 without one member
        ("md/md9", Severity::Info),     // whole again, two dead disks still inside
        ("md/md11", Severity::Info),
    ]);
    assert_eq!(rated, expected);
    let progress = arrays
        .iter()
        .find(|array| array.name == "md201")
        .and_then(|array| array.progress_percent);
    assert_eq!(progress, Some(5.7));
    Ok(())
}

/// A host whose roots are the captured ones, with a log and a smartctl of its own.
struct CapturedHost {
    _folder: tempfile::TempDir,
    roots: Roots,
}

impl CapturedHost {
    fn lay_out(captures: &std::path::Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let entries = unpack(&captures.join("linux/sys.ttar"), folder.path())?;
        assert!(entries > 1000, "{entries} entries");
        let procfs = folder.path().join("proc");
        fs::create_dir_all(&procfs)?;
        fs::copy(captures.join("linux/proc/mdstat"), procfs.join("mdstat"))?;
        fs::write(procfs.join("mounts"), "/dev/sda1 / ext4 rw,relatime 0 0\n")?;
        fs::write(folder.path().join("kmsg"), "")?;
        let roots = Roots {
            sysfs: folder.path().join("sys"),
            procfs,
            kernel_log: folder.path().join("kmsg"),
            smartctl: "/nonexistent".into(),
        };
        Ok(CapturedHost {
            roots,
            _folder: folder,
        })
    }

    fn poll(&self, probes: &mut Probes, second: i64) -> Poll {
        let inputs = Inputs {
            roots: &self.roots,
            now: at(second),
            watched_links: &[],
            bmc: Bmc::None,
            pools: &[],
            clock: None,
        };
        probes.poll(Probe::FAST, &inputs)
    }
}

#[test]
fn the_captured_sysfs_gives_its_faults_after_two_polls() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let host = CapturedHost::lay_out(&captures)?;
    let mut probes = Probes::new("boot-1", None);
    let first = host.poll(&mut probes, 0);
    assert!(
        first.faults.is_empty(),
        "one poll raises nothing: {:?}",
        first.faults
    );
    let second = host.poll(&mut probes, 2);
    assert_eq!(second.errors, vec![]);
    let critical = Severity::Critical;
    let degraded = Severity::Degraded;
    let expected: BTreeSet<_> = [
        // Uncorrected errors of this boot, at the rows that counted them.
        (
            "memory/mc0/csrow0",
            FaultKind::MemoryUncorrectedError,
            critical,
        ),
        (
            "memory/mc0/csrow1",
            FaultKind::MemoryUncorrectedError,
            critical,
        ),
        (
            "memory/mc0/csrow2",
            FaultKind::MemoryUncorrectedError,
            critical,
        ),
        ("nic/eth1", FaultKind::LinkDown, degraded),
        // Both stand still below the board's minimum of some 2000 rpm.
        ("fan/applesmc-0/Left-side", FaultKind::Fan, degraded),
        ("fan/applesmc-0/Right-side", FaultKind::Fan, degraded),
        ("md/md4", FaultKind::ArrayDegraded, critical),
        ("md/md5", FaultKind::ArrayDegraded, degraded),
        ("md/md6", FaultKind::ArrayDegraded, degraded),
        ("md/md7", FaultKind::ArrayDegraded, degraded),
        ("md/md9", FaultKind::ArrayDegraded, Severity::Info),
        ("md/md11", FaultKind::ArrayDegraded, Severity::Info),
    ]
    .into_iter()
    .map(|(component, kind, severity)| (component.to_owned(), kind, severity))
    .collect();
    assert_eq!(short(&second.faults), expected);
    assert_eq!(second.changes.len(), expected.len());
    let temperature = |component: &str| {
        second
            .readings
            .iter()
            .find(|r| r.quantity == Quantity::Temperature && r.component == component)
            .map(|r| r.value)
    };
    assert_eq!(
        temperature("temperature/coretemp-0/Package-id-0")
            .or(temperature("temperature/coretemp-0/Physical-id-0")),
        Some(55.0)
    );
    assert!(
        second
            .readings
            .iter()
            .any(|r| r.quantity == Quantity::FanSpeed && r.value == 1098.0)
    );
    // Devices without hardware below them are not the host's links.
    let links: BTreeSet<&str> = second
        .readings
        .iter()
        .filter(|r| r.quantity == Quantity::LinkReceiveErrors)
        .map(|r| r.component.as_str())
        .collect();
    assert!(links.contains("nic/eth0"));
    assert!(
        !links.contains("nic/bond0") && !links.contains("nic/dmz"),
        "{links:?}"
    );
    Ok(())
}

#[test]
fn sixty_corrected_errors_are_raised_by_the_second_poll_and_a_clearance_holds() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let host = CapturedHost::lay_out(&captures)?;
    let mut probes = Probes::new("boot-1", None);
    host.poll(&mut probes, 0);
    host.poll(&mut probes, 2);
    probes.clear_until(at(3).unix_seconds);
    let row: PathBuf = host
        .roots
        .sysfs
        .join("devices/system/edac/mc/mc0/csrow0/ce_count");
    fs::write(&row, "63\n")?;
    host.poll(&mut probes, 4);
    // An agent's restart forgets nothing.
    let kept = serde_json::to_string(probes.state())?;
    let mut probes = Probes::new("boot-1", Some(serde_json::from_str(&kept)?));
    let raised = host.poll(&mut probes, 6);
    let memory = |poll: &Poll| -> Vec<Fault> {
        poll.faults
            .iter()
            .filter(|fault| fault.kind == FaultKind::MemoryCorrectedErrors)
            .cloned()
            .collect()
    };
    assert_eq!(memory(&raised).len(), 1);
    assert_eq!(
        (
            memory(&raised)[0].component.as_str(),
            memory(&raised)[0].count
        ),
        ("memory/mc0/csrow0", 60)
    );
    probes.clear_until(at(6).unix_seconds);
    for second in [8, 10, 12] {
        assert!(memory(&host.poll(&mut probes, second)).is_empty());
    }
    // A state that lasts comes back, an uncorrected error that was dealt with does not.
    let after = host.poll(&mut probes, 14);
    assert!(
        after
            .faults
            .iter()
            .any(|fault| fault.component == "nic/eth1")
    );
    assert!(
        !after
            .faults
            .iter()
            .any(|fault| fault.kind == FaultKind::MemoryUncorrectedError)
    );
    // Another boot begins anew.
    let kept = serde_json::to_string(probes.state())?;
    let fresh = Probes::new("boot-2", Some(serde_json::from_str(&kept)?));
    assert_eq!(*fresh.state(), *Probes::new("boot-2", None).state());
    Ok(())
}

/// A folder with one `index.json` a resource, as the mock-up has them; can change resources.
struct Mockup {
    folder: PathBuf,
    changed: BTreeMap<String, Value>,
}

impl RedfishSource for Mockup {
    fn get(&self, path: &str) -> Result<Value, RedfishError> {
        let short = path.trim_start_matches("/redfish/v1").trim_matches('/');
        if let Some(changed) = self.changed.get(short) {
            return Ok(changed.clone());
        }
        let file = self.folder.join(short).join("index.json");
        let bytes = fs::read(&file).map_err(|_| RedfishError::NotFound {
            path: path.to_owned(),
        })?;
        serde_json::from_slice(&bytes).map_err(|error| RedfishError::Failed {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }
}

impl Mockup {
    fn found(&self) -> BTreeSet<(String, FaultKind, Severity)> {
        let said = probe_redfish(self, &Thresholds::default());
        assert_eq!(said.errors, vec![]);
        said.findings
            .into_iter()
            .map(|finding| (finding.component, finding.kind, finding.severity))
            .collect()
    }

    fn load(&self, short: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            self.folder.join(short).join("index.json"),
        )?)?)
    }
}

#[test]
fn the_rack_server_over_redfish_in_both_forms() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let mut mockup = Mockup {
        folder: captures.join("redfish-rackmount"),
        changed: BTreeMap::new(),
    };
    let degraded = Severity::Degraded;
    let own = |faults: &[(&str, FaultKind, Severity)]| {
        faults
            .iter()
            .map(|(component, kind, severity)| ((*component).to_owned(), *kind, *severity))
            .collect::<BTreeSet<_>>()
    };
    let disk = (
        "disk/bmc-437XR1138R2-1-1",
        FaultKind::DiskErrors,
        Severity::Info,
    );
    let supply = ("psu/1U-Bay1", FaultKind::PowerSupply, degraded);
    let redundancy = ("psu/1U-redundancy-0", FaultKind::PowerSupply, degraded);
    assert_eq!(mockup.found(), own(&[disk, supply, redundancy]));
    let said = probe_redfish(&mockup, &Thresholds::default());
    let temperatures = said
        .readings
        .iter()
        .filter(|reading| reading.quantity == Quantity::Temperature)
        .count();
    assert!(temperatures >= 7, "{temperatures}");
    assert_eq!(
        said.readings
            .iter()
            .filter(|reading| reading.component.starts_with("fan/"))
            .count(),
        4
    );

    // A processor that gets too hot, a fan that stops, memory that fails.
    let mut sensor = mockup.load("Chassis/1U/Sensors/CPU1Temp")?;
    sensor["Reading"] = 46.into();
    let mut fan = mockup.load("Chassis/1U/ThermalSubsystem/Fans/Bay2")?;
    fan["Status"]["Health"] = "Critical".into();
    let mut memory = mockup.load("Systems/437XR1138R2/Memory/DIMM1")?;
    memory["Status"]["Health"] = "Critical".into();
    mockup
        .changed
        .insert("Chassis/1U/Sensors/CPU1Temp".into(), sensor);
    mockup
        .changed
        .insert("Chassis/1U/ThermalSubsystem/Fans/Bay2".into(), fan);
    mockup
        .changed
        .insert("Systems/437XR1138R2/Memory/DIMM1".into(), memory);
    assert_eq!(
        mockup.found(),
        own(&[
            disk,
            supply,
            redundancy,
            ("temperature/1U-CPUTemp1", FaultKind::Temperature, degraded),
            ("fan/1U-Bay2", FaultKind::Fan, degraded),
            (
                "dimm/437XR1138R2-DIMM1",
                FaultKind::ComponentCritical,
                Severity::Critical
            ),
        ])
    );

    // An older BMC has only the old form.
    let mut chassis = mockup.load("Chassis/1U")?;
    let properties = chassis.as_object_mut().context("a chassis is an object")?;
    for new in ["PowerSubsystem", "ThermalSubsystem", "Sensors"] {
        properties.remove(new);
    }
    mockup.changed = BTreeMap::from([("Chassis/1U".to_owned(), chassis)]);
    assert_eq!(
        mockup.found(),
        own(&[disk, ("psu/1U-0", FaultKind::PowerSupply, degraded)])
    );
    Ok(())
}

#[test]
fn single_resources_of_another_maker_are_healthy() -> Result<()> {
    let Some(captures) = captures() else {
        return Ok(());
    };
    let load = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            captures.join("redfish-samples").join(name),
        )?)?)
    };
    let link = |path: &str| serde_json::json!({"@odata.id": format!("/redfish/v1/{path}")});
    let mut chassis = load("chassis.json")?;
    chassis["Thermal"] = link("Thermal");
    chassis["Power"] = link("Power");
    let mut system = load("system.json")?;
    system["Storage"] = link("Storage");
    let drives = [link("D1"), link("D2"), link("D3")];
    let changed = BTreeMap::from([
        (
            String::new(),
            serde_json::json!({"Chassis": link("Chassis"), "Systems": link("Systems")}),
        ),
        (
            "Chassis".to_owned(),
            serde_json::json!({"Members": [link("Chassis/B")]}),
        ),
        ("Chassis/B".to_owned(), chassis),
        ("Thermal".to_owned(), load("thermal.json")?),
        ("Power".to_owned(), load("power.json")?),
        (
            "Systems".to_owned(),
            serde_json::json!({"Members": [link("Systems/S")]}),
        ),
        ("Systems/S".to_owned(), system),
        (
            "Storage".to_owned(),
            serde_json::json!({"Members": [{"Id": "1", "Drives": drives}]}),
        ),
        ("D1".to_owned(), load("drive.json")?),
        ("D2".to_owned(), load("drive2.json")?),
        ("D3".to_owned(), load("drive3.json")?),
    ]);
    let mut mockup = Mockup {
        folder: captures.join("absent"),
        changed,
    };
    assert_eq!(mockup.found(), BTreeSet::new());
    mockup.changed.get_mut("D2").context("D2 is there")?["FailurePredicted"] = true.into();
    let found = mockup.found();
    assert_eq!(found.len(), 1);
    assert!(
        found.iter().all(|(_, kind, severity)| (*kind, *severity)
            == (FaultKind::DiskFailing, Severity::Degraded)),
        "{found:?}"
    );
    Ok(())
}
