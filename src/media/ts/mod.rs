//! MPEG-TS (ISO/IEC 13818-1): packets, timestamps and keyframes from one scan, kept in a searchable table.
//!
//! Reading order: [`packet`] and [`sync`] (packets of a file), [`psi`] (which streams), [`pes`] (timestamps),
//! [`bits`], [`nal`] and the codecs (pictures), [`timeline`] (order and time), [`scan`] (all of it together),
//! [`table`] (the result, searched where it lies), [`resolve`] (a moment to bytes), [`still`]
//! (one frame for a decoder). For live streams: [`arrival`]
//! (packets out of buffers), [`cutter`] (where parts begin), [`sets`] (what their first pictures lack), [`rope`].
//! Must not know about files, HTTP or the index cache.

pub mod access;
pub mod arrival;
pub mod audio;
pub mod cutter;
mod elementary;
pub mod h264;
pub mod hevc;
pub mod mpeg2;
pub mod nal;
pub mod packet;
pub mod pes;
pub mod picture;
pub mod psi;
pub mod resolve;
pub mod rope;
pub mod scan;
mod sets;
mod still;
pub mod sync;
pub mod table;
pub mod timeline;

pub use packet::{PacketSize, sniff};
pub use scan::{Built, build};
pub use table::Table;

#[cfg(test)]
pub(crate) struct Memory(pub Vec<u8>);

#[cfg(test)]
impl super::ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0[..].read_at(offset, buf)
    }
}
