//! Shows what a timecode costs before anything is looked up: its text, and its number (`benches/index.rs` has the rest).

use divan::{Bencher, black_box};
use weir::media::time::{Counting, Label, Rate};

const COUNTS: [(&str, u32, u32, bool); 3] =
    [("25", 25, 1, false), ("29.97 drop", 30_000, 1001, true), ("59.94 drop", 60_000, 1001, true)];

fn main() {
    divan::main();
}

fn counting(name: &str) -> Counting {
    let &(_, num, den, drop) = COUNTS.iter().find(|count| count.0 == name).expect("a name out of the table");
    Counting { rate: Rate::new(num, den).expect("a rate"), drop }
}

#[divan::bench(args = ["01:09:14:24", "23:59:59;29"])]
fn parse(text: &str) -> Label {
    Label::parse(black_box(text)).expect("a label")
}

#[divan::bench(args = COUNTS.map(|count| count.0))]
fn label_to_number(bencher: Bencher<'_, '_>, name: &str) {
    let counting = counting(name);
    let separator = if counting.drop { ';' } else { ':' };
    let label = Label::parse(&format!("01:09:14{separator}24")).expect("a label");
    bencher.bench_local(|| black_box(counting).number_of(black_box(label)));
}

#[divan::bench(args = COUNTS.map(|count| count.0))]
fn number_to_label(bencher: Bencher<'_, '_>, name: &str) {
    let counting = counting(name);
    bencher.bench_local(|| black_box(counting).label_of(black_box(124_648)));
}
