//! A profile of spans for `go tool pprof`: calls, busy and wall time and cancelled calls of each path of callers, with
//! the route as a label. Must not know how the format is written (`proto`).

use super::proto::{self, Label};
use super::site::Kind;
use super::snapshot::Profile;

const KINDS: [proto::ValueType; 4] =
    [("calls", "count"), ("busy", "nanoseconds"), ("wall", "nanoseconds"), ("cancelled", "count")];

pub fn render(profile: &Profile) -> Vec<u8> {
    let mut file = proto::Profile::new(&KINDS, "busy");
    let began = profile.ended.checked_sub(profile.window).unwrap_or(profile.ended);
    file.taken(began, profile.window);
    for line in super::text::audit(profile).lines() {
        file.comment(line.trim());
    }
    let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (n, entry) in profile.entries.iter().enumerate() {
        // Tools add up what is below: each time is told where it was spent. What a call waited for that is a span is
        // told there.
        let values = [entry.calls, entry.self_ns, entry.self_ns + entry.waiting_ns, entry.cancelled].map(int);
        if values.iter().all(|value| *value == 0) {
            continue;
        }
        let path = || std::iter::successors(Some(n), |n| profile.entries[*n].parent).map(|n| profile.entries[n].site);
        let stack: Vec<_> = path().map(|site| file.named(site.name, site.file, i64::from(site.line))).collect();
        let route = path().find(|site| site.kind == Kind::Route);
        let labels: Vec<_> = route.map(|site| Label::Text("route", site.name.to_owned())).into_iter().collect();
        file.sample(&stack, &values, &labels);
    }
    file.encode()
}
