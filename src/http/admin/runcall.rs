//! `POST /debug/profile/runcall`: profiles exactly one request, given by its method and path, through the real service:
//! a connection of its own over loopback, whose spans have a root of their own, apart from everybody else's.

use super::Answer;
use super::profile::{Report, busy};
use crate::http::answer::header;
use crate::http::peers::Peers;
use crate::http::problem::Problem;
use crate::http::service::EdgeService;
use crate::http::state::Edge;
use crate::net::Server;
use crate::profile::runcall::Apart;
use crate::profile::{Origin, WINDOWS, spawned_by};
use axum::extract::{RawQuery, State};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// All calls together; an endless answer is cut, which its profile shows as cancelled.
const TIME_MAX: Duration = Duration::from_secs(60);
const CALLS_MAX: u32 = 1000;

/// What is to be called.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default = "get")]
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// How many times, one after another.
    #[serde(default = "once")]
    n: u32,
    /// The whole is cut after this time.
    #[serde(default = "patience")]
    seconds: f64,
}

fn get() -> String {
    "GET".to_owned()
}

fn once() -> u32 {
    1
}

fn patience() -> f64 {
    10.0
}

/// The answer is the profile; `Runcall-Status` says how the requests were answered.
pub(super) async fn runcall(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    let report = Report::parse(query.as_deref())?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let example = r#"{"method":"GET","path":"/videos","n":1}"#;
        Problem::bad_request(format!("the body says which request is to be profiled, such as {example}: {error}"))
    })?;
    let head = head(&asked)?;
    let time = Duration::try_from_secs_f64(asked.seconds).ok().filter(|time| !time.is_zero() && *time <= TIME_MAX);
    let time = time.ok_or_else(|| Problem::bad_request("seconds is above 0 and at most 60"))?;
    let root = Apart::take()
        .ok_or_else(|| Problem::unavailable("as many requests are profiled alone as may be; come back", 5))?;
    let window = WINDOWS.open().map_err(|error| busy(&error))?;
    let mut statuses = String::new();
    let calls = async {
        for _ in 0..asked.n {
            let status = call(&edge, &root, &head, asked.body.as_bytes()).await?;
            statuses = if statuses.is_empty() { status } else { format!("{statuses}, {status}") };
        }
        io::Result::Ok(())
    };
    match tokio::time::timeout(time, calls).await {
        Ok(Err(error)) => return Err(Problem::unavailable(format!("the request could not be made: {error}"), 5)),
        Ok(Ok(())) => {}
        Err(_) => statuses += if statuses.is_empty() { "cut" } else { ", cut" },
    }
    let mut response = report.answer(&edge, &window.close().below(root.site())).await?;
    response.headers_mut().insert(HeaderName::from_static("runcall-status"), header(statuses)?);
    Ok(response)
}

/// The head of the request, checked: nothing in it can end a line.
fn head(asked: &Asked) -> Result<String, Problem> {
    let wrong = |what: &str| Problem::bad_request(format!("{what} cannot stand in a request"));
    if !(1..=CALLS_MAX).contains(&asked.n) {
        return Err(Problem::bad_request(format!("n is a whole number from 1 to {CALLS_MAX}")));
    }
    let method = Method::from_bytes(asked.method.as_bytes()).map_err(|_| wrong("this method"))?;
    let path: Uri = asked.path.parse().map_err(|_| wrong("this path"))?;
    if !asked.path.starts_with('/') || method == Method::CONNECT {
        return Err(Problem::bad_request("path begins with / and is one of the media listener's"));
    }
    let target = path.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n");
    head += &format!("content-length: {}\r\n", asked.body.len());
    for (name, value) in &asked.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("the name of a header field"))?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong("the value of a header field"))?;
        if [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            return Err(Problem::bad_request(format!("{name} is set by the profiler")));
        }
        head += &format!("{name}: {}\r\n", value.to_str().map_err(|_| wrong("the value of a header field"))?);
    }
    Ok(head + "\r\n")
}

/// One request over a connection of its own; the status code of its answer.
async fn call(edge: &Arc<Edge>, root: &Apart, head: &str, body: &[u8]) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (client, accepted) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    let (socket, peer) = accepted;
    if peer != client.local_addr()? {
        return Err(io::Error::other("somebody else connected"));
    }
    let (shared, peers) = (Arc::clone(edge), Arc::new(Peers::new(0)));
    let server = Server {
        service: move |conn| EdgeService::new(Arc::clone(&shared), Arc::clone(&peers), conn),
        limits: edge.limits,
        traffic: Arc::clone(&edge.metrics.traffic),
        drain: edge.drain.clone(),
    };
    let serving = spawned_by(root.site(), Origin::default(), server.one(socket, peer));
    let (status, ()) = tokio::join!(ask(client, head, body), serving);
    status
}

/// Sends the request and reads the answer to its end, keeping its status only.
async fn ask(mut client: TcpStream, head: &str, body: &[u8]) -> io::Result<String> {
    client.write_all(head.as_bytes()).await?;
    // A server that answers before it has read everything may close: its answer is what counts.
    let _ = client.write_all(body).await;
    let mut buffer = vec![0; 256 << 10];
    let mut first = Vec::new();
    loop {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let wanted = 12_usize.saturating_sub(first.len()).min(read);
        first.extend_from_slice(&buffer[..wanted]);
    }
    let status = first.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
    Ok(status.unwrap_or("none").to_owned())
}
