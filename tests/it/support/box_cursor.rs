//! A small MP4 box walker of the tests' own (ISO/IEC 14496-12 section 4.2), so that Weir's reader is not its own judge.

const CONTAINERS: [&[u8; 4]; 9] = [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf"];

#[derive(Debug, Clone, PartialEq)]
pub struct Mp4Box {
    pub kind: [u8; 4],
    /// First byte of the header, from the start of the data.
    pub offset: usize,
    pub header: usize,
    pub size: usize,
}

impl Mp4Box {
    pub fn name(&self) -> String {
        self.kind.iter().map(|&b| char::from(b)).collect()
    }

    pub fn end(&self) -> usize {
        self.offset + self.size
    }

    pub fn payload<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.offset + self.header..self.end()]
    }

    pub fn children(&self, data: &[u8]) -> Vec<Mp4Box> {
        assert!(CONTAINERS.contains(&&self.kind), "{} is no container", self.name());
        walk(data, self.offset + self.header, self.end())
    }
}

/// The boxes of `data`, which must fill it exactly.
pub fn boxes(data: &[u8]) -> Vec<Mp4Box> {
    walk(data, 0, data.len())
}

/// Boxes along a path such as `moov/trak/mdia`, of every branch.
pub fn find(data: &[u8], path: &str) -> Vec<Mp4Box> {
    let mut level: Option<Vec<Mp4Box>> = None;
    for name in path.split('/') {
        let next = match level {
            None => boxes(data),
            Some(parents) => parents.iter().flat_map(|parent| parent.children(data)).collect(),
        };
        level = Some(next.into_iter().filter(|b| b.kind == name.as_bytes()).collect());
    }
    level.unwrap_or_default()
}

fn walk(data: &[u8], start: usize, end: usize) -> Vec<Mp4Box> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        assert!(at + 8 <= end, "{} bytes left at {at}: no box", end - at);
        let kind = data[at + 4..at + 8].try_into().unwrap();
        let (header, size) = match u32_at(data, at) {
            0 => (8, end - at),
            1 => (16, usize::try_from(u64_at(data, at + 8)).unwrap()),
            size => (8, size as usize),
        };
        assert!(size >= header && at + size <= end, "box at {at} has size {size}, its parent ends at {end}");
        found.push(Mp4Box { kind, offset: at, header, size });
        at += size;
    }
    found
}

pub fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

pub fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(data[at..at + 8].try_into().unwrap())
}

/// Offsets of the top-level boxes of one kind in a file, read header by header: the file may be larger than memory.
pub fn top_level(file: &std::path::Path, kind: &[u8; 4]) -> Vec<u64> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(file).unwrap();
    let length = file.metadata().unwrap().len();
    let (mut found, mut at) = (Vec::new(), 0);
    while at + 8 <= length {
        let mut head = [0; 16];
        let count = file.read_at(&mut head, at).unwrap();
        assert!(count >= 8);
        if &head[4..8] == kind {
            found.push(at);
        }
        at += match u32_at(&head, 0) {
            0 => length - at,
            1 => u64_at(&head, 8),
            size => u64::from(size),
        };
    }
    found
}
