//! Against a Redfish service that keeps every command that it is sent.

use std::sync::{Arc, Mutex};

use api::{Bmc, BmcProtocol, SecretReference};
use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, Uri};
use serde_json::json;

use super::*;

const OWN: &str = "a1234567-89ab-cdef-a123-456789abcdef";
const OTHER: &str = "99999999-89ab-cdef-a123-456789abcdef";

/// The commands that a service was sent: path and body.
type Sent = Arc<Mutex<Vec<String>>>;

/// A service of these machines, in this order, on this address.
async fn service(address: &str, machines: &[&'static str]) -> (Bmc, Sent) {
    let machines = machines.to_vec();
    let sent = Sent::default();
    let kept = sent.clone();
    let answer = move |method: Method, uri: Uri, body: Bytes| {
        let path = uri.path().to_owned();
        let said = if method == Method::POST {
            let command = format!("{path} {}", String::from_utf8_lossy(&body));
            kept.lock().unwrap().push(command);
            json!({})
        } else if let Some(number) = path.strip_prefix("/redfish/v1/Systems/") {
            let uuid = machines[number.parse::<usize>().unwrap()];
            json!({"UUID": uuid, "PowerState": "On"})
        } else {
            let link = |number| json!({"@odata.id": format!("/redfish/v1/Systems/{number}")});
            json!({"Members": (0..machines.len()).map(link).collect::<Vec<_>>()})
        };
        async move { axum::Json(said) }
    };
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let bmc = Bmc {
        protocol: BmcProtocol::Redfish,
        address: url,
        credentials: SecretReference {
            name: "bmc".to_owned(),
        },
        certificate_authority: None,
        cipher_suite: None,
    };
    (bmc, sent)
}

/// A host that registered `OWN`.
fn host(bmcs: &[&Bmc]) -> Host {
    serde_json::from_value(json!({
        "apiVersion": "zhengyun.io/v1alpha1", "kind": "Host", "metadata": {"name": "h2"},
        "spec": {"pool": "p", "managementAddress": "10.0.0.1", "bmcs": bmcs},
        "status": {"accepted": {"bootId": "b1", "systemUuid": OWN}},
    }))
    .unwrap()
}

async fn switch_by(bmcs: &[&Bmc], on: bool) -> Result<()> {
    let login = || {
        Ok(Credentials {
            username: "fence".to_owned(),
            password: "secret".to_owned(),
        })
    };
    let logins = bmcs.iter().map(|_| login()).collect();
    through(&host(bmcs), logins, on).await
}

fn told(result: Result<()>) -> String {
    format!("{:#}", result.expect_err("refused"))
}

#[tokio::test]
async fn the_machine_that_the_host_registered_is_cut_off_and_no_other_of_its_chassis() {
    let (bmc, sent) = service("127.0.0.1:0", &[OTHER, OWN]).await;
    switch_by(&[&bmc], false).await.expect("cut");
    switch_by(&[&bmc], true).await.expect("given back");
    let reset = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
    let expected = [
        format!("{reset} {{\"ResetType\":\"ForceOff\"}}"),
        format!("{reset} {{\"ResetType\":\"On\"}}"),
    ];
    assert_eq!(*sent.lock().unwrap(), expected);
}

#[tokio::test]
async fn another_machines_bmc_is_sent_nothing_and_both_machines_are_named() {
    for machines in [&[OTHER][..], &[OTHER, OTHER][..]] {
        for on in [false, true] {
            let (bmc, sent) = service("127.0.0.1:0", machines).await;
            let told = told(switch_by(&[&bmc], on).await);
            for word in ["host h2", OTHER, OWN, "nothing was sent"] {
                assert!(told.contains(word), "{told}");
            }
            assert_eq!(*sent.lock().unwrap(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_wrong_declaration_is_refused_before_the_second_bmc_is_asked_and_power_comes_back_through_it()
 {
    let (wrong, _) = service("127.0.0.1:0", &[OTHER]).await;
    let (right, sent) = service("127.0.0.1:0", &[OWN]).await;
    let told = told(switch_by(&[&wrong, &right], false).await);
    assert!(told.contains(OTHER), "{told}");
    assert_eq!(sent.lock().unwrap().len(), 0, "nothing was cut");
    switch_by(&[&wrong, &right], true).await.expect("its own");
    assert_eq!(sent.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_bmc_has_an_address_of_version_6_too() {
    let (bmc, sent) = service("[::1]:0", &[OWN]).await;
    assert!(bmc.address.starts_with("http://[::1]:"), "{}", bmc.address);
    switch_by(&[&bmc], false).await.expect("cut");
    assert_eq!(sent.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_host_that_registered_nothing_or_declares_no_bmc_is_not_touched() {
    let (bmc, sent) = service("127.0.0.1:0", &[OWN]).await;
    let mut unknown = host(&[&bmc]);
    unknown.status = None;
    let login = Credentials {
        username: "fence".to_owned(),
        password: "secret".to_owned(),
    };
    let told_of_it = told(through(&unknown, vec![Ok(login)], false).await);
    assert!(told_of_it.contains("status.accepted"), "{told_of_it}");
    assert_eq!(sent.lock().unwrap().len(), 0);
    let none = told(switch_by(&[], false).await);
    assert!(none.contains("spec.bmcs is empty"), "{none}");
}
