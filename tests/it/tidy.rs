//! What the compiler does not hold: who may import whom, where unsafe may stand, sizes, headers, names, and that the
//! paths in the documentation exist. It reads the tree as text and must not know any module of the package.
//!
//! A finding is `file:line: rule`. The rules are data at the top; to change one is to change the architecture.

mod source;

use source::{Source, blank, is_word_char};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, up to its tests.
const FILE_LINES_MAX: usize = 500;
/// Longest function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 120;

/// Names that say nothing about a file's contents.
const BANNED_FILE_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "shared", "util", "utils"];

/// Where `unsafe` may stand.
const UNSAFE_ROOMS: &[&str] = &["src/frame/exported.rs", "src/net/", "src/profile/", "src/store/"];

/// The sources of I/O and time that pure code must not name.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "hyper_util",
    "axum",
    "tracing",
    "memmap2",
    "libc",
    "socket2",
    "notify",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "std::os",
];

/// One row of the import table: files whose path begins with one of `rooms` (and with none of `except`) must not name
/// a path that begins with one of `banned`, unless it begins with one of `allowed`.
struct Row {
    rule: &'static str,
    rooms: &'static [&'static str],
    except: &'static [&'static str],
    banned: &'static [&'static str],
    allowed: &'static [&'static str],
}

const PURE_HTTP: &[&str] =
    &["src/http/range.rs", "src/http/conditional.rs", "src/http/multipart.rs", "src/http/query.rs"];

const IMPORTS: &[Row] = &[
    Row { rule: "media is pure", rooms: &["src/media/"], except: &[], banned: IMPURE, allowed: &[] },
    Row {
        rule: "media knows nothing above it",
        rooms: &["src/media/"],
        except: &[],
        banned: &["crate::", "http", "http_body", "http_body_util"],
        allowed: &["crate::media"],
    },
    Row { rule: "header logic is pure", rooms: PURE_HTTP, except: &[], banned: IMPURE, allowed: &[] },
    Row {
        rule: "header logic knows media and its siblings only",
        rooms: PURE_HTTP,
        except: &[],
        banned: &["crate::"],
        allowed: &["crate::media", "crate::http::range", "crate::http::query"],
    },
    Row {
        rule: "store deals in byte ranges: of media it knows ReadAt only",
        rooms: &["src/store/"],
        except: &[],
        banned: &["axum", "hyper", "http", "http_body", "http_body_util", "crate::"],
        allowed: &["crate::media::ReadAt", "crate::store", "crate::profile", "crate::observe", "crate::lazy"],
    },
    Row {
        rule: "library knows nothing of HTTP",
        rooms: &["src/library/"],
        except: &[],
        banned: &["axum", "hyper", "crate::http", "crate::net", "crate::server", "crate::cli"],
        allowed: &[],
    },
    Row {
        rule: "frame knows media and store, not HTTP",
        rooms: &["src/frame/"],
        except: &[],
        banned: &["axum", "hyper", "http", "std::fs", "std::net", "crate::"],
        allowed: &["crate::frame", "crate::media", "crate::store", "crate::lazy", "crate::profile", "crate::observe"],
    },
    Row {
        rule: "live and ingest know nothing of HTTP",
        rooms: &["src/live/", "src/ingest/", "src/record/"],
        except: &[],
        banned: &["hyper", "http", "http_body", "crate::http", "crate::server", "crate::cli", "crate::config"],
        allowed: &[],
    },
    Row {
        rule: "no timer follows the clock on the wall: it is only shown",
        rooms: &["src/live/", "src/ingest/", "src/net/", "src/record/"],
        // Where it is shown: a publisher's start, a segment's date, a recording's name, and its age at the start of a run.
        except: &["src/live/stream.rs", "src/record/task.rs", "src/record/kept.rs"],
        banned: &["SystemTime::now"],
        allowed: &[],
    },
    Row { rule: "only http knows axum", rooms: &["src/"], except: &["src/http/"], banned: &["axum"], allowed: &[] },
    Row {
        rule: "http reaches files through library and store",
        rooms: &["src/http/"],
        except: &[],
        banned: &["std::fs", "memmap2"],
        allowed: &[],
    },
];

#[test]
fn the_import_table_holds() {
    let mut findings = Findings::default();
    for source in sources("src").iter().filter(|source| !source.is_test) {
        let names = source.paths();
        for row in IMPORTS.iter().filter(|row| row.covers(&source.path)) {
            for (line, name) in names.iter().filter(|(_, name)| row.bans(name)) {
                findings.add(&source.path, *line, format!("{} (names {name})", row.rule));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn unsafe_stands_in_its_rooms_only() {
    let mut findings = Findings::default();
    for source in sources("src") {
        if UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) {
            continue;
        }
        for (line, _) in source.paths().into_iter().filter(|(_, name)| name == "unsafe") {
            findings.add(&source.path, line, format!("unsafe outside {}", UNSAFE_ROOMS.join(", ")));
        }
    }
    findings.assert_none();
}

#[test]
fn every_file_says_what_it_is() {
    let mut findings = Findings::default();
    for source in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        let header = source.raw.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if header.trim_start_matches("//!").trim().len() < 10 || !header.starts_with("//!") {
            findings.add(&source.path, 1, "no //! header that says what the file is".to_owned());
        }
    }
    findings.assert_none();
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Findings::default();
    for source in sources("src").iter().filter(|source| !source.is_test) {
        let lines = source.code.lines().count();
        if lines > FILE_LINES_MAX {
            findings.add(&source.path, lines, format!("{lines} lines before the tests, at most {FILE_LINES_MAX}"));
        }
        for (line, name, lines) in source.functions() {
            if lines > FUNCTION_LINES_MAX {
                let rule = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
                findings.add(&source.path, line, rule);
            }
        }
    }
    findings.assert_none();
}

#[test]
fn lines_are_not_wide() {
    let mut findings = Findings::default();
    for source in sources("src") {
        for (line, text) in source.raw.lines().enumerate() {
            let chars = text.chars().count();
            if chars > LINE_CHARS_MAX {
                findings.add(&source.path, line + 1, format!("{chars} columns, at most {LINE_CHARS_MAX}"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn file_names_say_something() {
    let mut findings = Findings::default();
    for source in rust_files() {
        let mut parts = source.path.trim_end_matches(".rs").split('/');
        if let Some(part) = parts.find(|part| BANNED_FILE_NAMES.contains(part)) {
            findings.add(&source.path, 1, format!("\"{part}\" does not say what is inside"));
        }
    }
    findings.assert_none();
}

/// The words are put together here so that this file does not contain them.
#[test]
fn nothing_is_left_for_later() {
    let in_code = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!"), concat!("#[ig", "nore")];
    let anywhere = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];
    let mut findings = Findings::default();
    for source in rust_files() {
        let blanked = blank(&source.raw);
        for (line, (code, raw)) in blanked.lines().zip(source.raw.lines()).enumerate() {
            let dense: String = code.split_whitespace().collect();
            let left = in_code.iter().find(|word| dense.contains(**word));
            if let Some(word) = left.or_else(|| anywhere.iter().find(|word| contains_word(raw, word))) {
                findings.add(&source.path, line + 1, format!("{word} is not allowed"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn paths_in_the_documentation_exist() {
    let mut findings = Findings::default();
    for page in documentation() {
        let text = fs::read_to_string(root().join(&page)).expect("a page that was just listed");
        for (line, path) in backticked(&text).into_iter().filter(|(_, text)| looks_like_a_path(text)) {
            if !exists(&path) {
                findings.add(&page, line, format!("`{path}` does not exist"));
            }
        }
    }
    findings.assert_none();
}

/// The rules above are only worth something if they can fail.
#[test]
fn the_rules_find_what_they_look_for() {
    let source = |path: &str, text: &str| Source::new(path.to_owned(), text.to_owned());
    let broken = |path: &str, text: &str| {
        let source = source(path, text);
        let names = source.paths();
        let rows = IMPORTS.iter().filter(|row| row.covers(path));
        rows.filter(|row| names.iter().any(|(_, name)| row.bans(name))).count()
    };
    assert_eq!(broken("src/media/a.rs", "use std::{io, fs::File};"), 1);
    assert_eq!(broken("src/media/a.rs", "use std::{\n    io,\n    fs as disk,\n};"), 1);
    assert_eq!(broken("src/media/a.rs", "fn f() { let _ = std::time::Instant::now(); }"), 1);
    assert_eq!(broken("src/media/a.rs", "fn f() { tokio :: spawn(x) }"), 1);
    assert_eq!(broken("src/media/a.rs", "use crate::store::MappedFile;"), 1);
    assert_eq!(broken("src/media/a.rs", "use crate::{media::time, library};"), 1);
    assert_eq!(broken("src/media/a.rs", "//! no tokio, std::fs\nuse std::io; // axum\nconst A: &str = \"axum::\";"), 0);
    assert_eq!(broken("src/media/a.rs", "use crate::media::time;\n#[cfg(test)]\nmod tests { use std::fs; }"), 0);
    assert_eq!(broken("src/media/a.rs", "pub(crate) fn f() {}"), 0);
    assert_eq!(broken("src/store/a.rs", "use crate::media::{ReadAt, index::Index};"), 1);
    assert_eq!(broken("src/store/a.rs", "use crate::media::ReadAt;\nuse super::pool;"), 0);
    assert_eq!(broken("src/library/a.rs", "use axum::Router;"), 2);
    assert_eq!(broken("src/live/a.rs", "fn f(r: axum::Router) {}"), 1);
    assert_eq!(broken("src/http/range.rs", "use tracing::info;"), 1);
    assert_eq!(broken("src/http/video.rs", "use axum::Router;"), 0);

    let long = format!("fn a() {{\n{}}}\nfn b(x: [u8; 2]) -> u8;\n", "    call('{', \"}\", b'}');\n".repeat(69));
    assert_eq!(source("src/a.rs", &long).functions(), [(1, "a".to_owned(), 71)]);

    assert_eq!(blank("a /* b /* c */ d */ e // f\n'\\'' 'x' 'life r#\"\"g\"\"# \"h\\\"i\""), {
        "a                   e     \n         'life                "
    });
    assert_eq!(backticked("a `b/c.rs` d\n```\n`e`\n```\n`src/x`"), [(1, "b/c.rs".to_owned()), (5, "src/x".to_owned())]);
    assert!(looks_like_a_path("src/media/time.rs") && looks_like_a_path("docs/") && looks_like_a_path("Cargo.toml"));
    assert!(!looks_like_a_path("/videos/a") && !looks_like_a_path("30000/1001") && !looks_like_a_path("src/{id}"));
    assert!(exists("src/media/**") && exists("media/time.rs") && !exists("src/none.rs"));
}

impl Row {
    fn covers(&self, path: &str) -> bool {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        begins(self.rooms) && !begins(self.except)
    }

    fn bans(&self, name: &str) -> bool {
        self.banned.iter().any(|banned| begins_or_holds(name, banned))
            && !self.allowed.iter().any(|allowed| begins_or_holds(name, allowed))
    }
}

/// Whether the path `name` begins with `wanted`, segment by segment; a `wanted` such as `Instant::now` may also stand
/// after other segments, and one that ends in `::` needs a segment after it (`pub(crate)` names nothing).
fn begins_or_holds(name: &str, wanted: &str) -> bool {
    let anywhere = wanted.starts_with(char::is_uppercase);
    let open = usize::from(wanted.ends_with("::"));
    let wanted: Vec<_> = wanted.split("::").filter(|segment| !segment.is_empty()).collect();
    let name: Vec<_> = name.split("::").collect();
    if anywhere {
        name.windows(wanted.len()).any(|part| part == wanted)
    } else {
        name.starts_with(&wanted) && name.len() >= wanted.len() + open
    }
}

fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_word_char);
        let after = text[at + word.len()..].chars().next().is_some_and(is_word_char);
        !before && !after
    })
}

/// What stands in backticks outside code blocks, with its line from 1.
fn backticked(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (line, text) in page.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(text.split('`').skip(1).step_by(2).map(|quoted| (line + 1, quoted.to_owned())));
        }
    }
    found
}

/// A path of the repository, from its root or from `src`, as documentation writes it.
fn looks_like_a_path(text: &str) -> bool {
    let text = place(text);
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-*".contains(c));
    let first = text.split('/').next().unwrap_or_default();
    let rooted =
        matches!(first, "src" | "tests" | "benches" | "fuzz" | "docs" | "config" | "docker" | ".ci" | "examples");
    let (in_root, in_src) = (!text.contains('/'), text.contains('/') && text.ends_with(".rs"));
    let root_page = in_root && [".md", ".toml"].iter().any(|end| text.ends_with(end)) && text != "weir.toml";
    plain && ((rooted && text.contains('/')) || in_src || root_page)
}

/// Whether the path exists; `*` stands for anything below.
fn exists(text: &str) -> bool {
    let text = place(text);
    let known = match text.split_once('*') {
        Some((directory, _)) => directory.rsplit_once('/').map_or("", |(parent, _)| parent),
        None => text,
    };
    root().join(known).exists() || root().join("src").join(known).exists()
}

/// Without `:line` or `::item`.
fn place(text: &str) -> &str {
    text.split(':').next().unwrap_or_default()
}

fn documentation() -> Vec<String> {
    let mut pages: Vec<_> = ["ARCHITECTURE.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
        .into_iter()
        .filter(|page| root().join(page).exists())
        .map(str::to_owned)
        .collect();
    pages.extend(files("docs", "md"));
    pages
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files() -> Vec<Source> {
    ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"].into_iter().flat_map(sources).collect()
}

fn sources(directory: &str) -> Vec<Source> {
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Source::new(path, text)
    };
    files(directory, "rs").into_iter().map(read).collect()
}

/// All files below a directory of the package with that extension, sorted; none when there is no such directory.
fn files(directory: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.expect("an entry of a readable directory").path();
            if path.is_dir() {
                // A workspace below keeps what it builds there.
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                let below = path.strip_prefix(root()).expect("below the root");
                found.push(below.to_str().expect("names in the tree are UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, path: &str, line: usize, rule: String) {
        self.0.push(format!("{path}:{line}: {rule}"));
    }

    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} findings\n{}\n", self.0.len(), self.0.join("\n"));
    }
}
