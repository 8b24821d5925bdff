//! The stages of a request and of a live part: one list of names for spans, `Server-Timing` and metrics
//! (ARCHITECTURE.md tells what happens in each).

/// A stage by its place in [`Stage::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Accept,
    Head,
    Route,
    Lookup,
    Open,
    Resolve,
    Slice,
    Resident,
    Write,
    Receive,
    Parse,
    Append,
    Wake,
    Send,
    Record,
    Index,
    Upload,
    Render,
}

impl Stage {
    /// In the order a request, then a live part, then a file goes through them.
    pub const ALL: [Stage; 18] = [
        Self::Accept,
        Self::Head,
        Self::Route,
        Self::Lookup,
        Self::Open,
        Self::Resolve,
        Self::Slice,
        Self::Resident,
        Self::Write,
        Self::Receive,
        Self::Parse,
        Self::Append,
        Self::Wake,
        Self::Send,
        Self::Record,
        Self::Index,
        Self::Upload,
        Self::Render,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Head => "head",
            Self::Route => "route",
            Self::Lookup => "lookup",
            Self::Open => "open",
            Self::Resolve => "resolve",
            Self::Slice => "slice",
            Self::Resident => "resident",
            Self::Write => "write",
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::Append => "append",
            Self::Wake => "wake",
            Self::Send => "send",
            Self::Record => "record",
            Self::Index => "index",
            Self::Upload => "upload",
            Self::Render => "render",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_the_list_once_at_its_place() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.name());
        }
    }
}
