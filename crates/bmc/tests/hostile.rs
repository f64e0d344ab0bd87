//! Controllers that misbehave below HTTP and IPMI: every case ends in time, in little memory, with
//! an error that names the controller, and never with Off.

mod controller;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::BmcProtocol;
use bmc::{Bmc, CALL_TIMEOUT, PowerReport, connect};
use controller::{UUID, login, spec};
use failover::Moment;
use failover::proof::power::{PowerReading, PowerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// What no error may tell.
const PASSWORD: &str = "secret-word";
/// What a call may take beyond its own bound on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// What all misdeeds at once may add to the memory of the process at its height, KiB.
const MEMORY_KIB: u64 = 64 * 1024;

/// How a controller misbehaves once a request has arrived.
#[derive(Clone, Copy, Debug)]
enum Misdeed {
    /// One byte of a body at a time, for ever.
    Drips,
    /// One byte of a header at a time, for ever.
    DripsHeaders,
    /// A body without end, as fast as it goes.
    NeverEnds,
    /// Headers without end.
    HeadersNeverEnd,
    /// `100 Continue` without end.
    AlwaysContinues,
    /// Less than it announced.
    Truncates,
    /// More than it announced.
    Overruns,
    /// A length beyond all measure.
    AbsurdLength,
    /// A chunk's size beyond all measure.
    AbsurdChunk,
    /// No HTTP.
    Garbage,
    /// TLS where HTTP is spoken.
    SpeaksTls,
    /// Closes at once.
    HangsUp,
    /// A web page.
    WebPage,
    /// A redirect to itself.
    RedirectsToItself,
    /// Compressed, to unfold to gigabytes.
    Bomb,
    /// Thousands of systems, all Off.
    ThousandsOfSystems,
    /// A link to another server.
    LinksElsewhere,
    /// The power of nobody: no UUID.
    Nobody,
    /// The UUID is no text.
    UuidIsANumber,
    /// Another machine's, Off.
    OtherMachine,
    /// JSON too deep.
    Deep,
    /// The same word twice.
    Twice,
}

const MISDEEDS: [Misdeed; 22] = [
    Misdeed::Drips,
    Misdeed::DripsHeaders,
    Misdeed::NeverEnds,
    Misdeed::HeadersNeverEnd,
    Misdeed::AlwaysContinues,
    Misdeed::Truncates,
    Misdeed::Overruns,
    Misdeed::AbsurdLength,
    Misdeed::AbsurdChunk,
    Misdeed::Garbage,
    Misdeed::SpeaksTls,
    Misdeed::HangsUp,
    Misdeed::WebPage,
    Misdeed::RedirectsToItself,
    Misdeed::Bomb,
    Misdeed::ThousandsOfSystems,
    Misdeed::LinksElsewhere,
    Misdeed::Nobody,
    Misdeed::UuidIsANumber,
    Misdeed::OtherMachine,
    Misdeed::Deep,
    Misdeed::Twice,
];

fn whole(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

fn collection(links: impl Iterator<Item = String>) -> String {
    let members: Vec<String> = links
        .map(|link| format!("{{\"@odata.id\":\"{link}\"}}"))
        .collect();
    format!("{{\"Members\":[{}]}}", members.join(","))
}

/// The answer to a request for the collection, or for a system.
fn plain(misdeed: Misdeed, asks_collection: bool) -> Option<Vec<u8>> {
    let one = || collection(["/redfish/v1/Systems/1".to_owned()].into_iter());
    let system = match misdeed {
        Misdeed::ThousandsOfSystems if asks_collection => {
            let all = (0..5_000).map(|number| format!("/redfish/v1/Systems/{number}"));
            return Some(whole(&collection(all)));
        }
        Misdeed::ThousandsOfSystems => {
            "{\"UUID\":\"99999999-89ab-cdef-a123-456789abcdef\",\"PowerState\":\"Off\"}".to_owned()
        }
        Misdeed::LinksElsewhere if asks_collection => {
            return Some(whole(&collection(
                ["//127.0.0.1:1/x".to_owned()].into_iter(),
            )));
        }
        Misdeed::Nobody => "{\"PowerState\":\"Off\"}".to_owned(),
        Misdeed::UuidIsANumber => "{\"UUID\":7,\"PowerState\":\"Off\"}".to_owned(),
        Misdeed::OtherMachine => {
            "{\"UUID\":\"99999999-89ab-cdef-a123-456789abcdef\",\"PowerState\":\"Off\"}".to_owned()
        }
        Misdeed::Deep => format!(
            "{{\"UUID\":\"{UUID}\",\"PowerState\":\"Off\",\"x\":{}",
            "[".repeat(100_000)
        ),
        Misdeed::Twice => {
            format!("{{\"UUID\":\"{UUID}\",\"PowerState\":\"On\",\"PowerState\":\"Off\"}}")
        }
        _ => return None,
    };
    Some(whole(&if asks_collection { one() } else { system }))
}

async fn misbehave(misdeed: Misdeed, mut stream: TcpStream) -> Result<()> {
    let mut request = [0_u8; 4096];
    if matches!(misdeed, Misdeed::HangsUp) {
        return Ok(());
    }
    let read = stream.read(&mut request).await?;
    let asks_collection = String::from_utf8_lossy(&request[..read])
        .lines()
        .next()
        .is_some_and(|line| line.contains("/redfish/v1/Systems HTTP"));
    if let Some(answer) = plain(misdeed, asks_collection) {
        stream.write_all(&answer).await?;
        return Ok(());
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let off = format!("{{\"UUID\":\"{UUID}\",\"PowerState\":\"Off\"}}");
    let once = |text: String| text.into_bytes();
    let (first, again, pause): (Vec<u8>, Option<Vec<u8>>, u64) = match misdeed {
        Misdeed::Drips => (
            once(format!("{head}content-length: 100000\r\n\r\n{{")),
            Some(b" ".to_vec()),
            20,
        ),
        Misdeed::DripsHeaders => (once(head.to_owned()), Some(b"x".to_vec()), 20),
        Misdeed::NeverEnds => (
            once(format!("{head}connection: close\r\n\r\n[")),
            Some(vec![b' '; 65_536]),
            0,
        ),
        Misdeed::HeadersNeverEnd => (
            once(head.to_owned()),
            Some(format!("x: {}\r\n", "y".repeat(8_000)).into_bytes()),
            0,
        ),
        Misdeed::AlwaysContinues => (
            Vec::new(),
            Some(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            1,
        ),
        Misdeed::Truncates => (
            once(format!("{head}content-length: 5000\r\n\r\n{off}")),
            None,
            0,
        ),
        Misdeed::Overruns => (
            once(format!("{head}content-length: 3\r\n\r\n{off}")),
            None,
            0,
        ),
        Misdeed::AbsurdLength => (
            once(format!(
                "{head}content-length: 99999999999999999999\r\n\r\n{off}"
            )),
            None,
            0,
        ),
        Misdeed::AbsurdChunk => (
            once(format!(
                "{head}transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{off}"
            )),
            None,
            0,
        ),
        Misdeed::SpeaksTls => (vec![0x16, 3, 3, 0, 2, 2, 40], None, 0),
        Misdeed::WebPage => (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 22\r\n\r\n<html>Power Off</html>".to_vec(),
            None,
            0,
        ),
        Misdeed::RedirectsToItself => (
            b"HTTP/1.1 302 Found\r\nlocation: /redfish/v1/Systems\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
            None,
            0,
        ),
        // The start of a gzip stream; a client that unfolds it would go on for gigabytes.
        Misdeed::Bomb => (
            once(format!(
                "{head}content-encoding: gzip\r\nconnection: close\r\n\r\n"
            )),
            Some([&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 4096]].concat()),
            0,
        ),
        _ => (b"\x00\xff\xfeOff Off Off\r\n\r\n".to_vec(), None, 0),
    };
    stream.write_all(&first).await?;
    while let Some(again) = &again {
        stream.write_all(again).await?;
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    Ok(())
}

async fn serve(misdeed: Misdeed) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It ends when its client has had enough.
            tokio::spawn(async move { misbehave(misdeed, stream).await });
        }
    });
    Ok(address)
}

/// The height of this process's memory so far, KiB.
fn height_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .context("VmHWM")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("a number")?
        .parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_misdeed_of_a_redfish_service_costs_more_than_its_bound_or_proves_anything() -> Result<()>
{
    let before = height_kib()?;
    futures::future::try_join_all(MISDEEDS.map(survive)).await?;
    let grown = height_kib()? - before;
    assert!(grown < MEMORY_KIB, "all of them took {grown} KiB");
    Ok(())
}

/// What the controller answers, within the bound; an error names it and does not tell the password.
async fn read(bmc: &dyn Bmc, misdeed: &str, address: &str) -> Option<PowerReport> {
    let began = Instant::now();
    let result = bmc.read(UUID).await;
    let took = began.elapsed();
    assert!(took < CALL_TIMEOUT + SLACK, "{misdeed} took {took:?}");
    if let Err(error) = &result {
        let text = error.to_string();
        assert!(text.contains(address), "{misdeed}: {text}");
        assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
    }
    result.ok()
}

async fn survive(misdeed: Misdeed) -> Result<()> {
    let address = serve(misdeed).await?;
    let bmc = connect(
        &spec(BmcProtocol::Redfish, format!("http://{address}")),
        login(PASSWORD),
    )?;
    // A whole answer that is about nobody, or about another machine: it proves nothing.
    if let Some(report) = read(bmc.as_ref(), &format!("{misdeed:?}"), &address.to_string()).await {
        let reading = PowerReading {
            answer: report.power,
            system_uuid: report.system_uuid,
            unanimous: true,
            contradicted: false,
            sent_at: Moment(0),
            received_at: Moment(1),
        };
        assert_eq!(reading.judge(UUID), PowerState::OtherMachine, "{misdeed:?}");
    }
    let forced = bmc.force_off(UUID).await;
    assert!(forced.is_err(), "{misdeed:?}: nothing may be sent to it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_misdeed_of_an_ipmi_controller_costs_more_than_its_bound_or_proves_anything()
-> Result<()> {
    let tool = std::process::Command::new("which")
        .arg("ipmitool")
        .output()?;
    ensure!(
        tool.status.success(),
        "ipmitool is not installed; run scripts/setup.sh"
    );
    // Nothing, rubbish, a request sent back, half of it, the same with a flipped byte, a flood.
    futures::future::try_join_all((0..6).map(survive_ipmi)).await?;
    Ok(())
}

async fn survive_ipmi(misdeed: u8) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    let server = tokio::spawn(async move {
        let mut packet = [0_u8; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let mut answer = match misdeed {
                0 => Vec::new(),
                1 => b"Chassis Power is off\n".to_vec(),
                3 => packet[..length / 2].to_vec(),
                _ => packet[..length].to_vec(),
            };
            if let (4, Some(byte)) = (misdeed, answer.last_mut()) {
                *byte ^= 0xff;
            }
            let times = if misdeed == 5 { 2_000 } else { 1 };
            for _ in 0..times {
                // A client that has given up refuses packets.
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    let bmc = connect(
        &spec(BmcProtocol::Ipmi, address.to_string()),
        login(PASSWORD),
    )?;
    let report = read(bmc.as_ref(), &format!("misdeed {misdeed}"), "127.0.0.1").await;
    assert!(report.is_none(), "no answer of a controller: {report:?}");
    server.abort();
    Ok(())
}
