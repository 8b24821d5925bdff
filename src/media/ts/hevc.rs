//! HEVC units: sequence parameter sets and slice headers (ISO/IEC 23008-2 §7.3, §7.4.2.2).
//!
//! Must not know about packets or timestamps.

use super::picture::{Format, Kind, Leading, Order, Picture, Prefix, Unit};
use crate::media::codec::bits::Bits;

/// State over the units of one stream.
#[derive(Default)]
pub struct Parser {
    /// `log2_max_pic_order_cnt_lsb` and `separate_colour_plane_flag` of the newest SPS.
    order: Option<(u32, bool)>,
    /// `output_flag_present_flag` and `num_extra_slice_header_bits` of the newest PPS.
    extra: (bool, u32),
    pub format: Option<Format>,
}

/// Video, sequence and picture parameter sets.
pub fn is_set(first: u8) -> bool {
    matches!(first >> 1 & 0x3f, 32..=34)
}

pub fn wants(first: u8) -> usize {
    match first >> 1 & 0x3f {
        0..=21 => 24,
        _ if is_set(first) => super::nal::KEEP,
        _ => 2,
    }
}

impl Parser {
    pub fn unit(&mut self, bytes: &[u8]) -> Unit {
        let [first, second, body @ ..] = bytes else { return Unit::Inside };
        let kind = first >> 1 & 0x3f;
        // Enhancement layers belong to the picture of the base layer.
        if first & 1 != 0 || second >> 3 != 0 {
            return Unit::Inside;
        }
        match kind {
            0..=9 | 16..=21 => self.slice(kind, body),
            33 => {
                self.sequence(body);
                Unit::Prefix(Prefix::Parameters)
            }
            34 => {
                self.picture_parameters(body);
                Unit::Prefix(Prefix::Plain)
            }
            32 | 35 | 39 | 41..=44 | 48..=55 => Unit::Prefix(Prefix::Plain),
            36 | 37 => Unit::EndOfSequence,
            _ => Unit::Inside,
        }
    }

    fn slice(&self, kind: u8, body: &[u8]) -> Unit {
        let mut bits = Bits::new(body);
        // first_slice_segment_in_pic_flag
        if bits.bit() != Some(true) {
            return Unit::Inside;
        }
        let leading = match kind {
            6 | 7 => Leading::Decodable,
            8 | 9 => Leading::Skipped,
            _ => Leading::No,
        };
        let reference = !(kind < 16 && kind.is_multiple_of(2));
        let picture_kind = match kind {
            16..=18 => Kind::Broken,
            19 | 20 => Kind::Instant,
            21 => Kind::Open,
            _ => Kind::Inter,
        };
        let order = self.order(kind, bits);
        Unit::Picture(Picture { kind: picture_kind, leading, field: None, number: 0, order, reference })
    }

    fn order(&self, kind: u8, mut bits: Bits<'_>) -> Option<Order> {
        let (order_bits, separate_planes) = self.order?;
        if matches!(kind, 19 | 20) {
            return Some(Order { lsb: 0, bits: order_bits, per_frame: 1 });
        }
        if kind >= 16 {
            bits.bit()?;
        }
        bits.ue()?;
        let (output_flag, extra) = self.extra;
        bits.skip(extra)?;
        bits.ue()?;
        bits.skip(u32::from(output_flag) + if separate_planes { 2 } else { 0 })?;
        bits.bits(order_bits).map(|lsb| Order { lsb, bits: order_bits, per_frame: 1 })
    }

    fn picture_parameters(&mut self, body: &[u8]) {
        let mut bits = Bits::new(body);
        let mut read = || {
            bits.ue()?;
            bits.ue()?;
            bits.bit()?;
            Some((bits.bit()?, bits.bits(3)?))
        };
        self.extra = read().unwrap_or(self.extra);
    }

    fn sequence(&mut self, body: &[u8]) {
        let Some((format, order)) = parse_sps(body) else { return };
        self.order = Some(order);
        self.format.get_or_insert(format);
    }
}

fn parse_sps(body: &[u8]) -> Option<(Format, (u32, bool))> {
    let mut bits = Bits::new(body);
    bits.bits(4)?;
    let sub_layers = bits.bits(3)?;
    bits.bit()?;
    let codec = profile_tier_level(&mut bits, sub_layers)?;
    bits.ue()?;
    let chroma = bits.ue()?;
    let separate_planes = chroma == 3 && bits.bit()?;
    let (mut width, mut height) = (bits.ue()?, bits.ue()?);
    if bits.bit()? {
        let (x, y) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
        let [left, right, top, bottom] = [bits.ue()?, bits.ue()?, bits.ue()?, bits.ue()?];
        width = width.checked_sub(left.checked_add(right)?.checked_mul(x)?)?;
        height = height.checked_sub(top.checked_add(bottom)?.checked_mul(y)?)?;
    }
    bits.ue()?;
    bits.ue()?;
    let order_bits = bits.ue()?.checked_add(4).filter(|&n| n <= 16)?;
    Some((Format { codec, width, height, rate: None }, (order_bits, separate_planes)))
}

/// `profile_tier_level()`, as the codec string of ISO/IEC 14496-15 annex E.
fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Option<String> {
    let space = bits.bits(2)?;
    let tier = bits.bit()?;
    let profile = bits.bits(5)?;
    let compatibility = bits.bits(32)?.reverse_bits();
    let mut constraints = [0; 6];
    for byte in &mut constraints {
        *byte = bits.bits(8)?;
    }
    let level = bits.bits(8)?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    let space = ["", "A", "B", "C"][space as usize];
    let mut codec = format!("hvc1.{space}{profile}.{compatibility:X}.{}{level}", if tier { 'H' } else { 'L' });
    let used = 6 - constraints.iter().rev().take_while(|&&b| b == 0).count();
    for byte in &constraints[..used] {
        codec.push_str(&format!(".{byte:X}"));
    }
    Some(codec)
}
