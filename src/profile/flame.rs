//! A profile as folded stacks, for any flame graph tool, and as a flame graph of its own: one SVG without scripts or
//! anything to be fetched. Must not know how it was asked for.

use super::select::{Clock, Select};
use super::snapshot::{Entry, Profile};
use std::fmt::Write;

/// `connection;/videos/{id}/chunk;resolve 12345`: nanoseconds spent there and in no span below.
pub fn folded(profile: &Profile, select: &Select) -> String {
    let clock = select.clock.unwrap_or(Clock::Busy);
    let mut text = String::new();
    for (n, entry) in profile.entries.iter().enumerate() {
        let ns = own_ns(entry, clock);
        if ns > 0 {
            let path = std::iter::successors(Some(n), |n| profile.entries[*n].parent);
            let mut names: Vec<String> = path.map(|n| profile.entries[n].site.name.replace([';', ' '], "_")).collect();
            names.reverse();
            let _ = writeln!(text, "{} {ns}", names.join(";"));
        }
    }
    text
}

/// Waiting for a span is told there.
fn own_ns(entry: &Entry, clock: Clock) -> u64 {
    match clock {
        Clock::Busy => entry.self_ns,
        Clock::Wall => entry.self_ns + entry.waiting_ns,
    }
}

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 44.0;
/// Pixels of a letter, on average.
const LETTER: f64 = 6.6;
/// Narrower than this, nothing is drawn.
const VISIBLE: f64 = 0.2;

/// Warm colours: hues, and how light each may be.
const HUES: u32 = 40;
const SHADES: u32 = 16;

/// Draws flame graphs.
pub struct Renderer {
    colours: Vec<String>,
}

impl Default for Renderer {
    fn default() -> Self {
        let colour = |n| format!("hsl({},75%,{}%)", 15 + n % HUES, 62 + n / HUES);
        Self { colours: (0..HUES * SHADES).map(colour).collect() }
    }
}

impl Renderer {
    /// The same for the same name.
    fn colour(&self, name: &str) -> &str {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        &self.colours[(hash % HUES + (hash >> 8) % SHADES * HUES) as usize]
    }

    /// The flame graph, callers above what they call.
    pub fn svg(&self, profile: &Profile, select: &Select) -> String {
        svg(self, profile, select)
    }
}

fn svg(renderer: &Renderer, profile: &Profile, select: &Select) -> String {
    let clock = select.clock.unwrap_or(Clock::Busy);
    let graph = Graph::new(renderer, profile, clock);
    let height = HEAD + ROW * (graph.depth as f64 + 1.0) + 8.0;
    let what = match clock {
        Clock::Busy => "busy time",
        Clock::Wall => "busy and waiting time",
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\">{what} of spans: {:.3} s in a window of {:.3} s</text>\n\
         <text x=\"8\" y=\"34\" fill=\"#555\">the wider, the more; callers above what they call; point at one for its \
         figures</text>\n",
        graph.total as f64 / 1e9,
        profile.window.as_secs_f64(),
    );
    graph.draw(&mut text, None, 0.0, 0);
    text + "</svg>\n"
}

struct Graph<'a> {
    renderer: &'a Renderer,
    profile: &'a Profile,
    /// Of each entry: its own time and that of everything below.
    sums: Vec<u64>,
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
    total: u64,
    depth: usize,
}

impl<'a> Graph<'a> {
    fn new(renderer: &'a Renderer, profile: &'a Profile, clock: Clock) -> Self {
        let entries = &profile.entries;
        let mut sums: Vec<u64> = entries.iter().map(|entry| own_ns(entry, clock)).collect();
        let mut children = vec![Vec::new(); entries.len()];
        let (mut roots, mut depths, mut depth) = (Vec::new(), vec![0; entries.len()], 0);
        for (n, entry) in entries.iter().enumerate() {
            match entry.parent {
                Some(parent) => {
                    children[parent].push(n);
                    depths[n] = depths[parent] + 1;
                }
                None => roots.push(n),
            }
            depth = depth.max(depths[n]);
        }
        for (n, entry) in entries.iter().enumerate().rev() {
            if let Some(parent) = entry.parent {
                sums[parent] += sums[n];
            }
        }
        let total = roots.iter().map(|root| sums[*root]).sum();
        Self { renderer, profile, sums, children, roots, total, depth }
    }

    /// What is below an entry, from this x on.
    fn draw(&self, text: &mut String, below: Option<usize>, mut x: f64, level: usize) {
        let mut drawn = below.map_or(&self.roots, |n| &self.children[n]).clone();
        drawn.sort_by_key(|n| std::cmp::Reverse(self.sums[*n]));
        for n in drawn {
            let width = WIDTH * self.sums[n] as f64 / self.total.max(1) as f64;
            if width >= VISIBLE {
                self.frame(text, n, x, width, level);
                self.draw(text, Some(n), x, level + 1);
            }
            x += width;
        }
    }

    fn frame(&self, text: &mut String, n: usize, x: f64, width: f64, level: usize) {
        let entry = &self.profile.entries[n];
        let name = escaped(entry.site.name);
        let share = 100.0 * self.sums[n] as f64 / self.total.max(1) as f64;
        let (y, seconds) = (HEAD + ROW * level as f64, self.sums[n] as f64 / 1e9);
        let _ = write!(
            text,
            "<g><title>{name} ({}:{})\n{seconds:.6} s, {share:.2} %\n{} calls, {} polls, {} cancelled</title>\
             <rect x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\" rx=\"2\" fill=\"{}\"/>",
            escaped(entry.site.file),
            entry.site.line,
            entry.calls,
            entry.polls,
            entry.cancelled,
            (width - 0.5).max(VISIBLE),
            ROW - 1.0,
            self.renderer.colour(entry.site.name),
        );
        let letters = ((width - 6.0) / LETTER) as usize;
        if letters >= 3 {
            let shown: String = entry.site.name.chars().take(letters).collect();
            let _ = write!(text, "<text x=\"{:.2}\" y=\"{}\">{}</text>", x + 3.0, y + 13.0, escaped(&shown));
        }
        text.push_str("</g>\n");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_warm_and_of_the_name() {
        let renderer = Renderer::default();
        for name in ["a", "write", "/videos/{id}/chunk"] {
            assert!(renderer.colour(name).starts_with("hsl("), "{name}");
            assert_eq!(renderer.colour(name), Renderer::default().colour(name));
        }
        assert_eq!((renderer.colours[0].as_str(), renderer.colours.len()), ("hsl(15,75%,62%)", 640));
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escaped("</title><script>\"&"), "&lt;/title&gt;&lt;script&gt;&quot;&amp;");
    }
}
