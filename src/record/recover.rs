//! After a crash: recordings that were interrupted are cut to what is whole and become videos.

use super::Made;
use crate::library::{Library, RecordingFile};
use crate::media::ReadAt;
use crate::media::mp4::whole::whole_fragments;
use std::io;

/// Length of an MPEG-TS packet, and its first byte (ISO/IEC 13818-1 §2.4.3.2).
const TS_PACKET_BYTES: u64 = 188;
const TS_SYNC: u8 = 0x47;

/// Takes up every interrupted recording. Blocks; for the start of a server.
pub fn recover(library: &Library, made: &Made) {
    for recording in library.interrupted_recordings() {
        let id = recording.id().to_owned();
        if let Err(error) = take_up(recording, made) {
            tracing::warn!(id, %error, "an interrupted recording cannot be recovered; its file stays");
        }
    }
}

fn take_up(mut recording: RecordingFile, made: &Made) -> Result<(), Box<dyn std::error::Error>> {
    let len = recording.written();
    let whole = whole_len(&recording)?;
    if whole == 0 {
        tracing::info!(id = recording.id(), bytes = len, "an interrupted recording had nothing whole");
        recording.discard();
        return Ok(());
    }
    if whole < len {
        recording.truncate(whole)?;
    }
    let video = recording.publish()?;
    made.add(video.id(), video.etag());
    tracing::info!(id = video.id(), bytes = whole, cut = len - whole, "an interrupted recording was recovered");
    Ok(())
}

fn whole_len(recording: &RecordingFile) -> io::Result<u64> {
    let mut first = [0];
    if recording.read_at(0, &mut first)? == 1 && first[0] == TS_SYNC {
        return Ok(recording.size() - recording.size() % TS_PACKET_BYTES);
    }
    whole_fragments(recording)
}
