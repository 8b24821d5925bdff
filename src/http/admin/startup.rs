//! `GET /debug/startup`: what the start took, which components there are, and what each cost whom.

use super::{Answer, text_of};
use crate::http::query::Query;
use crate::http::state::Edge;
use crate::lazy;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;

/// The routes of this family.
pub fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/debug/startup", get(startup))
}

/// Text in the columns of Python's `-X importtime`, or JSON.
async fn startup(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref())?;
    let format = query.one_of("format", &["text", "json"])?.unwrap_or("text");
    let rows = edge.components.rows();
    if format == "json" {
        return text_of(format!("{}\n", json!(rows)), "application/json");
    }
    text_of(lazy::text(&rows), "text/plain; charset=utf-8")
}
