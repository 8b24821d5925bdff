//! A fragmented MP4 as a publisher sends it: the init segment, then one fragment after the other, each with a mark in
//! its last bytes by which a viewer knows it. The file is looped; decode times go on.

/// Begins a mark; the number of the fragment follows. It overwrites the end of the last sample, which nobody decodes.
const MARK: [u8; 8] = *b"\xf7\x9bMark\x9b\xf7";
pub const MARK_BYTES: usize = MARK.len() + 4;

pub struct Fragments {
    pub init: Vec<u8>,
    fragments: Vec<Fragment>,
    /// What the decode times of one turn of the loop add up to.
    loop_ticks: u64,
}

struct Fragment {
    bytes: Vec<u8>,
    /// Where its 64-bit `tfdt` stands.
    time_at: usize,
}

impl Fragments {
    pub fn open(path: &str) -> Result<Self, String> {
        let file = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let (mut init, mut fragments, mut current) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = &file[..];
        while rest.len() >= 8 {
            let size = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let whole = rest.get(..size).filter(|whole| whole.len() >= 8).ok_or("a box that is no box")?;
            match &whole[4..8] {
                b"ftyp" | b"moov" => init.extend_from_slice(whole),
                b"moof" => current = whole.to_vec(),
                b"mdat" => {
                    current.extend_from_slice(whole);
                    fragments.push(Fragment::new(std::mem::take(&mut current))?);
                }
                _ => {}
            }
            rest = &rest[size..];
        }
        let [first, second, .., last] = &fragments[..] else { return Err(format!("{path}: too few fragments")) };
        // Fragments are equally long in time.
        let loop_ticks = last.time() + (second.time() - first.time()) - first.time();
        Ok(Self { init, fragments, loop_ticks })
    }

    /// Bytes of a second, when one fragment is sent every `period` seconds.
    pub fn bytes_per_second(&self, period: f64) -> f64 {
        let total: usize = self.fragments.iter().map(|fragment| fragment.bytes.len()).sum();
        total as f64 / self.fragments.len() as f64 / period
    }

    /// Writes fragment `number` of the endless stream to `out`.
    pub fn write(&self, number: u32, out: &mut Vec<u8>) {
        let (turn, at) = (number as usize / self.fragments.len(), number as usize % self.fragments.len());
        let (fragment, start) = (&self.fragments[at], out.len());
        out.extend_from_slice(&fragment.bytes);
        let time = fragment.time() + turn as u64 * self.loop_ticks;
        out[start + fragment.time_at..][..8].copy_from_slice(&time.to_be_bytes());
        let mark = out.len() - MARK_BYTES;
        out[mark..mark + MARK.len()].copy_from_slice(&MARK);
        out[mark + MARK.len()..].copy_from_slice(&number.to_be_bytes());
    }
}

impl Fragment {
    fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let tfdt = bytes.windows(5).position(|w| w == b"tfdt\x01").ok_or("a fragment without a 64-bit tfdt")?;
        if bytes.len() < tfdt + 16 + 8 + MARK_BYTES {
            return Err("a fragment too short for a mark".to_owned());
        }
        Ok(Self { bytes, time_at: tfdt + 8 })
    }

    fn time(&self) -> u64 {
        let mut time = [0; 8];
        time.copy_from_slice(&self.bytes[self.time_at..][..8]);
        u64::from_be_bytes(time)
    }
}

/// Looks for marks in what one viewer receives, however it is cut into pieces.
#[derive(Default)]
pub struct Scanner {
    /// The end of what came before: too short for a mark, but perhaps the beginning of one.
    tail: Vec<u8>,
}

impl Scanner {
    /// Calls `found` with the number of each fragment whose mark is now complete.
    pub fn scan(&mut self, bytes: &[u8], mut found: impl FnMut(u32)) {
        let kept = self.tail.len();
        let joint = MARK_BYTES.min(bytes.len());
        self.tail.extend_from_slice(&bytes[..joint]);
        marks(&self.tail, |at, number| {
            if at < kept {
                found(number);
            }
        });
        marks(bytes, |_, number| found(number));
        if bytes.len() >= MARK_BYTES {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - (MARK_BYTES - 1)..]);
        } else {
            let excess = self.tail.len().saturating_sub(MARK_BYTES - 1);
            self.tail.drain(..excess);
        }
    }
}

fn marks(bytes: &[u8], mut found: impl FnMut(usize, u32)) {
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|&b| b == MARK[0]) {
        at += next;
        let Some(mark) = bytes.get(at..at + MARK_BYTES) else { return };
        if mark.starts_with(&MARK) {
            found(at, u32::from_be_bytes([mark[8], mark[9], mark[10], mark[11]]));
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_once_wherever_it_is_cut() {
        let mut whole = vec![0xf7; 40];
        whole.extend_from_slice(&MARK);
        whole.extend_from_slice(&77u32.to_be_bytes());
        whole.extend_from_slice(&[0xf7; 40]);
        for cut in 0..whole.len() {
            for second in cut..whole.len() {
                let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
                for piece in [&whole[..cut], &whole[cut..second], &whole[second..]] {
                    scanner.scan(piece, |number| seen.push(number));
                }
                assert_eq!(seen, [77], "cut at {cut} and {second}");
            }
        }
    }
}
