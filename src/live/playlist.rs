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

    /// The text, made anew.
    pub fn render(&self, delta: bool) -> String {
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
        let independent = if part.keyframe.is_some() { ",INDEPENDENT=YES" } else { "" };
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

#[cfg(test)]
mod tests {
    use super::super::segments::tests::Sender;
    use super::*;
    use std::collections::BTreeSet;

    const FULL: Form = Form { delta: false, gzip: false };
    const DELTA: Form = Form { delta: true, gzip: false };

    fn text(segments: &Segments, form: Form) -> String {
        String::from_utf8(Playlist::of(segments).text(form, &AtomicU64::new(0)).to_vec()).expect("text")
    }

    fn value<'a>(text: &'a str, tag: &str) -> &'a str {
        text.lines().find_map(|line| line.strip_prefix(tag)).unwrap_or_else(|| panic!("no {tag} in\n{text}"))
    }

    fn number(text: &str, tag: &str) -> u64 {
        value(text, tag).parse().expect("a number")
    }

    /// The lines of each segment, by its number; the last ones may be of one that is open. Hints are left out.
    fn segments(text: &str) -> Vec<(u64, Vec<String>)> {
        let first = number(text, "#EXT-X-MEDIA-SEQUENCE:");
        let skipped = text.lines().find_map(|line| line.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS="));
        let mut next = first + skipped.map_or(0, |skipped| skipped.parse().expect("a number"));
        let mut found = vec![(next, Vec::new())];
        let header = |line: &str| {
            let tags = ["M3U", "-X-VERSION", "-X-TARGETDURATION", "-X-SERVER", "-X-PART-INF", "-X-MEDIA", "-X-SKIP"];
            tags.iter().any(|tag| line.starts_with(&format!("#EXT{tag}"))) || line.starts_with("#EXT-X-DISCONTINUITY-")
        };
        for line in text.lines().filter(|line| !header(line) && !line.starts_with("#EXT-X-PRELOAD")) {
            found.last_mut().expect("one").1.push(line.to_owned());
            if !line.starts_with('#') {
                next += 1;
                found.push((next, Vec::new()));
            }
        }
        found
    }

    /// What draft-pantos-hls-rfc8216bis-22 §6.2.1 allows to differ: lines are appended, segments leave in order, parts
    /// of segments that are whole leave, and the numbers say what has left.
    fn assert_allowed(before: &str, after: &str) {
        for tag in ["#EXT-X-TARGETDURATION:", "#EXT-X-PART-INF:", "#EXT-X-SERVER-CONTROL:", "#EXT-X-VERSION:"] {
            assert_eq!(value(before, tag), value(after, tag));
        }
        let (old, new) = (segments(before), segments(after));
        let removed = new[0].0 - old[0].0;
        assert!(removed <= 1, "one segment leaves at a time");
        let gone = old.iter().take(removed as usize).flat_map(|(_, lines)| lines);
        let discontinuities = gone.filter(|line| *line == "#EXT-X-DISCONTINUITY").count() as u64;
        let sequence = |text| number(text, "#EXT-X-DISCONTINUITY-SEQUENCE:");
        assert_eq!(sequence(after), sequence(before) + discontinuities);
        for (n, lines) in &old[removed as usize..] {
            let known = &new.iter().find(|(number, _)| number == n).unwrap_or_else(|| panic!("{n} is gone")).1;
            let whole = lines.iter().any(|line| line.starts_with("#EXTINF"));
            // A map that was said before is said again when the segment that said it has left.
            let meant = |line: &&String| !(line.starts_with("#EXT-X-MAP") || whole && line.starts_with("#EXT-X-PART:"));
            let (was, is): (Vec<_>, Vec<_>) =
                (lines.iter().filter(meant).collect(), known.iter().filter(meant).collect());
            assert!(is.starts_with(&was), "{n}:\n{was:#?}\nbecame\n{is:#?}");
            let parts = |lines: &[String]| lines.iter().filter(|line| line.starts_with("#EXT-X-PART:")).count();
            assert!(parts(known) >= parts(lines) || parts(known) == 0, "the parts of a segment leave together");
        }
    }

    /// Durations as they are written, and what §4.4.4.9 says of parts.
    fn assert_durations(text: &str) {
        let duration = |line: &str| -> f64 { line.split(',').next().expect("a number").parse().expect("a number") };
        let mut parts: Vec<(f64, bool)> = Vec::new();
        for line in text.lines() {
            if let Some(part) = line.strip_prefix("#EXT-X-PART:DURATION=") {
                parts.push((duration(part), part.contains("INDEPENDENT=YES")));
            } else if let Some(segment) = line.strip_prefix("#EXTINF:") {
                let (segment, sum) = (duration(segment), parts.iter().map(|(part, _)| part).sum::<f64>());
                assert!(segment.round() <= 4.0 && (parts.is_empty() || (segment - sum).abs() < 1e-6), "{text}");
                parts.pop();
                let fits = |(part, independent): &(f64, bool)| *part <= 0.5 && (*part >= 0.425 || *independent);
                assert!(parts.drain(..).all(|part| fits(&part)), "{text}");
            }
        }
    }

    /// What a client has that puts a delta update onto what it had (§6.3.7).
    fn patched(had: &str, delta: &str) -> Vec<(u64, Vec<String>)> {
        let new = segments(delta);
        let (first, from) = (number(delta, "#EXT-X-MEDIA-SEQUENCE:"), new[0].0);
        let kept = segments(had).into_iter().filter(|(n, _)| (first..from).contains(n));
        kept.chain(new).collect()
    }

    #[test]
    fn successive_playlists_differ_by_allowed_edits_only() {
        for gop in [1, 8, 25, 40, 75, 110, 260] {
            let mut sender = Sender::new(40_000_000);
            let (mut before, mut states) = (String::new(), BTreeSet::new());
            for round in 0..4 {
                sender.send(500, gop, |segments| {
                    let now = text(segments, FULL);
                    if segments.listed().next().is_none() {
                        return;
                    }
                    if !before.is_empty() {
                        assert_allowed(&before, &now);
                    }
                    if states.insert(segments.version()) {
                        assert_durations(&now);
                        let delta = text(segments, DELTA);
                        let without_parts = |all: Vec<(u64, Vec<String>)>| -> Vec<_> {
                            let skipped =
                                |line: &String| line.starts_with("#EXT-X-PART:") || line.starts_with("#EXT-X-MAP");
                            all.into_iter()
                                .map(|(n, l)| (n, l.into_iter().filter(|l| !skipped(l)).collect::<Vec<_>>()))
                                .collect()
                        };
                        let had = if before.is_empty() { &now } else { &before };
                        assert_eq!(without_parts(patched(had, &delta)), without_parts(self::segments(&now)));
                    }
                    before = now;
                });
                sender.return_as(round == 1);
            }
            assert!(before.contains("#EXT-X-DISCONTINUITY\n"), "{before}");
            sender.segments.end();
            let last = text(&sender.segments, DELTA);
            assert!(
                last.ends_with("#EXT-X-ENDLIST\n") && !last.contains("PRELOAD") && !last.contains("SKIP:"),
                "{last}"
            );
        }
    }

    #[test]
    fn a_playlist_says_what_players_need() {
        let mut sender = Sender::new(40_000_000);
        sender.send(113, 25, |_| ());
        let expected = "#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-TARGETDURATION:4\n\
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,HOLD-BACK=12,CAN-SKIP-UNTIL=24\n\
            #EXT-X-PART-INF:PART-TARGET=0.5\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-DISCONTINUITY-SEQUENCE:3\n\
            #EXT-X-MAP:URI=\"init-7.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00.000Z\n\
            #EXT-X-PART:DURATION=0.48,URI=\"part-7.0.m4s\",INDEPENDENT=YES\n";
        let text = text(&sender.segments, FULL);
        assert!(text.starts_with(expected), "{text}");
        let expected = "#EXT-X-PART:DURATION=0.16,URI=\"part-7.8.m4s\"\n#EXTINF:4,\nsegment-7.m4s\n\
            #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:04.000Z\n\
            #EXT-X-PART:DURATION=0.48,URI=\"part-8.0.m4s\",INDEPENDENT=YES\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-8.1.m4s\"\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn each_form_is_made_once() {
        let mut sender = Sender::new(60_000_000);
        sender.send(1400, 25, |_| ());
        let (playlist, rendered) = (Playlist::of(&sender.segments), AtomicU64::new(0));
        for _ in 0..1000 {
            let zipped = playlist.text(Form { gzip: true, ..FULL }, &rendered);
            assert!(zipped.len() * 5 < playlist.text(FULL, &rendered).len());
        }
        assert_eq!(rendered.load(Relaxed), 1);
        assert!(playlist.text(DELTA, &rendered).len() * 10 < playlist.text(FULL, &rendered).len() * 9);
        assert_eq!(rendered.load(Relaxed), 2);
    }

    #[test]
    fn times_are_written_as_they_are() {
        assert_eq!(seconds(4_170_668), "4.170668");
        assert_eq!((seconds(500_000).as_str(), seconds(4_000_000).as_str()), ("0.5", "4"));
        // date -u -d @1795362240 +%FT%TZ
        let time = UNIX_EPOCH + std::time::Duration::from_millis(1_795_362_240_250);
        assert_eq!(date_time(time), "2026-11-22T15:44:00.250Z");
    }
}
