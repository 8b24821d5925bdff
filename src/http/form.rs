//! `multipart/form-data` (RFC 7578, RFC 2046 §5.1) of a body that is there as a whole: its parts by name, as ranges.
//!
//! PURE: bytes in, ranges out. Must not know routes or what parts hold.

use super::query::{Query, QueryError};
use std::borrow::Cow;
use std::ops::Range;

const PARTS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4 << 10;
/// A boundary is shorter than this (RFC 2046 §5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of a part that is a number or a word.
const FIELD_BYTES_MAX: usize = 256;

/// What is wrong with a form: 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("multipart/form-data needs a boundary of 1 to {BOUNDARY_BYTES_MAX} characters in its Content-Type")]
    Boundary,
    #[error("the form does not begin with its boundary, or does not end with it")]
    Cut,
    #[error("a part of the form has no Content-Disposition: form-data with a name")]
    Unnamed,
    #[error("the form has more than {PARTS_MAX} parts")]
    TooMany,
    #[error("the form has no part named \"{0}\"")]
    Missing(&'static str),
    #[error("the form has more than one part named \"{0}\"")]
    Twice(&'static str),
    #[error("the field \"{0}\" is not a short text in UTF-8")]
    NotText(String),
    #[error(transparent)]
    Field(#[from] QueryError),
}

/// The parts of a form.
#[derive(Debug)]
pub struct Form<'a> {
    body: &'a [u8],
    parts: Vec<(String, Range<usize>)>,
}

/// The boundary, if this is the `Content-Type` of a form.
pub fn boundary(content_type: &[u8]) -> Result<Option<String>, FormError> {
    let text = String::from_utf8_lossy(content_type);
    let (kind, parameters) = text.split_once(';').unwrap_or((&text, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let found = parameter(parameters, "boundary").ok_or(FormError::Boundary)?;
    let plain = (1..=BOUNDARY_BYTES_MAX).contains(&found.len()) && found.bytes().all(|b| (b' '..0x7f).contains(&b));
    if plain { Ok(Some(found)) } else { Err(FormError::Boundary) }
}

impl<'a> Form<'a> {
    pub fn parse(body: &'a [u8], boundary: &str) -> Result<Self, FormError> {
        let delimiter = format!("\r\n--{boundary}");
        // The first boundary may stand at the very beginning.
        let mut at = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
            Some(_) => delimiter.len() - 2,
            None => find(body, 0, delimiter.as_bytes()).ok_or(FormError::Cut)? + delimiter.len(),
        };
        let mut parts = Vec::new();
        loop {
            if body[at..].starts_with(b"--") {
                return Ok(Self { body, parts });
            }
            at += body[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let head = at.checked_add(2).filter(|head| body.get(at..*head) == Some(b"\r\n")).ok_or(FormError::Cut)?;
            if parts.len() == PARTS_MAX {
                return Err(FormError::TooMany);
            }
            let window = &body[..body.len().min(head + HEADER_BYTES_MAX)];
            let content = find(window, head, b"\r\n\r\n").ok_or(FormError::Unnamed)? + 4;
            let end = find(body, content.saturating_sub(2), delimiter.as_bytes()).ok_or(FormError::Cut)?;
            let name = name(&body[head..content]).ok_or(FormError::Unnamed)?;
            parts.push((name, content..end.max(content)));
            at = end + delimiter.len();
        }
    }

    /// Where the one part of this name lies in the body.
    pub fn file(&self, name: &'static str) -> Result<Range<usize>, FormError> {
        let mut named = self.parts.iter().filter(|(part, _)| part == name);
        let first = named.next().ok_or(FormError::Missing(name))?;
        if named.next().is_some() { Err(FormError::Twice(name)) } else { Ok(first.1.clone()) }
    }

    /// All parts but `file`, as parameters.
    pub fn fields(&self, file: &str) -> Result<Query<'a>, FormError> {
        let mut fields = Vec::new();
        for (name, range) in self.parts.iter().filter(|(name, _)| name != file) {
            let text = std::str::from_utf8(&self.body[range.clone()]).ok().map(str::trim);
            let text = text.filter(|text| text.len() <= FIELD_BYTES_MAX);
            let text = text.ok_or_else(|| FormError::NotText(name.chars().take(40).collect()))?;
            fields.push((Cow::Owned(name.clone()), Cow::Borrowed(text)));
        }
        Ok(Query::of(fields)?)
    }
}

fn find(bytes: &[u8], from: usize, wanted: &[u8]) -> Option<usize> {
    let mut at = from;
    let (&first, rest) = wanted.split_first()?;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == first)?;
        if bytes.get(at + 1..)?.starts_with(rest) {
            return Some(at);
        }
        at += 1;
    }
}

/// The name in the `Content-Disposition` of a part's header fields.
fn name(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let field = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, parameters) = field.split_once(';')?;
    kind.trim().eq_ignore_ascii_case("form-data").then(|| parameter(parameters, "name")).flatten()
}

/// A parameter of a header field: a token, or a quoted string with backslashes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find([';', ' ', '\t']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
    }
}

/// The text up to the closing quote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As curl 7.88 sends `-F the_file=@x.png -F brightness=.3` (recorded), the picture cut to four bytes.
    const CURL: &[u8] = b"--------------------------d74496d66958873e\r\n\
        Content-Disposition: form-data; name=\"the_file\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\n\
        \x89P\r\n\r\n--------------------------d74496d66958873e\r\n\
        Content-Disposition: form-data; name=\"brightness\"\r\n\r\n.3\r\n\
        --------------------------d74496d66958873e--\r\n";
    const BOUNDARY: &str = "------------------------d74496d66958873e";

    #[test]
    fn a_form_of_curl() {
        let form = Form::parse(CURL, BOUNDARY).expect("well-formed");
        assert_eq!(&CURL[form.file("the_file").expect("there")], b"\x89P\r\n");
        let fields = form.fields("the_file").expect("fields");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("brightness", ".3")]);
        assert_eq!(form.file("other"), Err(FormError::Missing("other")));
        for len in 0..CURL.len() - 4 {
            assert!(Form::parse(&CURL[..len], BOUNDARY).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn boundaries() {
        let of = |text: &str| boundary(text.as_bytes());
        assert_eq!(of("multipart/form-data; boundary=abc"), Ok(Some("abc".to_owned())));
        assert_eq!(of("Multipart/Form-Data; charset=x; boundary=\"a b\\\"c\""), Ok(Some("a b\"c".to_owned())));
        assert_eq!(of("image/png"), Ok(None));
        assert_eq!(of("multipart/form-data"), Err(FormError::Boundary));
        assert_eq!(of("multipart/form-data; boundary=\"\""), Err(FormError::Boundary));
    }

    #[test]
    fn an_empty_part_and_a_preamble() {
        let body = b"hello\r\n--b\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n--b--";
        let form = Form::parse(body, "b").expect("well-formed");
        assert_eq!(form.file("a").expect("there").len(), 0);
        let twice = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\nContent-Disposition: \
            form-data; name=a\r\n\r\n2\r\n--b--";
        let form = Form::parse(twice, "b").expect("well-formed");
        assert_eq!(form.file("a"), Err(FormError::Twice("a")));
        assert!(matches!(form.fields("x"), Err(FormError::Field(QueryError::Duplicate { .. }))));
        assert_eq!(Form::parse(b"--b\r\nX: y\r\n\r\n1\r\n--b--", "b").err(), Some(FormError::Unnamed));
    }
}
