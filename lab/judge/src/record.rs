//! Decodes a record of a guest's disk log. The layout is told in `lab/guest/src/record.rs`; this is
//! a second decoder on purpose: a judge that decodes with the writer's code would share its mistakes.

use serde::Serialize;

/// Bytes of a record: one sector.
pub const SECTOR_BYTES: usize = 512;
/// Records that a log holds before it goes round.
pub const SLOTS_MAXIMUM: usize = 32_768;

/// One record as found on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Random number of the guest's boot, 32 hexadecimal digits.
    pub writer: String,
    /// Boots on this disk.
    pub boot_count: u64,
    /// Number of the write, from 1.
    pub counter: u64,
    /// Nanoseconds since the guest booted.
    pub monotonic_nanoseconds: u64,
    /// Foreign records that writers met.
    pub conflicts: u64,
    /// Checksum of the record before.
    pub previous_checksum: u32,
    /// Checksum of this one.
    pub checksum: u32,
    /// Name of the guest.
    pub name: String,
}

/// What a sector of the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sector {
    /// Never written.
    Blank,
    /// A whole record.
    Record(Record),
    /// Neither: torn or foreign.
    Broken,
}

/// Decodes one sector; a shorter slice is broken.
pub fn decode(bytes: &[u8]) -> Sector {
    if bytes.iter().all(|byte| *byte == 0) {
        return Sector::Blank;
    }
    decode_record(bytes).map_or(Sector::Broken, Sector::Record)
}

fn decode_record(bytes: &[u8]) -> Option<Record> {
    let (body, stored) = bytes.split_at_checked(508)?;
    let checksum = u32::from_le_bytes(stored.try_into().ok()?);
    let magic = body.strip_prefix(b"ZYDLOG01")?;
    if crc32fast::hash(body) != checksum {
        return None;
    }
    let (writer, rest) = magic.split_at_checked(16)?;
    let mut numbers = rest.chunks_exact(8).map(|eight| {
        eight
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    });
    let (boot_count, counter) = (numbers.next()?, numbers.next()?);
    let (monotonic_nanoseconds, _wall) = (numbers.next()?, numbers.next()?);
    let conflicts = numbers.next()?;
    let previous_checksum = u32::from_le_bytes(body.get(64..68)?.try_into().ok()?);
    let length = usize::from(*body.get(68)?);
    let name = String::from_utf8_lossy(body.get(69..69 + length)?).into_owned();
    (counter > 0).then(|| Record {
        writer: writer.iter().map(|byte| format!("{byte:02x}")).collect(),
        boot_count,
        counter,
        monotonic_nanoseconds,
        conflicts,
        previous_checksum,
        checksum,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_on_file_is_read() {
        // Written by an independent script and checked against the guest's encoder by its own tests.
        let Sector::Record(record) = decode(include_bytes!("../../guest/testdata/record.bin"))
        else {
            panic!("not a record");
        };
        assert_eq!(
            (record.boot_count, record.counter, record.conflicts),
            (3, 77, 0)
        );
        assert_eq!(record.writer, "ab".repeat(16));
        assert_eq!(record.previous_checksum, 0x1234_5678);
        assert_eq!(record.name, "oa-database-0");
    }

    #[test]
    fn blank_torn_and_foreign_sectors_are_told_apart() {
        let mut torn = *include_bytes!("../../guest/testdata/record.bin");
        torn[300] ^= 1;
        assert_eq!(decode(&torn), Sector::Broken);
        assert_eq!(decode(&[0; SECTOR_BYTES]), Sector::Blank);
        assert_eq!(decode(&[7; SECTOR_BYTES]), Sector::Broken);
        assert_eq!(decode(b"ZYDLOG01"), Sector::Broken);
    }
}
