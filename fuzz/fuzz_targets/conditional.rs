//! Conditional requests: never a panic, and what must hold whatever the fields say.
//!
//! Each line is one field line: a byte that picks the field, then its value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::{Duration, UNIX_EPOCH};
use weir_fuzz::bounds::bounded;
use weir_fuzz::http::conditional::{Access, Decision, EntityTag, Validators, evaluate};

const NAMES: [&str; 5] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

fuzz_target!(|data: &[u8]| {
    let mut fields = http::HeaderMap::new();
    for line in data.split(|&b| b == b'\n').take(16) {
        let Some((&pick, value)) = line.split_first() else { continue };
        let Ok(value) = http::HeaderValue::from_bytes(value) else { continue };
        fields.append(NAMES[usize::from(pick) % NAMES.len()], value);
    }
    let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let now = modified + Duration::from_secs(3600);
    let current = Validators { etag: EntityTag::parse(b"\"a\""), last_modified: Some(modified) };
    let read = bounded(|| evaluate(&fields, Access::Read, Some(&current), now));
    let write = evaluate(&fields, Access::Write, Some(&current), now);
    let create = evaluate(&fields, Access::Write, None, now);

    assert_ne!(write, Decision::NotModified);
    assert_ne!(create, Decision::NotModified);
    if read == Decision::PreconditionFailed {
        assert_eq!(write, Decision::PreconditionFailed);
    }
    let has = |name: &str| fields.contains_key(name);
    if fields.is_empty() {
        assert_eq!(read, Decision::Proceed { range: true });
    }
    if has("if-match") {
        assert_eq!(create, Decision::PreconditionFailed);
    }
    if !has("if-none-match") && !has("if-modified-since") {
        assert_ne!(read, Decision::NotModified);
    }
    if !has("if-range") {
        assert_ne!(read, Decision::Proceed { range: false });
    }
    // A weak validator of ours never lets a range through.
    let weak = Validators { etag: EntityTag::parse(b"W/\"a\""), last_modified: None };
    if has("if-range") {
        assert_ne!(evaluate(&fields, Access::Read, Some(&weak), now), Decision::Proceed { range: true });
    }
});
