//! Connections: listeners, one runtime per core, the connection's IO type, limits and graceful drain.
//!
//! Knows sockets and hyper's HTTP/1.1 connection; knows no route, no video, no axum. What a request means is the
//! business of the service it is given.

pub mod conn;
pub mod core;
pub mod listen;
mod malformed;
mod sendfile;
pub mod serve;
pub mod stream;
mod turn;
pub mod waits;

pub use conn::{Conn, Traffic};
pub use core::{Cores, raise_file_limit};
pub use listen::Listeners;
pub use serve::{Limits, Server};
pub use waits::Wait;
