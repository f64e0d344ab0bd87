//! What people get wrong and the API server can know: refused at `kubectl apply` with a
//! sentence that names field, value or remedy, and nothing is changed.

use anyhow::{Context, Result, ensure};
use api_tests::cases::{bad_edits, bad_manifests};
use api_tests::server::{
    CLUSTER_ADMINISTRATOR, OPERATOR, Server, Target, Write, api_of, client_as, create_yaml, write,
};
use serde_json::json;

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
    corrections(&server).await?;
    server.stop().await
}

/// What a tier is made of can be corrected while the operator says that nothing of the tier is made, and
/// no longer; before the operator has said a word, the edits are among the bad ones above.
async fn corrections(server: &Server) -> Result<()> {
    let target = Target::of("BusinessSystem", "oa-office", "oa");
    let operator = client_as(&server.config, OPERATOR)?;
    let person = client_as(&server.config, CLUSTER_ADMINISTRATOR)?;
    let mut edits = bad_edits();
    edits.retain(|case| case.what == "BusinessSystem oa-office oa");
    ensure!(edits.len() == 7, "{} edits of tiers", edits.len());
    for (made, accepted) in [
        (json!([]), true),
        (json!(["web"]), true),
        (json!(["database"]), false),
        (json!(null), false),
    ] {
        let status = Write::PatchStatus(json!({"status": {"madeTiers": made}}));
        write(operator.clone(), target, &status, false).await?;
        for case in &edits {
            let patch = Write::Patch(serde_yaml::from_str(case.yaml)?);
            let answer = write(person.clone(), target, &patch, true).await;
            let right = match &answer {
                Ok(()) => accepted,
                Err(error) => !accepted && error.to_string().contains(case.sentence),
            };
            ensure!(right, "{} with madeTiers {made}: {answer:?}", case.yaml);
        }
    }
    Ok(())
}
