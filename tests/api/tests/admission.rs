//! One writer per status field, enforced by the API server: every forbidden write is refused
//! with a sentence, every permitted one passes, and deleting any one policy lets exactly its
//! own forbidden writes through, so no policy is dead weight and none covers for another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api_tests::cases::{Forbidden, RefusedBy, forbidden, permitted};
use api_tests::server::{Server, client_as, write};
use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Api, DeleteParams, PostParams};

/// Writes that are judged at once.
const AT_ONCE: usize = 8;

/// The writes of `cases` that got through; with a sentence other than the expected one the
/// refusal counts as wrong.
async fn passed(server: &Server, cases: &[Forbidden]) -> Result<(BTreeSet<String>, Vec<String>)> {
    let mut through = BTreeSet::new();
    let mut wrong = Vec::new();
    // One connection for each identity: there are hundreds of cases for each policy.
    let mut clients = BTreeMap::new();
    for case in cases {
        if !clients.contains_key(case.identity.user) {
            let client = client_as(&server.config, case.identity)?;
            clients.insert(case.identity.user, client);
        }
    }
    let mut answers = futures::stream::iter(cases)
        .map(|case| {
            let client = clients[case.identity.user].clone();
            async move { (case, write(client, case.target, &case.write, true).await) }
        })
        .buffered(AT_ONCE);
    while let Some((case, answer)) = answers.next().await {
        match answer {
            Ok(()) => {
                through.insert(case.what.clone());
            }
            Err(kube::Error::Api(status)) if status.message.contains(case.sentence) => {}
            Err(error) => wrong.push(format!(
                "{}\n    answered: {error}\n    wanted: {}",
                case.what, case.sentence
            )),
        }
    }
    Ok((through, wrong))
}

fn expected(cases: &[Forbidden], policy: &str) -> BTreeSet<String> {
    let by = |case: &&Forbidden| matches!(case.by, RefusedBy::Policy(name) if name == policy);
    cases
        .iter()
        .filter(by)
        .map(|case| case.what.clone())
        .collect()
}

/// Deletes one policy, waits until it is out of force, judges all cases, and restores it.
async fn without_policy(server: &Server, name: &str, cases: &[Forbidden]) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(server.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(server.client.clone());
    let full_name = format!("{name}.zhengyun.io");
    let mut policy = policies.get(&full_name).await?;
    let mut binding = bindings.get(&full_name).await?;
    let own: Vec<Forbidden> = {
        let expected = expected(cases, name);
        cases
            .iter()
            .filter(|case| expected.contains(&case.what))
            .cloned()
            .collect()
    };
    ensure!(
        !own.is_empty(),
        "policy {name} has no forbidden write that tests it"
    );
    bindings
        .delete(&full_name, &DeleteParams::default())
        .await?;
    policies
        .delete(&full_name, &DeleteParams::default())
        .await?;
    server
        .wait(&format!("policy {name} to go out of force"), async || {
            Ok(!passed(server, &own).await?.0.is_empty())
        })
        .await?;
    let (through, _) = passed(server, cases).await?;
    let wanted = expected(cases, name);
    policy.metadata.resource_version = None;
    policy.metadata.uid = None;
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    policies.create(&PostParams::default(), &policy).await?;
    bindings.create(&PostParams::default(), &binding).await?;
    ensure!(
        through == wanted,
        "without policy {name}:\n  got through although another should refuse: {:#?}\n  still refused although only it should: {:#?}",
        through.difference(&wanted).collect::<Vec<_>>(),
        wanted.difference(&through).collect::<Vec<_>>()
    );
    server
        .wait(&format!("policy {name} to be in force again"), async || {
            Ok(passed(server, &own).await?.0.is_empty())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fact_has_one_writer_and_no_policy_covers_for_another() -> Result<()> {
    let server = Server::start("admission").await?;
    server.set_standing_objects().await?;
    let cases = forbidden();

    let (through, wrong) = passed(&server, &cases).await?;
    ensure!(
        through.is_empty(),
        "forbidden writes that got through: {through:#?}"
    );
    ensure!(
        wrong.is_empty(),
        "refused with another sentence:\n{}",
        wrong.join("\n")
    );
    println!(
        "{} forbidden writes refused, each with its sentence",
        cases.len()
    );

    let permitted = permitted();
    for (identity, target, body) in &permitted {
        let client = client_as(&server.config, *identity)?;
        write(client, *target, body, true).await.with_context(|| {
            format!(
                "{} writes {} {}: {body:?}",
                identity.user, target.kind, target.name
            )
        })?;
    }
    println!("{} permitted writes pass", permitted.len());

    let policies = server.policy_names().await?;
    for policy in &policies {
        tokio::time::timeout(
            Duration::from_secs(120),
            without_policy(&server, policy, &cases),
        )
        .await
        .with_context(|| format!("policy {policy}"))??;
        println!(
            "without {policy}: exactly its {} writes get through",
            expected(&cases, policy).len()
        );
    }
    let tested: BTreeSet<&str> = cases
        .iter()
        .filter_map(|case| match case.by {
            RefusedBy::Policy(name) => Some(name),
            RefusedBy::Roles => None,
        })
        .collect();
    ensure!(
        tested == policies.iter().map(String::as_str).collect(),
        "cases name policies that do not exist: {tested:?} {policies:?}"
    );
    server.stop().await
}
