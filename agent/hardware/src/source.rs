//! Bounded reading below passed-in roots. Nothing here judges.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where hardware is read; a test host has its own.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Root of sysfs, normally `/sys`.
    pub sysfs: PathBuf,
    /// Root of procfs, normally `/proc`.
    pub procfs: PathBuf,
    /// The kernel's log: `/dev/kmsg`, or a file of lines.
    pub kernel_log: PathBuf,
    /// The smartctl program.
    pub smartctl: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots {
            sysfs: "/sys".into(),
            procfs: "/proc".into(),
            kernel_log: "/dev/kmsg".into(),
            smartctl: "smartctl".into(),
        }
    }
}

/// A file or folder that could not be read as expected.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("{path} can not be read")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is greater than any real one.
    #[error("{path} holds more than {bytes_max} bytes; it is not what it should be")]
    TooLarge {
        /// What was read.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
    /// It holds something else than a number.
    #[error("{path} holds {text:?} where a number belongs")]
    NotANumber {
        /// What was read.
        path: PathBuf,
        /// What it holds, shortened.
        text: String,
    },
}

impl ReadError {
    /// Message with its cause, in one line.
    pub fn sentence(&self) -> String {
        match self {
            ReadError::Io { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// One value in sysfs is at most a page.
const ATTRIBUTE_BYTES_MAX: u64 = 4096;
/// Entries of one folder that are looked at.
const FOLDER_ENTRIES_MAX: usize = 4096;

/// Text of a file of at most `bytes_max` bytes; `None` when there is no such file.
///
/// # Errors
/// It can not be read or is too large. Bytes that are no UTF-8 are replaced.
pub fn text(path: &Path, bytes_max: u64) -> Result<Option<String>, ReadError> {
    let failed = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    match file.take(bytes_max + 1).read_to_end(&mut bytes) {
        Ok(_) => {}
        // A driver answers so when the thing behind the file is gone, switched off or has no
        // value now (a NIC that is administratively down, a sensor of an empty slot).
        Err(error) if has_no_value(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLarge {
            path: path.to_owned(),
            bytes_max,
        });
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn has_no_value(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENODATA | libc::ENODEV | libc::ENXIO | libc::EOPNOTSUPP)
    )
}

/// Trimmed text of one attribute; `None` when absent or empty.
///
/// # Errors
/// As [`text`].
pub fn attribute(path: &Path) -> Result<Option<String>, ReadError> {
    Ok(text(path, ATTRIBUTE_BYTES_MAX)?
        .map(|text| text.trim_matches(['\0', '\n', ' ', '\t']).to_owned())
        .filter(|text| !text.is_empty()))
}

/// A whole number in one attribute; `None` when absent or empty.
///
/// # Errors
/// As [`text`], or something else than a number.
pub fn number(path: &Path) -> Result<Option<i64>, ReadError> {
    let Some(text) = attribute(path)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| ReadError::NotANumber {
        path: path.to_owned(),
        text: text.chars().take(40).collect(),
    })
}

/// A counter: a number that is never negative.
///
/// # Errors
/// As [`number`].
pub fn counter(path: &Path) -> Result<Option<u64>, ReadError> {
    let Some(text) = attribute(path)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| ReadError::NotANumber {
        path: path.to_owned(),
        text: text.chars().take(40).collect(),
    })
}

/// Names in a folder, sorted; empty when there is no such folder.
///
/// # Errors
/// The folder can not be read.
pub fn names(path: &Path) -> Result<Vec<String>, ReadError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => {
            return Err(ReadError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut names: Vec<String> = Vec::new();
    for entry in entries.take(FOLDER_ENTRIES_MAX) {
        let entry = entry.map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_empty_wrong_and_huge_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("number"), "42\n").unwrap();
        fs::write(at("empty"), "\n").unwrap();
        fs::write(at("word"), "many\n").unwrap();
        fs::write(at("negative"), "-5\n").unwrap();
        fs::write(at("huge"), vec![b'1'; 5000]).unwrap();
        assert_eq!(number(&at("number")).unwrap(), Some(42));
        assert_eq!(number(&at("negative")).unwrap(), Some(-5));
        assert_eq!(number(&at("absent")).unwrap(), None);
        assert_eq!(number(&at("empty")).unwrap(), None);
        assert!(matches!(
            number(&at("word")),
            Err(ReadError::NotANumber { .. })
        ));
        assert!(matches!(
            counter(&at("negative")),
            Err(ReadError::NotANumber { .. })
        ));
        assert!(matches!(
            number(&at("huge")),
            Err(ReadError::TooLarge { .. })
        ));
        assert!(matches!(number(folder.path()), Err(ReadError::Io { .. })));
        assert_eq!(
            names(folder.path()).unwrap(),
            ["empty", "huge", "negative", "number", "word"]
        );
        assert!(names(&at("absent")).unwrap().is_empty());
    }
}
