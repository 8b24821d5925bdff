//! Media formats and time: what a video contains, and where in its bytes a moment lies.
//!
//! PURE. Bytes and positions in, values out: no tokio, no files, no sockets, no clock. Media is read through
//! [`ReadAt`], which `store` implements with `pread`; nothing here knows where the bytes come from.
//! Does not belong here: HTTP words, catalogue, caching policy.

pub mod cadence;
pub mod codec;
mod entry;
pub mod index;
pub mod mp4;
pub mod slices;
pub mod still;
pub mod time;
pub mod ts;

use std::io;

/// Positional reads of a media file. Implementations must not move a shared cursor.
pub trait ReadAt {
    /// Size in bytes, as it was when the source was opened.
    fn size(&self) -> u64;

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the source, 0 at or past it.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Reads exactly `buf.len()` bytes or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = self.read_at(offset, buf)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += n as u64;
            buf = &mut buf[n..];
        }
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let n = buf.len().min(self.len() - start);
        buf[..n].copy_from_slice(&self[start..start + n]);
        Ok(n)
    }
}
