//! Linux md arrays: `mdstat` of procfs, and the same facts in sysfs (`block/md*/md`), which also
//! knows arrays that a procfs of another namespace hides.

use std::collections::BTreeMap;
use std::path::Path;

use model::{FaultKind, Severity};

use crate::finding::{Finding, Findings, Quantity, id_part, quote};
use crate::source::{self, ReadError};

/// One array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Device name, such as `md0`.
    pub name: String,
    /// Personality, such as `raid1`; absent for an inactive container.
    pub level: Option<String>,
    /// It runs.
    pub active: bool,
    /// It only holds metadata for other arrays (`external:imsm`), and is inactive by nature.
    pub container: bool,
    /// Members that the array should have, where it tells.
    pub wanted: Option<u64>,
    /// Members that work, where it tells.
    pub working: Option<u64>,
    /// Members marked faulty.
    pub faulty: Vec<String>,
    /// Spares.
    pub spares: u64,
    /// What runs: `recovery`, `resync`, `reshape`, `check`, …
    pub action: Option<String>,
    /// How far, percent.
    pub progress_percent: Option<f64>,
}

/// `mdstat` of hundreds of arrays stays far below.
const MDSTAT_BYTES_MAX: u64 = 1 << 20;

/// Reads both sources. No md driver means no arrays, which is no error.
pub fn read(procfs: &Path, sysfs: &Path, findings: &mut Findings) -> Vec<Array> {
    let mut arrays: BTreeMap<String, Array> = BTreeMap::new();
    match source::text(&procfs.join("mdstat"), MDSTAT_BYTES_MAX) {
        Ok(Some(text)) => arrays.extend(
            parse_mdstat(&text)
                .into_iter()
                .map(|array| (array.name.clone(), array)),
        ),
        Ok(None) => {}
        Err(error) => findings.fail(None, error.sentence()),
    }
    match source::names(&sysfs.join("block")) {
        Ok(names) => {
            for name in names.iter().filter(|name| name.starts_with("md")) {
                match read_sysfs(&sysfs.join("block").join(name).join("md"), name) {
                    Ok(Some(array)) => {
                        arrays.entry(name.clone()).or_insert(array);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        findings.fail(Some(format!("md/{}", id_part(name))), error.sentence())
                    }
                }
            }
        }
        Err(error) => findings.fail(None, error.sentence()),
    }
    arrays.into_values().collect()
}

fn read_sysfs(folder: &Path, name: &str) -> Result<Option<Array>, ReadError> {
    let Some(state) = source::attribute(&folder.join("array_state"))? else {
        return Ok(None);
    };
    let level = source::attribute(&folder.join("level"))?;
    let wanted = source::counter(&folder.join("raid_disks"))?;
    let missing = source::counter(&folder.join("degraded"))?;
    let mut faulty = Vec::new();
    for file in source::names(folder)? {
        if let Some(member) = file.strip_prefix("dev-")
            && let Some(state) = source::attribute(&folder.join(&file).join("state"))?
            && state.split(',').any(|word| word == "faulty")
        {
            faulty.push(member.to_owned());
        }
    }
    let action = source::attribute(&folder.join("sync_action"))?
        .filter(|action| action != "idle" && action != "frozen");
    let progress_percent = source::attribute(&folder.join("sync_completed"))?.and_then(|text| {
        let (done, all) = text.split_once('/')?;
        let (done, all): (f64, f64) = (done.trim().parse().ok()?, all.trim().parse().ok()?);
        (all > 0.0).then(|| done / all * 100.0)
    });
    Ok(Some(Array {
        name: name.to_owned(),
        container: level.as_deref() == Some("container"),
        active: !matches!(state.as_str(), "inactive" | "clear" | "broken"),
        wanted: missing.and(wanted),
        working: wanted
            .zip(missing)
            .map(|(wanted, missing)| wanted.saturating_sub(missing)),
        level,
        faulty,
        spares: 0,
        action,
        progress_percent,
    }))
}

/// Arrays in the text of `mdstat`. Lines that are not understood are skipped.
pub fn parse_mdstat(text: &str) -> Vec<Array> {
    let mut arrays: Vec<Array> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(array) = arrays.last_mut() {
                parse_detail(line, array);
            }
        } else if let Some((name, rest)) = line.split_once(" : ")
            && name.starts_with("md")
        {
            arrays.push(parse_head(name.trim(), rest));
        }
    }
    arrays
}

fn parse_head(name: &str, rest: &str) -> Array {
    let mut array = Array {
        name: name.to_owned(),
        ..Array::default()
    };
    for word in rest.split_whitespace() {
        if let Some((member, flags)) = word.split_once('[') {
            if flags.contains("(F)") {
                array.faulty.push(member.to_owned());
            } else if flags.contains("(S)") {
                array.spares += 1;
            }
        } else if word == "active" {
            array.active = true;
        } else if !matches!(word, "inactive") && !word.starts_with('(') && array.level.is_none() {
            array.level = Some(word.to_owned());
        }
    }
    array
}

fn parse_detail(line: &str, array: &mut Array) {
    if line.contains("super external:") && array.level.is_none() {
        array.container = true;
    }
    for word in line.split_whitespace() {
        // `[8/7]` is "wanted/working"; `[UU_]` shows the same per slot.
        if let Some((wanted, working)) = word
            .strip_prefix('[')
            .and_then(|w| w.strip_suffix(']'))
            .and_then(|w| w.split_once('/'))
            && let (Ok(wanted), Ok(working)) = (wanted.parse(), working.parse())
            && array.wanted.is_none()
            && !line.trim_start().starts_with("bitmap")
        {
            (array.wanted, array.working) = (Some(wanted), Some(working));
        }
    }
    for action in ["recovery", "resync", "reshape", "check", "repair"] {
        let Some(at) = line.find(action) else {
            continue;
        };
        let Some(rest) = line[at + action.len()..].trim_start().strip_prefix('=') else {
            continue;
        };
        array.action = Some(action.to_owned());
        // `=DELAYED` and `=PENDING` have no figure.
        array.progress_percent = rest
            .trim_start()
            .split('%')
            .next()
            .and_then(|number| number.parse().ok());
    }
}

/// Judges arrays: a lost member is degraded, an array that lost more than it can bear is
/// critical, a faulty disk that a spare has replaced is shown.
pub fn judge_arrays(arrays: &[Array]) -> Findings {
    let mut findings = Findings::default();
    for array in arrays.iter().filter(|array| !array.container) {
        let component = format!("md/{}", id_part(&array.name));
        let missing = missing(array);
        findings.read(&component, Quantity::ArrayMissingMembers, missing as f64);
        if let Some(progress) = array.progress_percent {
            findings.read(&component, Quantity::ArraySyncProgress, progress);
        }
        if let Some((severity, state)) = rate(array, missing) {
            let finding = Finding::new(
                &component,
                FaultKind::ArrayDegraded,
                severity,
                evidence(array, state),
            );
            findings.add(finding.counted(missing.max(array.faulty.len() as u64)));
        }
    }
    findings
}

fn missing(array: &Array) -> u64 {
    array
        .wanted
        .zip(array.working)
        .map_or(0, |(wanted, working)| wanted.saturating_sub(working))
}

fn rate(array: &Array, missing: u64) -> Option<(Severity, &'static str)> {
    let lost = missing.max(if array.wanted.is_none() {
        array.faulty.len() as u64
    } else {
        0
    });
    if !array.active {
        return Some((Severity::Critical, "is not running"));
    }
    if lost > bearable(array) {
        return Some((Severity::Critical, "lost more members than it can bear"));
    }
    if lost > 0 {
        return Some((Severity::Degraded, "is degraded"));
    }
    (!array.faulty.is_empty()).then_some((
        Severity::Info,
        "is whole, but holds faulty disks to be replaced",
    ))
}

/// Members that may be lost without losing data (RAID 10: in the worst case one).
fn bearable(array: &Array) -> u64 {
    match array.level.as_deref() {
        Some("raid1") => array.wanted.unwrap_or(2).saturating_sub(1),
        Some("raid6") => 2,
        Some("raid4" | "raid5" | "raid10") => 1,
        // Personalities of the future: assume redundancy as long as it runs.
        Some(level) if !matches!(level, "raid0" | "linear" | "faulty" | "jbod") => u64::MAX,
        _ => 0,
    }
}

fn evidence(array: &Array, state: &str) -> String {
    let level = array.level.as_deref().unwrap_or("array");
    let mut text = format!("{} ({}) {state}", quote(&array.name, 32), quote(level, 16));
    if let (Some(wanted), Some(working)) = (array.wanted, array.working) {
        text.push_str(&format!(", {working} of {wanted} members work"));
    }
    if !array.faulty.is_empty() {
        let names: Vec<String> = array
            .faulty
            .iter()
            .take(8)
            .map(|name| quote(name, 32))
            .collect();
        text.push_str(&format!(", faulty: {}", names.join(" ")));
    }
    if let Some(action) = &array.action {
        text.push_str(&format!(", {}", quote(action, 16)));
        if let Some(percent) = array.progress_percent {
            text.push_str(&format!(" at {percent:.1} %"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severity(text: &str) -> Option<Severity> {
        judge_arrays(&parse_mdstat(text))
            .findings
            .first()
            .map(|finding| finding.severity)
    }

    #[test]
    fn each_state_has_its_rating() {
        let cases = [
            (
                "md0 : active raid1 sda[0] sdb[1]\n      1 blocks [2/2] [UU]\n",
                None,
            ),
            (
                "md0 : active raid1 sda[0]\n      1 blocks [2/1] [U_]\n",
                Some(Severity::Degraded),
            ),
            (
                "md0 : active raid1 sda[0](F) sdb[1](F)\n      1 blocks [2/0] [__]\n",
                Some(Severity::Critical),
            ),
            (
                "md0 : active raid6 a[0] b[1]\n      1 blocks [4/2] [UU__]\n",
                Some(Severity::Degraded),
            ),
            (
                "md0 : active raid6 a[0]\n      1 blocks [4/1] [U___]\n",
                Some(Severity::Critical),
            ),
            (
                "md0 : active raid5 a[0] b[1]\n      1 blocks [4/2] [UU__]\n",
                Some(Severity::Critical),
            ),
            (
                "md0 : active raid0 sda[0] sdb[1](F)\n      1 blocks 64k chunks\n",
                Some(Severity::Critical),
            ),
            (
                "md0 : active raid0 sda[0] sdb[1]\n      1 blocks 64k chunks\n",
                None,
            ),
            (
                "md0 : inactive raid1 sda[0](F) sdb[1](S)\n      1 blocks\n",
                Some(Severity::Critical),
            ),
            (
                "md0 : inactive sdb[1](S) sda[0](S)\n      7932 blocks super external:imsm\n",
                None,
            ),
            (
                "md0 : active raid1 c[2] b[1] a[0](F)\n      1 blocks [2/2] [UU]\n",
                Some(Severity::Info),
            ),
            (
                "md0 : active (auto-read-only) raid1 b[1] a[0]\n      1 blocks [2/2] [UU]\n      resync=PENDING\n",
                None,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(severity(text), expected, "{text}");
        }
    }

    #[test]
    fn progress_is_read_and_bitmaps_are_not_members() {
        let text = "md0 : active raid5 a[0] b[1] c[2]\n      1 blocks level 5 [3/2] [UU_]\n      [=>..]  recovery =  8.5% (1/2) finish=1min\n      bitmap: 0/30 pages [0KB], 65536KB chunk\n";
        let array = &parse_mdstat(text)[0];
        assert_eq!((array.wanted, array.working), (Some(3), Some(2)));
        assert_eq!(array.action.as_deref(), Some("recovery"));
        assert_eq!(array.progress_percent, Some(8.5));
        assert_eq!(array.level.as_deref(), Some("raid5"));
    }
}
