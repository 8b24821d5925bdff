//! The admin listener: liveness, readiness, metrics, profiles. It has a thread and a runtime of its own, so it answers
//! while every media core is busy.

mod bench;
mod bench_page;
mod dashboard;
mod jobs;
mod metrics;
mod pprof;
mod profile;
mod runcall;
mod startup;
mod tasks;
mod tools;

use crate::http::credentials::{self, Access};
use crate::http::problem::Problem;
use crate::http::state::Edge;
use crate::library::WriteKey;
use crate::net::Conn;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use tower_service::Service;

pub use tools::Tools;

type Answer = Result<Response<Body>, Problem>;

/// The routes of the admin listener.
pub fn routes(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(dashboard::routes())
        .merge(metrics::routes())
        .merge(pprof::routes())
        .merge(profile::routes())
        .merge(startup::routes())
        .merge(bench::routes())
        .merge(tasks::routes())
        .method_not_allowed_fallback(async || Problem::method_not_allowed("GET, HEAD"))
        .fallback(async || Problem::not_found("nothing is here; there are /debug/, /metrics, /healthz and /readyz"))
        .with_state(edge)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        Problem::into_response(self).map(Body::from)
    }
}

fn text_of(text: impl Into<Body>, content_type: &'static str) -> Answer {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut response = text_of(format!("{value}\n"), "application/json")?;
    *response.status_mut() = status;
    Ok(response)
}

/// 200 as long as the process answers at all.
pub async fn healthz() -> Answer {
    text_of("ok\n", "text/plain; charset=utf-8")
}

/// 200 when new viewers are welcome, 503 from the moment the server drains.
pub async fn readyz(State(edge): State<Arc<Edge>>) -> Answer {
    if edge.drain.is_cancelled() {
        return Err(Problem::unavailable("draining: responses in flight are finished, new ones are not begun", 5));
    }
    text_of("ready\n", "text/plain; charset=utf-8")
}

/// The service of the admin listener: with a token configured, every route but the probes asks for it.
#[derive(Clone)]
pub struct AdminService {
    router: Router,
    token: Option<WriteKey>,
    conn: Option<Arc<Conn>>,
}

impl AdminService {
    pub fn new(router: Router, token: Option<WriteKey>) -> Self {
        Self { router, token, conn: None }
    }

    /// The service of one connection.
    pub fn of(&self, conn: Arc<Conn>) -> Self {
        Self { conn: Some(conn), ..self.clone() }
    }

    fn admits(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        matches!(request.uri().path(), "/healthz" | "/readyz")
            || credentials::authorized(request.headers().get(AUTHORIZATION), token) == Access::Granted
    }
}

impl hyper::service::Service<Request<Incoming>> for AdminService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // No route reads a body to its end: the client gets the time to see its answer while it sends one.
        if let (false, Some(conn)) = (request.body().is_end_stream(), &self.conn) {
            conn.linger();
        }
        if !self.admits(&request) {
            let problem = Problem::unauthorized("this needs the admin token, as Bearer token or Basic password");
            return Box::pin(std::future::ready(Ok(IntoResponse::into_response(problem))));
        }
        let mut router = self.router.clone();
        Box::pin(async move { router.call(request.map(Body::new)).await })
    }
}
