//! The page at `/`: the videos, a player for each, a box that jumps to a timecode. Plain HTML that reads without the
//! script; names come from files, so everything is escaped.

use super::answer::{Answer, Body, Call, text_of};
use super::id;

use super::videos::version;
use crate::library::{IndexState, Video};
use crate::live::{Init, State, Stream};
use crate::media::index::{Summary, TrackKind};
use crate::profile::{Stage, span};
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, Response};
use std::fmt::Write;

const PAGE: &str = include_str!("../../assets/page/index.html");
const STYLE: &str = include_str!("../../assets/page/weir.css");
const SCRIPT: &str = include_str!("../../assets/page/weir.js");
/// Videos on the page at most; `/videos` lists all.
const SHOWN_MAX: usize = 500;

/// `GET /`
pub fn index(call: &Call) -> Answer {
    let _span = span!(Stage::Render.name());
    let _timed = call.timing.stage(Stage::Render);
    let catalogue = call.edge.library.catalogue();
    let mut videos = String::new();
    for stream in call.edge.streams.list() {
        let _ = live_article(&mut videos, &stream);
    }
    for video in catalogue.videos().iter().take(SHOWN_MAX) {
        // Writing to a String cannot fail.
        let _ = article(&mut videos, video);
    }
    let summary = match catalogue.len() {
        0 => "The library is empty. Put videos into it; they appear here by themselves.".to_owned(),
        1 => "1 video".to_owned(),
        n if n > SHOWN_MAX => format!("{n} videos, the first {SHOWN_MAX} of them here; /videos lists all"),
        n => format!("{n} videos"),
    };
    let page = PAGE.replace("{{summary}}", &summary).replace("{{videos}}", &videos);
    let mut response = text_of(page, "text/html; charset=utf-8", "no-cache");
    let policy = HeaderValue::from_static("default-src 'self'; img-src 'self' data:; frame-ancestors 'self'");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// `GET /weir.js`
pub fn script() -> Response<Body> {
    text_of(SCRIPT, "text/javascript; charset=utf-8", "no-cache")
}

/// `GET /weir.css`
pub fn style() -> Response<Body> {
    text_of(STYLE, "text/css; charset=utf-8", "no-cache")
}

/// A live stream: HLS or an endless body, as the browser can; begun by a click.
fn live_article(page: &mut String, stream: &Stream) -> std::fmt::Result {
    let name = escape(stream.name());
    let status = stream.status();
    let state = match status.state {
        State::Live => "live",
        State::Waiting => "waiting for its publisher",
        State::Ended => return Ok(()),
    };
    let container = status.init.as_deref().map_or("mp4", Init::container);
    let base = format!("/live/{name}");
    writeln!(
        page,
        "<article class=\"live\" data-container=\"{container}\" data-file=\"{base}/stream\" \
         data-hls=\"{base}/index.m3u8\">"
    )?;
    writeln!(page, "<div class=\"still\"><button type=\"button\">Watch</button></div>")?;
    writeln!(page, "<div class=\"about\">\n<h2>{name}</h2>\n<dl>")?;
    row(page, "State", state)?;
    row(page, "Viewers", &status.viewers().to_string())?;
    writeln!(page, "<div><dd><a href=\"{base}/index.m3u8\">playlist</a></dd></div>")?;
    writeln!(page, "</dl>\n</div>\n</article>")
}

fn article(page: &mut String, video: &Video) -> std::fmt::Result {
    let state = video.index_state();
    let summary = if let IndexState::Ready(summary) = &state { Some(&**summary) } else { None };
    let base = format!("/videos/{}", id::encode(video.id()));
    let name = escape(video.id());
    let playable = is_playable(video, summary);
    let version = version(video);
    writeln!(page, "<article data-file=\"{base}/file?v={version}\" data-seek=\"{base}/seek\">")?;
    let inside = if playable { "<button type=\"button\">Play</button>" } else { "" };
    let poster = summary.and_then(|summary| poster(&base, version, summary)).unwrap_or_default();
    writeln!(page, "<div class=\"still\">{poster}{inside}</div>\n<div class=\"about\">\n<h2>{name}</h2>\n<dl>")?;
    if let Some(duration) = summary.and_then(|s| s.duration) {
        row(page, "Duration", &clock(&duration.to_string()))?;
    }
    row(page, "Size", &size(video.size_bytes()))?;
    let picture = summary.and_then(|s| s.tracks.iter().find(|t| t.kind == TrackKind::Video));
    if let Some((width, height)) = picture.and_then(|t| t.width.zip(t.height)) {
        row(page, "Picture", &format!("{width} × {height}"))?;
    }
    let start = summary.and_then(|s| s.start_timecode.as_ref());
    if let Some((label, _)) = start {
        row(page, "Starts at", label)?;
    }
    writeln!(page, "<div><dd><a href=\"{base}/file\">file</a></dd></div>\n</dl>")?;
    if let (Some((label, _)), true) = (start, playable) {
        writeln!(
            page,
            "<form><input name=\"timecode\" value=\"{}\" aria-label=\"Timecode\" autocomplete=\"off\" \
             spellcheck=\"false\"><button>Jump</button><output></output></form>",
            escape(label)
        )?;
    }
    writeln!(page, "</div>\n</article>")
}

/// A picture from a tenth into the video: first frames are often black. Asked for when it comes into view; nothing is
/// shown where there is none to be had.
fn poster(base: &str, version: &str, summary: &Summary) -> Option<String> {
    let frames = summary.tracks.iter().find(|t| t.kind == TrackKind::Video)?.frames;
    let frame = frames.checked_sub(1)? / 10;
    Some(format!(
        "<img src=\"{base}/frame.jpg?frame={frame}&amp;width=480&amp;v={version}\" alt=\"\" loading=\"lazy\" \
         decoding=\"async\">"
    ))
}

fn row(page: &mut String, term: &str, value: &str) -> std::fmt::Result {
    writeln!(page, "<div><dt>{term}</dt><dd>{}</dd></div>", escape(value))
}

/// What a browser's `<video>` can be expected to open: by its index, or by its name until there is one.
fn is_playable(video: &Video, summary: Option<&Summary>) -> bool {
    match summary {
        Some(summary) => matches!(summary.container, crate::media::index::Container::Mp4),
        None => {
            let name = video.id().to_ascii_lowercase();
            [".mp4", ".m4v", ".mov", ".m4a", ".webm"].iter().any(|end| name.ends_with(end))
        }
    }
}

/// `3725.4` as `1:02:05`: to the nearest second, as players show it.
fn clock(seconds: &str) -> String {
    let (whole, rest) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole = whole.parse::<u64>().unwrap_or(0).saturating_add(u64::from(rest.as_bytes().first() >= Some(&b'5')));
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{rest:02}") } else { format!("{minutes}:{rest:02}") }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_read_them() {
        assert_eq!(clock("3725.4"), "1:02:05");
        assert_eq!(clock("20.02"), "0:20");
        assert_eq!(clock("59.99"), "1:00");
        assert_eq!(clock("7"), "0:07");
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(20 << 20), "20.0 MiB");
        assert_eq!(escape("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
    }
}
