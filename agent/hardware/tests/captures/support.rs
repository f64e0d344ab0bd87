//! Finds the captures of real hardware and lays a text archive of a sysfs tree out as files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The captures, or `None` (and a word about it) where they are absent.
pub fn captures() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/captures");
    let folder = std::env::var_os("ZHENGYUN_CAPTURES").map_or(beside, PathBuf::from);
    if folder.join("README.md").exists() {
        return Some(folder);
    }
    // Straight to the output, which the harness captures nothing of: scripts/test.sh counts these lines.
    let line = writeln!(
        std::io::stdout(),
        "not run: captures are absent ({})",
        folder.display()
    );
    line.expect("an output");
    None
}

/// Lays an archive out below `into`. Its entries are `Path:` with `Lines:` and the lines, or
/// with `SymlinkTo:`; and `Directory:`. In lines, `EOF` at the end means "no line end", and
/// `NULLBYTE` a zero byte.
pub fn unpack(archive: &Path, into: &Path) -> Result<usize> {
    let text = fs::read_to_string(archive).with_context(|| archive.display().to_string())?;
    let mut lines = text.lines();
    let mut entries = 0;
    while let Some(line) = lines.next() {
        if let Some(folder) = line.strip_prefix("Directory: ") {
            fs::create_dir_all(into.join(folder))?;
            continue;
        }
        let Some(path) = line.strip_prefix("Path: ") else {
            continue;
        };
        let path = into.join(path);
        fs::create_dir_all(path.parent().context("an entry has a folder")?)?;
        let head = lines
            .next()
            .context("an archive does not end in an entry")?;
        if let Some(target) = head.strip_prefix("SymlinkTo: ") {
            symlink(target, &path)?;
        } else if let Some(count) = head.strip_prefix("Lines: ") {
            let content: Vec<&str> = lines.by_ref().take(count.trim().parse()?).collect();
            let mut content = content.join("\n").replace("NULLBYTE", "\0");
            match content.strip_suffix("EOF") {
                Some(without) => content.truncate(without.len()),
                None if !content.is_empty() => content.push('\n'),
                None => {}
            }
            fs::write(&path, content)?;
        } else {
            bail!("{head:?} is neither lines nor a link ({})", path.display());
        }
        entries += 1;
    }
    Ok(entries)
}
