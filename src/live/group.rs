//! A run of parts that decodes on its own: from a keyframe to the moment that somebody wants to see.
//!
//! Must not know what is done with it.

use super::arrival::Init;
use super::stream::Stream;
use super::window::{Part, Window};
use std::sync::Arc;

/// Parts from a keyframe on.
pub struct Group {
    pub init: Arc<Init>,
    /// At least one, all coded alike.
    pub parts: Vec<Arc<Part>>,
    /// The moment, in microseconds from the first picture; `None` for the newest picture.
    pub moment_us: Option<i64>,
}

impl Stream {
    /// The newest group, or the one that has the picture of `back_us` before the end of the newest; `None` while there
    /// is none. Counted in decode times of the pictures alone: sound may reach further, and a picture is shown later
    /// than it is decoded, but each by as much.
    pub fn group(&self, back_us: Option<i64>) -> Option<Group> {
        let inner = self.lock();
        group(&inner.window, back_us)
    }
}

impl Group {
    /// What the group is made of: the same first and last number are the same bytes.
    pub fn numbers(&self) -> (u64, u64) {
        let number = |part: Option<&Arc<Part>>| part.map_or(0, |part| part.number);
        (number(self.parts.first()), number(self.parts.last()))
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(self.init.bytes().len() as u64, |sum, part| sum.saturating_add(part.len))
    }

    /// Init segment and parts in one buffer, as they would stand in a file.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = self.init.bytes().to_vec();
        for buffer in self.parts.iter().flat_map(|part| &part.rope) {
            out.extend_from_slice(buffer);
        }
        out
    }
}

fn group(window: &Window, back_us: Option<i64>) -> Option<Group> {
    let wanted_us = back_us.map(|back| pictures_end_us(window).saturating_sub(back));
    let first = match wanted_us {
        None => window.newest_keyframe()?,
        Some(wanted) => window.keyframe_at(wanted)?,
    };
    let mut parts = vec![Arc::clone(first)];
    while let Some(next) = window.get(first.number + parts.len() as u64) {
        let last = parts.last().unwrap_or(first);
        // Pictures may be sent in another order than they are shown: the next part completes this one.
        let shown = wanted_us.is_some_and(|wanted| last.leading_start_us() > wanted);
        if shown || !Arc::ptr_eq(&next.init, &first.init) {
            break;
        }
        parts.push(Arc::clone(next));
    }
    let moment_us = wanted_us.map(|wanted| wanted.saturating_sub(first.leading_start_us()).max(0));
    Some(Group { init: Arc::clone(&first.init), parts, moment_us })
}

/// Where the last picture ends.
fn pictures_end_us(window: &Window) -> i64 {
    let mut newest_first = window.parts().rev();
    let leading = newest_first.find_map(|part| part.leading_us).map(|(_, end_us)| end_us);
    leading.or(window.last().map(|last| last.end_us)).unwrap_or(0)
}
