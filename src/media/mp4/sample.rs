//! One sample of a track, wherever it is described. Must not know how tables or fragments are coded.

/// A sample as its track has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Position in decode order, from 0.
    pub index: u64,
    /// First byte in the file.
    pub offset: u64,
    pub size: u32,
    /// Decode time and composition offset, in ticks of the track's timescale, before edit lists.
    pub dts: i64,
    pub cts_offset: i32,
    pub duration: u32,
    /// Decoding can start here.
    pub sync: bool,
    /// Entry of `stsd`, from 1.
    pub description: u32,
    /// Offset of the `moof` that describes it; `None` for a sample of the `moov`.
    pub moof: Option<u64>,
}

impl Sample {
    /// Composition time, in ticks of the track's timescale, before edit lists.
    pub fn cts(&self) -> i64 {
        self.dts.saturating_add(i64::from(self.cts_offset))
    }
}
