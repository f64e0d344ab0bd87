//! Under which name a client signs the words of a person (admission policy `people-sign`).

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::{Api, Client};

/// The name under which the API server knows this client; none where it does not tell.
///
/// # Errors
/// The API server can not be asked.
pub async fn signer(client: Client) -> kube::Result<Option<String>> {
    let reviews: Api<SelfSubjectReview> = Api::all(client);
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info);
    Ok(user.and_then(|user| user.username))
}
