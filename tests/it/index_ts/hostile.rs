//! Damaged and hostile transport streams and tables: no panic, bounded time.

use super::*;

/// A small generator with a fixed seed (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % end.max(1) as u64) as usize
    }
}

fn mutate(data: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..random.below(12) + 1 {
        if out.len() < 400 {
            break;
        }
        let at = random.below(out.len() - 200);
        match random.below(7) {
            0 => out[at] = random.below(256) as u8,
            // Headers are where it hurts.
            1 => {
                let at = at / 188 * 188 + random.below(24);
                out[at] = random.below(256) as u8;
            }
            2 => drop(out.drain(at..at + random.below(200))),
            3 => {
                let byte = random.below(256) as u8;
                let end = at + random.below(200);
                out[at..end].fill(byte);
            }
            4 => out.truncate(at.max(400)),
            5 => {
                let piece = out[at..at + 188].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            _ => {
                let bit = random.below(8);
                out[at] ^= 1 << bit;
            }
        }
    }
    out
}

/// Asks everything of whatever index came out.
fn exercise(src: &Memory) {
    let Ok(built) = ts::build(src) else { return };
    let table = Table::open(Bytes::from(built.table)).expect("what was built opens");
    let mut last = 0;
    for n in 0..table.frames() {
        let frame = table.frame(n).expect("inside");
        assert!(frame.time >= last && frame.offset + frame.size <= src.size());
        last = frame.time;
        let answer = table.resolve(&built.summary, src, &Position::Frame(n));
        assert!(!built.summary.tracks[0].kind.eq(&TrackKind::Video) || answer.is_ok(), "{answer:?}");
    }
    for value in [-1, 0, 1, i64::MAX, i64::MIN] {
        let _ = table.resolve(&built.summary, src, &Position::Time(DecimalTime { value, decimals: 0 }));
    }
    let label = Label { hours: 0, minutes: 0, seconds: 1, frames: 3, drop: false };
    let _ = table.resolve(&built.summary, src, &Position::Timecode { label, drop: None });
}

#[test]
fn damaged_files_never_panic() {
    let dir = directory();
    let small = "-s 64x64 -g 12 -bf 2 -b:v 60k -b:a 32k";
    let originals = [
        make(dir.path(), "a.ts", "25", "1", &format!("-c:v libx264 -preset veryfast {small} -c:a aac")),
        make(dir.path(), "b.ts", "25", "1", &format!("-c:v mpeg2video {small} -c:a mp2")),
        make(
            dir.path(),
            "c.ts",
            "25",
            "1",
            "-s 64x64 -c:v libx265 -preset ultrafast -x265-params keyint=12:log-level=none -c:a ac3",
        ),
        make(dir.path(), "d.ts", "25", "1", &format!("-c:v libx264 {small} -f mpegts -mpegts_m2ts_mode 1")),
        make(dir.path(), "e.ts", "25", "1", "-vn -c:a aac -b:a 32k"),
    ];
    let mut random = Random(7);
    for path in originals {
        let data = std::fs::read(path).expect("read");
        for _ in 0..1000 {
            let src = Memory::new(mutate(&data, &mut random));
            exercise(&src);
            let limit = 3 * src.size() + (2 << 20);
            assert!(src.read.load(Ordering::Relaxed) <= limit, "bounded reading");
        }
    }
}

#[test]
fn damaged_tables_never_panic() {
    let dir = directory();
    let data =
        std::fs::read(make(dir.path(), "a.ts", "25", "2", &format!("{X264} -s 32x32 -g 12 -bf 2"))).expect("read");
    let src = Memory::new(data);
    let built = ts::build(&src).expect("an index");
    let mut random = Random(11);
    for _ in 0..20_000 {
        let mut table = built.table.clone();
        for _ in 0..random.below(20) + 1 {
            let at = random.below(table.len());
            table[at] = [0, 0xff, 0x7f, 0x80, random.below(256) as u8][random.below(5)];
        }
        let Ok(table) = Table::open(Bytes::from(table)) else { continue };
        for position in
            [Position::Frame(random.below(60) as u64), Position::Time(DecimalTime { value: 1, decimals: 0 })]
        {
            let _ = table.resolve(&built.summary, &src, &position);
        }
    }
}

/// Bytes that make a scan work hardest: it must stay within a second for a mebibyte, in a debug build.
#[test]
fn hostile_bytes_take_bounded_time() {
    let dir = directory();
    let head = std::fs::read(make(dir.path(), "a.ts", "25", "1", &format!("{X264} -s 32x32"))).expect("read");
    let packet = |fill: &[u8]| -> Vec<u8> {
        let body: Vec<u8> = fill.iter().copied().cycle().take(184).collect();
        [&[0x47, 0x01, 0x00, 0x10][..], &body].concat()
    };
    let cases: [Vec<u8>; 6] = [
        vec![0x47],
        vec![0],
        packet(&[0]),
        packet(&[0, 0, 1, 0x65]),
        packet(&[0, 0, 1, 9, 0, 0, 1, 0x65, 0x88]),
        packet(&[0, 0, 1, 6, 0xff]),
    ];
    for case in cases {
        let fill = case.iter().copied().cycle().take(1 << 20);
        let data: Vec<u8> = head.iter().copied().chain(fill).collect();
        let start = std::time::Instant::now();
        exercise(&Memory::new(data));
        assert!(start.elapsed().as_secs_f64() < 2.0, "{:?} {:?}", &case[..case.len().min(12)], start.elapsed());
    }
}
