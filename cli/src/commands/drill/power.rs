//! Cuts the power of a host through its BMC, and gives it back.

use anyhow::{Context as _, Result};
use api::Host;
use bmc::{BmcError, Credentials, Switch};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

/// Forces a host off, or switches it on, through the first of its BMCs that obeys.
///
/// # Errors
/// The host has registered no machine, none of its BMCs obeyed, or one belongs to another machine.
pub(super) async fn switch(client: &Client, name: &str, on: bool) -> Result<()> {
    let host: Host = Api::all(client.clone()).get(name).await?;
    let namespace = api::names::SYSTEM_NAMESPACE;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut logins = Vec::new();
    for spec in &host.spec.bmcs {
        let secret = &spec.credentials.name;
        let login = match secrets.get(secret).await {
            Ok(secret) => Credentials::from_secret(&secret).map_err(Into::into),
            Err(error) => Err(error).with_context(|| format!("Secret {namespace}/{secret}")),
        };
        logins.push(login);
    }
    through(&host, logins, on).await
}

/// `logins` are those of the host's BMCs, in their order.
async fn through(host: &Host, logins: Vec<Result<Credentials>>, on: bool) -> Result<()> {
    let name = host.metadata.name.as_deref().unwrap_or_default();
    let status = host.status.as_ref();
    let accepted = status
        .and_then(|status| status.accepted.as_ref())
        .with_context(|| {
            format!("host {name}: status.accepted is empty: it has registered no machine that a BMC could be compared with; start its agent first")
        })?;
    let mut last = None;
    for (spec, login) in host.spec.bmcs.iter().zip(logins) {
        let order = async {
            let controller = bmc::connect_switch(spec, login?)?;
            obey(controller.as_ref(), &accepted.system_uuid, on).await?;
            Ok::<_, anyhow::Error>(())
        };
        let Err(error) = order.await else {
            return Ok(());
        };
        // A host of which one BMC is another machine's is not tried on: its declaration is wrong.
        // Power that was cut comes back through whichever BMC is its own.
        let other = matches!(error.downcast_ref(), Some(BmcError::OtherMachine { .. }));
        let error = error.context(format!("host {name}"));
        if other && !on {
            return Err(error);
        }
        last = Some(error);
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("host {name}: spec.bmcs is empty")))
}

async fn obey(controller: &dyn Switch, uuid: &str, on: bool) -> Result<(), BmcError> {
    if on {
        controller.switch_on(uuid).await
    } else {
        controller.force_off(uuid).await
    }
}

#[cfg(test)]
#[path = "power_tests.rs"]
mod tests;
