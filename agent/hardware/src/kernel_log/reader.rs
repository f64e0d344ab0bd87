//! Reading the kernel's log a piece at a time, and taking lines apart. No meaning is given here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::finding::Findings;
use crate::source::ReadError;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The kernel's number of it, where the source tells.
    pub sequence: Option<u64>,
    /// Written by the kernel itself; programs can write to `/dev/kmsg` too, and are not believed.
    pub from_kernel: bool,
    /// The message without its prefix.
    pub message: String,
}

/// How far a log was read; survives a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// First sequence number not yet seen (device).
    pub sequence: u64,
    /// First byte not yet read (plain file).
    pub offset: u64,
    /// Identity of the plain file, since logs are rotated.
    pub inode: u64,
}

/// Bytes read at most in one poll; what is left is read in the next.
const POLL_BYTES_MAX: u64 = 1 << 20;
/// Records read at most in one poll.
const POLL_RECORDS_MAX: usize = 16_384;
/// The kernel's bound on one record.
const RECORD_BYTES_MAX: usize = 8192;

/// Reads one log.
#[derive(Debug, Default)]
pub struct LogReader {
    device: Option<(PathBuf, File)>,
}

impl LogReader {
    /// New records since the position, which moves on. A log that does not exist is an error:
    /// a host without one is blind.
    pub fn read(
        &mut self,
        path: &Path,
        position: &mut LogPosition,
        findings: &mut Findings,
    ) -> Vec<LogRecord> {
        match self.try_read(path, position) {
            Ok(records) => records,
            Err(source) => {
                self.device = None;
                let error = ReadError::Io {
                    path: path.to_owned(),
                    source,
                };
                findings.fail(None, error.sentence());
                Vec::new()
            }
        }
    }

    fn try_read(&mut self, path: &Path, position: &mut LogPosition) -> io::Result<Vec<LogRecord>> {
        if let Some((open, _)) = &self.device
            && open != path
        {
            self.device = None;
        }
        if self.device.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(path)?;
            if !file.metadata()?.file_type().is_char_device() {
                return read_file(file, position);
            }
            self.device = Some((path.to_owned(), file));
        }
        match &mut self.device {
            Some((_, file)) => read_device(file, position),
            None => Ok(Vec::new()),
        }
    }
}

fn read_device(file: &mut File, position: &mut LogPosition) -> io::Result<Vec<LogRecord>> {
    let mut records = Vec::new();
    let mut buffer = [0_u8; RECORD_BYTES_MAX];
    for _ in 0..POLL_RECORDS_MAX {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                // Lines after the first are the record's dictionary.
                let Some(record) = text.lines().next().and_then(parse_record) else {
                    continue;
                };
                // After a restart the device is read from its beginning again.
                if let Some(sequence) = record.sequence {
                    if sequence < position.sequence {
                        continue;
                    }
                    position.sequence = sequence + 1;
                }
                records.push(record);
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => break,
                // The ring overtook the reader; the next read goes on with its oldest record.
                Some(libc::EPIPE | libc::EINTR) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(records)
}

fn read_file(mut file: File, position: &mut LogPosition) -> io::Result<Vec<LogRecord>> {
    let metadata = file.metadata()?;
    if metadata.ino() != position.inode || metadata.len() < position.offset {
        *position = LogPosition {
            inode: metadata.ino(),
            ..LogPosition::default()
        };
    }
    file.seek(SeekFrom::Start(position.offset))?;
    let mut bytes = Vec::new();
    file.take(POLL_BYTES_MAX).read_to_end(&mut bytes)?;
    // A line without its end is still being written: read it next time, unless it is longer
    // than any line may be.
    let complete = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if bytes.len() as u64 == POLL_BYTES_MAX => bytes.len(),
        None => 0,
    };
    position.offset += complete as u64;
    let text = String::from_utf8_lossy(&bytes[..complete]);
    Ok(text.lines().filter_map(parse_record).collect())
}

/// Takes one line apart: a record of `/dev/kmsg` (`6,339,5140900,-;text`), a line of dmesg
/// (`[ 5.14] text`, also with `<6>`), or of syslog (`… kernel: text`). `None` for blank lines and
/// continuation lines.
pub fn parse_record(line: &str) -> Option<LogRecord> {
    let line: &str = line.trim_end();
    if line.is_empty() || line.starts_with([' ', '\t']) {
        return None;
    }
    if let Some(record) = parse_device_record(line) {
        return Some(record);
    }
    let message = match line.find(" kernel: ") {
        // The host's name and a date stand before it; a message has no such prefix of its own.
        Some(at) if at < 80 => &line[at + " kernel: ".len()..],
        _ => line,
    };
    let (priority, message) = split_level(message);
    Some(LogRecord {
        sequence: None,
        from_kernel: priority.is_none_or(is_kernel_priority),
        message: split_time(message).to_owned(),
    })
}

fn parse_device_record(line: &str) -> Option<LogRecord> {
    let (prefix, message) = line.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u64 = fields.next()?.parse().ok()?;
    let sequence: u64 = fields.next()?.parse().ok()?;
    let _microseconds: u64 = fields.next()?.parse().ok()?;
    Some(LogRecord {
        sequence: Some(sequence),
        from_kernel: is_kernel_priority(priority),
        message: message.to_owned(),
    })
}

/// Facility 0 is the kernel's; the low three bits are the level.
fn is_kernel_priority(priority: u64) -> bool {
    priority >> 3 == 0
}

fn split_level(message: &str) -> (Option<u64>, &str) {
    let parsed = message.strip_prefix('<').and_then(|rest| {
        let (level, rest) = rest.split_once('>')?;
        Some((level.parse().ok()?, rest))
    });
    match parsed {
        Some((level, rest)) => (Some(level), rest.trim_start()),
        None => (None, message),
    }
}

fn split_time(message: &str) -> &str {
    let rest = message.strip_prefix('[').and_then(|rest| {
        let (time, rest) = rest.split_once(']')?;
        let is_time = !time.is_empty()
            && time
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | ' '));
        is_time.then_some(rest)
    });
    rest.unwrap_or(message).trim_start()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn all_forms_of_a_line_give_its_message() {
        for line in [
            "3,339,5140900,-;I/O error, dev sda, sector 1",
            "3,339,5140900,-,caller=T1;I/O error, dev sda, sector 1",
            "[    5.140900] I/O error, dev sda, sector 1",
            "<3>[    5.140900] I/O error, dev sda, sector 1",
            "Nov 24 03:00:00 host1 kernel: [ 5.140900] I/O error, dev sda, sector 1",
            "2026-11-24T03:00:00+08:00 host1 kernel: I/O error, dev sda, sector 1",
            "I/O error, dev sda, sector 1",
        ] {
            let record = parse_record(line).unwrap();
            assert_eq!(record.message, "I/O error, dev sda, sector 1", "{line}");
            assert!(record.from_kernel);
        }
        assert!(
            !parse_record("14,340,5140900,-;I/O error, dev sda")
                .unwrap()
                .from_kernel
        );
        assert_eq!(parse_record(" SUBSYSTEM=block"), None);
        assert_eq!(parse_record(""), None);
    }

    #[test]
    fn a_file_is_read_once_in_whole_lines_and_anew_after_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        let mut findings = Findings::default();
        let mut reader = LogReader::default();
        let mut position = LogPosition::default();
        fs::write(&path, "one\ntwo\nhal").unwrap();
        let texts =
            |records: Vec<LogRecord>| records.into_iter().map(|r| r.message).collect::<Vec<_>>();
        assert_eq!(
            texts(reader.read(&path, &mut position, &mut findings)),
            ["one", "two"]
        );
        assert!(reader.read(&path, &mut position, &mut findings).is_empty());
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"f\n")
            .unwrap();
        assert_eq!(
            texts(LogReader::default().read(&path, &mut position, &mut findings)),
            ["half"]
        );
        fs::write(&path, "new\n").unwrap();
        assert_eq!(
            texts(reader.read(&path, &mut position, &mut findings)),
            ["new"]
        );
        assert!(findings.errors.is_empty());
        reader.read(&folder.path().join("absent"), &mut position, &mut findings);
        assert_eq!(findings.errors.len(), 1);
    }
}
