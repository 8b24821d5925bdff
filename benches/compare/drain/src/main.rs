//! A load client that discards bodies in the kernel, so that it costs little beside the server it measures.
//!
//! `drain load` runs groups of connections for a fixed time, `verify` compares bodies with the file they come from,
//! `idle` holds connections open, `live` publishes a stream and views it, `ingest` publishes many, `upload` sends bodies,
//! `start` times a server from its exec to the first byte, `evict` drops a file from the page cache. Each prints one
//! JSON object per line. It speaks only as much HTTP/1.1 as a benchmark needs and must not know which server it talks to.

mod args;
mod clock;
mod connection;
mod fragments;
mod group;
mod hls;
mod idle;
mod live;
mod load;
mod publish;
mod rng;
mod socket;
mod start;
mod stats;
mod upload;
mod verify;

use std::process::ExitCode;

const USAGE: &str = "usage:
  drain load   --addr A:P --seconds S [--warmup S] [--pid N[,N]] [--copy] [--seed N] --group KEY=VALUE,...
               keys: name, path, size, file-size, connections, align, rate (requests/s of the group, open loop),
               order=random|once, from=OFFSET (of order=once), urls=FILE (a path per line, picked at random),
               expect=STATUS
  drain verify --addr A:P --path PATH --file FILE --sizes N[,N] [--count N] [--seed N]
  drain idle   --addr A:P --path PATH --connections N      holds until its standard input ends
  drain start  --addr A:P --path PATH --timeout S -- COMMAND [ARGUMENT...]
  drain live   --addr A:P --view PATH --viewers N [--stalled N] [--seconds S] [--warmup S] [--pid N[,N]]
               [--publish PATH --key KEY --file FRAGMENTED.mp4 --period S]      without a file somebody else publishes
  drain hls    the same arguments; --view is the playlist's path
  drain ingest --addr A:P --path PATH --key KEY --file FRAGMENTED.mp4 --publishers N --seconds S [--pid N[,N]]
  drain upload --addr A:P --path PATH --file FILE --bytes N [--uploads N] [--key KEY] [--pid N[,N]]
  drain evict  --file FILE
sizes take the suffixes k, m and g (1024^n)";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let result = args::Args::parse(words).and_then(|args| match command.as_str() {
        "load" => load::run(&args),
        "verify" => verify::run(&args),
        "idle" => idle::run(&args),
        "start" => start::run(&args),
        "live" => live::run(&args),
        "hls" => hls::run(&args),
        "ingest" => publish::ingest(&args),
        "upload" => upload::run(&args),
        "evict" => socket::evict(&args),
        _ => Err(USAGE.to_owned()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("drain: {message}");
            ExitCode::FAILURE
        }
    }
}
