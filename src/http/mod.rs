//! THE EDGE: the only directory that knows axum, and the only one that speaks HTTP's words.
//!
//! A request passes `service`, is routed by the table below, and its handler (one file per URL family) turns query
//! and headers into a call on `library` or `media`, and the outcome into an answer. Does not belong here: how bytes
//! are found, read or written.

pub mod admin;
pub mod body;
pub mod chunk;
pub mod conditional;
pub mod cors;
pub mod credentials;
pub mod id;
pub mod multipart;
pub mod page;
pub mod peers;
pub mod problem;
pub mod query;
pub mod range;
pub mod representation;
pub mod service;
pub mod state;
pub mod upload;
pub mod videos;

use axum::Router;
use axum::routing::get;
use state::Edge;
use std::sync::Arc;

/// The routes of the media listener.
pub fn media_routes(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/", get(page::index).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/weir.js", get(page::script).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/weir.css", get(page::style).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/videos", get(videos::list).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route(
            "/videos/{id}",
            get(videos::one)
                .put(upload::put)
                .delete(upload::delete)
                .fallback(|method| state::only_methods(method, "GET, HEAD, PUT, DELETE")),
        )
        .route("/videos/{id}/file", get(videos::file).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/videos/{id}/chunk", get(chunk::chunk).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/videos/{id}/seek", get(chunk::seek).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/videos/{id}/upload", get(upload::missing).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .fallback(state::nowhere)
        .with_state(edge)
}

/// The routes of the admin listener.
pub fn admin_routes(edge: Arc<Edge>) -> Router {
    Router::new()
        .route("/healthz", get(admin::healthz).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/readyz", get(admin::readyz).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .route("/metrics", get(admin::metrics).fallback(|method| state::only_methods(method, "GET, HEAD")))
        .fallback(state::nowhere)
        .with_state(edge)
}
