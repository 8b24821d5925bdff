//! Reads bits of an RBSP, skipping emulation prevention bytes as it goes (ISO/IEC 14496-10 §7.3.1, §9.1).
//!
//! Must not know any syntax above single fields.

/// A reader over the bytes of a NAL unit. Every read is `None` past the end.
#[derive(Clone)]
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    bit: u8,
    zeros: u8,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bit: 0, zeros: 0 }
    }

    /// One bit.
    pub fn bit(&mut self) -> Option<bool> {
        if self.bit == 0 && self.zeros >= 2 && self.data.get(self.at) == Some(&3) {
            self.at += 1;
            self.zeros = 0;
        }
        let byte = *self.data.get(self.at)?;
        let value = byte >> (7 - self.bit) & 1 == 1;
        self.bit += 1;
        if self.bit == 8 {
            self.bit = 0;
            self.at += 1;
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        }
        Some(value)
    }

    /// `u(n)`, n up to 32.
    pub fn bits(&mut self, n: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..n {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    pub fn skip(&mut self, n: u32) -> Option<()> {
        for _ in 0..n {
            self.bit()?;
        }
        Some(())
    }

    /// `ue(v)`.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// `se(v)`.
    pub fn se(&mut self) -> Option<i32> {
        let value = i64::from(self.ue()?);
        i32::try_from(if value % 2 == 1 { (value + 1) / 2 } else { -value / 2 }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_golomb_of_the_specification() {
        // Table 9-1: 1 -> 0, 010 -> 1, 011 -> 2, 00100 -> 3.
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        let mut bits = Bits::new(&[0b0100_1100, 0b1000_0101, 0b1000_0000]);
        assert_eq!([bits.se(), bits.se(), bits.se(), bits.se()], [Some(1), Some(-1), Some(2), Some(-5 + 3)]);
        assert_eq!(Bits::new(&[0; 8]).ue(), None);
    }

    #[test]
    fn emulation_prevention() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0xff]);
        assert_eq!(bits.bits(24), Some(1));
        assert_eq!(bits.bits(8), Some(0xff));
        assert_eq!(bits.bit(), None);
    }
}
