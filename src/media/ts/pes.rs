//! The header of a packetised elementary stream packet (ISO/IEC 13818-1 §2.4.3.6).
//!
//! Pure functions of bytes. Must not know about transport packets or codecs.

/// Bytes of the longest PES header.
pub const HEADER_MAX: usize = 9 + 255;

/// What the first bytes of a PES packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Incomplete,
    /// Not a PES packet with a header.
    Invalid,
    Complete {
        /// Bytes before the elementary stream.
        len: usize,
        /// 33 bits, 90 kHz.
        pts: Option<u64>,
        dts: Option<u64>,
        /// `PES_scrambling_control` is not 0.
        scrambled: bool,
    },
}

/// Reads the header at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Header {
    let prefix = bytes.len().min(3);
    if bytes[..prefix] != [0, 0, 1][..prefix] {
        return Header::Invalid;
    }
    if bytes.len() < 9 {
        return Header::Incomplete;
    }
    // Stream ids without the optional header: program_stream_map, padding, private_stream_2, ECM, EMM, DSM-CC,
    // H.222.1 type E, program_stream_directory.
    if matches!(bytes[3], 0xbc | 0xbe | 0xbf | 0xf0 | 0xf1 | 0xf2 | 0xf8 | 0xff) || bytes[6] & 0xc0 != 0x80 {
        return Header::Invalid;
    }
    let len = 9 + usize::from(bytes[8]);
    if bytes.len() < len {
        return Header::Incomplete;
    }
    let fields = &bytes[9..len];
    let (pts, dts) = match bytes[7] >> 6 {
        2 => (timestamp(fields), None),
        3 => (timestamp(fields), fields.get(5..).and_then(timestamp)),
        _ => (None, None),
    };
    Header::Complete { len, pts, dts, scrambled: bytes[6] & 0x30 != 0 }
}

fn timestamp(bytes: &[u8]) -> Option<u64> {
    let b: &[u8; 5] = bytes.get(..5)?.try_into().ok()?;
    let [b0, b1, b2, b3, b4] = b.map(u64::from);
    Some((b0 >> 1 & 7) << 30 | b1 << 22 | (b2 >> 1) << 15 | b3 << 7 | b4 >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First PES header of an ffmpeg file; `ffprobe -show_packets` says pts 133200, dts 126000.
    const FFMPEG: [u8; 19] = [0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0, 9, 0x10, 0xa1, 0x11, 0, 7, 0xd8, 0x61];

    #[test]
    fn timestamps() {
        let expected = Header::Complete { len: 19, pts: Some(133_200), dts: Some(126_000), scrambled: false };
        assert_eq!(parse(&FFMPEG), expected);
        for len in 0..19 {
            assert_eq!(parse(&FFMPEG[..len]), Header::Incomplete);
        }
    }

    #[test]
    fn all_33_bits() {
        assert_eq!(timestamp(&[0x2f, 0xff, 0xff, 0xff, 0xff]), Some((1 << 33) - 1));
        assert_eq!(timestamp(&[0x29, 0, 1, 0, 1]), Some(1 << 32));
    }

    #[test]
    fn not_a_header() {
        assert_eq!(parse(&[0, 0, 2]), Header::Invalid);
        assert_eq!(parse(&[0, 0, 1, 0xbe, 0, 0, 0x80, 0, 0]), Header::Invalid);
        // A header too short for the timestamps it announces has none.
        let short = parse(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 1, 0x31]);
        assert_eq!(short, Header::Complete { len: 10, pts: None, dts: None, scrambled: false });
    }
}
