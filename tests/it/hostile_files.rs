//! Malformed, truncated and hostile MP4 and TS files in the library: listed, served by byte range, refused by the index
//! with 422, within bounded time and memory.

use std::time::{Duration, Instant};

use crate::support::client::Connection;
use crate::support::oracle;
use crate::support::server::Server;

fn boxed(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend_from_slice(kind);
    out.extend_from_slice(payload);
    out
}

fn nested(kinds: &[&[u8; 4]], times: usize) -> Vec<u8> {
    (0..times).fold(Vec::new(), |inner, i| boxed(kinds[i % kinds.len()], &inner))
}

/// One field of one box at a time: counts beyond the file, unknown versions, sizes and flags, and the box missing.
fn broken_boxes(good: &[u8], fragmented: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_owned(), bytes));
    for kind in
        [b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"elst", b"mdhd", b"mvhd", b"tkhd", b"stsd", b"hdlr"]
    {
        let Some(at) = good.windows(4).position(|w| w == kind) else { continue };
        let name = String::from_utf8_lossy(kind).into_owned();
        // The count (or first field) after version and flags, and where stsz keeps its count.
        for (label, skip, value) in
            [("count", 8, u32::MAX), ("count31", 8, 1 << 31), ("zero", 8, 0), ("late", 12, u32::MAX)]
        {
            let mut bytes = good.to_vec();
            bytes[at + skip..at + skip + 4].copy_from_slice(&value.to_be_bytes());
            add(&format!("{name}_{label}.mp4"), bytes);
        }
        let mut bytes = good.to_vec();
        bytes[at + 4] = 0xFF;
        add(&format!("{name}_version.mp4"), bytes);
        let mut bytes = good.to_vec();
        bytes[at - 4..at].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF]);
        add(&format!("{name}_size.mp4"), bytes);
        let mut bytes = good.to_vec();
        bytes[at..at + 4].copy_from_slice(b"free");
        add(&format!("{name}_missing.mp4"), bytes);
    }
    for kind in [b"trun", b"tfhd", b"tfdt", b"trex", b"mfhd"] {
        let at = fragmented.windows(4).rposition(|w| w == kind).unwrap();
        let name = String::from_utf8_lossy(kind).into_owned();
        for (label, skip) in [("flags", 4), ("first", 8), ("second", 12)] {
            let mut bytes = fragmented.to_vec();
            bytes[at + skip..at + skip + 4].copy_from_slice(&[0xFF; 4]);
            add(&format!("{name}_{label}.mp4"), bytes);
        }
    }
    files
}

/// Files that are wrong in one place each, made from a good one or from nothing.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let good = std::fs::read(oracle::vector("ntsc_film.mp4")).unwrap();
    let fragmented = std::fs::read(oracle::vector("frag.mp4")).unwrap();
    let transport = std::fs::read(oracle::vector("ndf25.ts")).unwrap();
    let ftyp = boxed(b"ftyp", b"isom\0\0\0\0isom");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_owned(), bytes));
    add("empty.mp4", Vec::new());
    add("ftyp.mp4", ftyp.clone());
    add("zeros.mp4", [&ftyp[..], &[0; 1 << 20]].concat());
    add("ones.mp4", [&ftyp[..], &[0xFF; 1 << 20]].concat());
    for (name, head) in [
        ("size0", &b"\0\0\0\0moov"[..]),
        ("size1", b"\0\0\0\x01moov"),
        ("size7", b"\0\0\0\x07moov"),
        ("large0", b"\0\0\0\x01moov\0\0\0\0\0\0\0\0"),
        ("large15", b"\0\0\0\x01moov\0\0\0\0\0\0\0\x0f"),
        ("large63", b"\0\0\0\x01moov\x80\0\0\0\0\0\0\0"),
        ("large64", b"\0\0\0\x01moov\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
    ] {
        add(&format!("{name}.mp4"), [&ftyp[..], head].concat());
        add(&format!("{name}_tail.mp4"), [&ftyp[..], head, &good[ftyp.len()..]].concat());
    }
    add("deep_moov.mp4", [&ftyp[..], &nested(&[b"moov", b"trak", b"mdia", b"minf", b"stbl"], 20_000)].concat());
    add("deep_moof.mp4", [&ftyp[..], &nested(&[b"moof", b"traf"], 20_000)].concat());
    add("deep_meta.mp4", [&ftyp[..], &boxed(b"moov", &nested(&[b"meta", b"udta", b"edts"], 20_000))].concat());
    add("many_boxes.mp4", [&ftyp[..], &boxed(b"free", b"").repeat(100_000)].concat());
    add("many_traks.mp4", [&ftyp[..], &boxed(b"moov", &boxed(b"trak", b"").repeat(100_000))].concat());
    add("many_moofs.mp4", [&fragmented[..], &boxed(b"moof", b"").repeat(100_000)].concat());
    files.extend(broken_boxes(&good, &fragmented));
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_owned(), bytes));
    for cut in [1, 7, 9, 40, 1000, good.len() / 2, good.len() - 1] {
        add(&format!("cut_{cut}.mp4"), good[..cut].to_vec());
    }
    for cut in [5, 500, 3000, fragmented.len() / 2, fragmented.len() - 5] {
        add(&format!("fragcut_{cut}.mp4"), fragmented[..cut].to_vec());
    }
    add("sync.ts", b"\x47".repeat(1 << 20));
    add("null.ts", [&b"\x47\x1F\xFF\x10"[..], &[0xFF; 184]].concat().repeat(5000));
    add("cut.ts", transport[..1000].to_vec());
    add("no_sync.ts", transport.iter().map(|b| b ^ 0x55).collect());
    let mut lengths = transport.clone();
    for packet in lengths.chunks_mut(188) {
        if packet.len() > 4 && packet[3] & 0x20 != 0 {
            packet[4] = 0xFF; // the adaptation field is longer than the packet
        }
    }
    add("adaptation.ts", lengths);
    add(
        "pat.ts",
        transport.chunks(188).flat_map(|p| p.iter().enumerate().map(|(i, &b)| if i > 4 { 0xFF } else { b })).collect(),
    );
    files
}

#[test]
fn hostile_files() {
    let files = hostile();
    assert!(files.len() > 120, "{} files", files.len());
    let mut builder = Server::builder();
    let mut names = Vec::new();
    for (name, bytes) in files {
        builder = builder.bytes(&name, &bytes);
        names.push((name, bytes));
    }
    let mut server = builder.allow(".mp4").allow(".ts").start();
    for (name, bytes) in &names {
        // One connection each: a server that ends the connection on a bad file would be seen as such.
        let mut connection = Connection::open(server.media);
        let began = Instant::now();
        for rest in [
            "",
            "/seek?frame=0",
            "/seek?frame=999999999",
            "/seek?time=3",
            "/seek?timecode=00:00:01:00",
            "/chunk?frame=3",
            "/chunk?time=1&as=fmp4&duration=1",
            "/chunk?timecode=23:59:56:00&as=fmp4&size=100000",
            "/chunk?offset=0&size=10",
        ] {
            let target = format!("/videos/{name}{rest}");
            let got = connection.call("GET", &target, &[], b"").unwrap_or_else(|e| panic!("{target}: {e}"));
            // 501: as=fmp4 is made from MP4 only.
            let unsupported = got.status == 501 && name.ends_with(".ts") && rest.contains("as=fmp4");
            assert!(unsupported || matches!(got.status, 200 | 400 | 404 | 422), "{target}: {got:?}");
            assert!(got.complete, "{target}: {got:?}");
            if got.status >= 400 {
                got.problem();
            }
        }
        let limit = Duration::from_secs(1 + bytes.len() as u64 / (1 << 20)) * 2;
        assert!(began.elapsed() < limit, "{name}: {:?} for {} bytes", began.elapsed(), bytes.len());
        let whole = connection.get(&format!("/videos/{name}/file"));
        assert!(whole.status == 200 && whole.body == *bytes, "{name} by bytes: {whole:?}");
    }
    server.assert_alive("hostile files");
    let peak = peak_memory(server.pid());
    println!("{} hostile files, peak memory {} MiB", names.len(), peak >> 20);
    assert_eq!(server.get("/videos/ftyp.mp4/seek?frame=0").status, 422);
}

fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
