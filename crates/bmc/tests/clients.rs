//! Both BMC clients against what they will meet: the real IPMI simulator of OpenIPMI, the
//! real Redfish emulator of sushy-tools, and a server that answers slowly, hugely, wrongly.

mod controller;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api::BmcProtocol;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bmc::{BmcError, connect, connect_switch};
use controller::{UUID, login, spec};
use failover::proof::power::{PowerAnswer, same_machine};

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn installed(program: &str) -> bool {
    Command::new("which")
        .arg(program)
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn need(program: &str) -> Result<()> {
    ensure!(
        installed(program),
        "{program} is missing; run scripts/setup.sh"
    );
    Ok(())
}

fn ipmi_simulator(folder: &Path, port: u16) -> Result<Running> {
    let chassis = folder.join("chassis.sh");
    let state = folder.join("power");
    std::fs::write(&state, "1")?;
    let script = format!(
        "#!/bin/sh\ncase \"$2 $3\" in\n'get power') echo \"power:$(cat {0})\";;\n'set power') echo \"$4\" > {0};;\nesac\n",
        state.display()
    );
    std::fs::write(&chassis, script)?;
    std::fs::set_permissions(&chassis, std::fs::Permissions::from_mode(0o755))?;
    let methods = "none md2 md5 straight";
    let configuration = format!(
        "name \"t\"\nset_working_mc 0x20\nstartlan 1\n addr 127.0.0.1 {port}\n priv_limit admin\n allowed_auths_callback {methods}\n \
         allowed_auths_user {methods}\n allowed_auths_operator {methods}\n allowed_auths_admin {methods}\n guid {}\nendlan\n\
         chassis_control \"{} t\"\nuser 1 true \"\" \"\" user 10 {methods}\nuser 2 true \"fence\" \"secret\" admin 10 {methods}\n",
        UUID.replace('-', ""),
        chassis.display()
    );
    std::fs::write(folder.join("lan.conf"), configuration)?;
    std::fs::write(
        folder.join("t.emu"),
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nsel_enable 0x20 1000 0x0a\nmc_enable 0x20\n",
    )?;
    std::fs::create_dir_all(folder.join("state"))?;
    let child = Command::new("ipmi_sim")
        .arg("-n")
        .arg("-c")
        .arg(folder.join("lan.conf"))
        .arg("-f")
        .arg(folder.join("t.emu"))
        .arg("-s")
        .arg(folder.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("ipmi_sim")?;
    Ok(Running(child))
}

#[tokio::test]
async fn ipmi_reads_forces_off_and_reads_back() -> Result<()> {
    need("ipmi_sim")?;
    need("ipmitool")?;
    let folder = tempfile::tempdir()?;
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let _simulator = ipmi_simulator(folder.path(), port)?;
    let address = format!("127.0.0.1:{port}");
    let bmc = connect_switch(&spec(BmcProtocol::Ipmi, address.clone()), login("secret"))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let report = loop {
        match bmc.read(UUID).await {
            Ok(report) => break report,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    };
    assert_eq!(report.power, PowerAnswer::On);
    ensure!(
        same_machine(report.system_uuid.as_deref().unwrap_or_default(), UUID),
        "{report:?}"
    );
    let other = bmc.force_off("99999999-89ab-cdef-a123-456789abcdef").await;
    assert!(
        matches!(other, Err(BmcError::OtherMachine { .. })),
        "another machine's BMC is told nothing: {other:?}"
    );
    assert_eq!(bmc.read(UUID).await?.power, PowerAnswer::On);
    bmc.force_off(UUID).await?;
    bmc.force_off(UUID).await?;
    assert_eq!(bmc.read(UUID).await?.power, PowerAnswer::Off);
    let other = bmc.switch_on("99999999-89ab-cdef-a123-456789abcdef").await;
    assert!(
        matches!(other, Err(BmcError::OtherMachine { .. })),
        "{other:?}"
    );
    assert_eq!(bmc.read(UUID).await?.power, PowerAnswer::Off);
    bmc.switch_on(UUID).await?;
    assert_eq!(bmc.read(UUID).await?.power, PowerAnswer::On);
    let wrong = connect(&spec(BmcProtocol::Ipmi, address), login("wrong"))?
        .read(UUID)
        .await;
    let error = wrong.expect_err("a wrong password");
    assert!(
        !format!("{error:?}").contains("wrong"),
        "the password stands in {error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_dead_ipmi_controller_is_given_up_in_time() -> Result<()> {
    need("ipmitool")?;
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    let bmc = connect(
        &spec(BmcProtocol::Ipmi, silent.local_addr()?.to_string()),
        login("secret"),
    )?;
    let begin = Instant::now();
    assert!(bmc.read(UUID).await.is_err());
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

fn emulator() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let path = PathBuf::from(home).join(".cache/zhengyun/venv/bin/sushy-emulator");
    path.is_file().then_some(path)
}

#[tokio::test]
async fn redfish_reads_forces_off_and_reads_back() -> Result<()> {
    let emulator = emulator().context("sushy-emulator is missing; run scripts/setup.sh")?;
    let folder = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let configuration = folder.path().join("sushy.conf");
    std::fs::write(
        &configuration,
        format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{UUID}', 'name': 't', 'power_state': 'On', 'nics': []}}]\n",
            folder.path().display()
        ),
    )?;
    let _emulator = Running(
        Command::new(emulator)
            .arg("--config")
            .arg(&configuration)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let bmc = connect_switch(
        &spec(BmcProtocol::Redfish, format!("http://127.0.0.1:{port}")),
        login("secret"),
    )?;
    let deadline = Instant::now() + Duration::from_secs(120);
    let wait_for = async |wanted: PowerAnswer| loop {
        match bmc.read(UUID).await {
            Ok(report) if report.power == wanted => return Ok(report),
            last if Instant::now() > deadline => {
                anyhow::bail!("waited for {wanted:?}, last {last:?}")
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let report = wait_for(PowerAnswer::On).await?;
    ensure!(
        same_machine(report.system_uuid.as_deref().unwrap_or_default(), UUID),
        "{report:?}"
    );
    bmc.force_off(UUID).await?;
    // The emulator's own driver changes state 1 to 11 s after the command, as real ones do.
    wait_for(PowerAnswer::Off).await?;
    let other = bmc.switch_on("99999999-89ab-cdef-a123-456789abcdef").await;
    let told = other.expect_err("another machine's").to_string();
    ensure!(
        told.contains(UUID) && told.contains("99999999-89ab-cdef-a123-456789abcdef"),
        "both are named: {told}"
    );
    bmc.switch_on(UUID).await?;
    wait_for(PowerAnswer::On).await?;
    Ok(())
}

/// A Redfish service whose system is `system`, served raw.
async fn serve(
    answer: impl Fn(&Uri, &HeaderMap) -> Response + Clone + Send + Sync + 'static,
) -> Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        let response = answer(&uri, &headers);
        async move { response }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn read_from(
    answer: impl Fn(&Uri, &HeaderMap) -> Response + Clone + Send + Sync + 'static,
) -> Result<Result<PowerAnswer, BmcError>> {
    let address = serve(answer).await?;
    let bmc = connect(
        &spec(BmcProtocol::Redfish, format!("http://{address}")),
        login("secret"),
    )?;
    Ok(bmc.read(UUID).await.map(|report| report.power))
}

fn collection(links: &[&str]) -> String {
    let members: Vec<String> = links
        .iter()
        .map(|link| format!("{{\"@odata.id\":\"{link}\"}}"))
        .collect();
    format!("{{\"Members\":[{}]}}", members.join(","))
}

fn one_system(system: String) -> impl Fn(&Uri, &HeaderMap) -> Response + Clone {
    move |uri: &Uri, _: &HeaderMap| {
        let body = if uri.path() == "/redfish/v1/Systems" {
            collection(&["/redfish/v1/Systems/1"])
        } else {
            system.clone()
        };
        body.into_response()
    }
}

#[tokio::test]
async fn hostile_redfish_answers_are_errors_and_never_off() -> Result<()> {
    let system = |rest: &str| format!("{{\"UUID\":\"{UUID}\"{rest}}}");
    assert_eq!(
        read_from(one_system(system(",\"PowerState\":\"Off\"")))
            .await?
            .ok(),
        Some(PowerAnswer::Off)
    );
    assert_eq!(
        read_from(one_system(system(",\"PowerState\":\"PoweringOff\"")))
            .await?
            .ok(),
        Some(PowerAnswer::On)
    );
    let bad = [
        system(""),
        system(",\"PowerState\":\"off\""),
        system(",\"PowerState\":null"),
        system(",\"PowerState\":[\"Off\"]"),
        "[]".to_owned(),
        "{".to_owned(),
        String::new(),
        "\u{0}".repeat(100),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!(
            "{{\"PowerState\":\"Off\",\"x\":\"{}\"}}",
            "y".repeat(300 * 1024)
        ),
    ];
    for body in bad {
        let start: String = body.chars().take(60).collect();
        let answer = read_from(one_system(body)).await?;
        assert!(
            matches!(answer, Err(BmcError::Malformed { .. })),
            "{start:?}: {answer:?}"
        );
    }
    let no_login =
        read_from(|_: &Uri, _: &HeaderMap| StatusCode::UNAUTHORIZED.into_response()).await?;
    assert!(matches!(no_login, Err(BmcError::Unauthorised { .. })));
    let elsewhere =
        read_from(|_: &Uri, _: &HeaderMap| collection(&["http://evil.example/x"]).into_response())
            .await?;
    assert!(
        matches!(elsewhere, Err(BmcError::Malformed { .. })),
        "{elsewhere:?}"
    );
    let redirect = read_from(|_: &Uri, _: &HeaderMap| {
        (StatusCode::FOUND, [("location", "http://127.0.0.1:9/")]).into_response()
    })
    .await?;
    assert!(
        matches!(redirect, Err(BmcError::Malformed { .. })),
        "{redirect:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_slow_redfish_service_is_given_up_in_time() -> Result<()> {
    // Accepts connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let bmc = connect(
        &spec(
            BmcProtocol::Redfish,
            format!("http://{}", listener.local_addr()?),
        ),
        login("secret"),
    )?;
    let begin = Instant::now();
    assert!(matches!(
        bmc.read(UUID).await,
        Err(BmcError::TimedOut { .. })
    ));
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}

#[tokio::test]
async fn among_several_systems_the_registered_one_is_read() -> Result<()> {
    let answer = |uri: &Uri, _: &HeaderMap| {
        let body = match uri.path() {
            "/redfish/v1/Systems" => {
                collection(&["/redfish/v1/Systems/a", "/redfish/v1/Systems/b"])
            }
            "/redfish/v1/Systems/a" => {
                "{\"UUID\":\"99999999-89ab-cdef-a123-456789abcdef\",\"PowerState\":\"Off\"}"
                    .to_owned()
            }
            _ => format!("{{\"UUID\":\"{UUID}\",\"PowerState\":\"On\"}}"),
        };
        body.into_response()
    };
    assert_eq!(read_from(answer).await?.ok(), Some(PowerAnswer::On));
    Ok(())
}
