//! Every number that a judge compares with, in one place. Defaults are those of the design's
//! table "Hardware faults before death"; the others say where they come from. Which of them a site
//! sets, and why it does not set the others: `docs/decisions/0017`.

use serde::{Deserialize, Serialize};

/// When a value becomes a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// Corrected memory errors within `memory_window_seconds` that make a host degraded: 50.
    pub corrected_memory_errors: u64,
    /// Window of corrected memory errors: 24 h.
    pub memory_window_seconds: i64,
    /// How long an uncorrected memory error stands, where no person clears it sooner: 24 h.
    pub uncorrected_memory_window_seconds: i64,
    /// Disk wear from which it is shown, percent of the rated endurance: 80.
    pub disk_wear_percent: f64,
    /// Pending or uncorrectable sectors that make a disk failing: 1, where smartd warns too.
    pub bad_sectors: u64,
    /// Reallocated sectors (ATA) or grown defects (SCSI) from which it is shown: 50. Disks live
    /// long with a few; growth beyond is worth knowing.
    pub reallocated_sectors: u64,
    /// Uncorrected errors of a SCSI disk's life that make it failing: 10; fewer are shown.
    pub scsi_uncorrected_errors: u64,
    /// Link flaps (carrier lost) within `link_window_seconds` that degrade: 5.
    pub link_flaps: u64,
    /// Window of a link's flaps and packets: 10 min.
    pub link_window_seconds: i64,
    /// Share of packets with errors above which a link is degraded: 0.01.
    pub link_error_ratio: f64,
    /// Packets within the window below which no share is judged: 1000, so that one error in an
    /// idle minute is no fault.
    pub link_packets_min: u64,
    /// How long a temperature must stay above the hardware's warning: 10 min. One at the hardware's own critical limit
    /// (hwmon `crit`, Redfish `UpperThresholdCritical`, IPMI `ucr`) is a fault as soon as it was seen `raise_polls` times:
    /// beyond it the machine takes harm or switches itself off, and ten minutes may be more than it has left for its VMs to
    /// leave. It is `Degraded` as well: the host works, so its VMs leave by priority and as N+1 bears it.
    pub temperature_hold_seconds: i64,
    /// I/O errors in the kernel log within `kernel_log_window_seconds` that degrade: 5; fewer
    /// are shown.
    pub kernel_disk_errors: u64,
    /// Hung tasks in the kernel log within the window that degrade: 3; fewer are shown.
    pub kernel_hung_tasks: u64,
    /// Window of the kernel log's events: 1 h.
    pub kernel_log_window_seconds: i64,
    /// A pool that answers slower is slow: 1 s.
    pub pool_slow_milliseconds: u64,
    /// How long a pool must stay slow: 60 s; a burst of writes is no fault.
    pub pool_slow_hold_seconds: i64,
    /// A pool that has been silent for longer is lost: 10 s, a tenth of a guest's usual disk
    /// time-out (30 s in Linux) away from harm.
    pub pool_lost_milliseconds: u64,
    /// Clock offset from which it is shown: 1 s. Nothing in failover compares wall clocks, so it
    /// is never worse than this; certificates and logs suffer.
    pub clock_offset_seconds: f64,
    /// How long a clock must be unsynchronised or off: 10 min, since every boot begins so.
    pub clock_hold_seconds: i64,
    /// Polls in a row that must see a fault before it is raised: 2.
    pub raise_polls: u32,
    /// Time without a fault, with the probe readable, after which it is cleared: 30 min.
    pub clear_seconds: i64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            corrected_memory_errors: 50,
            memory_window_seconds: 24 * 3600,
            uncorrected_memory_window_seconds: 24 * 3600,
            disk_wear_percent: 80.0,
            bad_sectors: 1,
            reallocated_sectors: 50,
            scsi_uncorrected_errors: 10,
            link_flaps: 5,
            link_window_seconds: 600,
            link_error_ratio: 0.01,
            link_packets_min: 1000,
            temperature_hold_seconds: 600,
            kernel_disk_errors: 5,
            kernel_hung_tasks: 3,
            kernel_log_window_seconds: 3600,
            pool_slow_milliseconds: 1000,
            pool_slow_hold_seconds: 60,
            pool_lost_milliseconds: 10_000,
            clock_offset_seconds: 1.0,
            clock_hold_seconds: 600,
            raise_polls: 2,
            clear_seconds: 1800,
        }
    }
}
