//! MPEG-2 video start codes (ISO/IEC 13818-2 §6.2); MPEG-1 video has the same ones.
//!
//! Must not know about packets or timestamps.

use super::picture::{Format, Kind, Leading, Order, Parity, Picture, Prefix, Unit, frame_rate};

/// State over the units of one stream.
#[derive(Default)]
pub struct Parser {
    pub format: Option<Format>,
}

pub fn wants(first: u8) -> usize {
    match first {
        0x00 | 0xb5 | 0xb8 | 0xb3 => 8,
        _ => 1,
    }
}

impl Parser {
    pub fn unit(&mut self, bytes: &[u8]) -> Unit {
        match *bytes {
            [0xb3, a, b, c, d, ..] => {
                self.sequence([a, b, c, d]);
                Unit::Prefix(Prefix::Parameters)
            }
            [0xb8, _, _, _, d, ..] => Unit::Prefix(Prefix::Group { closed: d & 0x40 != 0 }),
            [0x00, a, b, ..] => {
                let kind = match b >> 3 & 7 {
                    1 => Kind::Open,
                    2 | 3 => Kind::Inter,
                    _ => return Unit::Inside,
                };
                let lsb = u32::from(a) << 2 | u32::from(b >> 6);
                let order = Some(Order { lsb, bits: 10, per_frame: 1 });
                let reference = b >> 3 & 7 != 3;
                Unit::Picture(Picture { kind, leading: Leading::Unmarked, field: None, number: lsb, order, reference })
            }
            // picture_coding_extension: picture_structure
            [0xb5, a, _, c, ..] if a >> 4 == 8 => Unit::Structure {
                field: match c & 3 {
                    1 => Some(Parity::Top),
                    2 => Some(Parity::Bottom),
                    _ => None,
                },
            },
            [0xb7, ..] => Unit::EndOfSequence,
            _ => Unit::Inside,
        }
    }

    fn sequence(&mut self, [a, b, c, d]: [u8; 4]) {
        let rate = match d & 0x0f {
            1 => frame_rate(24_000, 1001),
            2 => frame_rate(24, 1),
            3 => frame_rate(25, 1),
            4 => frame_rate(30_000, 1001),
            5 => frame_rate(30, 1),
            6 => frame_rate(50, 1),
            7 => frame_rate(60_000, 1001),
            8 => frame_rate(60, 1),
            _ => None,
        };
        let width = u32::from(a) << 4 | u32::from(b >> 4);
        let height = u32::from(b & 0x0f) << 8 | u32::from(c);
        // Object type 0x61: MPEG-2 video, main profile.
        self.format.get_or_insert(Format { codec: "mp4v.61".into(), width, height, rate });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_by_hand() {
        let mut parser = Parser::default();
        // 720x576, aspect 2, 25 Hz.
        assert_eq!(parser.unit(&[0xb3, 0x2d, 0x02, 0x40, 0x23, 0, 0, 0]), Unit::Prefix(Prefix::Parameters));
        let format = parser.format.clone().expect("a sequence header");
        assert_eq!((format.width, format.height, format.rate), (720, 576, frame_rate(25, 1)));
        // temporal_reference 2, picture_coding_type 1.
        let Unit::Picture(picture) = parser.unit(&[0, 0, 0b1000_1000, 0]) else { panic!("a picture") };
        assert_eq!((picture.kind, picture.number), (Kind::Open, 2));
        assert_eq!(parser.unit(&[0xb5, 0x80, 0, 0xf2, 0, 0]), Unit::Structure { field: Some(Parity::Bottom) });
        assert_eq!(parser.unit(&[0xb8, 0, 8, 0, 0x40]), Unit::Prefix(Prefix::Group { closed: true }));
    }
}
