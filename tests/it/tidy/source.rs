//! A Rust file as text: its code without comments and literals, the paths it names, the lengths of its functions.
//!
//! A reader of tokens, not a parser: enough for the rules of `tidy`, which it must not know.

/// One Rust file.
pub struct Source {
    /// From the root of the package, with `/`.
    pub path: String,
    pub raw: String,
    /// Up to its tests, comments and literals blanked, lines kept.
    pub code: String,
    /// The whole file is a test.
    pub is_test: bool,
}

impl Source {
    pub fn new(path: String, raw: String) -> Self {
        let code = blank(&raw);
        let code = before_tests(&code).to_owned();
        let is_test = path.ends_with("_test.rs") || path.ends_with("/tests.rs") || path.contains("/tests/");
        Self { path, raw, code, is_test }
    }

    /// Every path that the code names, with its line; `use` trees are written out, and a lone word is a path of one.
    pub fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let tokens = tokens(&self.code);
        let mut at = 0;
        while at < tokens.len() {
            let (line, token) = &tokens[at];
            if token == "use" {
                at = use_tree(&tokens, at + 1, "", &mut paths);
            } else if is_word(token) {
                let (path, next) = plain_path(&tokens, at);
                paths.push((*line, path));
                at = next;
            } else {
                at += 1;
            }
        }
        paths
    }

    /// Line, name and length in lines of every function with a body.
    pub fn functions(&self) -> Vec<(usize, String, usize)> {
        let tokens = tokens(&self.code);
        let mut functions = Vec::new();
        for at in 0..tokens.len().saturating_sub(1) {
            if tokens[at].1 != "fn" || !is_word(&tokens[at + 1].1) {
                continue;
            }
            if let Some(end) = body_end(&tokens[at..]) {
                functions.push((tokens[at].0, tokens[at + 1].1.clone(), end - tokens[at].0 + 1));
            }
        }
        functions
    }
}

/// The part before `#[cfg(test)] mod …`.
fn before_tests(code: &str) -> &str {
    for (at, attribute) in code.match_indices("#[cfg(test)]") {
        let mut item = code[at + attribute.len()..].lines().map(str::trim);
        let item = item.find(|line| !line.is_empty() && !line.starts_with("#["));
        if item.is_some_and(|item| item.starts_with("mod ")) {
            return &code[..at];
        }
    }
    code
}

/// The line of the brace that closes the body of the function at the start of `tokens`; `None` without a body.
fn body_end(tokens: &[(usize, String)]) -> Option<usize> {
    let (mut braces, mut others) = (0_i32, 0_i32);
    for (line, token) in tokens {
        match token.as_str() {
            "(" | "[" => others += 1,
            ")" | "]" => others -= 1,
            ";" if braces == 0 && others == 0 => return None,
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if braces == 0 && others == 0 {
                    return Some(*line);
                }
            }
            _ => {}
        }
    }
    None
}

/// Words, `::` and single other characters, each with its line from 1.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (line, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len());
            let len = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((line + 1, rest[..len].to_owned()));
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

pub fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// `a::b::c` that starts at `at`, and the token after it.
fn plain_path(tokens: &[(usize, String)], at: usize) -> (String, usize) {
    let mut path = tokens[at].1.clone();
    let mut at = at + 1;
    while at + 1 < tokens.len() && tokens[at].1 == "::" && is_word(&tokens[at + 1].1) {
        path = format!("{path}::{}", tokens[at + 1].1);
        at += 2;
    }
    (path, at)
}

/// Writes out the use tree that starts at `at`; returns the token after it.
fn use_tree(tokens: &[(usize, String)], mut at: usize, prefix: &str, paths: &mut Vec<(usize, String)>) -> usize {
    let mut path = prefix.to_owned();
    let line = tokens.get(at).map_or(0, |token| token.0);
    while at < tokens.len() {
        match tokens[at].1.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at].1 != "}" {
                    at = use_tree(tokens, at, &path, paths);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.1 == ","));
                }
                return at + 1;
            }
            "as" => at += 2,
            token if is_word(token) || token == "*" => {
                path = if path.is_empty() { token.to_owned() } else { format!("{path}::{token}") };
                at += 1;
            }
            _ => break,
        }
    }
    paths.push((line, path));
    // The end of a branch is left for the caller, the end of the statement is stepped over by it as a lone token.
    at.max(1)
}

/// Replaces comments, strings and character literals by spaces, and keeps every line where it is.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment, string or character literal that starts at `at` ends; `at` when none does.
fn literal_end(chars: &[char], at: usize) -> usize {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let after_word = at > 0 && is_word_char(chars[at - 1]);
    match get(at) {
        '/' if get(at + 1) == '/' => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        '/' if get(at + 1) == '*' => block_comment_end(chars, at),
        '"' => quoted_end(chars, at + 1, '"'),
        'r' | 'b' | 'c' if !after_word => prefixed_end(chars, at),
        // 'x', '\n' and '\u{1}' are literals; 'a without a closing quote is a lifetime.
        '\'' if get(at + 1) == '\\' => quoted_end(chars, at + 1, '\''),
        '\'' if get(at + 2) == '\'' => at + 3,
        _ => at,
    }
}

/// Byte, C and raw literals.
fn prefixed_end(chars: &[char], at: usize) -> usize {
    let get = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut i = at;
    if matches!(get(i), 'b' | 'c') {
        i += 1;
    }
    match get(i) {
        '"' => quoted_end(chars, i + 1, '"'),
        '\'' if i > at => quoted_end(chars, i + 1, '\''),
        'r' => {
            let hashes = (i + 1..chars.len()).take_while(|&j| chars[j] == '#').count();
            let open = i + 1 + hashes;
            if get(open) != '"' {
                return at;
            }
            let closes = |j: usize| chars[j] == '"' && (1..=hashes).all(|k| get(j + k) == '#');
            (open + 1..chars.len()).find(|&j| closes(j)).map_or(chars.len(), |j| j + 1 + hashes)
        }
        _ => at,
    }
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    chars.len().min(at + 1)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => {
                depth += 1;
                at += 2;
            }
            ('*', '/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}
