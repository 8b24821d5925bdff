//! Finds the units of an elementary stream: everything between two start codes 00 00 01.
//!
//! Works on fragments as they come out of packets and keeps only the first bytes of a unit.
//! Must not know what the units of a codec mean.

/// Bytes of a unit that are kept: enough for any parameter set's leading fields and for SEI messages.
pub const KEEP: usize = 1024;

/// What a fragment contained.
pub enum Event<'a> {
    /// A start code ended right before this byte of the fragment. The answer says how many bytes of the unit,
    /// from this byte on, are wanted (at most [`KEEP`]).
    Start { first: u8, at: usize },
    /// The wanted bytes of the unit that started last, or fewer if it ended before. Short units may end in a piece
    /// of the next start code.
    Unit(&'a [u8]),
}

/// The state between fragments.
pub struct Splitter {
    /// Last bytes seen, newest in the low byte.
    history: u32,
    kept: Box<[u8; KEEP]>,
    len: usize,
    want: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { history: u32::MAX, kept: Box::new([0; KEEP]), len: 0, want: 0 }
    }
}

impl Splitter {
    /// Takes the next fragment. `on` answers each [`Event::Start`] with the bytes it wants.
    pub fn feed(&mut self, data: &[u8], mut on: impl FnMut(Event<'_>) -> usize) {
        let mut at = 0;
        while at < data.len() {
            // `here` is the first byte behind the next start code.
            let found = self.find(data, at);
            self.keep(&data[at..found.unwrap_or(data.len())], &mut on);
            let Some(here) = found else { break };
            if self.want > 0 {
                // The start code itself was kept as the end of the unit.
                self.len = self.len.saturating_sub(3);
                self.flush(&mut on);
            }
            self.want = on(Event::Start { first: data[here], at: here }).min(KEEP);
            self.len = 0;
            self.history = u32::MAX;
            at = here;
        }
        for &byte in &data[at.max(data.len().saturating_sub(3))..] {
            self.history = self.history << 8 | u32::from(byte);
        }
    }

    /// The stream ends, or is interrupted, here.
    pub fn finish(&mut self, mut on: impl FnMut(Event<'_>) -> usize) {
        if self.want > 0 {
            self.flush(&mut on);
        }
        self.history = u32::MAX;
    }

    fn keep(&mut self, data: &[u8], on: &mut impl FnMut(Event<'_>) -> usize) {
        if self.want == 0 {
            return;
        }
        let n = data.len().min(self.want - self.len);
        self.kept[self.len..self.len + n].copy_from_slice(&data[..n]);
        self.len += n;
        if self.len == self.want {
            self.flush(on);
        }
    }

    fn flush(&mut self, on: &mut impl FnMut(Event<'_>) -> usize) {
        self.want = 0;
        on(Event::Unit(&self.kept[..self.len]));
    }

    /// First byte behind a start code that ends at or after `from`.
    fn find(&self, data: &[u8], from: usize) -> Option<usize> {
        // A start code that began in an earlier fragment; `from` is 0 then, or history is neutral.
        let mut history = self.history;
        for (n, &byte) in data[from..].iter().take(3).enumerate() {
            if history & 0xff_ffff == 1 {
                return Some(from + n);
            }
            history = history << 8 | u32::from(byte);
        }
        search(&data[from..]).map(|n| from + n)
    }
}

/// First byte behind a start code that lies wholly in `data` and has a byte behind it.
fn search(data: &[u8]) -> Option<usize> {
    const CHUNK: usize = 32;
    let mut at = 0;
    while at + 3 < data.len() {
        // Two zeros in a row are rare in coded pictures: pass over runs without them, a chunk at a time.
        if let Some(chunk) = data.get(at..at + CHUNK + 1) {
            let pairs = chunk.iter().zip(&chunk[1..]).fold(0u8, |any, (&a, &b)| any | u8::from(a | b == 0));
            if pairs == 0 {
                at += CHUNK;
                continue;
            }
        }
        let end = (at + CHUNK).min(data.len() - 3);
        for n in at..end {
            if data[n] == 0 && data[n + 1] == 0 && data[n + 2] == 1 {
                return Some(n + 3);
            }
        }
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(fragments: &[&[u8]], want: usize) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut out = Vec::new();
        let mut on = |event: Event<'_>| {
            if let Event::Unit(bytes) = event {
                out.push(bytes.to_vec());
            }
            want
        };
        for fragment in fragments {
            splitter.feed(fragment, &mut on);
        }
        splitter.finish(&mut on);
        out
    }

    #[test]
    fn every_split_gives_the_same_units() {
        let mut data = vec![9, 9, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3];
        data.extend(vec![7; 100]);
        data.extend([0, 0, 1, 0x65, 0, 0, 3, 1]);
        let whole = units(&[&data], 6);
        assert_eq!(whole, [vec![0x67, 1, 2, 0, 0, 0], vec![0x68, 3, 7, 7, 7, 7], vec![0x65, 0, 0, 3, 1]]);
        for a in 0..data.len() {
            for b in a..data.len() {
                let split = units(&[&data[..a], &data[a..b], &data[b..]], 6);
                let trim = |u: &Vec<Vec<u8>>| u.iter().map(|v| v[0]).collect::<Vec<u8>>();
                assert_eq!(trim(&split), trim(&whole), "split at {a} and {b}");
            }
        }
    }

    #[test]
    fn a_start_code_anywhere_in_a_long_run() {
        for zeros in [0u8, 5] {
            for at in 0..200 {
                let mut data = vec![zeros; 204];
                data[at..at + 4].copy_from_slice(&[0, 0, 1, 0x42]);
                assert_eq!(search(&data), Some(at + 3), "fill {zeros}");
            }
        }
    }
}
