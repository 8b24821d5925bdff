//! Transport streams from a multiplexer of the test's own, which cuts PES packets as no other does.

use super::*;

/// Writes access unit `n` of these, or nothing if it went with the one before.
type Layout = fn(&mut Muxer, usize, &[(u64, u64, Vec<u8>)]);

/// A multiplexer that cuts an elementary stream into PES packets as it is told.
struct Muxer {
    out: Vec<u8>,
    counter: u8,
}

impl Muxer {
    fn new(stream_type: u8) -> Self {
        let mut muxer = Self { out: Vec::new(), counter: 0 };
        muxer.section(0, 0, &[0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0]);
        muxer.section(0x1000, 2, &[0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0, stream_type, 0xe1, 0, 0xf0, 0]);
        muxer
    }

    fn section(&mut self, pid: u16, table: u8, body: &[u8]) {
        let mut section = vec![table, 0xb0, (body.len() + 4) as u8];
        section.extend(body);
        let crc = section.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
        });
        section.extend(crc.to_be_bytes());
        section.insert(0, 0);
        section.resize(184, 0xff);
        self.out.extend([0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10]);
        self.out.extend(section);
    }

    fn pes(&mut self, pts: Option<u64>, dts: Option<u64>, data: &[u8]) {
        let stamp = |mark: u64, t: u64| {
            [
                mark << 4 | (t >> 30 & 7) << 1 | 1,
                t >> 22 & 255,
                (t >> 15 & 127) << 1 | 1,
                t >> 7 & 255,
                (t & 127) << 1 | 1,
            ]
            .map(|v| v as u8)
        };
        let mut fields = Vec::new();
        fields.extend(pts.iter().flat_map(|t| stamp(if dts.is_some() { 3 } else { 2 }, *t)));
        fields.extend(dts.iter().flat_map(|t| stamp(1, *t)));
        let flags = if dts.is_some() {
            0xc0
        } else if pts.is_some() {
            0x80
        } else {
            0
        };
        let mut pes = vec![0, 0, 1, 0xe0, 0, 0, 0x80, flags, fields.len() as u8];
        pes.extend(fields);
        pes.extend(data);
        for (n, chunk) in pes.chunks(184).enumerate() {
            self.counter = (self.counter + 1) & 15;
            let stuffing = 184 - chunk.len();
            self.out.extend([
                0x47,
                if n == 0 { 0x41 } else { 0x01 },
                0,
                if stuffing > 0 { 0x30 } else { 0x10 } | self.counter,
            ]);
            if stuffing > 0 {
                self.out.push((stuffing - 1) as u8);
                self.out.extend([0].iter().chain(std::iter::repeat_n(&0xff, stuffing)).take(stuffing - 1));
            }
            self.out.extend(chunk);
        }
    }
}

/// Access units of a file with their timestamps, in decoding order: `(pts, dts, bytes)`.
fn access_units(path: &Path, format: &str, delimiter: &[u8]) -> Vec<(u64, u64, Vec<u8>)> {
    let raw = path.with_extension("es");
    let text = path.to_str().expect("UTF-8");
    output(
        "ffmpeg",
        &["-v", "error", "-y", "-i", text, "-map", "0:v", "-c", "copy", "-f", format, raw.to_str().expect("UTF-8")],
    );
    let data = std::fs::read(raw).expect("read");
    let mut starts: Vec<usize> = (0..data.len()).filter(|&at| data[at..].starts_with(delimiter)).collect();
    starts.push(data.len());
    let rows = output(
        "ffprobe",
        &["-v", "quiet", "-select_streams", "v", "-show_entries", "packet=pts,dts", "-of", "csv=p=0", text],
    );
    let times: Vec<(u64, u64)> = rows
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',');
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect();
    assert_eq!(times.len(), starts.len() - 1, "one delimiter per packet");
    times.iter().zip(starts.windows(2)).map(|(t, s)| (t.0, t.1, data[s[0]..s[1]].to_vec())).collect()
}

#[test]
fn access_units_and_pes_packets_need_not_match() {
    let dir = directory();
    let codecs = [
        ("h264", 0x1b, "-c:v libx264 -preset veryfast -g 25 -bf 3", &[0, 0, 0, 1, 9][..]),
        (
            "hevc",
            0x24,
            "-c:v libx265 -preset ultrafast -x265-params keyint=25:bframes=3:log-level=none",
            &[0, 0, 0, 1, 0x46][..],
        ),
    ];
    for (codec, stream_type, options, delimiter) in codecs {
        let source = make(dir.path(), &format!("{codec}.ts"), "25", "4", options);
        let units = access_units(&source, codec, delimiter);
        let layouts: [(&str, Layout); 4] = [
            ("two in one", |muxer, n, units| {
                if n % 2 == 0 {
                    let data: Vec<u8> = units[n..units.len().min(n + 2)].iter().flat_map(|u| u.2.clone()).collect();
                    muxer.pes(Some(units[n].0), Some(units[n].1), &data);
                }
            }),
            ("one in two", |muxer, n, units| {
                let (head, tail) = units[n].2.split_at(units[n].2.len() / 2);
                muxer.pes(Some(units[n].0), Some(units[n].1), head);
                muxer.pes(None, None, tail);
            }),
            ("timestamps now and then", |muxer, n, units| {
                let known = n % 5 == 0;
                muxer.pes(known.then_some(units[n].0), known.then_some(units[n].1), &units[n].2);
            }),
            ("no decoding timestamps", |muxer, n, units| muxer.pes(Some(units[n].0), None, &units[n].2)),
        ];
        for (name, layout) in layouts {
            let mut muxer = Muxer::new(stream_type);
            (0..units.len()).for_each(|n| layout(&mut muxer, n, &units));
            let opened = Opened::new(muxer.out);
            assert_eq!(opened.table.frames(), 100, "{codec}, {name}");
            let mut times: Vec<u64> = units.iter().map(|unit| unit.0).collect();
            times.sort_unstable();
            for n in 0..100 {
                let frame = opened.table.frame(n).expect("inside");
                assert_eq!(frame.time, times[n as usize] - times[0], "{codec}, {name}: frame {n}");
            }
            assert_eq!(opened.summary.tracks[0].keyframes, 4, "{codec}, {name}");
        }
    }
}

/// Without sequence parameters in front of it a keyframe is no place to start.
#[test]
fn parameters_only_once() {
    let dir = directory();
    let source = make(dir.path(), "once.ts", "25", "4", "-c:v libx264 -preset veryfast -g 25 -bf 2");
    let mut muxer = Muxer::new(0x1b);
    for (n, (pts, dts, data)) in access_units(&source, "h264", &[0, 0, 0, 1, 9]).iter().enumerate() {
        let mut starts: Vec<usize> = (0..data.len()).filter(|&at| data[at..].starts_with(&[0, 0, 1])).collect();
        starts.push(data.len());
        let units = starts.windows(2).map(|s| &data[s[0]..s[1]]);
        let kept: Vec<u8> = units.filter(|unit| n == 0 || !matches!(unit[3] & 31, 7 | 8)).flatten().copied().collect();
        muxer.pes(Some(*pts), Some(*dts), &kept);
    }
    let path = dir.path().join("stripped.ts");
    std::fs::write(&path, muxer.out).expect("written");
    let opened = check_frames(&path);
    assert_eq!(opened.summary.tracks[0].keyframes, 4);
    assert!((0..100).all(|n| opened.frame(n).keyframe.frame == Some(0)));
}
