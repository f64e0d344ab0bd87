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
    terminal::end_with_the_reader();
    let options = Options::parse();
    match commands::run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zyctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
