//! One frame of an MPEG-TS video for a decoder: the bytes of its elementary stream from the keyframe on.
//!
//! A unit is what one PES packet carries. Must not know decoders.

use super::packet::{PACKET, Packet, PacketSize};
use super::pes::{self, Header};
use super::sync::for_each_packet;
use super::table::Table;
use crate::media::ReadAt;
use crate::media::index::{Position, SeekError, Summary, TrackKind};
use crate::media::still::{Coding, Display, Still, UNITS_MAX, Units, too_far};
use std::ops::ControlFlow;

impl Table {
    /// Plans the frame at a moment; its coded pictures may have `bytes_max` bytes together, packets included.
    pub(crate) fn still(
        &self,
        summary: &Summary,
        src: &dyn ReadAt,
        position: &Position,
        bytes_max: u64,
    ) -> Result<Still, SeekError> {
        let seek = self.resolve(summary, src, position)?;
        let no_picture = || SeekError::Unanswerable("this file has no picture, so it has no still frames".to_owned());
        let number = seek.frame.ok_or_else(no_picture)?;
        let track = summary.tracks.iter().find(|track| track.kind == TrackKind::Video).ok_or_else(no_picture)?;
        let frame = self.frame(number).ok_or_else(|| SeekError::Damaged(format!("no frame {number}")))?;
        let start = self.key_for(number, frame.offset).map_or(frame.offset, |key| key.sample);
        let end = frame.offset.saturating_add(frame.size).min(src.size());
        if end.saturating_sub(start) > bytes_max {
            return Err(too_far(&format!("{} bytes, at most {bytes_max} are", end - start)));
        }
        let size = if self.stride() == PACKET as u64 { PacketSize::Ts188 } else { PacketSize::M2ts192 };
        let mut collected = Collected { units: Vec::new(), offsets: Vec::new(), header: None };
        let pid = pid_at(src, start, size)?;
        for_each_packet(src, size, start, |offset, bytes| {
            if offset >= end || collected.units.len() > UNITS_MAX {
                return ControlFlow::Break(());
            }
            if let Some(packet) = Packet::parse(bytes).filter(|packet| packet.pid == pid && !packet.scrambled) {
                collected.take(offset, &packet);
            }
            ControlFlow::Continue(())
        })?;
        if collected.units.len() > UNITS_MAX {
            return Err(too_far(&format!("at most {UNITS_MAX} pictures are")));
        }
        let wanted = collected.offsets.partition_point(|offset| *offset < frame.offset);
        Ok(Still {
            frame: number,
            coding: Coding::of(&track.codec),
            setup: Vec::new(),
            display: Display::default(),
            units: Units::Packets { units: collected.units, wanted },
        })
    }
}

/// The PID of the packet at `offset`.
fn pid_at(src: &dyn ReadAt, offset: u64, size: PacketSize) -> Result<u16, SeekError> {
    let mut bytes = [0; PACKET];
    src.read_exact_at(offset.saturating_add(size.prefix() as u64), &mut bytes)?;
    let missing = || SeekError::Damaged(format!("no transport packet at byte {offset}"));
    Packet::parse(&bytes).map(|packet| packet.pid).ok_or_else(missing)
}

/// The PES packets of one stream.
struct Collected {
    units: Vec<Vec<u8>>,
    /// First transport packet of each.
    offsets: Vec<u64>,
    /// A header that is not complete.
    header: Option<(u64, Vec<u8>)>,
}

impl Collected {
    fn take(&mut self, offset: u64, packet: &Packet<'_>) {
        if packet.unit_start {
            self.header = Some((offset, Vec::new()));
        }
        let Some((start, header)) = &mut self.header else {
            if let Some(unit) = self.units.last_mut() {
                unit.extend_from_slice(packet.payload);
            }
            return;
        };
        header.extend_from_slice(packet.payload);
        match pes::parse(header) {
            Header::Incomplete if header.len() < pes::HEADER_MAX => {}
            Header::Complete { len, scrambled: false, .. } => {
                self.offsets.push(*start);
                self.units.push(header.split_off(len));
                self.header = None;
            }
            // What cannot be read is left out; the decoder will miss it.
            _ => *header = Vec::new(),
        }
    }
}
