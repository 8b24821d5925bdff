//! Weir, a media server that streams video without copying it and measures itself while it does.
//!
//! Reading order, which is the way of a request: [`media`] (what a video is), [`store`] (its bytes), [`library`]
//! (which videos there are), [`live`] (streams), [`net`] (connections), [`ingest`] (publishers), [`http`] (the edge),
//! [`server`] (wiring), [`lazy`] (what is built at its first use), [`bench`] (what its operations cost), and
//! [`profile`] (where its time goes). ARCHITECTURE.md has the map.

pub mod bench;
pub mod cli;
pub mod config;
pub mod frame;
pub mod http;
pub mod ingest;
pub mod lazy;
pub mod library;
pub mod live;
pub mod media;
pub mod net;
pub mod observe;
pub mod profile;
pub mod record;
pub mod server;
pub mod store;
