//! Writes boxes (ISO/IEC 14496-12 §4.2): nested, sizes filled in when a box closes.

/// Boxes written so far.
pub(crate) struct Boxes {
    bytes: Vec<u8>,
}

impl Boxes {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Writes a box around what `inner` writes. Generated boxes stay far below 4 GiB: a 32-bit size.
    pub(crate) fn boxed(&mut self, kind: &[u8; 4], inner: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u32(0);
        self.raw(kind);
        inner(self);
        let size = u32::try_from(self.bytes.len() - start).expect("a generated box is small");
        self.bytes[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    /// The matrix of no change (§6.2.2), 16.16 and 2.30 fixed point.
    pub(crate) fn matrix(&mut self) {
        [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000].iter().for_each(|value| self.u32(*value));
    }

    /// A box with version and flags.
    pub(crate) fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, inner: impl FnOnce(&mut Self)) {
        self.boxed(kind, |b| {
            b.u32(u32::from(version) << 24 | (flags & 0x00ff_ffff));
            inner(b);
        });
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_nested_content() {
        let mut boxes = Boxes::new();
        boxes.boxed(b"moof", |b| b.full(b"mfhd", 0, 0, |b| b.u32(7)));
        let expected =
            [0, 0, 0, 24, b'm', b'o', b'o', b'f', 0, 0, 0, 16, b'm', b'f', b'h', b'd', 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(boxes.into_bytes(), expected);
    }
}
