//! An API server for tests: every request goes to a function, which says what is answered.

use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri};
use axum::{Json, Router};
use kube::Client;
use serde_json::{Value, json};

/// A code and a body.
pub(crate) type Answer = (u16, Value);

/// A client whose requests (method, path, body) `answer` answers.
pub(crate) fn client<F, A>(answer: F) -> Client
where
    F: Fn(Method, String, Value) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let handler = move |method: Method, uri: Uri, body: Bytes| {
        let answer = answer.clone();
        async move {
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let (code, value) = answer(method, uri.path().to_owned(), body).await;
            (StatusCode::from_u16(code).expect("a code"), Json(value))
        }
    };
    Client::new(Router::new().fallback(handler), "default")
}

/// A refusal as the API server words it.
pub(crate) fn failure(code: u16, reason: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code});
    (code, status)
}
