//! Credentials of a request: the key read from `Authorization`, or from a query where an encoder can do nothing else.
//!
//! Must not know: which routes need the key, where it is kept, axum.

use crate::library::WriteKey;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;

/// With or without padding: clients do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the credentials of a request are worth. Both refusals are 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// No credentials: the client may ask again with some.
    Missing,
    /// Credentials that are not the key, or of a form that Weir does not read.
    Wrong,
}

/// Judges an `Authorization` field (RFC 9110 §11.6.2): `Bearer KEY` (RFC 6750), or `Basic` with the key as the
/// password and any user name (RFC 7617).
pub fn authorized(header: Option<&HeaderValue>, key: &WriteKey) -> Access {
    let Some(value) = header.map(|value| value.as_bytes().trim_ascii()).filter(|value| !value.is_empty()) else {
        return Access::Missing;
    };
    // credentials = auth-scheme 1*SP token68; the scheme is case-insensitive.
    let end = value.iter().position(|&b| b == b' ').unwrap_or(value.len());
    let (scheme, rest) = (&value[..end], value[end..].trim_ascii_start());
    let granted = if scheme.eq_ignore_ascii_case(b"bearer") {
        key.matches(rest)
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        basic_password_matches(rest, key)
    } else {
        false
    };
    if granted { Access::Granted } else { Access::Wrong }
}

/// user-pass = user-id ":" password; the user-id has no colon, the password may.
fn basic_password_matches(token: &[u8], key: &WriteKey) -> bool {
    let Ok(user_pass) = BASE64.decode(token) else { return false };
    let Some(colon) = user_pass.iter().position(|&b| b == b':') else { return false };
    key.matches(&user_pass[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens made with `printf … | base64`.
    #[test]
    fn forms_of_credentials() {
        use Access::{Granted, Missing, Wrong};
        let key = WriteKey::new("s3cret:key").expect("a key");
        let table: &[(Option<&str>, Access)] = &[
            (None, Missing),
            (Some(""), Missing),
            (Some("Bearer s3cret:key"), Granted),
            (Some("bearer  s3cret:key "), Granted),
            (Some("BEARER s3cret:key"), Granted),
            (Some("Bearer"), Wrong),
            (Some("Bearer "), Wrong),
            (Some("Bearer s3cret:ke"), Wrong),
            (Some("Bearer s3cret:keyy"), Wrong),
            (Some("Bearer S3cret:key"), Wrong),
            (Some("Bearer s3cret:key x"), Wrong),
            (Some("s3cret:key"), Wrong),
            // weir:s3cret:key
            (Some("Basic d2VpcjpzM2NyZXQ6a2V5"), Granted),
            // a:s3cret:key, with and without its padding
            (Some("Basic YTpzM2NyZXQ6a2V5"), Granted),
            // :s3cret:key
            (Some("basic OnMzY3JldDprZXk="), Granted),
            (Some("basic OnMzY3JldDprZXk"), Granted),
            // s3cret:key, which is user s3cret with password key
            (Some("Basic czNjcmV0OmtleQ=="), Wrong),
            // weir:
            (Some("Basic d2Vpcjo="), Wrong),
            // weir
            (Some("Basic d2Vpcg=="), Wrong),
            (Some("Basic"), Wrong),
            (Some("Basic !!!"), Wrong),
            (Some("Digest username=\"weir\""), Wrong),
        ];
        for (value, expected) in table {
            let header = value.map(|value| HeaderValue::from_str(value).expect("a field value"));
            assert_eq!(authorized(header.as_ref(), &key), *expected, "{value:?}");
        }
        let binary = HeaderValue::from_bytes(b"Bearer \xff\xfe").expect("obs-text");
        assert_eq!(authorized(Some(&binary), &key), Wrong);
    }
}
