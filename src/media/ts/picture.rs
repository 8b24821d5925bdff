//! What the units of a video stream say about its pictures, in words that all codecs share.
//!
//! Must not know about packets, timestamps or files.

use super::{h264, hevc, mpeg2};
use crate::media::time::Rate;

/// One unit, classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Belongs in front of a picture: begins a new access unit if the current one has its picture already.
    Prefix(Prefix),
    /// First slice (or header) of a picture.
    Picture(Picture),
    /// Says more about the picture that began last.
    Structure { field: Option<Parity> },
    /// More of the current picture, or nothing of interest.
    Inside,
    /// The next picture starts a new coded video sequence.
    EndOfSequence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Delimiters and what has no meaning for seeking.
    Plain,
    /// Sequence parameters: a decoder can start here.
    Parameters,
    /// Recovery point SEI: frames until pictures are right.
    Recovery(u32),
    /// MPEG-2 group of pictures header.
    Group { closed: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    pub kind: Kind,
    pub leading: Leading,
    /// Set for a field picture.
    pub field: Option<Parity>,
    /// Tells pictures apart whose first slice was lost, and pairs fields.
    pub number: u32,
    /// Position in output order, if the picture tells.
    pub order: Option<Order>,
    /// May be a reference (H.264 `nal_ref_idc`, HEVC temporal layer 0 reference).
    pub reference: bool,
}

/// Picture order count, or temporal reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Least significant bits, and how many they are.
    pub lsb: u32,
    pub bits: u32,
    /// Difference of two frames that follow each other.
    pub per_frame: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Decodes on its own, and so does all that follows in decoding order.
    Instant,
    /// Decodes on its own; pictures that follow it but are shown before it may not.
    Open,
    /// Like `Open`, and the leading pictures are broken wherever decoding starts (BLA).
    Broken,
    /// Intra coded, without a promise that later pictures do not reach behind it.
    Intra,
    Inter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leading {
    /// The codec does not say: time decides.
    Unmarked,
    No,
    /// HEVC RADL.
    Decodable,
    /// HEVC RASL.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    Top,
    Bottom,
}

/// What the parameter sets say about the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// RFC 6381.
    pub codec: String,
    pub width: u32,
    pub height: u32,
    /// Frames per second, if the stream says.
    pub rate: Option<Rate>,
}

/// The parser of one stream's units.
pub enum Parser {
    H264(Box<h264::Parser>),
    Hevc(hevc::Parser),
    Mpeg2(mpeg2::Parser),
}

impl Parser {
    /// Bytes of a unit that [`Parser::unit`] wants to see, by its first byte.
    pub fn wants(&self, first: u8) -> usize {
        match self {
            Parser::H264(_) => h264::wants(first),
            Parser::Hevc(_) => hevc::wants(first),
            Parser::Mpeg2(_) => mpeg2::wants(first),
        }
    }

    /// Whether a unit with this first byte is a parameter set that stands in a unit of its own.
    pub fn is_set(&self, first: u8) -> bool {
        match self {
            Parser::H264(_) => h264::is_set(first),
            Parser::Hevc(_) => hevc::is_set(first),
            Parser::Mpeg2(_) => false,
        }
    }

    /// First byte and length of an access unit delimiter, where parameter sets are units of their own.
    pub fn delimiter(&self) -> Option<(u8, usize)> {
        match self {
            Parser::H264(_) => Some((9, 2)),
            Parser::Hevc(_) => Some((35 << 1, 3)),
            Parser::Mpeg2(_) => None,
        }
    }

    pub fn unit(&mut self, bytes: &[u8]) -> Unit {
        match self {
            Parser::H264(parser) => parser.unit(bytes),
            Parser::Hevc(parser) => parser.unit(bytes),
            Parser::Mpeg2(parser) => parser.unit(bytes),
        }
    }

    /// From the first parameter sets.
    pub fn format(&self) -> Option<&Format> {
        match self {
            Parser::H264(parser) => parser.format.as_ref(),
            Parser::Hevc(parser) => parser.format.as_ref(),
            Parser::Mpeg2(parser) => parser.format.as_ref(),
        }
    }

    /// ffmpeg shows what precedes the first keyframe of an HEVC stream, and of no other.
    pub fn shows_before_keyframe(&self) -> bool {
        matches!(self, Parser::Hevc(_))
    }
}

/// `num/den` reduced, if it is a sane frame rate.
pub fn frame_rate(num: u64, den: u64) -> Option<Rate> {
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (num, den) = (num.checked_div(a)?, den.checked_div(a)?);
    let rate = Rate { num: u32::try_from(num).ok()?, den: u32::try_from(den).ok()? };
    (rate.num > 0 && rate.den > 0 && rate.num / rate.den <= 1000).then_some(rate)
}
