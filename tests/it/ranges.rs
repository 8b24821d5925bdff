//! RFC 9110 section 13 to 15 as a table against the running server: ranges, preconditions, HEAD, abuse.

use crate::support::client::{Connection, Response, find};
use crate::support::server::Server;

const LENGTH: usize = 100_000;

/// Every position has bytes of its own, so that a shifted or swapped part cannot pass.
fn content() -> Vec<u8> {
    (0..LENGTH as u32 / 4).flat_map(|word| word.wrapping_mul(0x9E37_79B1).to_be_bytes()).collect()
}

fn server() -> Server {
    Server::builder().bytes("blob.bin", &content()).bytes("empty.bin", b"").start()
}

const FILE: &str = "/videos/blob.bin/file";

enum Want {
    Whole,
    Part(usize, usize),
    Parts(&'static [(usize, usize)]),
    /// Near or adjacent ranges: apart, or coalesced into one (RFC 9110 section 15.3.7.2).
    Near(&'static [(usize, usize)]),
    Unsatisfiable,
    /// 200 whole, or 416: RFC 9110 section 14.2 leaves an invalid ranges-specifier to the server.
    Invalid,
    /// 200 whole, 416, or a correct 206 of no more than the file's length: section 17.15.
    Abuse,
}
use Want::{Abuse, Invalid, Near, Part, Parts, Unsatisfiable, Whole};

const BIG: &str = "99999999999999999999999999";

fn table() -> Vec<(String, Want)> {
    let fixed: [(&str, Want); 51] = [
        ("bytes=0-0", Part(0, 0)),
        ("bytes=0-99", Part(0, 99)),
        ("bytes=100-199", Part(100, 199)),
        ("bytes=99999-99999", Part(99_999, 99_999)),
        ("bytes=0-", Part(0, 99_999)),
        ("bytes=99999-", Part(99_999, 99_999)),
        ("bytes=0-99999", Part(0, 99_999)),
        ("bytes=0-100000", Part(0, 99_999)),
        ("bytes=50000-18446744073709551615", Part(50_000, 99_999)),
        ("bytes=50000-18446744073709551616", Part(50_000, 99_999)),
        ("bytes=50000-99999999999999999999999999", Part(50_000, 99_999)),
        ("bytes=-1", Part(99_999, 99_999)),
        ("bytes=-100", Part(99_900, 99_999)),
        ("bytes=-100000", Part(0, 99_999)),
        ("bytes=-100001", Part(0, 99_999)),
        ("bytes=-99999999999999999999999999", Part(0, 99_999)),
        ("bytes=00-0099", Part(0, 99)),
        ("BYTES=0-9", Part(0, 9)),
        ("Bytes=0-9", Part(0, 9)),
        // Whitespace and empty elements around list members: section 5.6.1.
        ("bytes=0-9, 20-29", Near(&[(0, 9), (20, 29)])),
        ("bytes=0-9,20-29", Near(&[(0, 9), (20, 29)])),
        ("bytes= 0-9 ,\t20-29", Near(&[(0, 9), (20, 29)])),
        ("bytes=,0-9,,20-29,", Near(&[(0, 9), (20, 29)])),
        ("bytes=0-9, 50000-50009", Parts(&[(0, 9), (50_000, 50_009)])),
        ("bytes= 0-9 ,\t50000-50009", Parts(&[(0, 9), (50_000, 50_009)])),
        ("bytes=,0-9,,50000-50009,", Parts(&[(0, 9), (50_000, 50_009)])),
        ("bytes=0-9,30000-30009,60000-60009", Parts(&[(0, 9), (30_000, 30_009), (60_000, 60_009)])),
        ("bytes=0-0,-1", Parts(&[(0, 0), (99_999, 99_999)])),
        ("bytes=500-600,601-999", Near(&[(500, 600), (601, 999)])),
        ("bytes=90000-90009,0-9", Parts(&[(90_000, 90_009), (0, 9)])),
        ("bytes=0-9,20-29,40-49", Near(&[(0, 9), (20, 29), (40, 49)])),
        // Only the satisfiable ones count; one that is left is not sent as multipart.
        ("bytes=0-9,100000-100009", Part(0, 9)),
        ("bytes=200000-,5-6", Part(5, 6)),
        ("bytes=100000-", Unsatisfiable),
        ("bytes=100000-100001", Unsatisfiable),
        ("bytes=18446744073709551616-", Unsatisfiable),
        ("bytes=99999999999999999999999999-", Unsatisfiable),
        ("bytes=-0", Unsatisfiable),
        ("bytes=200000-,300000-", Unsatisfiable),
        ("bytes=abc", Invalid),
        ("bytes=", Invalid),
        ("bytes=-", Invalid),
        ("bytes=5-3", Invalid),
        ("bytes=0-9,x-y", Invalid),
        ("bytes=0x0-0x9", Invalid),
        ("bytes=+1-9", Invalid),
        ("bytes=1-2-3", Invalid),
        ("bytes 0-9", Invalid),
        // Unknown units are ignored: section 14.2.
        ("seconds=0-9", Whole),
        ("t:npt=0-9", Whole),
        ("bytes2=0-9", Whole),
    ];
    let mut rows: Vec<(String, Want)> = fixed.into_iter().map(|(range, want)| (range.to_owned(), want)).collect();
    rows.push((format!("bytes={}", ["0-"; 4].join(",")), Abuse));
    rows.push((format!("bytes={}", vec!["0-"; 1000].join(",")), Abuse));
    rows.push((format!("bytes={}", (0..900).map(|i| format!("{0}-{0}", i * 3)).collect::<Vec<_>>().join(",")), Abuse));
    rows.push((format!("bytes=0-9,{BIG}-{BIG}1"), Part(0, 9)));
    rows
}

#[test]
fn range_table() {
    let mut server = server();
    let mut connection = Connection::open(server.media);
    let data = content();
    for (range, want) in table() {
        let shown = &range[..range.len().min(60)];
        let got = connection.call("GET", FILE, &[("Range", &range)], b"").unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert!(got.complete, "{shown}: {got:?}");
        match want {
            Whole => assert_whole(&got, &data, shown),
            Part(from, to) => assert_part(&got, &data, from, to, shown),
            Parts(parts) => {
                let found = multipart(&got, &data, shown);
                assert_eq!(found, parts, "{shown}");
            }
            Near(parts) => assert_near(&got, &data, parts, shown),
            Unsatisfiable => assert_unsatisfiable(&got, shown),
            Invalid if got.status == 416 => assert_unsatisfiable(&got, shown),
            Invalid => assert_whole(&got, &data, shown),
            Abuse => assert_bounded(&got, &data, shown),
        }
    }
    server.assert_alive("the range table");
}

fn assert_whole(got: &Response, data: &[u8], shown: &str) {
    assert_eq!(got.status, 200, "{shown}: {got:?}");
    assert_eq!(got.header("content-range"), None, "{shown}");
    assert_eq!(got.header("content-length"), Some("100000"), "{shown}");
    assert!(got.body == data, "{shown}: other bytes");
}

fn assert_part(got: &Response, data: &[u8], from: usize, to: usize, shown: &str) {
    assert_eq!(got.status, 206, "{shown}: {got:?}");
    assert_eq!(got.header("content-range"), Some(&*format!("bytes {from}-{to}/{LENGTH}")), "{shown}");
    assert_eq!(got.header("content-length"), Some(&*(to + 1 - from).to_string()), "{shown}");
    assert!(got.body == data[from..=to], "{shown}: other bytes");
    for name in ["date", "etag", "cache-control", "last-modified"] {
        assert!(got.header(name).is_some(), "{shown}: a 206 without {name} (RFC 9110 section 15.3.7): {got:?}");
    }
}

fn assert_near(got: &Response, data: &[u8], parts: &[(usize, usize)], shown: &str) {
    if got.header("content-range").is_some() {
        let (from, to) = (parts.iter().map(|p| p.0).min().unwrap(), parts.iter().map(|p| p.1).max().unwrap());
        return assert_part(got, data, from, to, shown);
    }
    let found = multipart(got, data, shown);
    for (from, to) in parts {
        assert!(found.iter().any(|(a, b)| a <= from && to <= b), "{shown}: {from}-{to} is not in {found:?}");
    }
}

fn assert_unsatisfiable(got: &Response, shown: &str) {
    assert_eq!(got.status, 416, "{shown}: {got:?}");
    assert_eq!(got.header("content-range"), Some("bytes */100000"), "{shown}: {got:?}");
    got.problem();
}

fn assert_bounded(got: &Response, data: &[u8], shown: &str) {
    match got.status {
        200 => assert_whole(got, data, shown),
        416 => assert_unsatisfiable(got, shown),
        206 if got.header("content-type").is_some_and(|v| v.starts_with("multipart/")) => {
            let parts = multipart(got, data, shown);
            let sum: usize = parts.iter().map(|(from, to)| to + 1 - from).sum();
            assert!(sum <= LENGTH, "{shown}: {sum} bytes of a file of {LENGTH}");
        }
        206 => assert!(got.body.len() <= LENGTH, "{shown}"),
        431 => {} // the header is larger than the limit
        other => panic!("{shown}: {other}"),
    }
}

/// Parses multipart/byteranges strictly (RFC 9110 section 14.6) and compares every part's bytes.
fn multipart(got: &Response, data: &[u8], shown: &str) -> Vec<(usize, usize)> {
    assert_eq!(got.status, 206, "{shown}: {got:?}");
    assert_eq!(got.header("content-range"), None, "{shown}: Content-Range belongs to the parts");
    assert_eq!(got.header("content-length"), Some(&*got.body.len().to_string()), "{shown}");
    let kind = got.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{shown}: {kind}"));
    let boundary = boundary.trim_matches('"');
    let mut rest = &got.body[..];
    let opening = format!("--{boundary}\r\n");
    let first = find(rest, opening.as_bytes()).unwrap_or_else(|| panic!("{shown}: no opening boundary"));
    assert!(rest[..first].iter().all(|b| b"\r\n".contains(b)), "{shown}: a preamble");
    rest = &rest[first + opening.len()..];
    let mut parts = Vec::new();
    loop {
        let end = find(rest, b"\r\n\r\n").unwrap_or_else(|| panic!("{shown}: a part without an end of its header"));
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 4..];
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-range").then(|| value.trim().to_owned())
        });
        let range = range.unwrap_or_else(|| panic!("{shown}: a part without Content-Range: {head}"));
        let (span, total) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        assert_eq!(total, LENGTH.to_string(), "{shown}");
        let (from, to) = span.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        assert!(rest[..to + 1 - from] == data[from..=to], "{shown}: other bytes in {range}");
        assert!(head.to_ascii_lowercase().contains("content-type: "), "{shown}: a part without Content-Type: {head}");
        rest = &rest[to + 1 - from..];
        parts.push((from, to));
        let delimiter = format!("\r\n--{boundary}");
        rest = rest.strip_prefix(delimiter.as_bytes()).unwrap_or_else(|| panic!("{shown}: no boundary after {range}"));
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            assert!(epilogue.is_empty() || epilogue == b"\r\n", "{shown}: an epilogue");
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap_or_else(|| panic!("{shown}: a broken boundary"));
    }
}

#[test]
fn duplicate_range_headers_do_not_confuse() {
    let mut server = server();
    let got = server.request("GET", FILE, &[("Range", "bytes=0-9"), ("Range", "bytes=20-29")], b"");
    // Range is no list-based field as a whole: a second line is an error or ignored, never a panic or other bytes.
    match got.status {
        200 => assert!(got.body == content()),
        206 if got.header("content-range").is_some() => {
            assert!(got.body == content()[..10] || got.body == content()[20..30], "{got:?}");
        }
        206 => drop(multipart(&got, &content(), "two lines")),
        400 | 416 => {}
        other => panic!("{other}: {got:?}"),
    }
    server.assert_alive("two Range headers");
}

#[test]
fn head_ignores_range_and_sends_no_body() {
    let server = server();
    let mut connection = Connection::open(server.media);
    let plain = connection.call("HEAD", FILE, &[], b"").unwrap();
    assert_eq!((plain.status, plain.header("content-length")), (200, Some("100000")), "{plain:?}");
    assert_eq!(plain.header("accept-ranges"), Some("bytes"));
    for range in ["bytes=0-9", "bytes=0-9,20-29", "bytes=200000-", "bytes=abc"] {
        let got = connection.call("HEAD", FILE, &[("Range", range)], b"").unwrap();
        assert_eq!((got.status, got.header("content-length")), (200, Some("100000")), "{range}: {got:?}");
        assert_eq!(got.header("content-range"), None, "{range}");
    }
    // No stray body byte: the next response on the connection is read whole.
    assert!(connection.get(FILE).body == content());
    let get = connection.get(FILE);
    for name in ["etag", "last-modified", "content-type", "cache-control", "accept-ranges"] {
        assert_eq!(get.header(name), plain.header(name), "{name} differs between GET and HEAD");
    }
}

#[test]
fn strong_etag_and_cache_control() {
    let server = server();
    let got = server.get(FILE);
    let etag = got.header("etag").expect("an ETag");
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "not strong: {etag}");
    assert_eq!(got.header("cache-control"), Some("public, no-cache"));
    let versioned = server.get(&format!("{FILE}?v={}", etag.trim_matches('"')));
    assert!(versioned.header("cache-control").is_some_and(|v| v.contains("immutable")), "{versioned:?}");
    let stale = server.get(&format!("{FILE}?v=0000"));
    assert!(!stale.header("cache-control").is_some_and(|v| v.contains("immutable")), "{stale:?}");
}

const EARLIER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sat, 06 Nov 2094 08:49:37 GMT";

#[test]
fn preconditions() {
    let server = server();
    let mut connection = Connection::open(server.media);
    let first = connection.get(FILE);
    let etag = first.header("etag").unwrap().to_owned();
    let modified = first.header("last-modified").unwrap().to_owned();
    let weak = format!("W/{etag}");
    let list = format!("\"x\", {etag}, \"y\"");
    let weak_list = format!("\"x\",{weak}");
    let rows: Vec<(u16, Vec<(&str, &str)>)> = vec![
        (304, vec![("If-None-Match", &etag)]),
        (304, vec![("If-None-Match", &weak)]), // weak comparison: section 13.1.2
        (304, vec![("If-None-Match", &list)]),
        (304, vec![("If-None-Match", &weak_list)]),
        (304, vec![("If-None-Match", "*")]),
        (200, vec![("If-None-Match", "\"other\"")]),
        (304, vec![("If-Modified-Since", &modified)]),
        (304, vec![("If-Modified-Since", LATER)]),
        (200, vec![("If-Modified-Since", EARLIER)]),
        (200, vec![("If-Modified-Since", "not a date")]),
        // If-None-Match is evaluated instead of If-Modified-Since: section 13.2.2.
        (200, vec![("If-None-Match", "\"other\""), ("If-Modified-Since", &modified)]),
        (304, vec![("If-None-Match", &etag), ("If-Modified-Since", EARLIER)]),
        (200, vec![("If-Match", &etag)]),
        (200, vec![("If-Match", &list)]),
        (200, vec![("If-Match", "*")]),
        (412, vec![("If-Match", "\"other\"")]),
        (412, vec![("If-Match", &weak)]), // strong comparison: section 13.1.1
        (200, vec![("If-Unmodified-Since", &modified)]),
        (412, vec![("If-Unmodified-Since", EARLIER)]),
        (200, vec![("If-Match", &etag), ("If-Unmodified-Since", EARLIER)]),
        // Preconditions come before Range.
        (304, vec![("If-None-Match", &etag), ("Range", "bytes=0-9")]),
        (412, vec![("If-Match", "\"other\""), ("Range", "bytes=0-9")]),
        (304, vec![("If-None-Match", &etag), ("Range", "bytes=200000-")]),
        (206, vec![("If-Match", &etag), ("Range", "bytes=0-9")]),
    ];
    for (status, headers) in rows {
        for method in ["GET", "HEAD"] {
            let got = connection.call(method, FILE, &headers, b"").unwrap();
            let wanted = if method == "HEAD" && status == 206 { 200 } else { status };
            assert_eq!(got.status, wanted, "{method} {headers:?}: {got:?}");
            if wanted == 304 {
                assert_eq!(got.header("etag"), Some(&*etag), "{headers:?}: a 304 carries the ETag (section 15.4.5)");
                assert!(got.header("cache-control").is_some() && got.body.is_empty(), "{headers:?}: {got:?}");
            }
        }
    }
}

#[test]
fn if_range() {
    let server = server();
    let mut connection = Connection::open(server.media);
    let first = connection.get(FILE);
    let etag = first.header("etag").unwrap().to_owned();
    let modified = first.header("last-modified").unwrap().to_owned();
    let weak = format!("W/{etag}");
    let list = format!("{etag}, \"x\"");
    // A file just written has no strong Last-Modified yet (section 8.8.2.2), so `modified` may give either.
    for (value, part) in [
        (&*etag, Some(true)),
        (&*weak, Some(false)),
        (&*list, Some(false)),
        ("\"other\"", Some(false)),
        ("*", Some(false)),
        ("", Some(false)),
        ("not a date", Some(false)),
        (EARLIER, Some(false)),
        (LATER, Some(false)),
        (&*modified, None),
    ] {
        let got = connection.call("GET", FILE, &[("If-Range", value), ("Range", "bytes=10-19")], b"").unwrap();
        match (got.status, part) {
            (206, Some(true) | None) => assert!(got.body == content()[10..20], "{value}"),
            (200, Some(false) | None) => assert!(got.body == content(), "{value}"),
            _ => panic!("If-Range: {value}: {got:?}"),
        }
    }
    // A false If-Range makes even an unsatisfiable Range disappear.
    let got = connection.call("GET", FILE, &[("If-Range", "\"other\""), ("Range", "bytes=200000-")], b"").unwrap();
    assert_eq!(got.status, 200, "{got:?}");
}

#[test]
fn an_empty_video() {
    let server = server();
    let target = "/videos/empty.bin/file";
    let whole = server.get(target);
    assert_eq!((whole.status, whole.header("content-length")), (200, Some("0")), "{whole:?}");
    for range in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
        let got = server.request("GET", target, &[("Range", range)], b"");
        assert_eq!((got.status, got.header("content-range")), (416, Some("bytes */0")), "{range}: {got:?}");
    }
    // A suffix of an empty file: RFC 9110 section 14.1.2 calls it satisfiable only for a length that is not zero.
    let got = server.request("GET", target, &[("Range", "bytes=-5")], b"");
    assert!(matches!(got.status, 200 | 416), "{got:?}");
}

#[test]
fn chunk_by_offset_is_a_resource_of_its_own() {
    let server = server();
    let data = content();
    let got = server.get("/videos/blob.bin/chunk?offset=1000&size=500");
    assert_eq!(got.status, 200, "{got:?}");
    assert!(got.body == data[1000..1500]);
    assert_eq!(got.header("accept-ranges"), Some("bytes"));
    assert!(got.header("media-source-range").is_some() && got.header("content-location").is_some(), "{got:?}");
    assert!(got.header("etag").is_some_and(|etag| etag.starts_with('"')), "{got:?}");

    let target = "/videos/blob.bin/chunk?offset=1000&size=500";
    let got = server.request("GET", target, &[("Range", "bytes=10-19")], b"");
    assert_eq!((got.status, got.header("content-range")), (206, Some("bytes 10-19/500")), "{got:?}");
    assert!(got.body == data[1010..1020]);
    let got = server.request("GET", target, &[("Range", "bytes=500-")], b"");
    assert_eq!((got.status, got.header("content-range")), (416, Some("bytes */500")), "{got:?}");

    let clipped = server.get("/videos/blob.bin/chunk?offset=99990&size=500");
    assert!(clipped.status == 200 && clipped.body == data[99_990..], "{clipped:?}");
    let whole = server.get("/videos/blob.bin/chunk?offset=0");
    assert!(whole.body == data, "size defaults to 20 MiB: {whole:?}");
    let last = server.get("/videos/blob.bin/chunk?offset=99999&size=1");
    assert!(last.body == data[99_999..], "{last:?}");
    assert_eq!(server.get("/videos/blob.bin/chunk?offset=100000&size=1").status, 422);

    let head = server.request("HEAD", target, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("500")), "{head:?}");
    let etag = server.get(target).header("etag").unwrap().to_owned();
    assert_eq!(server.request("GET", target, &[("If-None-Match", &etag)], b"").status, 304);
    let other = server.get("/videos/blob.bin/chunk?offset=1000&size=501");
    assert_ne!(other.header("etag"), Some(&*etag), "two chunks, one ETag");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut connection = Connection::open(server.media);
    let mut bytes = Vec::new();
    for i in 0..20 {
        bytes.extend(format!("GET {FILE} HTTP/1.1\r\nHost: x\r\nRange: bytes={0}-{0}\r\n\r\n", i * 100).into_bytes());
    }
    connection.send(&bytes).unwrap();
    for i in 0..20 {
        let got = connection.read_response(false).unwrap();
        assert_eq!((got.status, &got.body[..]), (206, &content()[i * 100..=i * 100]), "{got:?}");
    }
}
