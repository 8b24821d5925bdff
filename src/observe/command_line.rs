//! The command line of the process without its secrets: it is shown to whoever may see a profile.
//!
//! Must not know which settings there are: what is named like a secret is one.

const HIDDEN: &str = "[redacted]";
/// In the name of a flag, a variable or a parameter.
const SECRET_WORDS: [&str; 5] = ["key", "token", "secret", "password", "passwd"];

/// The arguments, the values of secrets replaced.
pub fn without_secrets(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut shown = Vec::new();
    let mut value_follows = false;
    for argument in arguments {
        if std::mem::take(&mut value_follows) {
            shown.push(HIDDEN.to_owned());
            continue;
        }
        let is_flag = argument.starts_with('-');
        match argument.split_once('=') {
            None if is_flag && is_secret(&argument) => {
                value_follows = true;
                shown.push(argument);
            }
            Some((name, _)) if is_name(name) && is_secret(name) => shown.push(format!("{name}={HIDDEN}")),
            _ => shown.push(without_parameters(&argument)),
        }
    }
    shown
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A path to a file that holds a secret is none.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.ends_with("file") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A URL without the secrets in it: `http://user:secret@host/path?key=secret`.
fn without_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let (place, query) = text.split_once('?').map_or((text, None), |(place, query)| (place, Some(query)));
    match place.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (user, host))) if !user.contains('/') => {
            let user = user.split(':').next().unwrap_or_default();
            shown.push_str(&format!("{scheme}://{user}:{HIDDEN}@{host}"));
        }
        _ => shown.push_str(place),
    }
    let parameter = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    if let Some(query) = query {
        shown.push('?');
        shown.push_str(&query.split('&').map(parameter).collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_and_everything_else_is() {
        let shown = |line: &str| without_secrets(line.split(' ').map(str::to_owned)).join(" ");
        let cases = [
            ("weir serve --write-key s3cret --pin true", "weir serve --write-key [redacted] --pin true"),
            ("weir serve --write-key=s3cret", "weir serve --write-key=[redacted]"),
            ("weir --admin-token s3cret --admin-token-file f", "weir --admin-token [redacted] --admin-token-file f"),
            ("env WEIR_WRITE_KEY=s3cret API_KEY=s3cret weir", "env WEIR_WRITE_KEY=[redacted] API_KEY=[redacted] weir"),
            ("publish a.mp4 http://h/live/cam?a=1&key=s3cret", "publish a.mp4 http://h/live/cam?a=1&key=[redacted]"),
            ("publish http://me:s3cret@h/live/cam", "publish http://me:[redacted]@h/live/cam"),
            ("--tcp cam=127.0.0.1:9000 --library /a@b", "--tcp cam=127.0.0.1:9000 --library /a@b"),
        ];
        for (given, expected) in cases {
            assert_eq!(shown(given), expected);
        }
    }
}
