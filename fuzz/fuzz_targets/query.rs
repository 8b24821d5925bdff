//! Query strings: never a panic, no error without its parameter, and what was encoded is decoded to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::bounds::bounded;
use weir_fuzz::http::query::{PARAMETERS_MAX, QUERY_BYTES_MAX, Query};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(query) = bounded(|| Query::parse(Some(text))) {
        assert!(text.len() <= QUERY_BYTES_MAX && query.iter().count() <= PARAMETERS_MAX);
        check_getters(&query);
        let pairs: Vec<_> = query.iter().collect();
        let encoded: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        let encoded = encoded.join("&");
        if encoded.len() <= QUERY_BYTES_MAX {
            let again = Query::parse(Some(&encoded)).expect("every byte is escaped");
            assert_eq!(again.iter().collect::<Vec<_>>(), pairs);
        }
    }
});

fn check_getters(query: &Query) {
    match query.u64("size") {
        Ok(Some(number)) => assert_eq!(query.get("size").and_then(|text| text.parse().ok()), Some(number)),
        Ok(None) => assert_eq!(query.get("size"), None),
        Err(error) => {
            assert_eq!(error.parameter(), Some("size"));
            assert!(error.to_string().len() < 1000);
        }
    }
    if let Ok(Some(number)) = query.decimal_in("at", -1e9..=0.0) {
        assert!((-1e9..=0.0).contains(&number));
    }
    let _ = query.flag("drop");
    let _ = query.one_of("as", &["bytes", "fmp4"]);
    if let Ok(name) = query.exactly_one(&["offset", "timecode", "time", "frame"]) {
        assert!(query.get(name).is_some());
    }
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
