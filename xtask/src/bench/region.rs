//! What the plugin writes: a JSON object per region.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// A region as the plugin writes it: sums over all operations.
#[derive(Deserialize, Debug)]
pub struct Region {
    region: usize,
    operations: u32,
    kernel: Kernel,
    user: User,
    data: Touched,
    code: Touched,
    processors: usize,
    shared: Vec<(Address, u32, u32)>,
    entries: Vec<Entries>,
    executed: Vec<(Address, u64)>,
}

#[derive(Deserialize, Debug)]
struct Kernel {
    instructions: u64,
    loads: u64,
    stores: u64,
    locked: u64,
    privileged: BTreeMap<String, u64>,
}

#[derive(Deserialize, Debug)]
struct User {
    instructions: u64,
}

#[derive(Deserialize, Debug)]
struct Touched {
    sum: u64,
    most: u64,
    lines: Vec<(Address, u64, u64, u64)>,
}

#[derive(Deserialize, Debug)]
struct Entries {
    at: Address,
    count: u32,
    instructions: u64,
    least: u64,
    most: u64,
    data_lines: u64,
    code_lines: u64,
}

/// An address, written with 0x.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(try_from = "String")]
pub struct Address(pub u64);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").ok_or_else(|| format!("{text} is no address"))?;
        u64::from_str_radix(digits, 16).map(Self).map_err(|error| format!("{text}: {error}"))
    }
}

/// What the kernel does in an operation, on average.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Counts {
    /// Instructions of the kernel.
    pub kernel: f64,
    /// Instructions of user code.
    pub user: f64,
    /// Entries of the kernel.
    pub entries: f64,
    /// Loads of the kernel; so are the others.
    pub loads: f64,
    /// Stores.
    pub stores: f64,
    /// Instructions that lock memory.
    pub locked: f64,
    /// Privileged operations, by name.
    pub privileged: BTreeMap<String, f64>,
    /// Lines of data.
    pub data: Lines,
    /// Lines of code.
    pub code: Lines,
    /// Processors that executed kernel code.
    pub processors: usize,
    /// Lines of data that one processor wrote and another one read or wrote.
    pub shared: Vec<u64>,
    /// The ways through the kernel, by the place where they begin.
    pub ways: Vec<Way>,
    /// How often each instruction of the kernel was executed, by address.
    pub executed: Vec<(u64, f64)>,
}

/// A way through the kernel, from user mode to user mode, on average.
#[derive(Clone, PartialEq, Debug)]
pub struct Way {
    /// Address of its first instruction.
    pub at: u64,
    /// How often an operation takes it.
    pub times: f64,
    /// Its instructions.
    pub instructions: f64,
    /// The fewest instructions.
    pub least: u64,
    /// The most instructions.
    pub most: u64,
    /// Lines of data.
    pub data_lines: f64,
    /// Lines of code.
    pub code_lines: f64,
}

/// Lines of 64 bytes that an operation touches.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lines {
    /// On average.
    pub mean: f64,
    /// At most.
    pub most: u64,
    /// Each line, with the part of the operations that touch it.
    pub lines: Vec<(u64, f64)>,
}

impl Counts {
    /// Privileged operations of all kinds.
    pub fn privileged(&self) -> f64 {
        // The sum of nothing is -0.0.
        self.privileged.values().sum::<f64>() + 0.0
    }
}

/// The regions in the text of the plugin's file, in their order.
pub fn parse(text: &str) -> Result<Vec<Counts>> {
    let regions = text.lines().enumerate().map(|(number, line)| {
        let region: Region = serde_json::from_str(line).with_context(|| format!("region {number}"))?;
        ensure!(region.region == number, "region {} is the {number}th", region.region);
        Ok(region.into())
    });
    regions.collect()
}

impl Entries {
    fn way(&self, operations: f64) -> Way {
        let Self { at, count, instructions, least, most, data_lines, code_lines } = *self;
        let mean = |sum: u64| sum as f64 / f64::from(count.max(1));
        Way {
            at: at.0,
            times: f64::from(count) / operations,
            instructions: mean(instructions),
            least,
            most,
            data_lines: mean(data_lines),
            code_lines: mean(code_lines),
        }
    }
}

impl From<Region> for Counts {
    fn from(region: Region) -> Self {
        let operations = f64::from(region.operations.max(1));
        let per_operation = |count: u64| count as f64 / operations;
        let lines = |touched: Touched| Lines {
            mean: per_operation(touched.sum),
            most: touched.most,
            lines: touched.lines.iter().map(|(line, operations, _, _)| (line.0, per_operation(*operations))).collect(),
        };
        let Kernel { instructions, loads, stores, locked, privileged } = region.kernel;
        Self {
            kernel: per_operation(instructions),
            user: per_operation(region.user.instructions),
            entries: per_operation(region.entries.iter().map(|entries| u64::from(entries.count)).sum()),
            loads: per_operation(loads),
            stores: per_operation(stores),
            locked: per_operation(locked),
            privileged: privileged.into_iter().map(|(name, count)| (name, per_operation(count))).collect(),
            data: lines(region.data),
            code: lines(region.code),
            processors: region.processors,
            shared: region.shared.iter().map(|(line, _, _)| line.0).collect(),
            ways: region.entries.iter().map(|entries| entries.way(operations)).collect(),
            executed: region.executed.iter().map(|(at, count)| (at.0, per_operation(*count))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const LINE: &str = r#"{"region":0,"operations":2,"kernel":{"instructions":12,"loads":4,"stores":3,"locked":1,"privileged":{"mov to cr3":2}},"user":{"instructions":7},"data":{"sum":5,"most":3,"lines":[["0xfffffffff0000000",2,3,3]]},"code":{"sum":4,"most":2,"lines":[["0xffffffff80600000",2,6,0]]},"processors":2,"shared":[["0xfffffffff0000000",2,1]],"entries":[{"at":"0xffffffff80600000","count":4,"instructions":12,"least":2,"most":4,"data_lines":5,"code_lines":4}],"executed":[["0xffffffff80600000",12]]}"#;

    #[test]
    fn sums_become_means_of_an_operation() {
        let counts = parse(LINE).expect("sound JSON").remove(0);
        assert_eq!((counts.kernel, counts.user, counts.loads, counts.stores, counts.locked), (6.0, 3.5, 2.0, 1.5, 0.5));
        assert_eq!((counts.data.mean, counts.data.most, counts.entries, counts.privileged()), (2.5, 3, 2.0, 1.0));
        assert_eq!(counts.data.lines, [(0xFFFF_FFFF_F000_0000, 1.0)]);
        assert_eq!((counts.processors, counts.shared), (2, vec![0xFFFF_FFFF_F000_0000]));
        assert_eq!(counts.executed, [(0xFFFF_FFFF_8060_0000, 6.0)]);
    }

    #[test]
    fn ways_are_means_of_themselves() {
        let way = parse(LINE).expect("sound JSON").remove(0).ways.remove(0);
        assert_eq!((way.times, way.instructions, way.least, way.most), (2.0, 3.0, 2, 4));
        assert_eq!((way.data_lines, way.code_lines), (1.25, 1.0));
    }

    #[test]
    fn a_lost_region_is_noticed() {
        assert!(parse(&LINE.replace(r#""region":0"#, r#""region":1"#)).is_err());
        assert!(parse(&LINE.replace("0xffffffff80600000", "far")).is_err());
    }
}
