//! Program-specific information: sections, PAT and PMT (ISO/IEC 13818-1 §2.4.4).
//!
//! Must not know about elementary stream contents or files.

/// PID of the program association table.
pub const PAT_PID: u16 = 0;
/// Programs and streams beyond these are ignored.
const PROGRAMS_MAX: usize = 64;
const STREAMS_MAX: usize = 64;
/// `section_length` of PAT and PMT is at most 1021.
const SECTION_MAX: usize = 3 + 1021;

/// Collects the sections of one PID from packet payloads.
#[derive(Default)]
pub struct Sections {
    buf: Vec<u8>,
    open: bool,
}

impl Sections {
    /// Takes one payload; calls `each` with every section that is complete and has a right CRC.
    pub fn feed(&mut self, unit_start: bool, mut payload: &[u8], mut each: impl FnMut(&[u8])) {
        if unit_start {
            let Some((&pointer, rest)) = payload.split_first() else { return };
            let Some((tail, fresh)) = rest.split_at_checked(usize::from(pointer)) else { return };
            self.take(tail, &mut each);
            self.buf.clear();
            self.open = true;
            payload = fresh;
        }
        self.take(payload, &mut each);
    }

    fn take(&mut self, mut data: &[u8], each: &mut impl FnMut(&[u8])) {
        while self.open && !data.is_empty() {
            let want = if self.buf.len() < 3 {
                3
            } else {
                3 + usize::from(self.buf[1] & 0x0f) * 256 + usize::from(self.buf[2])
            };
            let n = data.len().min(want - self.buf.len());
            self.buf.extend_from_slice(&data[..n]);
            data = &data[n..];
            match self.buf.len() {
                // Stuffing up to the end of the packet.
                1.. if self.buf[0] == 0xff => self.open = false,
                3 if 3 + usize::from(self.buf[1] & 0x0f) * 256 + usize::from(self.buf[2]) > SECTION_MAX => {
                    self.open = false
                }
                len if len > 3 && len == want => {
                    if crc32(&self.buf) == 0 {
                        each(&self.buf);
                    }
                    self.buf.clear();
                }
                3 if self.buf[1] & 0x0f == 0 && self.buf[2] == 0 => self.open = false,
                _ => {}
            }
        }
    }
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1 annex A); 0 over a section with its own CRC.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8)
            .fold(crc ^ u32::from(byte) << 24, |crc, _| if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 })
    })
}

/// PMT PIDs of the programs in a PAT section, in order.
pub fn parse_pat(section: &[u8]) -> Option<Vec<u16>> {
    let body = body(section, 0x00)?;
    let programs = body.get(5..)?.chunks_exact(4).filter(|entry| entry[..2] != [0, 0]);
    Some(programs.map(|entry| pid(&entry[2..])).take(PROGRAMS_MAX).collect())
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub pcr_pid: u16,
    pub streams: Vec<Stream>,
}

/// One elementary stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub pid: u16,
    pub coding: Coding,
    /// ISO 639-2 code.
    pub language: Option<String>,
}

/// What an elementary stream is coded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Mpeg2Video,
    H264,
    Hevc,
    /// Coded video that is named but not indexed.
    OtherVideo(&'static str),
    Aac,
    /// AAC in LATM/LOAS.
    AacLatm,
    MpegAudio,
    Ac3,
    EAc3,
    OtherAudio(&'static str),
    Text(&'static str),
    Other,
}

impl Coding {
    pub fn is_video(self) -> bool {
        matches!(self, Coding::Mpeg2Video | Coding::H264 | Coding::Hevc)
    }

    pub fn is_audio(self) -> bool {
        use Coding::*;
        matches!(self, Aac | AacLatm | MpegAudio | Ac3 | EAc3 | OtherAudio(_))
    }
}

/// Reads a PMT section.
pub fn parse_pmt(section: &[u8]) -> Option<Program> {
    let body = body(section, 0x02)?;
    let pcr_pid = pid(body.get(5..7)?);
    let info_len = length(body.get(7..9)?);
    let mut rest = body.get(9 + info_len..)?;
    let mut streams = Vec::new();
    while rest.len() >= 5 && streams.len() < STREAMS_MAX {
        let len = length(&rest[3..5]);
        let Some(descriptors) = rest.get(5..5 + len) else { break };
        let descriptors = Descriptors(descriptors);
        let language = descriptors.find(0x0a).and_then(|d| d.get(..3)).filter(|d| d.iter().all(u8::is_ascii_lowercase));
        let language = language.map(|d| d.iter().map(|&b| char::from(b)).collect());
        streams.push(Stream { pid: pid(&rest[1..3]), coding: coding(rest[0], descriptors), language });
        rest = &rest[5 + len..];
    }
    Some(Program { pcr_pid, streams })
}

/// The section between its length and its CRC, if it is current and of this table.
fn body(section: &[u8], table_id: u8) -> Option<&[u8]> {
    let end = section.len().checked_sub(4)?;
    let body = section.get(3..end)?;
    // current_next_indicator
    (section[0] == table_id && body.len() >= 5 && body[2] & 1 == 1).then_some(body)
}

fn pid(bytes: &[u8]) -> u16 {
    u16::from(bytes[0] & 0x1f) << 8 | u16::from(bytes[1])
}

fn length(bytes: &[u8]) -> usize {
    usize::from(bytes[0] & 0x0f) << 8 | usize::from(bytes[1])
}

#[derive(Clone, Copy)]
struct Descriptors<'a>(&'a [u8]);

impl<'a> Descriptors<'a> {
    fn find(self, tag: u8) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let [this, len, tail @ ..] = rest {
            let (data, next) = tail.split_at_checked(usize::from(*len))?;
            if *this == tag {
                return Some(data);
            }
            rest = next;
        }
        None
    }

    fn has(self, tag: u8) -> bool {
        self.find(tag).is_some()
    }
}

/// `stream_type` (ISO/IEC 13818-1 table 2-34, ATSC A/53, ETSI EN 300 468 for the descriptors of private data).
fn coding(stream_type: u8, descriptors: Descriptors<'_>) -> Coding {
    match stream_type {
        0x01 | 0x02 => Coding::Mpeg2Video,
        0x10 => Coding::OtherVideo("mp4v"),
        0x1b => Coding::H264,
        0x24 => Coding::Hevc,
        0x33 => Coding::OtherVideo("vvc1"),
        0x03 | 0x04 => Coding::MpegAudio,
        0x0f => Coding::Aac,
        0x11 => Coding::AacLatm,
        0x81 => Coding::Ac3,
        0x87 | 0x84 => Coding::EAc3,
        0x82 | 0x85 | 0x86 | 0x8a => Coding::OtherAudio("dtsc"),
        0x06 => private_coding(descriptors),
        _ => Coding::Other,
    }
}

fn private_coding(descriptors: Descriptors<'_>) -> Coding {
    match descriptors.find(0x05).and_then(|d| d.get(..4)) {
        Some(b"HEVC") => return Coding::Hevc,
        Some(b"AV01") => return Coding::OtherVideo("av01"),
        Some(b"VVC ") => return Coding::OtherVideo("vvc1"),
        Some(b"Opus") => return Coding::OtherAudio("opus"),
        Some(b"AC-3") => return Coding::Ac3,
        Some(b"EAC3") => return Coding::EAc3,
        Some(b"DTS1" | b"DTS2" | b"DTS3") => return Coding::OtherAudio("dtsc"),
        Some(b"BSSD") => return Coding::OtherAudio("s302"),
        _ => {}
    }
    match () {
        () if descriptors.has(0x6a) => Coding::Ac3,
        () if descriptors.has(0x7a) => Coding::EAc3,
        () if descriptors.has(0x7b) => Coding::OtherAudio("dtsc"),
        () if descriptors.has(0x7c) => Coding::Aac,
        () if descriptors.has(0x59) => Coding::Text("dvbs"),
        () if descriptors.has(0x56) => Coding::Text("teletext"),
        () => Coding::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `parts` as a section with its length and CRC filled in.
    fn section(table_id: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![table_id, 0xb0, u8::try_from(body.len() + 4).expect("short")];
        out.extend(body);
        out.extend(crc32(&out).to_be_bytes());
        out
    }

    #[test]
    fn crc_of_the_specification() {
        // CRC-32/MPEG-2 check value of the CRC catalogues.
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn tables_split_over_packets() {
        let pmt = section(
            2,
            &[
                0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0, 0x0f, 0xe1, 1, 0xf0, 6, 0x0a, 4, b'd',
                b'e', b'u', 0,
            ],
        );
        for cut in 1..pmt.len() {
            let mut sections = Sections::default();
            let mut seen = None;
            sections.feed(true, &[&[0][..], &pmt[..cut]].concat(), |_| panic!("not complete"));
            sections.feed(false, &[&pmt[cut..], &[0xff; 9]].concat(), |s| seen = parse_pmt(s));
            let program = seen.expect("complete");
            assert_eq!(program.pcr_pid, 0x100);
            assert_eq!(program.streams[0], Stream { pid: 0x100, coding: Coding::H264, language: None });
            assert_eq!(program.streams[1], Stream { pid: 0x101, coding: Coding::Aac, language: Some("deu".into()) });
        }
    }

    #[test]
    fn a_wrong_crc_is_not_a_table() {
        let mut pat = section(0, &[0, 1, 0xc1, 0, 0, 0, 0, 0xe0, 0x10, 0, 1, 0xf0, 0]);
        assert_eq!(parse_pat(&pat), Some(vec![0x1000]));
        pat[11] ^= 1;
        Sections::default().feed(true, &[&[0][..], &pat].concat(), |_| panic!("damaged"));
    }

    #[test]
    fn two_sections_in_one_packet() {
        let pat = section(0, &[0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0]);
        let mut count = 0;
        Sections::default().feed(true, &[&[0][..], &pat, &pat, &[0xff; 20]].concat(), |_| count += 1);
        assert_eq!(count, 2);
    }
}
