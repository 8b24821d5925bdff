//! The integration tests: one binary, one module per subject. They start the real `weir` and speak to it over sockets,
//! ask ffmpeg and ffprobe what is true, or read the source tree itself.
#![allow(clippy::unwrap_used)]

mod support;

mod bad_input;
mod bench;
mod chunk_sync;
mod chunk_tracks;
mod chunks;
mod command_line;
mod connections;
mod edges;
mod frame_edits;
mod frames;
mod hostile_files;
mod index_mp4;
mod index_mp4_large;
mod index_ts;
mod library;
mod library_changes;
mod live;
mod live_faults;
mod live_hls;
mod live_limits;
mod live_publish;
mod live_record;
mod live_tracks;
mod live_ts;
mod live_window;
mod metrics;
mod pprof;
mod profile;
mod ranges;
mod seek;
mod startup;
mod tidy;
mod uploads;
mod zero_copy;
