//! The guest image in the lab: builds it (or finds it built), serves it to the hosts, and tells the
//! declarations what it is.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::declarations::Values;
use crate::files::LabFiles;
use crate::namespace;
use crate::process::{Daemon, PATIENCE, join_namespace, wait_for, wait_for_end};

/// Port of the image server on the control address.
const PORT: u16 = 8100;

/// What `lab/guest/build.sh` writes beside the files it has built.
#[derive(Clone, Debug, Deserialize)]
pub struct GuestImage {
    /// Hash of everything that went into it; names its folder.
    pub hash: String,
    /// Kernel for direct boot.
    pub kernel: GuestFile,
    /// Initial RAM disk.
    pub initrd: GuestFile,
    /// System disk.
    pub disk: GuestFile,
    /// Format of the system disk, as an `Image` says it.
    pub disk_format: String,
    /// Smallest volume that it fits in.
    pub minimum_size: String,
    /// Kernel command line.
    pub kernel_command_line: String,
}

/// One file of the guest image.
#[derive(Clone, Debug, Deserialize)]
pub struct GuestFile {
    /// Name within the folder.
    pub file: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// Builds the guest image unless it is built; returns its folder. Progress goes to standard error.
///
/// # Errors
/// The build failed; what it said stands on standard error.
pub fn build() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build.sh");
    let mut child = Command::new(&script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} can not be run", script.display()))?;
    // It prints one line at its end, which fits in the pipe.
    wait_for_end(&mut child, || Ok(())).context("building the guest image")?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}", script.display(), output.status);
    }
    let folder = String::from_utf8(output.stdout).context("the folder's name is no text")?;
    Ok(PathBuf::from(folder.trim()))
}

/// Reads what was built in a folder.
///
/// # Errors
/// The folder holds no guest image.
pub fn read(folder: &Path) -> Result<GuestImage> {
    let file = folder.join("guest.json");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{}: can not be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: is no guest image", file.display()))
}

/// What the overlay needs to know about the image.
pub fn values(image: &GuestImage) -> Values {
    let mut values = Values::from([
        // An image's content never changes, so each build has its own name.
        (
            "image.name".to_owned(),
            format!("guest-{}", &image.hash[..image.hash.len().min(12)]),
        ),
        ("disk.format".to_owned(), image.disk_format.clone()),
        ("disk.minimumSize".to_owned(), image.minimum_size.clone()),
        (
            "kernel.commandLine".to_owned(),
            image.kernel_command_line.clone(),
        ),
    ]);
    for (name, file) in [
        ("kernel", &image.kernel),
        ("initrd", &image.initrd),
        ("disk", &image.disk),
    ] {
        values.insert(format!("{name}.file"), file.file.clone());
        values.insert(format!("{name}.sha256"), file.sha256.clone());
    }
    values
}

/// Serves the image in `folder` to the lab's hosts, from the control node's management address, and
/// returns all values that the overlay needs. A server that runs already is used again.
///
/// # Errors
/// The server does not answer.
pub fn serve(files: &LabFiles, folder: &Path) -> Result<Values> {
    let image = read(folder)?;
    let addresses = files.addresses()?;
    let control = addresses.control();
    let parent = folder
        .parent()
        .context("a guest image lies in the cache of all guest images")?;
    if !answers(files, control) {
        let namespace = namespace::control(&files.name);
        let command: [std::ffi::OsString; 8] = [
            "python3".into(),
            "-m".into(),
            "http.server".into(),
            PORT.to_string().into(),
            "--bind".into(),
            control.to_string().into(),
            "--directory".into(),
            parent.into(),
        ];
        Daemon {
            cgroup: &namespace::cgroup(&files.name, "control")?,
            namespace: Some(&namespace),
            log: &files.logs().join("images.log"),
            command: command.to_vec(),
        }
        .start()?;
        wait_for("the image server", PATIENCE, || Ok(answers(files, control)))?;
    }
    let mut values = values(&image);
    let name = folder
        .file_name()
        .context("a guest image's folder has a name")?
        .to_string_lossy();
    values.insert(
        "images".to_owned(),
        format!("http://{control}:{PORT}/{name}"),
    );
    values.insert("edge".to_owned(), addresses.edge().to_string());
    Ok(values)
}

/// Whether somebody listens on the image server's port, as seen from inside the lab.
fn answers(files: &LabFiles, control: Ipv4Addr) -> bool {
    let namespace = namespace::control(&files.name);
    let look = move || {
        join_namespace(&namespace).is_ok()
            && TcpStream::connect_timeout(
                &SocketAddr::from((control, PORT)),
                Duration::from_secs(2),
            )
            .is_ok()
    };
    // A thread of its own: a namespace belongs to a thread, and this one must stay where it is.
    std::thread::spawn(look).join().unwrap_or(false)
}
