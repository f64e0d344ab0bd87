//! Waits for the power button (ACPI, as `virsh shutdown` presses it). Decides nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Size of the kernel's `input_event` on 64-bit machines: two times, type, code, value.
const EVENT_BYTES: usize = 24;
const TYPE_KEY: u16 = 1;
const CODE_POWER: u16 = 116;

/// Input devices that the kernel calls a power button.
pub fn buttons(class: &Path, devices: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        let event = entry.file_name();
        let is_event = event.to_string_lossy().starts_with("event");
        if is_event
            && fs::read_to_string(entry.path().join("device/name"))?.trim() == "Power Button"
        {
            found.push(devices.join(event));
        }
    }
    found.sort();
    Ok(found)
}

/// Returns when the button of `device` has been pressed.
pub fn wait_for_press(device: &Path) -> io::Result<()> {
    let mut file = File::open(device)?;
    let mut event = [0u8; EVENT_BYTES];
    loop {
        file.read_exact(&mut event)?;
        if is_press(&event) {
            return Ok(());
        }
    }
}

fn is_press(event: &[u8; EVENT_BYTES]) -> bool {
    let kind = u16::from_ne_bytes([event[16], event[17]]);
    let code = u16::from_ne_bytes([event[18], event[19]]);
    let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
    kind == TYPE_KEY && code == CODE_POWER && value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let mut event = [0u8; EVENT_BYTES];
        event[16] = 1;
        event[18] = 116;
        assert!(!is_press(&event), "release");
        event[20] = 1;
        assert!(is_press(&event));
        event[18] = 115;
        assert!(!is_press(&event), "another key");
    }
}
