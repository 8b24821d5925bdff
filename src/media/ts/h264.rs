//! H.264 units: parameter sets, recovery point SEI, slice headers (ISO/IEC 14496-10 §7.3, annex D and E).
//!
//! Must not know about packets or timestamps.

use super::picture::{Format, Kind, Leading, Order, Parity, Picture, Prefix, Unit, frame_rate};
use crate::media::codec::avc::recovery_frames;
use crate::media::codec::bits::Bits;
use crate::media::still::Colour;
use crate::media::time::Rate;

/// Matrix coefficients that are not said.
const UNSPECIFIED: u8 = 2;

/// State over the units of one stream.
pub struct Parser {
    sps: [Option<Sps>; 32],
    /// SPS id of each PPS.
    pps: [u8; 256],
    /// The SPS that came last, for slices whose PPS is unknown.
    newest: u8,
    /// Number of the current picture.
    number: Option<u32>,
    pub format: Option<Format>,
}

impl Default for Parser {
    fn default() -> Self {
        Self { sps: [None; 32], pps: [0xff; 256], newest: 0, number: None, format: None }
    }
}

/// A sequence parameter set, as far as it matters outside a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    id: u8,
    profile: u8,
    constraints: u8,
    level: u8,
    separate_planes: bool,
    frame_num_bits: u32,
    /// 0 when the picture order count has another type than 0.
    order_bits: u32,
    frames_only: bool,
    /// `max_num_ref_frames`.
    pub references: u32,
    /// In whole macroblocks.
    pub coded_width: u32,
    pub coded_height: u32,
    /// Of what is shown, in the coded picture.
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
    pub vui: Vui,
}

/// Video usability information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vui {
    rate: Option<Rate>,
    /// Width to height of one pixel.
    pub pixel_aspect: Option<(u32, u32)>,
    pub colour: Option<Colour>,
}

/// `aspect_ratio_idc` from 1 on (table E-1).
const PIXEL_ASPECTS: [(u32, u32); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// Sequence and picture parameter sets, and their extensions.
pub fn is_set(first: u8) -> bool {
    matches!(first & 0x1f, 7 | 8 | 13)
}

pub fn wants(first: u8) -> usize {
    match first & 0x1f {
        1 | 5 => 40,
        6 => super::nal::KEEP,
        _ if is_set(first) => super::nal::KEEP,
        _ => 1,
    }
}

impl Parser {
    pub fn unit(&mut self, bytes: &[u8]) -> Unit {
        let Some((&first, body)) = bytes.split_first() else { return Unit::Inside };
        match first & 0x1f {
            1 | 2 | 5 => self.slice(first, body),
            6 => match recovery_frames(body) {
                Some(frames) => Unit::Prefix(Prefix::Recovery(frames)),
                None => Unit::Prefix(Prefix::Plain),
            },
            7 => {
                self.sequence(body);
                Unit::Prefix(Prefix::Parameters)
            }
            8 => {
                let mut bits = Bits::new(body);
                if let (Some(id @ ..256), Some(sps @ ..32)) = (bits.ue(), bits.ue()) {
                    self.pps[id as usize] = sps as u8;
                }
                Unit::Prefix(Prefix::Plain)
            }
            9 | 15..=18 => Unit::Prefix(Prefix::Plain),
            10 | 11 => Unit::EndOfSequence,
            _ => Unit::Inside,
        }
    }

    fn sequence(&mut self, body: &[u8]) {
        let Some(sps) = parse_sps(body) else { return };
        self.sps[usize::from(sps.id)] = Some(sps);
        self.newest = sps.id;
        if self.format.is_none() {
            let codec = format!("avc1.{:02x}{:02x}{:02x}", sps.profile, sps.constraints, sps.level);
            self.format = Some(Format { codec, width: sps.width, height: sps.height, rate: sps.vui.rate });
        }
    }

    fn slice(&mut self, first: u8, body: &[u8]) -> Unit {
        self.slice_header(first, body).unwrap_or(Unit::Inside)
    }

    fn slice_header(&mut self, first: u8, body: &[u8]) -> Option<Unit> {
        let mut bits = Bits::new(body);
        let first_mb = bits.ue()?;
        let slice_type = bits.ue()?;
        let pps = bits.ue()?;
        let sps_id = *self.pps.get(pps as usize)?;
        let sps_id = if sps_id < 32 { sps_id } else { self.newest };
        let idr = first & 0x1f == 5;
        let intra = matches!(slice_type % 5, 2 | 4);
        let kind = if idr {
            Kind::Instant
        } else if intra {
            Kind::Intra
        } else {
            Kind::Inter
        };
        let reference = first & 0x60 != 0;
        let mut picture = Picture { kind, leading: Leading::Unmarked, field: None, number: 0, order: None, reference };
        if let Some(sps) = self.sps[usize::from(sps_id)] {
            if sps.separate_planes {
                bits.skip(2)?;
            }
            picture.number = bits.bits(sps.frame_num_bits)?;
            if !sps.frames_only && bits.bit()? {
                picture.field = Some(if bits.bit()? { Parity::Bottom } else { Parity::Top });
            }
            if idr {
                bits.ue()?;
            }
            if sps.order_bits > 0 {
                picture.order = bits.bits(sps.order_bits).map(|lsb| Order { lsb, bits: sps.order_bits, per_frame: 2 });
            }
        }
        // A slice inside of another picture than the current one: that picture's first slice was lost.
        let lost = self.number != Some(picture.number);
        if first_mb != 0 && !lost {
            return Some(Unit::Inside);
        }
        self.number = Some(picture.number);
        Some(Unit::Picture(picture))
    }
}

/// Reads what follows the header of an SPS unit.
pub fn parse_sps(body: &[u8]) -> Option<Sps> {
    let mut bits = Bits::new(body);
    let [profile, constraints, level] = [bits.bits(8)? as u8, bits.bits(8)? as u8, bits.bits(8)? as u8];
    let id = u8::try_from(bits.ue()?).ok().filter(|&id| id < 32)?;
    let (mut chroma, mut separate_planes) = (1, false);
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma = bits.ue()?;
        if chroma == 3 {
            separate_planes = bits.bit()?;
        }
        bits.ue()?;
        bits.ue()?;
        bits.bit()?;
        if bits.bit()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                skip_scaling_list(&mut bits, list)?;
            }
        }
    }
    let frame_num_bits = bits.ue()?.checked_add(4).filter(|&n| n <= 16)?;
    let order_bits = order_bits(&mut bits)?;
    let references = bits.ue()?;
    bits.bit()?;
    let width = bits.ue()?.checked_add(1)?.checked_mul(16)?;
    let map_units = bits.ue()?.checked_add(1)?;
    let frames_only = bits.bit()?;
    let fields = if frames_only { 1 } else { 2 };
    let height = map_units.checked_mul(16 * fields)?;
    if !frames_only {
        bits.bit()?;
    }
    bits.bit()?;
    let mut sps = Sps {
        id,
        profile,
        constraints,
        level,
        separate_planes,
        frame_num_bits,
        order_bits,
        frames_only,
        references,
        coded_width: width,
        coded_height: height,
        left: 0,
        top: 0,
        width,
        height,
        vui: Vui::default(),
    };
    if bits.bit()? {
        let chroma = if separate_planes { 0 } else { chroma };
        let (x, y) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 * fields } else { fields });
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        sps.width = width.checked_sub(left.checked_add(right)?.checked_mul(x)?)?;
        sps.height = height.checked_sub(top.checked_add(bottom)?.checked_mul(y)?)?;
        (sps.left, sps.top) = (left.checked_mul(x)?, top.checked_mul(y)?);
    }
    if bits.bit()? {
        // One that is cut off says what it says before that.
        let _ = parse_vui(&mut bits, &mut sps.vui);
    }
    Some(sps)
}

/// Bits of the picture order count in slices; 0 when it has another type than 0.
fn order_bits(bits: &mut Bits<'_>) -> Option<u32> {
    let mut order_bits = 0;
    match bits.ue()? {
        0 => order_bits = bits.ue()?.checked_add(4).filter(|&n| n <= 16)?,
        1 => {
            bits.bit()?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.se()?;
            }
        }
        _ => {}
    }
    Some(order_bits)
}

fn skip_scaling_list(bits: &mut Bits<'_>, list: u32) -> Option<()> {
    if !bits.bit()? {
        return Some(());
    }
    let (mut last, mut next) = (8, 8);
    for _ in 0..if list < 6 { 16 } else { 64 } {
        if next != 0 {
            next = (last + bits.se()?.rem_euclid(256)) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

fn parse_vui(bits: &mut Bits<'_>, vui: &mut Vui) -> Option<()> {
    if bits.bit()? {
        vui.pixel_aspect = match bits.bits(8)? {
            255 => Some((bits.bits(16)?, bits.bits(16)?)).filter(|(width, height)| *width > 0 && *height > 0),
            number => usize::try_from(number).ok()?.checked_sub(1).and_then(|at| PIXEL_ASPECTS.get(at)).copied(),
        };
    }
    if bits.bit()? {
        bits.bit()?;
    }
    if bits.bit()? {
        bits.skip(3)?;
        let full_range = bits.bit()?;
        let mut matrix = UNSPECIFIED;
        if bits.bit()? {
            bits.skip(16)?;
            matrix = u8::try_from(bits.bits(8)?).ok()?;
        }
        vui.colour = Some(Colour { matrix, full_range });
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    if bits.bit()? {
        // `time_scale / (2 * num_units_in_tick)`
        let units = u64::from(bits.bits(32)?);
        let scale = u64::from(bits.bits(32)?);
        vui.rate = frame_rate(scale, units * 2);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPS of an x264 stream (320x180, 25 fps, High); ffprobe says profile High, level 12, 320x180, 25/1.
    const SPS: &str = "64000cacd941419f9f011000000300100000030320f1429960";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn parameters_as_ffprobe_reads_them() {
        let mut parser = Parser::default();
        assert_eq!(parser.unit(&[&[0x67], &hex(SPS)[..]].concat()), Unit::Prefix(Prefix::Parameters));
        let format = parser.format.expect("a format");
        assert_eq!((format.width, format.height, format.rate), (320, 180, Rate::new(25, 1)));
        assert_eq!(format.codec, "avc1.64000c");
    }

    #[test]
    fn truncated_parameter_sets_never_panic() {
        let sps = hex(SPS);
        for len in 0..sps.len() {
            parse_sps(&sps[..len]);
            let mut parser = Parser::default();
            parser.unit(&[&[0x67], &sps[..len]].concat());
            parser.unit(&[0x65, 0x88, 0x84, 0]);
        }
    }
}
