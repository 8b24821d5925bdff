//! Which files the process's code was loaded from, and where: `/proc/self/maps`, as profiles name it.

use super::proto::Mapping;
use object::Object;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The program itself, under a name that still leads to it when its file was replaced.
pub const PROGRAM: &str = "/proc/self/exe";

/// A run of code in memory.
#[derive(Clone, Debug)]
pub struct Code {
    pub mapping: Mapping,
    /// Where its file can be opened by this process and its children; none for the kernel's own code.
    pub file: Option<PathBuf>,
}

/// The files that the process's code was loaded from, looked into once.
pub struct Files {
    build_ids: HashMap<PathBuf, String>,
}

impl Files {
    pub fn read() -> io::Result<Self> {
        let files = read()?.into_iter().filter_map(|code| code.file);
        let build_ids = files.map(|file| (build_id(&file).unwrap_or_default(), file));
        Ok(Self { build_ids: build_ids.map(|(id, file)| (file, id)).collect() })
    }

    /// All code of the process as it is now, by address.
    pub fn code(&self) -> Vec<Code> {
        let mut code = read().unwrap_or_default();
        for code in &mut code {
            let Some(file) = &code.file else { continue };
            let known = self.build_ids.get(file).cloned();
            // It may have been loaded since.
            code.mapping.build_id = known.or_else(|| build_id(file)).unwrap_or_default();
        }
        code
    }
}

fn read() -> io::Result<Vec<Code>> {
    let program = fs::read_link(PROGRAM).ok();
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().filter_map(|line| parse(line, program.as_deref())).collect())
}

/// The run in which an address lies; they are sorted.
pub fn find(code: &[Code], address: u64) -> Option<usize> {
    let after = code.partition_point(|code| code.mapping.start <= address);
    after.checked_sub(1).filter(|&at| address < code[at].mapping.limit)
}

/// `55d0-55e0 r-xp 00002000 08:01 1234   /usr/bin/weir`: None for what is not code.
fn parse(line: &str, program: Option<&Path>) -> Option<Code> {
    let mut fields = line.split_ascii_whitespace();
    let (range, flags, offset) = (fields.next()?, fields.next()?, fields.next()?);
    if !flags.contains('x') {
        return None;
    }
    let (start, limit) = range.split_once('-')?;
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
    let file = match name {
        "" => None,
        name if name.starts_with('[') => None,
        name if Some(Path::new(name)) == program => Some(PathBuf::from(PROGRAM)),
        name => Some(PathBuf::from(name)),
    };
    let shown = name.strip_suffix(" (deleted)").unwrap_or(name).to_owned();
    let mapping =
        Mapping { start: hex(start)?, limit: hex(limit)?, offset: hex(offset)?, file: shown, ..Mapping::default() };
    Some(Code { mapping, file })
}

fn build_id(file: &Path) -> Option<String> {
    let file = super::symbols::map(file).ok()?;
    let object = object::File::parse(&*file).ok()?;
    let id = object.build_id().ok()??;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel() {
        let line = "7f00-7f80 r-xp 00026000 fe:00 1049   /usr/lib/a b.so (deleted)";
        let code = parse(line, None).expect("code");
        assert_eq!((code.mapping.start, code.mapping.limit, code.mapping.offset), (0x7f00, 0x7f80, 0x26000));
        assert_eq!(code.mapping.file, "/usr/lib/a b.so");
        assert!(parse(&line.replace("r-xp", "r--p"), None).is_none());
    }

    #[test]
    fn this_function_is_in_the_program() {
        let code = Files::read().expect("/proc").code();
        let here = find(&code, this_function_is_in_the_program as fn() as usize as u64).expect("in a mapping");
        assert_eq!(code[here].file.as_deref(), Some(Path::new(PROGRAM)));
    }
}
