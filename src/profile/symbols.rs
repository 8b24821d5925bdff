//! Names of addresses, found by a child process that reads the debug information and ends: read in the server it would
//! cost more memory than everything that is profiled (a hundred megabytes that never come back).
//!
//! The child is this program with the hidden command `symbols`. It must not know what a sample is.
#![allow(unsafe_code, reason = "files are mapped, and the loader is asked for functions that it chose")]

use super::maps::{Code, Files, PROGRAM, find};
use super::proto::Line;
use addr2line::Loader;
use memmap2::Mmap;
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The hidden command.
pub const COMMAND: &str = "symbols";
/// The child gives up after this: the tool that waits for a profile does not wait much longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether this program has the hidden command: a test or a benchmark has not, and would begin anew.
static OFFERED: AtomicBool = AtomicBool::new(false);

/// Says that this program answers [`COMMAND`]. Before, addresses stay without names.
pub fn offer() {
    OFFERED.store(true, Relaxed);
}

/// Inlined functions first; empty for what has no name.
pub type Names = HashMap<u64, Vec<Line>>;
/// By file: offsets of code in it.
type Question = Vec<(String, Vec<u64>)>;
type Answer = Vec<Vec<Vec<(String, String, i64)>>>;

/// What names addresses of this process: it knows the files of its code.
pub struct Symboliser(Files);

impl Symboliser {
    pub fn new() -> io::Result<Self> {
        Files::read().map(Self)
    }

    /// All code of the process as it is now, by address.
    pub(super) fn code(&self) -> Vec<Code> {
        self.0.code()
    }

    /// Names of any addresses.
    pub fn names(&self, addresses: impl Iterator<Item = u64>) -> Names {
        names(&self.code(), addresses)
    }
}

/// Names of addresses in this process; none where a child cannot be started. Blocks for as long as it takes.
pub(super) fn names(code: &[Code], addresses: impl Iterator<Item = u64>) -> Names {
    let mut by_file: BTreeMap<&Path, Vec<(u64, u64)>> = BTreeMap::new();
    let mut names = Names::new();
    for address in addresses {
        let Some(code) = find(code, address).map(|at| &code[at]) else { continue };
        let offset = address - code.mapping.start + code.mapping.offset;
        match &code.file {
            Some(file) => by_file.entry(file).or_default().push((address, offset)),
            None => drop(names.insert(address, vec![whole(&code.mapping.file)])),
        }
    }
    let question: Question = by_file
        .iter()
        .map(|(file, places)| (file.to_string_lossy().into_owned(), places.iter().map(|place| place.1).collect()))
        .collect();
    if !OFFERED.load(Relaxed) {
        return names;
    }
    let answer = ask(&question).unwrap_or_else(|error| {
        tracing::warn!(%error, "find the names of addresses");
        Answer::new()
    });
    for (places, lines) in by_file.values().zip(answer) {
        for ((address, _), lines) in places.iter().zip(lines) {
            let line = |(function, file, line)| Line { function, file, line };
            names.insert(*address, lines.into_iter().map(line).collect());
        }
    }
    names
}

/// A stack, its leaf first, as flame graphs take it: names from the outermost on, apart at `;`.
pub(super) fn folded(names: &Names, stack: &[u64]) -> String {
    let name = |line: &Line| line.function.replace(';', ":");
    let mut text = String::new();
    for address in stack.iter().rev() {
        let lines = names.get(address).map_or(&[][..], Vec::as_slice);
        let frames = lines.iter().rev().map(name);
        for frame in frames.chain(lines.is_empty().then(|| format!("{address:#x}"))) {
            if !text.is_empty() {
                text.push(';');
            }
            text.push_str(&frame);
        }
    }
    text
}

fn ask(question: &Question) -> io::Result<Answer> {
    let mut child = Command::new(PROGRAM)
        .arg(COMMAND)
        // What the environment holds is none of its business; some of it is secret.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let asked = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&serde_json::to_vec(question)?));
    // Answers only when it has read everything, so this cannot wait for that.
    let output = child.wait_with_output()?;
    asked?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child: reads a question, writes its answer.
pub fn answer(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        std::process::exit(1);
    });
    let mut question = Vec::new();
    input.read_to_end(&mut question)?;
    let question: Question = serde_json::from_slice(&question)?;
    let answer: Answer = question.iter().map(|(file, offsets)| lines_of(Path::new(file), offsets)).collect();
    output.write_all(&serde_json::to_vec(&answer)?)
}

fn lines_of(file: &Path, offsets: &[u64]) -> Vec<Vec<(String, String, i64)>> {
    let Ok(source) = Source::open(file) else { return vec![Vec::new(); offsets.len()] };
    offsets.iter().map(|&offset| source.lines(offset)).collect()
}

pub(super) fn map(file: &Path) -> io::Result<Mmap> {
    let file = File::open(file)?;
    // SAFETY: programs and libraries are replaced by rename; one that is cut would end the process that runs it, too.
    unsafe { Mmap::map(&file) }
}

/// A file of code.
struct Source {
    name: String,
    /// [offset in the file, its length, address].
    segments: Vec<[u64; 3]>,
    debug: Option<Loader>,
    /// By first address: end and name. Of functions that the file exports, and of those that the loader chose.
    exported: BTreeMap<u64, (u64, String)>,
}

impl Source {
    fn open(file: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mapped = map(file)?;
        let object = object::File::parse(&*mapped)?;
        let segment = |segment: object::Segment| {
            let (offset, length) = segment.file_range();
            [offset, length, segment.address()]
        };
        let mut exported = BTreeMap::new();
        if object.symbol_table().is_none() {
            exported = exports(&object, loaded_at(file));
        }
        Ok(Self {
            name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            segments: object.segments().map(segment).collect(),
            debug: Loader::new(file).ok(),
            exported,
        })
    }

    fn lines(&self, offset: u64) -> Vec<(String, String, i64)> {
        let inside = |[start, length, _]: &&[u64; 3]| (*start..start + length).contains(&offset);
        let Some([start, _, base]) = self.segments.iter().find(inside) else { return Vec::new() };
        let address = offset - start + base;
        let exported = self.exported.range(..=address).next_back().filter(|(_, (end, _))| address < *end);
        let symbol = || self.debug.as_ref().filter(|_| self.exported.is_empty())?.find_symbol(address);
        let symbol = exported.map(|(_, (_, name))| name.as_str()).or_else(symbol).map(demangled);
        let mut lines = self.debug.as_ref().map_or_else(Vec::new, |debug| frames(debug, address));
        // What was not inlined has a symbol, which is the name in full.
        match (lines.last_mut(), symbol) {
            (Some(outermost), Some(name)) => outermost.0 = name,
            (None, Some(name)) => lines.push((name, String::new(), 0)),
            (None, None) => lines.push((format!("[{}]", self.name), String::new(), 0)),
            (Some(_), None) => {}
        }
        lines
    }
}

/// The function at an address and those that were inlined there, the innermost first.
fn frames(debug: &Loader, address: u64) -> Vec<(String, String, i64)> {
    let mut lines = Vec::new();
    let Ok(mut frames) = debug.find_frames(address) else { return lines };
    while let Ok(Some(frame)) = frames.next() {
        let Some(name) = frame.function.as_ref().and_then(|name| name.demangle().ok()) else { continue };
        let place = frame.location;
        let file = place.as_ref().and_then(|place| place.file).unwrap_or_default().to_owned();
        let line = place.and_then(|place| place.line).map_or(0, i64::from);
        lines.push((in_module(&name, &file), file, line));
    }
    lines
}

/// A name in full. Line tables name inlined functions without their module, which the file tells:
/// `poll<Body>` of `…/hyper-1.12.0/src/proto/h1/io.rs` is `hyper::proto::h1::io::poll`.
fn in_module(name: &str, file: &str) -> String {
    let name = plain(name);
    if name.contains("::") || file.is_empty() {
        return name;
    }
    let (root, below) = file.rsplit_once("src/").unwrap_or(("", file));
    let root = root.trim_end_matches('/');
    let package = root.rsplit('/').next().unwrap_or_default();
    let package = match package.rsplit_once('-') {
        Some((package, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => package,
        _ => package,
    };
    let is_own = root.is_empty() || root == env!("CARGO_MANIFEST_DIR");
    let package = if is_own { env!("CARGO_PKG_NAME") } else { package };
    let below = below.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("lib");
    let modules = std::iter::once(package).chain(below.split('/')).filter(|module| !module.is_empty());
    format!("{}::{name}", modules.collect::<Vec<_>>().join("::").replace('-', "_"))
}

/// `<a::B<u8> as c::D>::next` is `a::B::next`: types in angles make names long, and tools that know C++ cut them out.
fn plain(name: &str) -> String {
    let name = without_hash(name);
    let (mut shown, mut rest) = (String::with_capacity(name.len()), name);
    if let Some((of, after)) = name.strip_prefix('<').and_then(|name| Some(name.split_at(closing(name)?))) {
        // The type, without the trait that it is seen as.
        let end = of.match_indices(" as ").map(|(at, _)| at).find(|at| is_even(&of[..*at]));
        shown.push_str(&plain(&of[..end.unwrap_or(of.len())]));
        rest = &after[1..];
    }
    while let Some(at) = rest.find('<') {
        shown.push_str(rest[..at].trim_end_matches("::"));
        let Some(end) = closing(&rest[at + 1..]) else { break };
        rest = &rest[at + 1 + end + 1..];
    }
    shown.push_str(rest);
    shown
}

/// Whether every angle that is opened is closed.
fn is_even(text: &str) -> bool {
    let arrows = text.matches("->").count();
    text.matches('<').count() == text.matches('>').count() - arrows
}

/// Where the angle that was opened before `text` is closed; an arrow closes none.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => open += 1,
            '>' if before != '-' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        before = c;
    }
    None
}

fn demangled(name: &str) -> String {
    plain(&addr2line::demangle_auto(name.into(), None))
}

/// `weir::net::f::h0123456789abcdef`: the old mangling ends in a hash, which says nothing to a reader.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((rest, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => rest,
        _ => name,
    }
}

/// A name for code that has none of its own: the file.
fn whole(file: &str) -> Line {
    Line {
        function: if file.is_empty() { "[anonymous]".to_owned() } else { file.to_owned() },
        file: String::new(),
        line: 0,
    }
}

/// What a library without a symbol table exports. Functions that are chosen for the machine when it is loaded
/// (`memcpy`) have their symbol elsewhere: the loader is asked for them. `base` is where the child has it.
fn exports(object: &object::File, base: Option<u64>) -> BTreeMap<u64, (u64, String)> {
    /// No chosen function is longer.
    const CHOSEN_BYTES_MAX: u64 = 4 << 10;
    let mut exported = BTreeMap::new();
    let mut chosen = Vec::new();
    for symbol in object.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
        let Ok(name) = symbol.name() else { continue };
        match symbol.flags() {
            object::SymbolFlags::Elf { st_info, .. } if st_info.st_type() == object::elf::STT_GNU_IFUNC => {
                chosen.push(name.to_owned());
            }
            _ if symbol.kind() == SymbolKind::Text && symbol.size() > 0 => {
                exported.insert(symbol.address(), (symbol.address() + symbol.size(), name.to_owned()));
            }
            _ => {}
        }
    }
    let Some(base) = base else { return exported };
    // Several names may share one function; the plainest comes first.
    chosen.sort_by_key(|name| (name.len(), name.clone()));
    for name in chosen {
        let Some(address) = loaded_function(&name).and_then(|address| address.checked_sub(base)) else { continue };
        if exported.range(..=address).next_back().is_none_or(|(_, (end, _))| address >= *end) {
            exported.insert(address, (address + CHOSEN_BYTES_MAX, name));
        }
    }
    cut_at_the_next(exported)
}

/// A function ends where the next begins.
fn cut_at_the_next(functions: BTreeMap<u64, (u64, String)>) -> BTreeMap<u64, (u64, String)> {
    let starts: Vec<u64> = functions.keys().copied().skip(1).chain([u64::MAX]).collect();
    functions.into_iter().zip(starts).map(|((at, (end, name)), next)| (at, (end.min(next), name))).collect()
}

/// Where this process has a library.
fn loaded_at(file: &Path) -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(&*file.to_string_lossy()))?;
    u64::from_str_radix(line.split('-').next()?, 16).ok()
}

/// The function that the loader chose for a name.
fn loaded_function(name: &str) -> Option<u64> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a null-terminated name.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inlined_functions_are_named_with_their_module() {
        let cases = [
            ("poll<Body>", "/r/hyper-1.12.0/src/proto/h1/io.rs", "hyper::proto::h1::io::poll"),
            ("map_or<u32, F>", "/rustc/5980/library/core/src/option.rs", "core::option::map_or"),
            ("{closure#0}", "src/net/serve.rs", "weir::net::serve::{closure#0}"),
            ("next", "src/media/mod.rs", "weir::media::next"),
            ("start", "/r/tokio-util-0.7.20/src/lib.rs", "tokio_util::start"),
            ("weir::media::next", "src/media/mod.rs", "weir::media::next"),
            ("memcpy", "", "memcpy"),
        ];
        for (name, file, expected) in cases {
            assert_eq!(in_module(name, file), expected);
        }
    }

    #[test]
    fn the_hash_of_a_symbol_is_no_part_of_its_name() {
        assert_eq!(demangled("_ZN4weir3net5serve17h0123456789abcdefE"), "weir::net::serve");
        assert_eq!(demangled("memcpy"), "memcpy");
    }

    #[test]
    fn types_in_angles_are_left_out() {
        let cases = [
            ("<a::B<u8> as c::D<E>>::next", "a::B::next"),
            ("a::f::<fn(u8) -> u8>::{closure#0}", "a::f::{closure#0}"),
            ("<[u8]>::sort", "[u8]::sort"),
            ("<<a::B as c::D>::E as F>::g", "a::B::E::g"),
            ("a::b", "a::b"),
        ];
        for (name, expected) in cases {
            assert_eq!(plain(name), expected);
        }
    }
}
