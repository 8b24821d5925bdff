//! `weir profile URL`: asks a running server for its profile and prints the table; `--top` refreshes it.

use super::fail;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir profile http://127.0.0.1:9090
  weir profile http://127.0.0.1:9090 --sort tottime --limit 20 --callers
  weir profile http://127.0.0.1:9090 --top
  weir profile http://127.0.0.1:9090 --format svg -o flame.svg")]
pub(super) struct Arguments {
    /// http://HOST:PORT of the admin listener
    url: String,
    /// Length of the window, 1 to 60 [default: 5; 2 with --top]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Columns to sort by, such as tottime, or cumtime,calls
    #[arg(long, value_name = "KEYS", default_value = "cumtime")]
    sort: String,
    /// At most so many functions [with --top: 25]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// A count, a share such as 0.5, or a pattern; several are applied in order
    #[arg(long, value_name = "RESTRICTION")]
    restrict: Vec<String>,
    /// List who calls each function (that matches PATTERN)
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "1")]
    callers: Option<String>,
    /// List what each function (that matches PATTERN) calls
    #[arg(long, value_name = "PATTERN", num_args = 0..=1, default_missing_value = "1")]
    callees: Option<String>,
    /// Files by their last name
    #[arg(long)]
    strip_dirs: bool,
    /// The other way round
    #[arg(long)]
    reverse: bool,
    /// text, json, pstats, pprof, folded or svg
    #[arg(long, default_value = "text")]
    format: String,
    /// Write to a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "top")]
    output: Option<PathBuf>,
    /// Window after window, until interrupted
    #[arg(long)]
    top: bool,
    /// The server's admin token
    #[arg(long, env = "WEIR_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let Some(address) = address(&arguments.url) else {
        return fail(super::USAGE, &format!("{:?} is not of the form http://HOST:PORT", arguments.url));
    };
    let target = target(arguments);
    loop {
        let report = match get(&address, &target, arguments.admin_token.as_deref()) {
            Ok(report) => report,
            Err(error) => return fail(1, &format!("{}: {error}", arguments.url)),
        };
        if let Err(error) = show(arguments, &report) {
            // A closed pipe ends quietly.
            let quiet = error.kind() == io::ErrorKind::BrokenPipe;
            return if quiet { ExitCode::SUCCESS } else { fail(1, &error) };
        }
        if !arguments.top {
            return ExitCode::SUCCESS;
        }
    }
}

fn show(arguments: &Arguments, report: &[u8]) -> io::Result<()> {
    if let Some(path) = &arguments.output {
        return std::fs::write(path, report).map_err(|error| io::Error::other(format!("{}: {error}", path.display())));
    }
    let mut out = io::stdout().lock();
    let binary = matches!(&*arguments.format, "pstats" | "pprof");
    if binary && out.is_terminal() {
        return Err(io::Error::other("this format is no text; write it to a file with -o"));
    }
    if arguments.top && out.is_terminal() {
        // Home, and clear below: the table stands still.
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    out.write_all(report)?;
    out.flush()
}

/// Host and port of an `http` URL; a path is left out.
fn address(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://")?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if port { host.to_owned() } else { format!("{host}:80") })
}

fn target(arguments: &Arguments) -> String {
    let mut target = "/debug/profile?".to_owned();
    let mut add = |name: &str, value: &str| {
        target += &format!("{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
    };
    let seconds = arguments.seconds.unwrap_or(if arguments.top { 2.0 } else { 5.0 });
    add("seconds", &seconds.to_string());
    add("sort", &arguments.sort);
    add("format", &arguments.format);
    arguments.restrict.iter().for_each(|restriction| add("restrict", restriction));
    if let Some(limit) = arguments.limit.or(arguments.top.then_some(25)) {
        add("limit", &limit.to_string());
    }
    for (name, pattern) in [("callers", &arguments.callers), ("callees", &arguments.callees)] {
        pattern.iter().for_each(|pattern| add(name, pattern));
    }
    for (name, on) in [("strip_dirs", arguments.strip_dirs), ("reverse", arguments.reverse)] {
        if on {
            add(name, "1");
        }
    }
    target.pop();
    target
}

/// The body of the answer; an error says what the server said.
fn get(address: &str, target: &str, token: Option<&str>) -> Result<Vec<u8>, String> {
    /// The longest window, and then some.
    const PATIENCE: Duration = Duration::from_secs(90);
    let mut socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    let authorization = match token {
        Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("Authorization: Bearer {token}\r\n")
        }
        Some(_) => return Err("a token is printable ASCII without spaces".to_owned()),
        None => String::new(),
    };
    let mut answer = Vec::new();
    let exchange = |socket: &mut TcpStream, answer: &mut Vec<u8>| {
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{authorization}Connection: close\r\n\r\n")?;
        socket.read_to_end(answer)
    };
    exchange(&mut socket, &mut answer).map_err(|error| error.to_string())?;
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("this is no HTTP server")?;
    let body = answer.split_off(split + 4);
    let head = String::from_utf8_lossy(&answer);
    let status = head.get(9..12).unwrap_or_default();
    match status {
        "200" => Ok(body),
        "401" => Err("the server asks for its admin token: --admin-token or WEIR_ADMIN_TOKEN".to_owned()),
        "404" => Err("there is no profile here; the server prints its admin address when it starts".to_owned()),
        _ => Err(detail(&body).unwrap_or_else(|| format!("the server answered {status}"))),
    }
}

/// Of a problem.
fn detail(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.get("detail")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_urls() {
        assert_eq!(address("http://127.0.0.1:9090").as_deref(), Some("127.0.0.1:9090"));
        assert_eq!(address("http://weir.example/debug/").as_deref(), Some("weir.example:80"));
        assert_eq!(address("http://[::1]:9090/").as_deref(), Some("[::1]:9090"));
        assert_eq!(address("https://weir.example"), None);
        assert_eq!(address("http:///debug"), None);
    }
}
