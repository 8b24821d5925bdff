//! THE EDGE: the only directory that speaks HTTP's words, and the only one that knows axum.
//!
//! A request of the media listener passes `service`, is routed by the table below, and its handler (one file per URL
//! family) turns query and headers into a call on `library` or `media`, and the outcome into an answer. The admin
//! listener's routes are in `admin`. Does not belong here: how bytes are found, read or written.

pub mod admin;
pub mod answer;
pub mod chunk;
pub mod conditional;
pub mod cors;
pub mod credentials;
pub mod fmp4;
pub mod form;
pub mod frame;
pub mod hls;
pub mod id;
pub mod images;
pub mod live;
pub mod live_body;
pub mod live_file;
pub mod live_frame;
pub mod live_range;
pub mod live_track;
pub mod media_body;
pub mod multipart;
pub mod page;
pub mod peers;
pub mod problem;
pub mod query;
pub mod range;
pub mod representation;
pub mod service;
pub mod state;
pub mod timing;
pub mod upload;
pub mod videos;

use crate::observe::metrics::Route;
use answer::{Answer, Call, other_method};
use http::Method;
use problem::Problem;

const READ: &str = "GET, HEAD, OPTIONS";
const PUBLISH: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
const EDIT: &str = "POST, OPTIONS";
const TRACK: &str = "PUT, POST, DELETE, OPTIONS";
const READ_WRITE: &str = "GET, HEAD, PUT, DELETE, OPTIONS";

/// The route table of the media listener. HEAD is answered like GET; hyper leaves the body out.
///
/// Every request pays for the size of this future, which is that of its largest handler: those that are large and
/// seldom called are boxed.
async fn route(route: Route, call: Call) -> Answer {
    let method = call.method.clone();
    let read = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Page if read => page::index(&call),
        Route::Script if read => Ok(page::script()),
        Route::Style if read => Ok(page::style()),
        Route::Videos if read => videos::list(&call),
        Route::Video if read => Box::pin(videos::one(&call)).await,
        Route::Video if method == Method::PUT => Box::pin(upload::put(call)).await,
        Route::Video if method == Method::DELETE => Box::pin(upload::delete(&call)).await,
        Route::File if read => videos::file(&call).await,
        Route::Chunk if read => Box::pin(chunk::chunk(&call)).await,
        Route::Seek if read => Box::pin(chunk::seek(&call)).await,
        Route::Upload if read => Box::pin(upload::missing(&call)).await,
        Route::Frame if read => Box::pin(frame::frame(&call)).await,
        Route::Storyboard if read => Box::pin(frame::storyboard(&call)).await,
        Route::Adjust if method == Method::POST => Box::pin(images::adjusted(call)).await,
        Route::Enhance if method == Method::POST => Box::pin(images::enhanced(call)).await,
        Route::Adjust | Route::Enhance => other_method(&method, EDIT),
        Route::Live if read => live::list(&call),
        Route::LiveStream if method == Method::PUT || method == Method::POST => Box::pin(live::publish(call)).await,
        Route::LiveStream if method == Method::DELETE => Box::pin(live::end(&call)).await,
        Route::LiveStream if read => live::one(&call),
        Route::LiveBody if read => live::stream(&call),
        Route::LiveFile if read => live_file::file(&call),
        Route::LiveFrame if read => Box::pin(live_frame::frame(&call)).await,
        Route::LivePlaylist if read => hls::playlist(&call).await,
        Route::LiveMaster if read => hls::master(&call).await,
        Route::LiveMedia if read => hls::media(&call).await,
        Route::LiveTrack if read => live_track::missing(&call),
        Route::LiveTrack | Route::LivePlaylist | Route::LiveMaster => match method {
            Method::PUT | Method::POST => live_track::publish(call).await,
            Method::DELETE => live_track::delete(&call),
            other => other_method(&other, TRACK),
        },
        Route::LiveStream => other_method(&method, PUBLISH),
        Route::Video => other_method(&method, READ_WRITE),
        // `OPTIONS *` asks what the server as a whole can do (RFC 9110 §9.3.7).
        Route::Other if method == Method::OPTIONS && call.uri.path() == "*" => other_method(&method, READ_WRITE),
        Route::Other if method == Method::CONNECT => {
            Err(Problem::not_implemented("this is no proxy; ask for a path with GET"))
        }
        Route::Other => {
            Err(Problem::not_found(format!("nothing is at {}; the page at / lists what there is", call.uri.path())))
        }
        _ => other_method(&method, READ),
    }
}
