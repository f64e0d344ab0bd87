//! An API server for tests: every request goes to a function, which says what is answered; and objects as a server keeps
//! them, for functions that answer as one does.

use std::collections::BTreeMap;

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

/// Objects of one kind of the cluster as an API server keeps them: each write makes a version, and one that names
/// another version than the object's is refused.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    objects: BTreeMap<String, Value>,
    version: u64,
}

impl Kept {
    /// The objects, by name.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Value> {
        self.objects.values()
    }

    /// The version that the last write made.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Answers a request as a server does.
    pub(crate) fn answer(&mut self, method: &Method, path: &str, body: &Value) -> Answer {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // apis, group, version, plural
        match (method.as_str(), &parts[4..]) {
            ("GET", []) => (200, self.list()),
            ("POST", []) => self.create(body.clone()),
            ("PATCH", [name]) => self.merge(name, &["metadata", "spec"], body),
            ("PATCH", [name, "status"]) => self.merge(name, &["status"], body),
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn list(&self) -> Value {
        let items: Vec<&Value> = self.objects().collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": self.version.to_string()},
               "items": items})
    }

    fn create(&mut self, mut object: Value) -> Answer {
        let name = object["metadata"]["name"].as_str().map(str::to_owned);
        let name = name.expect("a name");
        if self.objects.contains_key(&name) {
            return failure(409, "AlreadyExists");
        }
        self.version += 1;
        object["metadata"]["uid"] = json!(format!("{name}-{}", self.version));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        // It is a subresource: whoever creates an object does not write it.
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        self.objects.insert(name, object.clone());
        (201, object)
    }

    fn merge(&mut self, name: &str, parts: &[&str], patch: &Value) -> Answer {
        let Some(object) = self.objects.get_mut(name) else {
            return failure(404, "NotFound");
        };
        let from = patch["metadata"]["resourceVersion"].as_str();
        if from.is_some_and(|from| object["metadata"]["resourceVersion"] != *from) {
            return failure(409, "Conflict");
        }
        let before = object.clone();
        for part in parts {
            if let Some(changes) = patch.get(part) {
                merge(&mut object[*part], changes);
            }
        }
        // A write that changes nothing makes no version.
        if *object != before {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        (200, object.clone())
    }
}

/// Applies a JSON merge patch.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            into.as_object_mut().map(|into| into.remove(name));
        } else {
            merge(&mut into[name], change);
        }
    }
}
