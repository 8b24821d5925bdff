//! What a sample says of the code it fell into: the span that its thread was in, and the request's route.
#![allow(unsafe_code, reason = "spans travel through a signal handler as numbers")]

use super::proto::Label;
use super::site::Kind;
use super::thread::{NodeId, current_node};

/// The span that this thread is in, as a number. Callable from a signal handler and from the allocator.
#[inline]
pub fn here() -> u64 {
    current_node().to_raw() as u64
}

/// The labels of a sample that was taken in this process with this number.
pub fn labels(number: u64) -> Vec<Label> {
    // SAFETY: numbers of samples are what `here` gave.
    let path = unsafe { NodeId::from_raw(number as usize) }.path();
    let span = path.last().map(|site| Label::Text("span", site.name.to_owned()));
    let route = path.iter().rev().find(|site| site.kind == Kind::Route);
    span.into_iter().chain(route.map(|site| Label::Text("route", site.name.to_owned()))).collect()
}
