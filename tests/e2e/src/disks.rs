//! Volumes and images through API, operator and agent, down to the files: a volume grows, a volume that is
//! to be deleted with its data takes its file along, an image of another content is not used.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::{Image, Volume};
use kube::Api;
use kube::api::DeleteParams;
use lab::declarations::{self, Values};
use lab::{Lab, guest};
use serde_json::{Value, json};

use crate::watch::until;

const NAMESPACE: &str = "tourism";
const MEBIBYTE: u64 = 1 << 20;
/// A digest that no file has.
const WRONG: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn volume(name: &str, spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Volume",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    object["spec"]["pool"] = json!("shared");
    object
}

fn volumes(lab: &Lab) -> Api<Volume> {
    Api::namespaced(lab.client.clone(), NAMESPACE)
}

/// A volume grows, and its file with it; deleted, it takes its file along.
///
/// # Errors
/// The file is of another size, or stays.
pub async fn a_volume_grows_and_goes(lab: &Lab) -> Result<()> {
    let mut file = None;
    for mebibytes in [16, 24] {
        let spec =
            json!({"size": format!("{mebibytes}Mi"), "format": "Raw", "reclaimPolicy": "Delete"});
        declarations::apply(&lab.client, &[volume("spare", &spec)]).await?;
        let what = format!("a volume of {mebibytes} MiB to be Ready");
        until(&lab.client, &what, async || {
            let status = volumes(lab).get("spare").await?.status.unwrap_or_default();
            let report = status.reported.context("no report yet")?;
            file = report.file.map(|file| in_the_pool(lab, &file));
            let size = report.size_bytes.and_then(|size| u64::try_from(size).ok());
            Ok(status.phase.as_deref() == Some("Ready") && size == Some(mebibytes * MEBIBYTE))
        })
        .await?;
        let file = file.as_ref().context("a volume that is Ready has a file")?;
        let length = std::fs::metadata(file)?.len();
        ensure!(
            length == mebibytes * MEBIBYTE,
            "{}: {length} bytes, declared are {mebibytes} MiB",
            file.display()
        );
    }
    gone(lab, "spare").await?;
    let file = file.context("a volume that was Ready had a file")?;
    ensure!(
        !file.exists(),
        "{} outlived its volume with reclaimPolicy Delete",
        file.display()
    );
    println!("a volume grew from 16 to 24 MiB and took its file along");
    Ok(())
}

/// A file of the shared pool, as this machine sees it.
fn in_the_pool(lab: &Lab, file: &str) -> PathBuf {
    lab.files.shared().join(file.trim_start_matches('/'))
}

async fn gone(lab: &Lab, name: &str) -> Result<()> {
    volumes(lab).delete(name, &DeleteParams::default()).await?;
    let what = format!("volume {name} to go");
    until(&lab.client, &what, async || {
        Ok(volumes(lab).get_opt(name).await?.is_none())
    })
    .await
    .map(drop)
}

/// An image whose file has another digest than declared: its condition tells both, no volume is made of it,
/// and the pool does not keep it.
///
/// # Errors
/// It was used, or the condition tells something else.
pub async fn a_wrong_image_is_refused(lab: &Lab) -> Result<()> {
    let values = guest::serve(&lab.files, &guest::build()?)?;
    let value = |name: &str| of(&values, name);
    let (found, url) = (
        value("disk.sha256")?,
        format!("{}/{}", value("images")?, value("disk.file")?),
    );
    let image = json!({"apiVersion": "zhengyun.io/v1alpha1", "kind": "Image", "metadata": {"name": "damaged"},
        "spec": {"architecture": "x86_64", "format": value("disk.format")?,
            "minimumSize": value("disk.minimumSize")?, "disk": {"url": url, "sha256": WRONG}}});
    let spec = json!({"size": "64Mi", "image": "damaged"});
    declarations::apply(&lab.client, &[image, volume("of-damaged", &spec)]).await?;
    let images: Api<Image> = Api::all(lab.client.clone());
    until(&lab.client, "the wrong image to be refused", async || {
        let status = images.get("damaged").await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        Ok(ready.is_some_and(|ready| {
            ready.status == "False"
                && ready.message.contains(WRONG)
                && ready.message.contains(&found)
        }))
    })
    .await?;
    let status = volumes(lab).get("of-damaged").await?;
    let status = status.status.unwrap_or_default();
    ensure!(
        status.phase.as_deref() != Some("Ready") && status.reported.is_none(),
        "a volume was made of an image with a wrong digest: {status:?}"
    );
    let kept = lab.files.shared().join("images").join(WRONG);
    ensure!(!kept.exists(), "{} was kept", kept.display());
    gone(lab, "of-damaged").await?;
    // Kept until the operator has counted that nobody uses it.
    until(&lab.client, "the wrong image to go", async || {
        if images.get_opt("damaged").await?.is_some() {
            images.delete("damaged", &DeleteParams::default()).await?;
        }
        Ok(images.get_opt("damaged").await?.is_none())
    })
    .await?;
    println!("an image with a wrong digest was refused, told with both digests");
    Ok(())
}

fn of(values: &Values, name: &str) -> Result<String> {
    let value = values.get(name);
    value
        .cloned()
        .with_context(|| format!("the guest image has no {name}"))
}
