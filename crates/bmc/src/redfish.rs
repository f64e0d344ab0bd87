//! Redfish (DMTF DSP0266) over HTTP(S): the system resource for power and UUID, its Reset
//! action with `ForceOff` or `On`. Reads no other resource; answers are bounded in size and time.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Bmc as BmcSpec;
use async_trait::async_trait;
use failover::proof::power::{PowerAnswer, same_machine};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wire::body::BodyError;

use crate::{Bmc, BmcError, Credentials, PowerReport, Switch, bounded, tls};

/// Largest answer that is read, bytes. Real system resources have 2 to 30 KiB.
const ANSWER_BYTES: usize = 256 * 1024;
/// Most systems of one controller that are looked at (a chassis of blades).
const SYSTEMS: usize = 32;
/// Longest wait for one connection; a dead controller must not use up the call's time.
const CONNECT: Duration = Duration::from_secs(2);

/// One Redfish service.
pub struct Redfish {
    client: Client,
    base: Url,
    address: String,
    credentials: Credentials,
}

#[derive(Deserialize)]
struct Collection {
    #[serde(rename = "Members", default)]
    members: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "@odata.id")]
    id: String,
}

#[derive(Deserialize)]
struct System {
    #[serde(rename = "UUID")]
    uuid: Option<String>,
    #[serde(rename = "PowerState")]
    power_state: Option<String>,
    #[serde(rename = "Actions", default)]
    actions: Actions,
}

#[derive(Default, Deserialize)]
struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    target: String,
}

impl Redfish {
    /// A client for one service.
    ///
    /// # Errors
    /// When the address is no URL or the authority no certificate.
    pub fn new(spec: &BmcSpec, credentials: Credentials) -> Result<Self, BmcError> {
        let base = Url::parse(&spec.address).map_err(|error| BmcError::Declaration {
            field: "spec.bmcs.address",
            why: format!("{error}; write a URL such as https://10.0.0.1"),
        })?;
        let client = Client::builder()
            .use_preconfigured_tls(tls::client_config(spec.certificate_authority.as_deref())?)
            .connect_timeout(CONNECT)
            // A redirect could send the credentials elsewhere; a proxy is never on the way to a BMC.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Controllers drop idle connections without a word; a reading must not fail on one.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|source| BmcError::Unreachable {
                address: spec.address.clone(),
                source: source.into(),
            })?;
        Ok(Self {
            client,
            base,
            address: spec.address.clone(),
            credentials,
        })
    }

    fn malformed(&self, what: impl Into<String>) -> BmcError {
        BmcError::Malformed {
            address: self.address.clone(),
            what: what.into(),
        }
    }

    /// A path from an answer, on this service only: an answer must not send us, or our
    /// credentials, to another server.
    fn url(&self, path: &str) -> Result<Url, BmcError> {
        if !path.starts_with('/') || path.starts_with("//") || path.len() > 1024 {
            return Err(self.malformed("a link that does not lie on itself"));
        }
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(None);
        Ok(url)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&BTreeMap<&str, &str>>,
    ) -> Result<Vec<u8>, BmcError> {
        let mut request = self
            .client
            .request(method, self.url(path)?)
            .basic_auth(&self.credentials.username, Some(&self.credentials.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |source: reqwest::Error| BmcError::Unreachable {
            address: self.address.clone(),
            source: source.without_url().into(),
        };
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(BmcError::Unauthorised {
                    address: self.address.clone(),
                });
            }
            status if !status.is_success() => {
                return Err(self.malformed(format!("status {}", status.as_u16())));
            }
            _ => {}
        }
        let answer = wire::body::read(response, ANSWER_BYTES).await;
        answer.map_err(|error| match error {
            BodyError::Failed(source) => unreachable(source),
            BodyError::TooLarge(most) => self.malformed(format!("more than {most} bytes")),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BmcError> {
        let answer = self.send(Method::GET, path, None).await?;
        serde_json::from_slice(&answer)
            .map_err(|_| self.malformed(format!("something that is no Redfish resource at {path}")))
    }

    /// The system with the expected UUID; with a single system, that one, whatever its UUID
    /// (the judge of the reading compares it).
    async fn system(&self, expected_uuid: &str) -> Result<(String, System), BmcError> {
        let systems: Collection = self.get("/redfish/v1/Systems").await?;
        let mut only = None;
        let mut reported = Vec::new();
        let count = systems.members.len();
        for link in systems.members.into_iter().take(SYSTEMS) {
            let system: System = self.get(&link.id).await?;
            if system
                .uuid
                .as_deref()
                .is_some_and(|uuid| same_machine(uuid, expected_uuid))
            {
                return Ok((link.id, system));
            }
            reported.extend(system.uuid.clone());
            only = Some((link.id, system));
        }
        match only {
            Some(single) if count == 1 => Ok(single),
            Some(_) => Err(self.other_machine(&reported, expected_uuid)),
            None => Err(self.malformed("no system")),
        }
    }

    fn other_machine(&self, reported: &[String], expected_uuid: &str) -> BmcError {
        let reported = match reported {
            [] => "that names no UUID".to_owned(),
            several => several.join(" or "),
        };
        BmcError::other_machine(&self.address, &reported, expected_uuid)
    }

    /// Resets this machine and no other.
    async fn reset(&self, kind: &str, expected_uuid: &str) -> Result<(), BmcError> {
        bounded(&self.address, async {
            let (id, system) = self.system(expected_uuid).await?;
            let reported = system.uuid.as_slice();
            if !reported
                .iter()
                .any(|uuid| same_machine(uuid, expected_uuid))
            {
                return Err(self.other_machine(reported, expected_uuid));
            }
            let target = system.actions.reset.map_or_else(
                || format!("{}/Actions/ComputerSystem.Reset", id.trim_end_matches('/')),
                |action| action.target,
            );
            let body = BTreeMap::from([("ResetType", kind)]);
            self.send(Method::POST, &target, Some(&body)).await?;
            Ok(())
        })
        .await
    }
}

/// `PowerState` as an answer: only `Off` is off; a machine that is on its way is still on.
fn power(state: &str) -> Option<PowerAnswer> {
    match state {
        "Off" => Some(PowerAnswer::Off),
        "On" | "PoweringOn" | "PoweringOff" | "Paused" => Some(PowerAnswer::On),
        _ => None,
    }
}

/// What a system resource says of its power.
fn report(system: System) -> Result<PowerReport, &'static str> {
    let state = system.power_state.ok_or("no PowerState")?;
    Ok(PowerReport {
        power: power(&state).ok_or("an unknown PowerState")?,
        system_uuid: system.uuid,
    })
}

#[async_trait]
impl Bmc for Redfish {
    async fn read(&self, expected_uuid: &str) -> Result<PowerReport, BmcError> {
        bounded(&self.address, async {
            let (_, system) = self.system(expected_uuid).await?;
            report(system).map_err(|what| self.malformed(what))
        })
        .await
    }

    async fn force_off(&self, expected_uuid: &str) -> Result<(), BmcError> {
        self.reset("ForceOff", expected_uuid).await
    }
}

#[async_trait]
impl Switch for Redfish {
    async fn switch_on(&self, expected_uuid: &str) -> Result<(), BmcError> {
        self.reset("On", expected_uuid).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Chance, cases};

    const SYSTEM: &str = r##"{"@odata.id":"/redfish/v1/Systems/1","UUID":"a1234567-89ab-cdef-a123-456789abcdef","PowerState":"Off","Status":{"State":"Disabled","Health":null},"Actions":{"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff"]}},"Boot":{"x":[1,2.5,-3e9,true]}}"##;

    /// Whatever bytes arrive, a report says Off only where the document does, in these words; and
    /// nothing panics. `ZY_FUZZ_CASES` and `ZY_FUZZ_SEED` say how long and from where.
    #[test]
    fn no_mangled_system_reads_off_by_itself() {
        let mut chance = Chance::from_environment();
        let (mut off, mut refused) = (0_u64, 0_u64);
        for _ in 0..cases() {
            let bytes = chance.mangle(SYSTEM.as_bytes());
            let Ok(system) = serde_json::from_slice::<System>(&bytes) else {
                refused += 1;
                continue;
            };
            let Ok(report) = report(system) else {
                refused += 1;
                continue;
            };
            // A number beyond all numbers in a field that nobody reads: nothing to compare with.
            let Ok(document) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
                continue;
            };
            if report.power == PowerAnswer::Off {
                assert_eq!(
                    document["PowerState"],
                    "Off",
                    "{}",
                    String::from_utf8_lossy(&bytes)
                );
                off += 1;
            }
            let uuid = document["UUID"].as_str().map(str::to_owned);
            assert_eq!(report.system_uuid, uuid);
        }
        assert!(off > 0 && refused > 0, "{off} off, {refused} refused");
    }

    #[test]
    fn a_doubled_word_is_refused() {
        for doubled in [
            r#"{"PowerState":"On","PowerState":"Off"}"#,
            r#"{"UUID":"a","UUID":"b","PowerState":"Off"}"#,
        ] {
            assert!(
                serde_json::from_str::<System>(doubled).is_err(),
                "{doubled}"
            );
        }
    }
}
