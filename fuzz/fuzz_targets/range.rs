//! `Range` fields against a reference that marks single bytes of a small representation.
//!
//! The first byte is the length; the rest is the field value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::ops::Range;
use weir_fuzz::bounds::bounded;
use weir_fuzz::http::range::{COALESCE_GAP_BYTES, PartialPut, RANGES_MAX, Resolved, content_range, resolve};

fuzz_target!(|data: &[u8]| {
    let Some((&len, value)) = data.split_first() else { return };
    let len = u64::from(len) * 4;
    let resolved = bounded(|| resolve(value, len));
    check_shape(&resolved, len);
    match reference(value, len) {
        Expected::Whole => assert_eq!(resolved, Resolved::Whole),
        Expected::Unsatisfiable => assert_eq!(resolved, Resolved::Unsatisfiable),
        Expected::Bytes { asked, first } => check_bytes(&resolved, &asked, first),
    }
    // A length near the end of the number line must not overflow.
    check_shape(&resolve(value, u64::MAX), u64::MAX);
    if let Ok(put) = PartialPut::parse(value) {
        assert!(put.range.start < put.range.end && put.range.end <= put.total);
        assert_eq!(PartialPut::parse(content_range(&put.range, put.total).as_bytes()), Ok(put));
    }
});

/// What the type promises.
fn check_shape(resolved: &Resolved, len: u64) {
    let ranges = ranges(resolved);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len));
    if let Resolved::Many(many) = resolved {
        assert!((2..=RANGES_MAX).contains(&many.len()));
        let mut sorted = many.clone();
        sorted.sort_by_key(|range| range.start);
        assert!(sorted.windows(2).all(|two| two[0].end.saturating_add(COALESCE_GAP_BYTES) <= two[1].start));
    }
}

/// Every byte asked for is sent, nothing else is but short gaps, and the answer begins with what was asked for first.
fn check_bytes(resolved: &Resolved, asked: &[bool], first: u64) {
    let ranges = ranges(resolved);
    let mut sent = vec![false; asked.len()];
    for range in &ranges {
        sent[range.start as usize..range.end as usize].fill(true);
        assert!(asked[range.start as usize] && asked[range.end as usize - 1]);
    }
    assert!(asked.iter().zip(&sent).all(|(asked, sent)| !asked || *sent));
    let gap_max = COALESCE_GAP_BYTES.saturating_sub(1);
    let mut gap = 0;
    for (asked, sent) in asked.iter().zip(&sent) {
        gap = if *sent && !*asked { gap + 1 } else { 0 };
        assert!(gap <= gap_max);
    }
    assert!(ranges[0].contains(&first));
}

fn ranges(resolved: &Resolved) -> Vec<Range<u64>> {
    match resolved {
        Resolved::Whole | Resolved::Unsatisfiable => Vec::new(),
        Resolved::One(range) => vec![range.clone()],
        Resolved::Many(ranges) => ranges.clone(),
    }
}

enum Expected {
    Whole,
    Unsatisfiable,
    Bytes { asked: Vec<bool>, first: u64 },
}

/// RFC 9110 §14.1.2 by text and by single bytes, with the choices that range.rs documents.
fn reference(value: &[u8], len: u64) -> Expected {
    // Every byte as the character of the same number: the grammar is ASCII.
    let text: String = value.iter().map(|&b| b as char).collect();
    let Some((unit, set)) = text.trim_matches(is_space).split_once('=') else { return Expected::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Expected::Whole;
    }
    let members: Vec<_> = set.split(',').map(|m| m.trim_matches(is_space)).filter(|m| !m.is_empty()).collect();
    let Some(specs) = members.iter().map(|member| spec(member)).collect::<Option<Vec<_>>>() else {
        return Expected::Unsatisfiable;
    };
    let suffix = |(first, last): &(Option<String>, Option<String>)| first.is_none() && last.as_deref() != Some("");
    if specs.len() > RANGES_MAX || (len == 0 && specs.iter().any(suffix)) {
        return Expected::Whole;
    }
    let sets: Vec<Vec<bool>> = specs
        .iter()
        .map(|spec| (0..len).map(|at| asks(spec, at, len)).collect::<Vec<_>>())
        .filter(|set| set.contains(&true))
        .collect();
    let meet = |a: &[bool], b: &[bool]| a.iter().zip(b).any(|(a, b)| *a && *b);
    let overlapping = (0..sets.len()).filter(|&i| (0..sets.len()).any(|j| i != j && meet(&sets[i], &sets[j]))).count();
    match sets.first() {
        None => Expected::Unsatisfiable,
        Some(_) if overlapping > 2 => Expected::Whole,
        Some(set) => {
            let first = set.iter().position(|asked| *asked).expect("sets without a byte are left out") as u64;
            let asked = (0..len as usize).map(|at| sets.iter().any(|set| set[at])).collect();
            Expected::Bytes { asked, first }
        }
    }
}

/// First and last as decimal text without leading zeros.
fn spec(member: &str) -> Option<(Option<String>, Option<String>)> {
    let (first, last) = member.split_once('-')?;
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return None;
    }
    let number = |text: &str| (!text.is_empty()).then(|| text.trim_start_matches('0').to_owned());
    let (first, last) = (number(first), number(last));
    match (&first, &last) {
        (Some(first), Some(last)) if above(first, last) => None,
        _ => Some((first, last)),
    }
}

/// Whether decimal `a` is greater than `b`.
fn above(a: &str, b: &str) -> bool {
    a.len() > b.len() || (a.len() == b.len() && a > b)
}

fn asks(spec: &(Option<String>, Option<String>), at: u64, len: u64) -> bool {
    let text = |n: u64| if n == 0 { String::new() } else { n.to_string() };
    match spec {
        (Some(first), Some(last)) => !above(first, &text(at)) && !above(&text(at), last),
        (Some(first), None) => !above(first, &text(at)),
        (None, Some(suffix)) => !above(&text(len - at), suffix),
        (None, None) => false,
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}
