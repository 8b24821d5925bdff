//! Chunks by frame: their bytes against the file's, and their pictures, decoded by ffmpeg, against those of the file.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use crate::seek::{EDITED, FRAGMENTED, PROGRESSIVE, each, expect_eq, seek};
use crate::support::box_cursor;
use crate::support::client::{Connection, encode};
use crate::support::oracle::{self, Oracle};
use crate::support::server::Server;

/// Frames to try in a file: both ends, a keyframe and its neighbours (leading pictures, in an open GOP), one between.
fn sample(oracle: &Oracle) -> Vec<usize> {
    let count = oracle.frames.len();
    let mut picked = vec![0, count / 3, count - 1];
    let keys: Vec<usize> = (0..count).filter(|&n| oracle.frames[n].key).take(40).collect();
    if let Some(&key) = keys.get(keys.len() / 2) {
        picked.extend([key.saturating_sub(1), key, key + 1]);
    }
    picked.retain(|&n| n < count);
    picked.sort_unstable();
    picked.dedup();
    picked
}

/// Where `wanted` occurs as a run in `frames`.
fn run_of(frames: &[String], wanted: &[String]) -> Option<usize> {
    frames.windows(wanted.len()).position(|window| window == wanted)
}

fn fmp4_decodes(connection: &mut Connection, oracle: &Oracle) -> Result<(), String> {
    for n in sample(oracle) {
        let target = format!("/videos/{}/chunk?frame={n}&as=fmp4&duration=1.5", encode(&oracle.name));
        let context = |e: String| format!("frame {n} as fmp4: {e}");
        let response = connection.call("GET", &target, &[], b"").map_err(|e| context(e.to_string()))?;
        if response.status != 200 {
            return Err(context(format!("{} {}", response.status, response.text())));
        }
        let first = oracle.key_of(n).unwrap_or(n);
        let last = (first..oracle.frames.len()).find(|&i| oracle.time(i) > oracle.time(n) + 0.5);
        let last = last.unwrap_or(oracle.frames.len()).max(n + 1);
        // Several edits put together what lies apart in the file: only the frame itself is certain.
        let wanted = if oracle.name == "multi_edit.mp4" { &oracle.md5[n..=n] } else { &oracle.md5[first..last] };
        let decoded = oracle::decode(&response.body);
        if run_of(&decoded, wanted).is_none() {
            let found = oracle.md5.get(n).and_then(|sum| decoded.iter().position(|d| d == sum));
            let what = format!("{} frames decode, not frames {first} and on; frame {n} is at {found:?}", decoded.len());
            return Err(context(what));
        }
        // To its end without a gap, although decoding order is not the order of presentation.
        let begins = decoded.iter().position(|sum| *sum == oracle.md5[first]).unwrap_or(0);
        let follows = oracle.md5[first..].iter().zip(&decoded[begins..]).all(|(file, chunk)| file == chunk);
        if !follows && !EDITED.contains(&&*oracle.name) {
            return Err(context(format!("frames {first} and on do not follow each other to the end of the chunk")));
        }
    }
    Ok(())
}

#[test]
fn fmp4_chunks_of_progressive_files_decode_to_the_same_frames() {
    each(&PROGRESSIVE, fmp4_decodes);
}

#[test]
fn fmp4_chunks_of_edited_files_decode_to_the_same_frames() {
    each(&EDITED, fmp4_decodes);
}

#[test]
fn fmp4_chunks_of_fragmented_files_decode_to_the_same_frames() {
    each(&FRAGMENTED, fmp4_decodes);
}

/// x264 without keyframes but the first: a column of intra blocks wanders over the picture, and what ffmpeg calls a
/// keyframe is only where that begins: decoding has to start at the real one.
#[test]
fn gradual_refresh_decodes_from_far_enough_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = Server::builder();
    let names = ["plain.mp4", "reordered.mp4", "fragments.mp4"];
    let movflags = ["faststart", "faststart", "frag_keyframe+empty_moov"];
    for ((name, bframes), movflags) in names.iter().zip(["0", "2", "2"]).zip(movflags) {
        let file = directory.path().join(name);
        let encoded = std::process::Command::new("ffmpeg")
            .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=s=192x108:r=25:d=5"])
            .args(["-c:v", "libx264", "-preset", "veryfast", "-x264-params", "intra-refresh=1:keyint=40"])
            .args(["-bf", bframes, "-movflags", movflags])
            .arg(&file)
            .status();
        assert!(encoded.unwrap().success());
        builder = builder.video(&file, name);
    }
    let server = builder.start();
    for name in names {
        let frames = oracle::decode(&std::fs::read(directory.path().join(name)).unwrap());
        assert_eq!(frames.len(), 125, "{name}");
        for n in [0, 30, 41, 45, 60, 79, 81, 94, 101, 120, 121, 124] {
            let chunk = server.get(&format!("/videos/{name}/chunk?frame={n}&as=fmp4&duration=0.2"));
            assert_eq!(chunk.status, 200, "{name}: {}", chunk.text());
            let decoded = oracle::decode(&chunk.body);
            assert!(decoded.contains(&frames[n]), "{name}: frame {n} is not among {} that decode", decoded.len());
        }
    }
}

/// The chunk's own header says where in the file it is; its bytes must be those of the file, and they must decode.
fn bytes_decode(connection: &mut Connection, oracle: &Oracle) -> Result<(), String> {
    let path = oracle::vector(&oracle.name);
    let file = std::fs::File::open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let moofs = box_cursor::top_level(&path, b"moof");
    // Frames of one group of pictures have the same chunk: decoded once.
    let mut decoded: HashMap<u64, Vec<String>> = HashMap::new();
    for n in sample(oracle) {
        let context = |e: String| format!("frame {n} as bytes: {e}");
        let answer = seek(connection, &oracle.name, &format!("frame={n}")).map_err(context)?;
        let offset = answer["keyframe"]["offset"].as_u64().ok_or_else(|| context("no offset".to_owned()))?;
        let size = 900_000.min(length - offset);
        let response = connection.get(&format!("/videos/{}/chunk?frame={n}&size=900000", encode(&oracle.name)));
        expect_eq("status", response.status, 200).map_err(context)?;
        let mut wanted = vec![0; size as usize];
        file.read_exact_at(&mut wanted, offset).unwrap();
        expect_eq("the file's bytes", response.body == wanted, true).map_err(context)?;
        let source = response.header("media-source-range").unwrap_or_default();
        for part in [format!("offset={offset}"), format!("length={size}"), format!("total={length}")] {
            expect_eq(&format!("{part} in Media-Source-Range: {source}"), source.contains(&part), true)
                .map_err(context)?;
        }
        let media = if oracle.name.ends_with("ts") {
            wanted
        } else if let Some(&first) = moofs.first() {
            let mut init = vec![0; first as usize];
            file.read_exact_at(&mut init, 0).unwrap();
            init.extend(wanted);
            init
        } else {
            continue; // samples of a progressive file do not decode without their tables
        };
        let decoded = decoded.entry(offset).or_insert_with(|| oracle::decode(&media));
        if !decoded.contains(&oracle.md5[n]) {
            return Err(context(format!("not among the {} frames that the chunk decodes to", decoded.len())));
        }
    }
    Ok(())
}

#[test]
fn byte_chunks_of_progressive_files_are_the_files_bytes() {
    each(&["ndf25.mp4", "opengop.mp4", "editlist.mp4", "co64_fast.mp4"], bytes_decode);
}

#[test]
fn byte_chunks_of_fragmented_files_decode() {
    // Without what a plain run of bytes cannot have: the samples in the moov, offsets from the start of the file, a
    // sidx that ffmpeg reads.
    let without = ["frag_hybrid.mp4", "longgop.mp4", "frag_offset.mp4", "sidx_nested.mp4"];
    each(&FRAGMENTED.into_iter().filter(|name| !without.contains(name)).collect::<Vec<_>>(), bytes_decode);
}

#[test]
fn byte_chunks_of_transport_streams_decode() {
    each(&["ndf25.ts", "ndf25.m2ts", "opengop.ts", "hevc.ts", "wrap.ts", "cut.ts"], bytes_decode);
}
