//! `zyctl`, also `kubectl zhengyun`: what the site does and why, and the few things that
//! people ask of it. It reads and writes the API and knows nothing that the API does not.

mod client;
mod commands;
mod language;
mod options;
mod said;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    end_with_the_reader();
    let options = Options::parse();
    match commands::run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zyctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As of a program that SIGPIPE ended (128 + 13): whoever asks knows that not all may be done.
const ENDED_WITH_THE_READER: i32 = 141;

/// Output that nobody reads any more (`zyctl status | head`) ends the program quietly, where `println!` panics.
/// The signal SIGPIPE would do so too, but it would also end it when the API server closes a connection.
fn end_with_the_reader() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(ENDED_WITH_THE_READER);
        }
        tell(panic);
    }));
}
