//! Counts the frames of an audio stream and reads the first header: ADTS (ISO/IEC 14496-3 §1.A.3), MPEG audio
//! (ISO/IEC 11172-3 §2.4.2.3), AC-3 and E-AC-3 (ETSI TS 102 366 §5.3, E.1.2).
//!
//! Must not know about packets or timestamps.

use super::psi::Coding;

/// Bytes of a header that are looked at.
const HEADER: usize = 8;

/// What the first frame header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pub codec: String,
    pub sample_rate: u32,
    pub channels: u16,
}

/// One frame header.
struct Header {
    /// Bytes of the frame, header included.
    len: usize,
    sample_rate: u32,
    channels: u16,
    codec: String,
}

type Parse = fn(&[u8; HEADER]) -> Option<Header>;

/// Walks from frame header to frame header.
pub struct Frames {
    parse: Option<Parse>,
    held: [u8; HEADER],
    len: usize,
    /// Bytes of the current frame that are still to come.
    skip: usize,
    /// Frames found; PES packets where the coding is not walked.
    pub count: u64,
    pub format: Option<Format>,
}

impl Frames {
    pub fn new(coding: Coding) -> Self {
        let parse: Option<Parse> = match coding {
            Coding::Aac => Some(adts),
            Coding::MpegAudio => Some(mpeg),
            Coding::Ac3 | Coding::EAc3 => Some(ac3),
            _ => None,
        };
        Self { parse, held: [0; HEADER], len: 0, skip: 0, count: 0, format: None }
    }

    /// A PES packet begins.
    pub fn start_pes(&mut self) {
        if self.parse.is_none() {
            self.count += 1;
        }
    }

    pub fn feed(&mut self, mut data: &[u8]) {
        let Some(parse) = self.parse else { return };
        while !data.is_empty() {
            let n = data.len().min(self.skip);
            (data, self.skip) = (&data[n..], self.skip - n);
            let n = data.len().min(HEADER - self.len);
            self.held[self.len..self.len + n].copy_from_slice(&data[..n]);
            (data, self.len) = (&data[n..], self.len + n);
            if self.len < HEADER {
                return;
            }
            match parse(&self.held).filter(|header| header.len >= HEADER) {
                Some(header) => {
                    self.count += 1;
                    (self.skip, self.len) = (header.len - HEADER, 0);
                    self.format.get_or_insert(Format {
                        codec: header.codec,
                        sample_rate: header.sample_rate,
                        channels: header.channels,
                    });
                }
                None => {
                    self.held.copy_within(1.., 0);
                    self.len -= 1;
                }
            }
        }
    }
}

fn adts(h: &[u8; HEADER]) -> Option<Header> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    if h[0] != 0xff || h[1] & 0xf6 != 0xf0 {
        return None;
    }
    let channels = u16::from((h[2] & 1) << 2 | h[3] >> 6);
    Some(Header {
        len: usize::from(h[3] & 3) << 11 | usize::from(h[4]) << 3 | usize::from(h[5] >> 5),
        sample_rate: *RATES.get(usize::from(h[2] >> 2 & 0x0f))?,
        channels: if channels == 7 { 8 } else { channels },
        codec: format!("mp4a.40.{}", (h[2] >> 6) + 1),
    })
}

fn mpeg(h: &[u8; HEADER]) -> Option<Header> {
    /// kbit/s by (MPEG-1: layer I, II, III; MPEG-2: layer I, II and III).
    const KBITS: [[usize; 15]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let (version, layer) = (h[1] >> 3 & 3, h[1] >> 1 & 3);
    if h[0] != 0xff || h[1] & 0xe0 != 0xe0 || version == 1 || layer == 0 {
        return None;
    }
    let base = *[44_100u32, 48_000, 32_000].get(usize::from(h[2] >> 2 & 3))?;
    let sample_rate = base >> [2, 0, 1, 0][usize::from(version)];
    let row = match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    };
    let bits = KBITS[row].get(usize::from(h[2] >> 4)).filter(|&&k| k > 0)? * 1000;
    let (padding, rate) = (usize::from(h[2] >> 1 & 1), sample_rate as usize);
    let len = match layer {
        3 => (12 * bits / rate + padding) * 4,
        1 if version != 3 => 72 * bits / rate + padding,
        _ => 144 * bits / rate + padding,
    };
    let codec = if version == 3 { "mp4a.6B" } else { "mp4a.69" };
    Some(Header { len, sample_rate, channels: if h[3] >> 6 == 3 { 1 } else { 2 }, codec: codec.into() })
}

fn ac3(h: &[u8; HEADER]) -> Option<Header> {
    const RATES: [u32; 3] = [48_000, 44_100, 32_000];
    const KBITS: [usize; 19] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
    const CHANNELS: [u16; 8] = [2, 1, 2, 3, 3, 4, 4, 5];
    if h[..2] != [0x0b, 0x77] {
        return None;
    }
    if h[5] >> 3 > 10 {
        let code = h[4] >> 6;
        let sample_rate = if code == 3 { RATES.get(usize::from(h[4] >> 4 & 3))? / 2 } else { RATES[usize::from(code)] };
        let channels = CHANNELS[usize::from(h[4] >> 1 & 7)] + u16::from(h[4] & 1);
        let len = 2 * ((usize::from(h[2] & 7) << 8 | usize::from(h[3])) + 1);
        return Some(Header { len, sample_rate, channels, codec: "ec-3".into() });
    }
    let code = usize::from(h[4] >> 6);
    let (sample_rate, kbits) = (*RATES.get(code)?, *KBITS.get(usize::from(h[4] >> 1 & 0x1f))?);
    let words = match code {
        0 => kbits * 2,
        1 => kbits * 320 / 147 + usize::from(h[4] & 1),
        _ => kbits * 3,
    };
    let mode = h[6] >> 5;
    // cmixlev, surmixlev and dsurmod stand before lfeon, each only in some modes.
    let before = if mode & 1 != 0 && mode != 1 { 2 } else { 0 }
        + if mode & 4 != 0 { 2 } else { 0 }
        + if mode == 2 { 2 } else { 0 };
    let lfe = u16::from(h[6] << 3 << before >> 7 & 1);
    Some(Header { len: words * 2, sample_rate, channels: CHANNELS[usize::from(mode)] + lfe, codec: "ac-3".into() })
}
