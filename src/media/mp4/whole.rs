//! Where the last whole fragment of an interrupted recording ends.
//!
//! PURE. Reads box headers only. Source: ISO/IEC 14496-12 §4.2, §8.8.4.

use super::boxes::{be32, be64, kind_at};
use crate::media::ReadAt;
use std::io;

/// Bytes up to the end of the last whole fragment (`moof` and `mdat`); 0 when there is no init segment or no fragment.
pub fn whole_fragments(source: &(impl ReadAt + ?Sized)) -> io::Result<u64> {
    let (mut at, mut whole) = (0_u64, 0_u64);
    let (mut has_moov, mut has_moof) = (false, false);
    loop {
        let mut head = [0_u8; 16];
        let got = source.read_at(at, &mut head)?;
        let size = match be32(&head, 0) {
            1 if got == head.len() => be64(&head, 8),
            size => u64::from(size),
        };
        let end = at.saturating_add(size);
        if got < 8 || size < 8 || end > source.size() {
            return Ok(whole);
        }
        match &kind_at(&head, 4) {
            b"ftyp" => {}
            b"moov" => has_moov = true,
            b"moof" => has_moof = has_moov,
            b"mdat" => {
                if has_moof {
                    whole = end;
                }
                has_moof = false;
            }
            // Nothing else is recorded: what follows was never written.
            _ => return Ok(whole),
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], body: usize) -> Vec<u8> {
        [&(8 + body as u32).to_be_bytes()[..], kind, &vec![7; body]].concat()
    }

    #[test]
    fn ends_after_the_last_whole_fragment() {
        let init = [boxed(b"ftyp", 16), boxed(b"moov", 100)].concat();
        let fragment = [boxed(b"moof", 50), boxed(b"mdat", 1000)].concat();
        let two = [init.clone(), fragment.clone(), fragment.clone()].concat();
        let one = (init.len() + fragment.len()) as u64;
        for cut in init.len()..=two.len() {
            let expected = if cut as u64 >= one { one } else { 0 };
            let expected = if cut == two.len() { cut as u64 } else { expected };
            assert_eq!(whole_fragments(&two[..cut]).expect("memory"), expected, "cut at {cut}");
        }
        let zeros = [two.clone(), vec![0; 5000]].concat();
        assert_eq!(whole_fragments(&zeros[..]).expect("memory"), two.len() as u64, "a tail that was never written");
        assert_eq!(whole_fragments(&fragment[..]).expect("memory"), 0, "no init segment");
        assert_eq!(whole_fragments(&[][..]).expect("memory"), 0);
    }
}
