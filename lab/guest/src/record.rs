//! One record of the disk log: layout, checksum, encoding. No I/O.
//!
//! The log is a ring of 512-byte sectors. The record with counter `n` (from 1) lies in sector
//! `(n - 1) mod slots`, so a later record never lies in an earlier one's place until the ring has
//! gone round. All numbers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `ZYDLOG01` |
//! | 8..24 | writer: random, one per boot of the guest |
//! | 24..32 | boot count, from 1 |
//! | 32..40 | counter, from 1 |
//! | 40..48 | nanoseconds since the guest booted |
//! | 48..56 | wall clock, nanoseconds since 1970 |
//! | 56..64 | conflicts: foreign records that writers of this disk ever met |
//! | 64..68 | checksum of the record before this one, 0 for the first |
//! | 68 | length of the name |
//! | 69..132 | name of the guest |
//! | 508..512 | CRC-32 (IEEE) of bytes 0..508 |

/// Size of a record: one sector, which a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// Records that the log holds at most: 16 MiB, about 1.8 hours at five a second, then it goes round.
pub const SLOTS_MAXIMUM: u64 = 32_768;
/// Longest name that a record carries, bytes.
pub const NAME_BYTES_MAXIMUM: usize = 63;

const MAGIC: &[u8; 8] = b"ZYDLOG01";
const CHECKSUM_OFFSET: usize = 508;

/// One stamped write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Random number of the boot that wrote it.
    pub writer: [u8; 16],
    /// How often a guest has booted on this disk, from 1.
    pub boot_count: u64,
    /// Number of the write on this disk, from 1.
    pub counter: u64,
    /// Nanoseconds since the guest booted.
    pub monotonic_nanoseconds: u64,
    /// Nanoseconds since 1970 by the guest's wall clock; for people.
    pub wall_nanoseconds: u64,
    /// Foreign records that writers of this disk ever met; never falls.
    pub conflicts: u64,
    /// Checksum of the record before this one, as its writer knew it; 0 for the first.
    pub previous_checksum: u32,
    /// Name of the guest, cut to [`NAME_BYTES_MAXIMUM`].
    pub name: String,
}

impl Record {
    /// The record as it lies on the disk.
    pub fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut bytes = [0u8; SECTOR_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.writer);
        bytes[24..32].copy_from_slice(&self.boot_count.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.counter.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.monotonic_nanoseconds.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.wall_nanoseconds.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.conflicts.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.previous_checksum.to_le_bytes());
        let name = self.name.as_bytes();
        let length = name.len().min(NAME_BYTES_MAXIMUM);
        bytes[68] = length as u8;
        bytes[69..69 + length].copy_from_slice(&name[..length]);
        let checksum = crc32(&bytes[..CHECKSUM_OFFSET]);
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a sector; `None` when it holds no whole record (never written, torn, or foreign data).
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        if bytes.len() != SECTOR_BYTES || &bytes[0..8] != MAGIC {
            return None;
        }
        if crc32(&bytes[..CHECKSUM_OFFSET]) != checksum_of(bytes) {
            return None;
        }
        let length = usize::from(bytes[68]).min(NAME_BYTES_MAXIMUM);
        let mut writer = [0u8; 16];
        writer.copy_from_slice(&bytes[8..24]);
        Some(Record {
            writer,
            boot_count: number(bytes, 24),
            counter: number(bytes, 32),
            monotonic_nanoseconds: number(bytes, 40),
            wall_nanoseconds: number(bytes, 48),
            conflicts: number(bytes, 56),
            previous_checksum: u32::from_le_bytes([bytes[64], bytes[65], bytes[66], bytes[67]]),
            name: String::from_utf8_lossy(&bytes[69..69 + length]).into_owned(),
        })
    }
}

/// Checksum that a whole record carries. `bytes` must be one sector.
pub fn checksum_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[508], bytes[509], bytes[510], bytes[511]])
}

/// Number of slots of a disk of `bytes` bytes; 0 when it is too small for one record.
pub fn slots(bytes: u64) -> u64 {
    (bytes / SECTOR_BYTES as u64).min(SLOTS_MAXIMUM)
}

/// Byte offset of the record with `counter` (from 1) on a log of `slots` slots.
pub fn offset(counter: u64, slots: u64) -> u64 {
    ((counter - 1) % slots) * SECTOR_BYTES as u64
}

/// `writer` as 32 hexadecimal digits.
pub fn writer_text(writer: &[u8; 16]) -> String {
    writer.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0u8; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// CRC-32 (IEEE 802.3), table-driven: some 500 bytes five times a second.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !bytes.iter().fold(!0u32, |crc, byte| {
        TABLE[usize::from((crc as u8) ^ byte)] ^ (crc >> 8)
    })
}

const fn crc32_table() -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                0xEDB8_8320 ^ (value >> 1)
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record {
            writer: [0xAB; 16],
            boot_count: 3,
            counter: 77,
            monotonic_nanoseconds: 5_000_000_001,
            wall_nanoseconds: 1_700_000_000_000_000_002,
            conflicts: 0,
            previous_checksum: 0x1234_5678,
            name: "oa-database-0".to_owned(),
        }
    }

    #[test]
    fn checksum_is_the_standard_one() {
        // The check value that every description of CRC-32 (IEEE) gives.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_record_survives_the_disk() {
        assert_eq!(Record::decode(&sample().encode()), Some(sample()));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let good = sample().encode();
        for at in 0..SECTOR_BYTES {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert_eq!(Record::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn the_layout_is_the_one_on_file() {
        // The judge reads the same file with its own decoder: the two can not drift apart unseen.
        let golden = include_bytes!("../testdata/record.bin");
        assert_eq!(sample().encode().as_slice(), golden.as_slice());
    }

    #[test]
    fn the_ring_goes_round() {
        assert_eq!(offset(1, 4), 0);
        assert_eq!(offset(4, 4), 3 * 512);
        assert_eq!(offset(5, 4), 0);
        assert_eq!(slots(511), 0);
        assert_eq!(slots(1 << 40), SLOTS_MAXIMUM);
    }
}
