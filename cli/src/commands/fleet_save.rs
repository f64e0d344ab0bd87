//! `zyctl fleet save`: the fleet in a file, to be asked about without the site.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Context, planning};
use crate::language::Language;
use crate::options::Output;

/// Reads the site and writes the file, readable by its owner only: it names every VM and host.
///
/// # Errors
/// What can not be read or written.
pub async fn run(context: &Context, file: &Path) -> Result<()> {
    let mut snapshot = planning::read_site(&context.client).await?;
    snapshot.saved_at = jiff::Timestamp::now().to_string();
    let text = snapshot.to_text()?;
    let at = || format!("{}: can not be written", file.display());
    let mut open = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .with_context(at)?;
    open.write_all(text.as_bytes()).with_context(at)?;
    open.sync_all().with_context(at)?;
    let (hosts, vms) = (snapshot.objects.hosts.len(), snapshot.objects.vms.len());
    if context.output == Output::Json {
        return context.print_json(&json!({"file": file, "hosts": hosts, "virtualMachines": vms}));
    }
    let name = file.display();
    match context.language {
        Language::English => println!("{hosts} hosts and {vms} VMs saved to {name}"),
        Language::Chinese => println!("已保存 {hosts} 台宿主机、{vms} 台虚拟机到 {name}"),
    }
    Ok(())
}
