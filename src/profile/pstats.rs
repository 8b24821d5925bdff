//! A profile as the file that Python's `pstats.Stats` loads, and snakeviz, gprof2dot and tuna read: a marshalled dict
//! `{(file, line, name): (primitive, calls, tottime, cumtime, callers)}`. PURE.

use super::select::{Clock, Select};
use super::snapshot::Profile;
use super::table::{Function, Sums, Table};

/// The whole profile; restrictions are pstats' own business.
pub fn render(profile: &Profile, select: &Select) -> Vec<u8> {
    let table = Table::new(profile, select.strip_dirs);
    let clock = select.clock.unwrap_or(Clock::Wall);
    let mut file = Marshal::default();
    file.open_dict();
    for row in &table.rows {
        let sums = &row.sums;
        file.function(&row.function);
        file.tuple(5);
        file.int(sums.primitive);
        file.int(sums.calls);
        file.times(sums, clock);
        file.open_dict();
        for (caller, sums) in &row.callers {
            file.function(&table.rows[*caller].function);
            file.tuple(4);
            // The other way round than above: so cProfile writes it.
            file.int(sums.calls);
            file.int(sums.primitive);
            file.times(sums, clock);
        }
        file.close_dict();
    }
    file.close_dict();
    file.0
}

/// Python's marshal format, as far as it is needed; all readers since Python 2.5 know these types.
#[derive(Default)]
struct Marshal(Vec<u8>);

impl Marshal {
    fn open_dict(&mut self) {
        self.0.push(b'{');
    }

    fn close_dict(&mut self) {
        self.0.push(b'0');
    }

    fn tuple(&mut self, length: u32) {
        self.0.push(b'(');
        self.0.extend(length.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'u');
        self.0.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn int(&mut self, number: u64) {
        if let Ok(small) = i32::try_from(number) {
            self.0.push(b'i');
            self.0.extend(small.to_le_bytes());
            return;
        }
        // A long: digits of 15 bits, the lowest first.
        let digits: Vec<u16> = (0..5).map(|n| (number >> (15 * n)) as u16 & 0x7fff).collect();
        let used = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        self.0.push(b'l');
        self.0.extend((used as u32).to_le_bytes());
        digits[..used].iter().for_each(|digit| self.0.extend(digit.to_le_bytes()));
    }

    fn float(&mut self, number: f64) {
        self.0.push(b'g');
        self.0.extend(number.to_le_bytes());
    }

    fn function(&mut self, function: &Function) {
        self.tuple(3);
        self.text(&function.file);
        self.int(u64::from(function.line));
        self.text(&function.name);
    }

    fn times(&mut self, sums: &Sums, clock: Clock) {
        let cumulative = match clock {
            Clock::Busy => sums.busy_ns,
            Clock::Wall => sums.cum_ns,
        };
        self.float(sums.tot_ns as f64 / 1e9);
        self.float(cumulative as f64 / 1e9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `marshal.dumps(n, 2)` of Python 3.11 writes.
    #[test]
    fn numbers_are_as_python_writes_them() {
        let written = |number| {
            let mut file = Marshal::default();
            file.int(number);
            file.0
        };
        assert_eq!(written(7), b"i\x07\0\0\0");
        assert_eq!(written(0x7fff_ffff), b"i\xff\xff\xff\x7f");
        assert_eq!(written(0x8000_0000), b"l\x03\0\0\0\0\0\0\0\x02\0");
        assert_eq!(written(1 << 45), b"l\x04\0\0\0\0\0\0\0\0\0\x01\0");
    }
}
