//! `zhengyun-qemu-hook`: libvirt's `qemu` hook, installed as `/etc/libvirt/hooks/qemu`.

use std::io::Read;
use std::process::ExitCode;

/// Longest domain XML that is read.
const XML_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let operation = arguments.get(1).map(String::as_str).unwrap_or_default();
    let mut xml = String::new();
    let read = std::io::stdin()
        .take(XML_BYTES_MAX)
        .read_to_string(&mut xml);
    let run_dir = std::env::var_os("ZHENGYUN_RUN_DIR").unwrap_or_else(|| "/run/zhengyun".into());
    let verdict = match read {
        Ok(_) => agent::hook::judge(run_dir.as_ref(), operation, &xml),
        Err(error) if operation == "reconnect" => {
            eprintln!("zhengyun-qemu-hook: {error}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("zhengyun-qemu-hook: {operation}: refused: {why}");
            ExitCode::FAILURE
        }
    }
}
