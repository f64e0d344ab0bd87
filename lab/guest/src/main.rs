//! `guest run`: what init starts in the lab's guests. Configures the NICs from the seed, serves HTTP,
//! writes the disk log, and powers off when the button is pressed.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest::seed::{self, Identity};
use guest::server::Server;
use guest::status::Status;
use guest::{configure, power, writer};

const USAGE: &str =
    "usage: guest run --seed DIR --system DIR --state DIR [--disk DEVICE] [--listen ADDRESS:PORT]

  --seed     folder with meta-data, user-data and network-config
  --system   root of the system disk: www/ROLE.html is read, boot-count is kept there
  --state    folder that is empty after each boot
  --disk     data disk for the stamped log (default: none)
  --listen   where to serve HTTP (default: [::]:80, both families)";

struct Options {
    seed: PathBuf,
    system: PathBuf,
    state: PathBuf,
    disk: Option<PathBuf>,
    listen: String,
}

fn main() -> ExitCode {
    let options = match options(env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("guest: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    if arguments.next().as_deref() != Some("run") {
        return Err("the one command is 'run'".to_owned());
    }
    let (mut seed, mut system, mut state, mut disk) = (None, None, None, None);
    let mut listen = "[::]:80".to_owned();
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--seed" => seed = Some(value.into()),
            "--system" => system = Some(value.into()),
            "--state" => state = Some(value.into()),
            "--disk" => disk = Some(value.into()),
            "--listen" => listen = value,
            other => return Err(format!("unknown option {other}")),
        }
    }
    match (seed, system, state) {
        (Some(seed), Some(system), Some(state)) => Ok(Options {
            seed,
            system,
            state,
            disk,
            listen,
        }),
        _ => Err("--seed, --system and --state are needed".to_owned()),
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&options.state)?;
    let identity = configure_once(options)?;
    let boot_count = count_boot(options)?;
    let status = Arc::new(Status::new(identity, boot_count));
    let stop = Arc::new(AtomicBool::new(false));
    let mut disk_thread = None;
    if let Some(disk) = options.disk.clone() {
        // Published before the first answer: a guest with a data disk is never shown without one.
        status.set_disk(guest::status::DiskState::default());
        let (status, stop, state) = (
            Arc::clone(&status),
            Arc::clone(&stop),
            options.state.clone(),
        );
        disk_thread =
            Some(thread::Builder::new().name("disk".to_owned()).spawn(
                move || match writer_number(&state) {
                    Ok(number) => writer::run(&status, &disk, number, &stop),
                    Err(error) => console(&format!("no random number for the disk log: {error}")),
                },
            )?);
    }
    let listener = TcpListener::bind(&options.listen)
        .map_err(|error| format!("--listen {}: {error}", options.listen))?;
    Server::new(Arc::clone(&status), options.system.join("www")).start(listener)?;
    console(&format!(
        "READY {} uptime {:.2} s",
        status.identity.name,
        status.uptime().as_secs_f64()
    ));
    wait_for_power_button();
    stop.store(true, Ordering::SeqCst);
    if let Some(thread) = disk_thread {
        thread.join().map_err(|_| "the disk writer failed")?;
    }
    power_off()
}

/// Reads the seed; configures the NICs unless that was done since the boot (the program may be
/// restarted, and open connections should survive it). Problems are shown, and what can be used is.
fn configure_once(options: &Options) -> io::Result<Identity> {
    let read = |name: &str| match fs::read_to_string(options.seed.join(name)) {
        Ok(text) => text,
        Err(error) => {
            console(&format!("seed: {name}: {error}"));
            String::new()
        }
    };
    let identity = seed::identity(&read("meta-data"), &read("user-data")).unwrap_or_else(|error| {
        console(&format!("seed: {error}"));
        Identity {
            name: "guest".to_owned(),
            ..Identity::default()
        }
    });
    let done = options.state.join("configured");
    if !done.exists() {
        match seed::network(&read("network-config")) {
            Ok(nics) => configure::apply(&nics)
                .iter()
                .for_each(|problem| console(&format!("network: {problem}"))),
            Err(error) => console(&format!("seed: {error}")),
        }
        File::create(&done)?;
    }
    Ok(identity)
}

/// Counts boots in a file on the system disk; a restart of the program is none.
fn count_boot(options: &Options) -> io::Result<u64> {
    let (file, done) = (
        options.system.join("boot-count"),
        options.state.join("boot-counted"),
    );
    let before = match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if done.exists() {
        return Ok(before);
    }
    let count: u64 = before + 1;
    let temporary = file.with_extension("new");
    let mut out = File::create(&temporary)?;
    writeln!(out, "{count}")?;
    out.sync_all()?;
    fs::rename(&temporary, &file)?;
    File::create(&done)?;
    Ok(count)
}

/// The writer's number: random, drawn once per boot and kept for restarts of the program. Early in a
/// boot `/dev/random` and `/dev/urandom` spend a second on gathering randomness; the kernel's uuids do
/// not, and mixing in the wall clock's nanoseconds keeps guests that boot at the same moment apart.
fn writer_number(state: &Path) -> io::Result<[u8; 16]> {
    let file = state.join("writer");
    let mut number = [0u8; 16];
    if let Ok(known) = fs::read(&file)
        && known.len() == number.len()
    {
        number.copy_from_slice(&known);
        return Ok(number);
    }
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let digits: Vec<u8> = uuid
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    for (byte, pair) in number.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    for (byte, time) in number.iter_mut().zip(now.to_le_bytes()) {
        *byte ^= time;
    }
    let temporary = state.join("writer.new");
    fs::write(&temporary, number)?;
    fs::rename(&temporary, &file)?;
    Ok(number)
}

/// Waits for a press. A guest without a button, or whose button fails, waits for ever: its host can
/// still switch it off.
fn wait_for_power_button() {
    match power::buttons(Path::new("/sys/class/input"), Path::new("/dev/input")) {
        Ok(buttons) => {
            if let Some(button) = buttons.first() {
                match power::wait_for_press(button) {
                    Ok(()) => return console("power button pressed"),
                    Err(error) => console(&format!("{}: {error}", button.display())),
                }
            } else {
                console("no power button: this guest can not be shut down, only switched off");
            }
        }
        Err(error) => console(&format!("/sys/class/input: {error}")),
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn power_off() -> Result<(), Box<dyn Error>> {
    for arguments in [
        &["sync"][..],
        &["mount", "-o", "remount,ro", "/system"],
        &["poweroff", "-f"],
    ] {
        let status = Command::new("/bin/busybox").args(arguments).status()?;
        if !status.success() {
            console(&format!("busybox {}: {status}", arguments.join(" ")));
        }
    }
    Ok(())
}

/// Says a line on the console (standard error is the serial console, as init starts us).
fn console(line: &str) {
    eprintln!("guest: {line}");
}
