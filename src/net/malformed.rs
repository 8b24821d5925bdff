//! Bodies for the answers that hyper gives by itself, to a head that it cannot read: it sends 400, 414 and 431 with an
//! empty body, and no service ever sees the request.

use std::io::IoSlice;

/// hyper's own answers are one short head.
const HEAD_BYTES_MAX: usize = 256;
const NO_BODY: &str = "content-length: 0\r\n";

/// What to send in place of what hyper is about to write, if that is such an answer. None of Weir's own errors has an
/// empty body. The slices are read: none of them may be a slice of a mapped file, which could be SIGBUS.
pub(super) fn with_problem(slices: &[IoSlice<'_>]) -> Option<Vec<u8>> {
    let head = slices.first()?;
    if slices.len() > 1 || head.len() > HEAD_BYTES_MAX || !head.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let text = std::str::from_utf8(head).ok().filter(|text| text.ends_with("\r\n\r\n"))?;
    let (before, after) = text.split_once(NO_BODY)?;
    let (status, title, detail) = match text.get(9..12)? {
        "400" => (
            400,
            "Bad Request",
            "this is not the head of an HTTP/1.1 request: look at the request line, at the names \
                of fields, and for one Content-Length or Transfer-Encoding: chunked",
        ),
        "414" => (414, "URI Too Long", "the target of a request has at most 65534 bytes"),
        "431" => (431, "Request Header Fields Too Large", "a request has at most 100 header fields"),
        _ => return None,
    };
    let body =
        format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\"}}\n");
    let fields = format!("content-type: application/problem+json\r\ncontent-length: {}\r\n", body.len());
    Some([before, &fields, after, &body].concat().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Option<String> {
        with_problem(&[IoSlice::new(text.as_bytes())]).map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn an_empty_refusal_gets_a_problem() {
        let text =
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let answer = answered(text).expect("replaced");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with("date: x") && head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("connection: close\r\n") && !head.contains("content-length: 0"), "{head}");
        assert!(body.contains("\"status\":431"), "{body}");
    }

    #[test]
    fn nothing_else_is_touched() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 90\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
            "",
        ] {
            assert_eq!(answered(text), None, "{text}");
        }
    }
}
