//! The text of a media playlist (RFC 8216, draft-pantos-hls-rfc8216bis-22): one state of a stream, rendered and
//! compressed once and shared by everybody who asks while it lasts.
//!
//! PURE.

use super::resource::Resource;
use super::segments::{Progress, Segment, Segments};
use crate::media::cadence::Targets;
use crate::media::time::civil;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fmt::Write;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Which text of a state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// Without the segments that a client has had for long (`_HLS_skip`).
    pub delta: bool,
    pub gzip: bool,
}

/// One state of a stream's playlist.
pub struct Playlist {
    targets: Targets,
    segments: Vec<Arc<Segment>>,
    open: Option<Segment>,
    discontinuities: u64,
    pub progress: Progress,
    texts: [OnceLock<Bytes>; 4],
}

impl Playlist {
    pub(super) fn of(segments: &Segments) -> Self {
        Self {
            targets: segments.targets(),
            segments: segments.listed().cloned().collect(),
            open: segments.open().cloned(),
            discontinuities: segments.discontinuities(),
            progress: segments.progress(),
            texts: Default::default(),
        }
    }

    /// The text in a form; `rendered` counts the forms that had to be made.
    pub fn text(&self, form: Form, rendered: &AtomicU64) -> Bytes {
        let make = || {
            if form.gzip {
                return gzip(&self.text(Form { gzip: false, ..form }, rendered));
            }
            rendered.fetch_add(1, Relaxed);
            Bytes::from(self.render(form.delta))
        };
        self.texts[usize::from(form.delta) * 2 + usize::from(form.gzip)].get_or_init(make).clone()
    }

    fn end_us(&self) -> i64 {
        let last = self.open.as_ref().or(self.segments.last().map(|last| &**last));
        last.map_or(0, Segment::end_us)
    }

    fn render(&self, delta: bool) -> String {
        let mut text = String::with_capacity(512 + self.segments.len() * 160);
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, delta);
        text
    }

    fn write(&self, out: &mut String, delta: bool) -> std::fmt::Result {
        let target = self.targets.duration_seconds();
        let part_target = seconds(self.targets.part_us);
        let first = self.segments.first().map(|first| &**first).or(self.open.as_ref());
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-TARGETDURATION:{target}")?;
        writeln!(
            out,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},CAN-SKIP-UNTIL={}",
            seconds(self.targets.part_us * 3),
            target * 3,
            target * 6
        )?;
        writeln!(out, "#EXT-X-PART-INF:PART-TARGET={part_target}")?;
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.map_or(self.progress.segment, |first| first.number))?;
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuities)?;
        let end_us = self.end_us();
        let older_than = |segment: &Segment, s: i64| end_us.saturating_sub(segment.end_us()) > s * 1_000_000;
        let skipped = if delta && !self.progress.ended {
            self.segments.iter().take_while(|segment| older_than(segment, target * 6)).count()
        } else {
            0
        };
        if skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
        }
        let mut map = skipped.checked_sub(1).and_then(|last| self.segments.get(last)).map(|last| last.init_number);
        for segment in &self.segments[skipped..] {
            write_head(out, segment, &mut map)?;
            if !older_than(segment, target * 3) {
                write_parts(out, segment)?;
            }
            let duration = seconds(segment.duration_us);
            let name = Resource::Segment { segment: segment.number, extension: segment.init.segment_extension() };
            writeln!(out, "#EXTINF:{duration},\n{name}")?;
        }
        if let Some(open) = &self.open {
            write_head(out, open, &mut map)?;
            write_parts(out, open)?;
        }
        if self.progress.ended {
            return writeln!(out, "#EXT-X-ENDLIST");
        }
        let Some(init) = self.open.as_ref().or(self.segments.last().map(|last| &**last)) else { return Ok(()) };
        let (segment, part) = (self.progress.segment, self.progress.parts);
        let name = Resource::Part { segment, part, extension: init.init.segment_extension() };
        writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{name}\"")
    }
}

/// What stands before the parts of a segment.
fn write_head(out: &mut String, segment: &Segment, map: &mut Option<u64>) -> std::fmt::Result {
    if segment.discontinuity {
        writeln!(out, "#EXT-X-DISCONTINUITY")?;
    }
    if !segment.init.bytes().is_empty() && map.replace(segment.init_number) != Some(segment.init_number) {
        writeln!(out, "#EXT-X-MAP:URI=\"{}\"", Resource::Init(segment.init_number))?;
    }
    writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", date_time(segment.start))
}

fn write_parts(out: &mut String, segment: &Segment) -> std::fmt::Result {
    let (number, extension) = (segment.number, segment.init.segment_extension());
    for (n, part) in segment.parts.iter().enumerate() {
        let name = Resource::Part { segment: number, part: n, extension };
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        writeln!(out, "#EXT-X-PART:DURATION={},URI=\"{name}\"{independent}", seconds(part.duration_us))?;
    }
    Ok(())
}

/// `1234567` as `1.234567`, without zeros at the end.
fn seconds(us: i64) -> String {
    let us = us.max(0);
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `2026-11-22T15:44:00.250Z`
fn date_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{millis:03}Z")
}

fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default().into()
}
