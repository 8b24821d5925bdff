//! Movie fragments: the runs of samples in one `moof`, read lazily; a run without per-sample fields stays a count.
//!
//! Must not know indexes or presentation order. Source: ISO/IEC 14496-12 sections 8.8.4 to 8.8.12.

use super::boxes::{Broken, be32, be64, children};
use super::moov::Defaults;
use super::sample::Sample;
use std::ops::Range;

/// `sample_is_non_sync_sample` and `sample_depends_on = 1`: either means that decoding cannot start here.
const NOT_SYNC: u32 = 0x0101_0000;

/// One `trun` with everything it inherits.
#[derive(Clone, Debug)]
struct Run {
    rows: Range<usize>,
    count: u32,
    flags: u32,
    first_flags: Option<u32>,
    defaults: Defaults,
    offset: u64,
    /// Decode time of the first sample when a `tfdt` says so, for the first run of its `traf`.
    dts: Option<i64>,
}

/// The runs of one track in one `moof`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragment {
    runs: Vec<Run>,
}

/// Walks the samples of a [`Fragment`]; they do not know their index.
pub(crate) struct FragmentCursor<'a> {
    moof: &'a [u8],
    fragment: &'a Fragment,
    place: Place,
    video: bool,
}

/// Where a cursor stands in a fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    run: usize,
    in_run: u32,
    offset: u64,
    dts: i64,
}

impl Place {
    /// Before the first sample; `dts` is where the track's previous fragment ended.
    pub(crate) fn start(dts: i64) -> Place {
        Place { run: 0, in_run: 0, offset: 0, dts }
    }

    /// Decode time of the next sample.
    pub(crate) fn dts(self) -> i64 {
        self.dts
    }
}

/// A track as fragments see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FragmentTrack {
    pub(crate) id: u32,
    pub(crate) defaults: Defaults,
    /// Flags decide what is a sync sample; in other tracks every sample is one.
    pub(crate) video: bool,
}

/// Parses the body of a `moof` that begins (with its header) at `moof_offset` of the file, for one track after
/// another; a `traf` without an offset of its own begins where the data of the one before ends.
pub(crate) fn parse(moof: &[u8], moof_offset: u64, tracks: &[FragmentTrack]) -> Result<Vec<Fragment>, Broken> {
    let mut fragments = vec![Fragment::default(); tracks.len()];
    let mut implicit = moof_offset;
    for child in children(moof, 0..moof.len()) {
        let child = child?;
        if &child.kind == b"traf" {
            implicit = parse_traf(moof, child.body, (moof_offset, implicit), tracks, &mut fragments)?;
        }
    }
    Ok(fragments)
}

/// Returns where the data of this `traf` ends.
fn parse_traf(
    moof: &[u8],
    traf: Range<usize>,
    (moof_offset, implicit): (u64, u64),
    tracks: &[FragmentTrack],
    fragments: &mut [Fragment],
) -> Result<u64, Broken> {
    let (mut header, mut dts, mut runs) = (None, None, Vec::new());
    for child in children(moof, traf.clone()) {
        let child = child?;
        match &child.kind {
            b"tfhd" => header = Some(child.body),
            b"tfdt" if child.body.len() >= 8 => {
                let at = child.body.start;
                let wide = moof[at] == 1;
                let time = if wide { be64(moof, at + 4) } else { u64::from(be32(moof, at + 4)) };
                let time = i64::try_from(time).ok().filter(|time| *time < i64::MAX / 8);
                dts = Some(time.ok_or_else(|| Broken::new("tfdt later than any media", at))?);
            }
            b"trun" => runs.push(child.body),
            _ => {}
        }
    }
    let header = header.filter(|h| h.len() >= 8).ok_or_else(|| Broken::new("traf without tfhd", traf.start))?;
    let (flags, id) = (be32(moof, header.start), be32(moof, header.start + 4));
    let Some(track) = tracks.iter().position(|track| track.id == id) else { return Ok(implicit) };
    let mut defaults = tracks[track].defaults;
    let mut base = if flags & 0x02_0000 != 0 { moof_offset } else { implicit };
    let mut at = header.start + 8;
    if flags & 1 != 0 {
        base = be64(moof, at);
        at += 8;
    }
    for (bit, field) in [
        (2, &mut defaults.description),
        (8, &mut defaults.duration),
        (0x10, &mut defaults.size),
        (0x20, &mut defaults.flags),
    ] {
        if flags & bit != 0 {
            *field = be32(moof, at);
            at += 4;
        }
    }
    if at > header.end {
        return Err(Broken::new("box tfhd is too short", header.start));
    }
    let mut end = base;
    for body in runs {
        let run = parse_run(moof, body, (base, end), (defaults, dts.take()))?;
        end = run.offset.saturating_add(run.bytes(moof));
        fragments[track].runs.push(run);
    }
    Ok(end)
}

fn parse_run(
    moof: &[u8],
    body: Range<usize>,
    (base, end): (u64, u64),
    (defaults, dts): (Defaults, Option<i64>),
) -> Result<Run, Broken> {
    let start = body.start;
    let short = || Broken::new("box trun is too short", start);
    if body.len() < 8 {
        return Err(short());
    }
    let (flags, count) = (be32(moof, start) & 0xff_ffff, be32(moof, start + 4));
    let mut at = start + 8;
    let mut word = |present: bool| {
        present.then(|| {
            at += 4;
            be32(moof, at - 4)
        })
    };
    let data_offset = word(flags & 1 != 0);
    let first_flags = word(flags & 4 != 0);
    let offset = match data_offset {
        Some(offset) => base.checked_add_signed(i64::from(offset as i32)),
        None => Some(end),
    };
    let offset = offset.ok_or_else(|| Broken::new("trun data before the file", start))?;
    let run = Run { rows: at..body.end, count, flags, first_flags, defaults, offset, dts };
    if at > body.end || (body.end - at) as u64 / 4 < u64::from(count) * run.fields() {
        return Err(Broken::new(format!("trun claims {count} samples in {} bytes", body.len()), start));
    }
    Ok(run)
}

impl Run {
    /// 32-bit numbers per sample.
    fn fields(&self) -> u64 {
        u64::from((self.flags & 0xf00).count_ones())
    }

    /// Field `bit` (0x100 duration, 0x200 size, 0x400 flags, 0x800 composition offset) of one sample.
    fn field(&self, moof: &[u8], sample: u32, bit: u32) -> Option<u32> {
        let before = (self.flags & 0xf00 & (bit - 1)).count_ones() as usize;
        let row = sample as usize * self.fields() as usize + before;
        (self.flags & bit != 0).then(|| be32(moof, self.rows.start + row * 4))
    }

    fn bytes(&self, moof: &[u8]) -> u64 {
        if self.flags & 0x200 == 0 {
            return u64::from(self.count) * u64::from(self.defaults.size);
        }
        (0..self.count).map(|s| u64::from(self.field(moof, s, 0x200).unwrap_or(0))).sum()
    }
}

impl Fragment {
    /// What the runs claim: samples, and how many of these have a size of their own in the `moof` or some bytes in
    /// the file; the others cost nothing and must be bounded by the caller.
    pub(crate) fn claim(&self) -> Claim {
        let mut claim = Claim::default();
        for run in &self.runs {
            claim.samples = claim.samples.saturating_add(u64::from(run.count));
            if run.fields() == 0 {
                claim.unwritten = claim.unwritten.saturating_add(u64::from(run.count));
            }
        }
        claim
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.count == 0)
    }

    /// The samples from `place` on.
    pub(crate) fn cursor_at<'a>(&'a self, moof: &'a [u8], place: Place, video: bool) -> FragmentCursor<'a> {
        FragmentCursor { moof, fragment: self, place, video }
    }
}

/// See [`Fragment::claim`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) samples: u64,
    pub(crate) unwritten: u64,
}

impl FragmentCursor<'_> {
    pub(crate) fn place(&self) -> Place {
        self.place
    }
}

impl Iterator for FragmentCursor<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let place = &mut self.place;
        let run = loop {
            let run = self.fragment.runs.get(place.run)?;
            if place.in_run < run.count {
                break run;
            }
            (place.run, place.in_run) = (place.run + 1, 0);
        };
        if place.in_run == 0 {
            place.offset = run.offset;
            place.dts = run.dts.unwrap_or(place.dts);
        }
        let field = |bit, default| run.field(self.moof, place.in_run, bit).unwrap_or(default);
        let first = run.first_flags.filter(|_| place.in_run == 0);
        let flags = first.unwrap_or_else(|| field(0x400, run.defaults.flags));
        let sample = Sample {
            index: 0,
            offset: place.offset,
            size: field(0x200, run.defaults.size),
            dts: place.dts,
            cts_offset: field(0x800, 0) as i32,
            duration: field(0x100, run.defaults.duration),
            sync: !self.video || flags & NOT_SYNC == 0,
            description: run.defaults.description,
            moof: None,
        };
        place.in_run += 1;
        place.offset = place.offset.saturating_add(u64::from(sample.size));
        place.dts = place.dts.saturating_add(i64::from(sample.duration));
        Some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, &body].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    const TRACKS: [FragmentTrack; 2] = [
        FragmentTrack {
            id: 1,
            defaults: Defaults { description: 1, duration: 512, size: 100, flags: 0x0101_0000 },
            video: true,
        },
        FragmentTrack { id: 2, defaults: Defaults { description: 1, duration: 1024, size: 7, flags: 0 }, video: false },
    ];

    #[test]
    fn runs_inherit_and_follow_each_other() {
        // Track 1: tfdt 5000, two runs, the first with an offset and first flags, the second right behind it with
        // sizes and composition offsets. Track 2: no offset, so it begins where track 1 ended.
        let moof = [
            boxed(b"mfhd", &[&words(&[0, 1])]),
            boxed(
                b"traf",
                &[
                    &boxed(b"tfhd", &[&words(&[0, 1])]),
                    &boxed(b"tfdt", &[&words(&[0, 5000])]),
                    &boxed(b"trun", &[&words(&[5, 2, 300, 0x0200_0000])]),
                    &boxed(b"trun", &[&words(&[0xa00, 2, 11, 512, 13, 0xffff_fe00])]),
                ],
            ),
            boxed(b"traf", &[&boxed(b"tfhd", &[&words(&[0, 2])]), &boxed(b"trun", &[&words(&[0, 3])])]),
        ]
        .concat();
        let fragments = parse(&moof, 1000, &TRACKS).expect("well-formed");
        let video: Vec<_> = fragments[0]
            .cursor_at(&moof, Place::start(0), true)
            .map(|s| (s.offset, s.size, s.dts, s.cts_offset, s.sync))
            .collect();
        let expected = [
            (1300, 100, 5000, 0, true),
            (1400, 100, 5512, 0, false),
            (1500, 11, 6024, 512, false),
            (1511, 13, 6536, -512, false),
        ];
        assert_eq!(video, expected);
        let audio: Vec<_> =
            fragments[1].cursor_at(&moof, Place::start(77), false).map(|s| (s.offset, s.dts, s.sync)).collect();
        assert_eq!(audio, [(1524, 77, true), (1531, 1101, true), (1538, 2125, true)]);
        assert_eq!(fragments[1].claim(), Claim { samples: 3, unwritten: 3 });
    }

    #[test]
    fn claims_beyond_the_box_are_broken() {
        let run = |body: &[u32]| {
            let traf = boxed(b"traf", &[&boxed(b"tfhd", &[&words(&[0, 1])]), &boxed(b"trun", &[&words(body)])]);
            parse(&traf, 0, &TRACKS).map(|f| f[0].claim().samples)
        };
        assert!(run(&[0x200, 3, 1, 2]).is_err());
        assert!(run(&[0xf00, u32::MAX, 1, 2, 3, 4]).is_err());
        assert!(run(&[1, 1, -1i32 as u32]).is_err(), "before the file");
        assert_eq!(run(&[0, u32::MAX]), Ok(u64::from(u32::MAX)), "stays a count");
    }
}
