//! The HTTP fence against a server that can cut hosts off, and against hostile answers.

use std::sync::Mutex;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;

use super::*;

type Standing = Arc<Mutex<BTreeMap<String, i64>>>;

#[derive(Deserialize)]
struct Order {
    order: i64,
}

/// A pool's server that keeps the rules of the contract.
async fn server() -> (String, Standing) {
    let standing = Standing::default();
    let route = get(
        |State(all): State<Standing>, Path(host): Path<String>| async move {
            let order = all.lock().expect("lock").get(&host).copied();
            axum::Json(json!({"cut": order.is_some(), "order": order, "connections": 0}))
        },
    )
    .put(
        |State(all): State<Standing>, Path(host): Path<String>, Query(order): Query<Order>| async move {
            let mut all = all.lock().expect("lock");
            let known = all.entry(host).or_insert(order.order);
            *known = order.order.max(*known);
            StatusCode::NO_CONTENT
        },
    )
    .delete(
        |State(all): State<Standing>, Path(host): Path<String>, Query(order): Query<Order>| async move {
            let mut all = all.lock().expect("lock");
            if all.get(&host) == Some(&order.order) {
                all.remove(&host);
            }
            StatusCode::NO_CONTENT
        },
    );
    let router = Router::new()
        .route("/fence/hosts/{host}", route)
        .with_state(standing.clone());
    (serve(router).await, standing)
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/fence")
}

fn fence(address: &str) -> FenceService {
    FenceService::new("shared".to_owned(), address).expect("a URL")
}

#[tokio::test]
async fn a_cut_is_read_back_under_its_order_and_lifted_only_by_it() {
    let (address, standing) = server().await;
    let (fence, host) = (fence(&address), HostName::from("h1"));
    assert_eq!(fence.read_back(&host, 7).await.expect("answers"), None);
    fence.cut(&host, 7).await.expect("obeys");
    let cut = fence
        .read_back(&host, 7)
        .await
        .expect("answers")
        .expect("cut");
    assert!(cut.connections_gone);
    assert_eq!(
        fence.read_back(&host, 6).await.expect("answers"),
        None,
        "another order"
    );
    fence.lift(&host, 6).await.expect("answers");
    assert_eq!(
        standing.lock().expect("lock").get("h1"),
        Some(&7),
        "a late lift"
    );
    fence.cut(&host, 5).await.expect("answers");
    assert_eq!(
        standing.lock().expect("lock").get("h1"),
        Some(&7),
        "a late cut"
    );
    fence.lift(&host, 7).await.expect("obeys");
    assert_eq!(fence.read_back(&host, 7).await.expect("answers"), None);
}

#[tokio::test]
async fn hostile_answers_are_errors_and_never_a_cut() {
    let bodies = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "{\"cut\":\"true\",\"order\":7,\"connections\":0}".to_owned(),
        "{\"cut\":true,\"cut\":false}".to_owned(),
        "{\"cut\":true,\"order\":1e999}".to_owned(),
        format!(
            "{{\"cut\":true,\"order\":7,\"x\":\"{}\"}}",
            "y".repeat(ANSWER_BYTES)
        ),
        "[".repeat(10_000),
    ];
    for body in bodies {
        let start: String = body.chars().take(40).collect();
        let router = Router::new().fallback(move || async move { body });
        let result = fence(&serve(router).await).read_back(&"h1".into(), 7).await;
        assert!(
            matches!(result, Err(StorageFenceError::Failed { .. })),
            "{start}: {result:?}"
        );
    }
    for (body, proves) in [
        ("{\"cut\":false,\"order\":7,\"connections\":0}", false),
        ("{\"cut\":true,\"connections\":0}", false),
        ("{\"cut\":true,\"order\":7}", true),
        ("{\"cut\":true,\"order\":7,\"connections\":2}", true),
    ] {
        let router = Router::new().fallback(move || async move { body });
        let cut = fence(&serve(router).await)
            .read_back(&"h1".into(), 7)
            .await
            .expect("a state");
        assert_eq!(cut.is_some(), proves, "{body}");
        assert!(
            cut.is_none_or(|cut| !cut.connections_gone),
            "{body}: connections are left"
        );
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("http://{}", silent.local_addr().expect("address"));
    let began = std::time::Instant::now();
    fence(&address)
        .cut(&"h1".into(), 1)
        .await
        .expect_err("no answer");
    assert!(began.elapsed() < CALL_TIMEOUT + Duration::from_secs(3));
}
