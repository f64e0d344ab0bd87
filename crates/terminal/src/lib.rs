//! What the programs that print for people have in common.

#![forbid(unsafe_code)]

/// As of a program that SIGPIPE ended (128 + 13): whoever asks knows that not all may be done.
const ENDED_WITH_THE_READER: i32 = 141;

/// From now on output that nobody reads any more (`zyctl status | head`) ends the program quietly, where `println!` panics.
/// The signal SIGPIPE would do so too, but it would also end it when a server closes a connection. Nothing is
/// dropped: a program that must clear up first does not call it.
pub fn end_with_the_reader() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(ENDED_WITH_THE_READER);
        }
        tell(panic);
    }));
}
