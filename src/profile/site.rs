//! Where a span stands in the source: one static per call site. Must not know trees, clocks or threads.

use std::ptr;

/// What a site is the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of everything a thread does.
    Root,
    Span,
    /// A request by its matched path.
    Route,
    /// Of exactly one profiled request, kept apart from all others.
    Runcall,
    /// What found no room in the tree.
    Other,
}

/// A call site. Two are the same when they are the same static.
#[derive(Debug)]
pub struct Site {
    pub name: &'static str,
    pub file: &'static str,
    pub line: u32,
    pub kind: Kind,
}

impl Site {
    pub const fn new(name: &'static str, file: &'static str, line: u32, kind: Kind) -> Self {
        Self { name, file, line, kind }
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

pub static ROOT: Site = Site::new("<root>", "~", 0, Kind::Root);
pub static OTHER: Site = Site::new("<other>", "~", 0, Kind::Other);

/// The [`Site`] of this place in the source.
#[macro_export]
macro_rules! site {
    ($name:expr) => {{
        static SITE: $crate::profile::Site =
            $crate::profile::Site::new($name, ::core::file!(), ::core::line!(), $crate::profile::Kind::Span);
        &SITE
    }};
}

/// Counts and times the rest of the block as a span of this name. The guard is not `Send`: a future that holds it
/// across an await cannot be spawned; futures are wrapped with [`profiled`](crate::profile::profiled).
#[macro_export]
macro_rules! span {
    ($name:expr) => {
        $crate::profile::Span::enter($crate::site!($name))
    };
}
