//! What people get wrong and the API server can know: refused at `kubectl apply` with a
//! sentence that names field, value or remedy, and nothing is changed.

use anyhow::{Context, Result, ensure};
use api_tests::cases::{bad_edits, bad_manifests};
use api_tests::server::{
    CLUSTER_ADMINISTRATOR, Server, Target, Write, api_of, client_as, create_yaml, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_and_edits_are_refused_with_a_sentence() -> Result<()> {
    let server = Server::start("bad-input").await?;
    server.set_standing_objects().await?;
    let mut wrong = Vec::new();
    for case in bad_manifests() {
        match create_yaml(server.client.clone(), case.yaml, false).await {
            Ok(()) => wrong.push(format!("{}: was accepted", case.what)),
            Err(error) if format!("{error:#}").contains(case.sentence) => {}
            Err(error) => wrong.push(format!(
                "{}: answered {error:#}, wanted {:?}",
                case.what, case.sentence
            )),
        }
    }
    for case in bad_edits() {
        let mut words = case.what.split(' ');
        let mut next = || words.next().context("edit without KIND NAMESPACE NAME");
        let (kind, namespace, name) = (next()?, next()?, next()?);
        let namespace = if namespace == "-" { "" } else { namespace };
        let target = Target::of(kind, namespace, name);
        let api = api_of(server.client.clone(), target);
        let before = api.get(name).await?.data;
        let patch = serde_yaml::from_str(case.yaml)?;
        let client = client_as(&server.config, CLUSTER_ADMINISTRATOR)?;
        match write(client, target, &Write::Patch(patch), false).await {
            Ok(()) => wrong.push(format!("{} {}: was accepted", case.what, case.yaml)),
            Err(error) if error.to_string().contains(case.sentence) => {}
            Err(error) => wrong.push(format!(
                "{} {}: answered {error}, wanted {:?}",
                case.what, case.yaml, case.sentence
            )),
        }
        ensure!(
            api.get(name).await?.data == before,
            "{} {}: something changed",
            case.what,
            case.yaml
        );
    }
    ensure!(
        wrong.is_empty(),
        "{} wrong answers:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!(
        "{} manifests and {} edits refused",
        bad_manifests().len(),
        bad_edits().len()
    );
    server.stop().await
}
