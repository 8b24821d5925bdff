//! The init segment: `ftyp` and a `moov` whose tracks are described as in the source and hold no samples.

use super::super::write::Boxes;
use crate::media::time::Counting;

/// What the init segment says of the whole chunk.
pub(crate) struct Header<'a> {
    /// The source is a QuickTime movie: its sample descriptions follow QuickTime's rules and need its brand.
    pub(crate) quicktime: bool,
    /// Of the whole chunk, in milliseconds (`mehd`).
    pub(crate) duration_ms: u64,
    pub(crate) tracks: Vec<TrackHeader<'a>>,
    /// A timecode track for the first video track: its id, and how it counts.
    pub(crate) timecode: Option<(u32, Counting)>,
}

/// A track as its source describes it.
pub(crate) struct TrackHeader<'a> {
    pub(crate) id: u32,
    pub(crate) timescale: u32,
    pub(crate) handler: [u8; 4],
    /// Packed ISO 639-2/T (§8.4.2).
    pub(crate) language: u16,
    /// The last 60 bytes of `tkhd`: layer, group, volume, matrix, width, height.
    pub(crate) presentation: [u8; 60],
    /// Presented at time 0, in ticks of the track (`elst`).
    pub(crate) media_time: i64,
    /// The body of `stsd`, from version and flags on.
    pub(crate) stsd: &'a [u8],
}

/// Movie timescale: milliseconds.
const MOVIE_TIMESCALE: u32 = 1000;
/// "und" in packed ISO 639-2/T.
const UNDETERMINED: u16 = 0x55c4;

pub(super) fn segment(header: &Header<'_>) -> Vec<u8> {
    let mut out = Boxes::new();
    out.boxed(b"ftyp", |b| {
        b.raw(if header.quicktime { b"qt  " } else { b"iso6" });
        b.u32(0x200);
        b.raw(if header.quicktime { b"qt  iso6mp41" } else { b"iso6mp41cmfc" });
    });
    out.boxed(b"moov", |b| {
        movie_header(b, header);
        for track in &header.tracks {
            trak(b, track, header);
        }
        if let Some((id, counting)) = &header.timecode {
            timecode_trak(b, *id, counting);
        }
        b.boxed(b"mvex", |b| {
            b.full(b"mehd", 1, 0, |b| b.u64(header.duration_ms));
            let ids = header.tracks.iter().map(|t| t.id).chain(header.timecode.map(|(id, _)| id));
            for id in ids {
                b.full(b"trex", 0, 0, |b| {
                    b.u32(id);
                    b.u32(1);
                    b.zeros(12);
                });
            }
        });
    });
    out.into_bytes()
}

fn movie_header(b: &mut Boxes, header: &Header<'_>) {
    let last = header.tracks.iter().map(|t| t.id).chain(header.timecode.map(|(id, _)| id)).max().unwrap_or(0);
    b.full(b"mvhd", 0, 0, |b| {
        b.zeros(8);
        b.u32(MOVIE_TIMESCALE);
        b.u32(0);
        b.u32(0x1_0000);
        b.u16(0x100);
        b.zeros(10);
        b.matrix();
        b.zeros(24);
        b.u32(last.saturating_add(1));
    });
}

fn trak(b: &mut Boxes, track: &TrackHeader<'_>, header: &Header<'_>) {
    b.boxed(b"trak", |b| {
        // Enabled, in the movie, in the preview.
        b.full(b"tkhd", 0, 7, |b| {
            b.zeros(8);
            b.u32(track.id);
            b.zeros(8);
            b.raw(&track.presentation);
        });
        if let (Some((id, _)), b"vide") = (&header.timecode, &track.handler) {
            b.boxed(b"tref", |b| b.boxed(b"tmcd", |b| b.u32(*id)));
        }
        if track.media_time != 0 {
            b.boxed(b"edts", |b| edit(b, track.media_time));
        }
        b.boxed(b"mdia", |b| {
            media_header(b, track.timescale, track.language);
            handler(b, &track.handler);
            b.boxed(b"minf", |b| {
                match &track.handler {
                    b"vide" => b.full(b"vmhd", 0, 1, |b| b.zeros(8)),
                    b"soun" => b.full(b"smhd", 0, 0, |b| b.zeros(4)),
                    b"subt" => b.full(b"sthd", 0, 0, |_| {}),
                    _ => b.full(b"nmhd", 0, 0, |_| {}),
                }
                data_information(b);
                b.boxed(b"stbl", |b| {
                    b.boxed(b"stsd", |b| b.raw(track.stsd));
                    no_samples(b);
                });
            });
        });
    });
}

/// One edit without an end: the fragments say how long the track is (§8.6.6.1).
fn edit(b: &mut Boxes, media_time: i64) {
    b.full(b"elst", 1, 0, |b| {
        b.u32(1);
        b.u64(0);
        b.i64(media_time);
        b.u32(0x1_0000);
    });
}

fn media_header(b: &mut Boxes, timescale: u32, language: u16) {
    b.full(b"mdhd", 0, 0, |b| {
        b.zeros(8);
        b.u32(timescale);
        b.u32(0);
        b.u16(language);
        b.u16(0);
    });
}

fn handler(b: &mut Boxes, kind: &[u8; 4]) {
    b.full(b"hdlr", 0, 0, |b| {
        b.zeros(4);
        b.raw(kind);
        b.zeros(12);
        b.raw(b"Weir\0");
    });
}

/// The samples are in this very file.
fn data_information(b: &mut Boxes) {
    b.boxed(b"dinf", |b| {
        b.full(b"dref", 0, 0, |b| {
            b.u32(1);
            b.full(b"url ", 0, 1, |_| {});
        });
    });
}

fn no_samples(b: &mut Boxes) {
    b.full(b"stts", 0, 0, |b| b.u32(0));
    b.full(b"stsc", 0, 0, |b| b.u32(0));
    b.full(b"stsz", 0, 0, |b| b.zeros(8));
    b.full(b"stco", 0, 0, |b| b.u32(0));
}

/// A timecode track as QuickTime has it: its one sample is the number of the first frame.
fn timecode_trak(b: &mut Boxes, id: u32, counting: &Counting) {
    let rate = counting.rate;
    b.boxed(b"trak", |b| {
        b.full(b"tkhd", 0, 7, |b| {
            b.zeros(8);
            b.u32(id);
            b.zeros(8);
            b.zeros(16);
            b.matrix();
            b.zeros(8);
        });
        b.boxed(b"mdia", |b| {
            media_header(b, rate.num, UNDETERMINED);
            handler(b, b"tmcd");
            b.boxed(b"minf", |b| {
                b.boxed(b"gmhd", |b| {
                    b.full(b"gmin", 0, 0, |b| {
                        // Copy mode, grey opcolor, balance.
                        b.u16(0x40);
                        [0x8000, 0x8000, 0x8000, 0, 0].into_iter().for_each(|v| b.u16(v));
                    });
                    b.boxed(b"tmcd", |b| b.full(b"tcmi", 0, 0, text_style));
                });
                data_information(b);
                b.boxed(b"stbl", |b| {
                    timecode_description(b, counting);
                    no_samples(b);
                });
            });
        });
    });
}

/// How a player would draw the timecode: QuickTime requires it, nothing uses it.
fn text_style(b: &mut Boxes) {
    b.zeros(4);
    b.u16(12);
    b.zeros(2);
    b.zeros(6);
    [0xffff_u16; 3].into_iter().for_each(|v| b.u16(v));
    b.u8(0);
}

fn timecode_description(b: &mut Boxes, counting: &Counting) {
    let rate = counting.rate;
    b.full(b"stsd", 0, 0, |b| {
        b.u32(1);
        b.boxed(b"tmcd", |b| {
            b.zeros(6);
            b.u16(1);
            b.zeros(4);
            // Drop-frame, and wraps at 24 hours.
            b.u32(u32::from(counting.drop) | 2);
            b.u32(rate.num);
            b.u32(rate.den);
            b.u8(u8::try_from(rate.nominal()).unwrap_or(u8::MAX));
            b.u8(0);
        });
    });
}
