//! Counting: instructions and accesses in, a JSON object per region out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use crate::instruction::{Instruction, Mark, Side};

/// Size of a line, log2.
const LINE_LOG2: u32 = 6;

/// The name among the privileged operations of an access to a register of a device.
const DEVICE: &str = "device register";

/// Counts on all processors together.
#[derive(Debug, Default)]
pub struct Counter {
    /// Regions that are over.
    finished: u64,
    region: Option<Region>,
    cpus: Vec<Cpu>,
}

/// What a processor is doing.
#[derive(Debug, Default)]
struct Cpu {
    /// Whose code it executed last in this region.
    side: Option<Side>,
    /// It is in the kernel, and was seen to enter it.
    entry: Option<Entry>,
    /// What it does counts, whatever the others do.
    counts_alone: bool,
}

/// What kernel code did.
#[derive(Clone, Debug, Default)]
struct Counts {
    instructions: u64,
    loads: u64,
    stores: u64,
    locked: u64,
    privileged: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.instructions += other.instructions;
        self.loads += other.loads;
        self.stores += other.stores;
        self.locked += other.locked;
        for (name, count) in &other.privileged {
            *self.privileged.entry(name).or_default() += count;
        }
    }

    fn privileged(&mut self, name: &'static str) {
        *self.privileged.entry(name).or_default() += 1;
    }

    fn execute(&mut self, instruction: &Instruction) {
        self.instructions += 1;
        self.locked += u64::from(instruction.is_locked);
        if let Some(name) = instruction.privileged {
            self.privileged(name);
        }
    }

    fn access(&mut self, access: &Access) {
        if access.is_store {
            self.stores += 1;
        } else {
            self.loads += 1;
        }
        if access.is_device {
            self.privileged(DEVICE);
        }
    }

    /// The counts as members of an object.
    fn json(&self) -> String {
        let Self { instructions, loads, stores, locked, privileged } = self;
        let privileged: Vec<String> = privileged.iter().map(|(name, count)| format!(r#""{name}":{count}"#)).collect();
        format!(
            r#""instructions":{instructions},"loads":{loads},"stores":{stores},"locked":{locked},"privileged":{{{}}}"#,
            privileged.join(",")
        )
    }
}

/// The way of one processor through the kernel, from user mode to user mode.
#[derive(Debug)]
struct Entry {
    /// Address of its first instruction.
    at: u64,
    counts: Counts,
    data: HashSet<u64>,
    code: HashSet<u64>,
}

/// All entries at one address.
#[derive(Debug, Default)]
struct Entries {
    count: u64,
    counts: Counts,
    least: u64,
    most: u64,
    data_lines: u64,
    code_lines: u64,
}

impl Entries {
    fn add(&mut self, entry: &Entry) {
        let instructions = entry.counts.instructions;
        self.least = if self.count == 0 { instructions } else { self.least.min(instructions) };
        self.most = self.most.max(instructions);
        self.count += 1;
        self.counts.add(&entry.counts);
        self.data_lines += entry.data.len() as u64;
        self.code_lines += entry.code.len() as u64;
    }
}

/// The use of a line.
#[derive(Debug, Default)]
struct Line {
    /// Operations that touched it.
    operations: u64,
    /// The last one, counted from 1.
    last: u64,
    loads: u64,
    stores: u64,
}

/// Lines, and how many of them an operation touches.
#[derive(Debug, Default)]
struct Lines {
    lines: HashMap<u64, Line>,
    in_operation: u64,
    most: u64,
    sum: u64,
}

impl Lines {
    /// Touches the line at `address` in an operation.
    fn touch(&mut self, address: u64, operation: u64) -> &mut Line {
        let line = self.lines.entry(address).or_default();
        if line.last != operation {
            line.last = operation;
            line.operations += 1;
            self.in_operation += 1;
        }
        line
    }

    fn end_operation(&mut self) {
        self.sum += self.in_operation;
        self.most = self.most.max(self.in_operation);
        self.in_operation = 0;
    }

    fn json(&self) -> String {
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_unstable_by_key(|(address, _)| **address);
        let lines: Vec<String> = lines
            .into_iter()
            .map(|(address, line)| format!(r#"["{address:#x}",{},{},{}]"#, line.operations, line.loads, line.stores))
            .collect();
        format!(r#"{{"sum":{},"most":{},"lines":[{}]}}"#, self.sum, self.most, lines.join(","))
    }
}

/// Processors by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Processors([u64; 4]);

impl Processors {
    fn add(&mut self, cpu: usize) {
        if let Some(word) = self.0.get_mut(cpu / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// Whose processor touches a line.
#[derive(Debug, Default)]
struct Users {
    /// Who reads or writes it.
    all: Processors,
    writers: Processors,
}

impl Users {
    /// Whether a processor writes what another one reads or writes: on a machine the line goes to and fro.
    fn is_shared(&self) -> bool {
        self.writers != Processors::default() && self.all.count() > 1
    }
}

/// An open region.
#[derive(Debug, Default)]
struct Region {
    /// Kernel entries that are an operation; 0: operations are marked.
    entries_per_operation: u8,
    /// In an operation.
    is_counting: bool,
    /// Operations begun.
    operations: u64,
    /// Entries of the present operation.
    entries_in_operation: u8,
    kernel: Counts,
    user_instructions: u64,
    data: Lines,
    code: Lines,
    /// How often each instruction of the kernel was executed, by address.
    executed: HashMap<u64, u64>,
    entries: BTreeMap<u64, Entries>,
    /// Who executed kernel code.
    processors: Processors,
    /// Who touched which line of data.
    users: HashMap<u64, Users>,
}

impl Region {
    fn begin(entries_per_operation: u8) -> Self {
        let mut region = Self { entries_per_operation, ..Self::default() };
        if entries_per_operation > 0 {
            region.begin_operation();
        }
        region
    }

    fn begin_operation(&mut self) {
        self.end_operation();
        self.is_counting = true;
        self.operations += 1;
        self.entries_in_operation = 0;
    }

    /// What some processor does counts from here on, on its own: all that do so are one operation.
    fn begin_alone(&mut self) {
        self.operations = self.operations.max(1);
    }

    fn end(&mut self) {
        self.is_counting |= self.operations > 0;
        self.end_operation();
    }

    fn end_operation(&mut self) {
        if self.is_counting {
            self.data.end_operation();
            self.code.end_operation();
            self.is_counting = false;
        }
    }

    /// The kernel is entered.
    fn enter(&mut self) {
        if self.entries_per_operation == 0 {
            return;
        }
        if self.entries_in_operation == self.entries_per_operation {
            self.begin_operation();
        }
        self.entries_in_operation += 1;
    }

    fn json(&self, number: u64) -> String {
        let entries: Vec<String> = self
            .entries
            .iter()
            .map(|(at, entries)| {
                let Entries { count, counts, least, most, data_lines, code_lines } = entries;
                format!(
                    r#"{{"at":"{at:#x}","count":{count},{},"least":{least},"most":{most},"data_lines":{data_lines},"code_lines":{code_lines}}}"#,
                    counts.json()
                )
            })
            .collect();
        let mut shared: Vec<_> = self.users.iter().filter(|(_, users)| users.is_shared()).collect();
        shared.sort_unstable_by_key(|(address, _)| **address);
        let shared: Vec<String> = shared
            .into_iter()
            .map(|(address, users)| format!(r#"["{address:#x}",{},{}]"#, users.all.count(), users.writers.count()))
            .collect();
        let mut executed: Vec<_> = self.executed.iter().collect();
        executed.sort_unstable();
        let executed: Vec<String> =
            executed.into_iter().map(|(address, count)| format!(r#"["{address:#x}",{count}]"#)).collect();
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            line,
            r#"{{"region":{number},"operations":{},"kernel":{{{}}},"user":{{"instructions":{}}},"data":{},"code":{},"processors":{},"shared":[{}],"entries":[{}],"executed":[{}]}}"#,
            self.operations,
            self.kernel.json(),
            self.user_instructions,
            self.data.json(),
            self.code.json(),
            self.processors.count(),
            shared.join(","),
            entries.join(","),
            executed.join(","),
        );
        line
    }
}

/// An access to memory by an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The first byte.
    pub address: u64,
    /// The number of bytes, at least one.
    pub bytes: u64,
    /// It writes.
    pub is_store: bool,
    /// To a register of a device.
    pub is_device: bool,
}

/// The addresses of the lines of `bytes` bytes from `address` on.
fn lines(address: u64, bytes: u64) -> impl Iterator<Item = u64> {
    let last = address.saturating_add(bytes.saturating_sub(1)) >> LINE_LOG2;
    (address >> LINE_LOG2..=last).map(|line| line << LINE_LOG2)
}

impl Counter {
    /// Whether a region is open: what happens outside of one need not be told, but for marks.
    pub fn is_open(&self) -> bool {
        self.region.is_some()
    }

    /// Processor `cpu` executes an instruction. The JSON object of the region that it ends, if it does.
    pub fn execute(&mut self, cpu: usize, instruction: &Instruction) -> Option<String> {
        if let Some(mark) = instruction.mark {
            return self.obey(cpu, mark);
        }
        let region = self.region.as_mut()?;
        if self.cpus.len() <= cpu {
            self.cpus.resize_with(cpu + 1, Cpu::default);
        }
        let number = cpu;
        let cpu = &mut self.cpus[cpu];
        let counts = region.is_counting || cpu.counts_alone;
        let before = cpu.side.replace(instruction.side);
        match instruction.side {
            Side::User => {
                if let Some(entry) = cpu.entry.take() {
                    region.entries.entry(entry.at).or_default().add(&entry);
                }
                region.user_instructions += u64::from(counts);
            }
            Side::Kernel => {
                if before == Some(Side::User) {
                    region.enter();
                    let (own, data, code) = Default::default();
                    // An entry counts with the operation that it is made in.
                    let is_counted = region.is_counting || cpu.counts_alone;
                    cpu.entry = is_counted.then_some(Entry { at: instruction.address, counts: own, data, code });
                }
                if region.is_counting || cpu.counts_alone {
                    region.processors.add(number);
                    region.kernel.execute(instruction);
                    *region.executed.entry(instruction.address).or_default() += 1;
                    lines(instruction.address, instruction.bytes).for_each(|line| {
                        region.code.touch(line, region.operations).loads += 1;
                    });
                }
                if let Some(entry) = &mut cpu.entry {
                    entry.counts.execute(instruction);
                    entry.code.extend(lines(instruction.address, instruction.bytes));
                }
            }
        }
        None
    }

    /// The kernel instruction that processor `cpu` executed last accesses memory.
    pub fn access(&mut self, cpu: usize, access: &Access) {
        let Some(region) = &mut self.region else { return };
        if region.is_counting || self.cpus.get(cpu).is_some_and(|cpu| cpu.counts_alone) {
            region.kernel.access(access);
            for address in lines(access.address, access.bytes) {
                let users = region.users.entry(address).or_default();
                users.all.add(cpu);
                if access.is_store {
                    users.writers.add(cpu);
                }
                let line = region.data.touch(address, region.operations);
                line.stores += u64::from(access.is_store);
                line.loads += u64::from(!access.is_store);
            }
        }
        if let Some(entry) = self.cpus.get_mut(cpu).and_then(|cpu| cpu.entry.as_mut()) {
            entry.counts.access(access);
            entry.data.extend(lines(access.address, access.bytes));
        }
    }

    fn obey(&mut self, cpu: usize, mark: Mark) -> Option<String> {
        if let Mark::Begin(entries_per_operation) = mark {
            self.region = Some(Region::begin(entries_per_operation));
            self.cpus.clear();
        }
        if self.region.is_some() && self.cpus.len() <= cpu {
            self.cpus.resize_with(cpu + 1, Cpu::default);
        }
        // Marks are instructions of user code, though they do not count.
        if let (Some(region), Some(cpu)) = (&mut self.region, self.cpus.get_mut(cpu)) {
            cpu.side = Some(Side::User);
            match mark {
                Mark::BeginAlone => cpu.counts_alone = true,
                Mark::EndAlone => cpu.counts_alone = false,
                _ => {}
            }
            if let Some(entry) = cpu.entry.take() {
                region.entries.entry(entry.at).or_default().add(&entry);
            }
        }
        match (mark, &mut self.region) {
            (Mark::Operation, Some(region)) => region.begin_operation(),
            (Mark::Rest, Some(region)) => region.end_operation(),
            (Mark::BeginAlone, Some(region)) => region.begin_alone(),
            (Mark::End, Some(region)) => {
                region.end();
                let line = region.json(self.finished);
                self.finished += 1;
                self.region = None;
                return Some(line);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Counter};
    use crate::instruction::Instruction;

    const STUBS: u64 = 0xFFFF_FFFF_FFB0_0000;
    const KERNEL: u64 = 0xFFFF_FFFF_8060_0000;
    const AREA: u64 = 0xFFFF_FFFF_F000_0000;

    /// A guest that executes what it is told.
    #[derive(Default)]
    struct Guest {
        counter: Counter,
        lines: Vec<String>,
    }

    impl Guest {
        fn run(&mut self, cpu: usize, address: u64, bytes: &[u8]) -> &mut Self {
            self.lines.extend(self.counter.execute(cpu, &Instruction::new(address, bytes, STUBS)));
            self
        }

        fn mark(&mut self, kind: u8, number: u8) -> &mut Self {
            self.run(0, 0x1000, &[0x0F, 0x1F, 0x80, number, kind, 0x4B, 0x4D])
        }

        fn user(&mut self) -> &mut Self {
            self.run(0, 0x1000, &[0x90])
        }

        fn kernel(&mut self, offset: u64) -> &mut Self {
            self.run(0, KERNEL + offset, &[0x90])
        }

        fn access(&mut self, address: u64, bytes: u64, is_store: bool) -> &mut Self {
            self.counter.access(0, &Access { address, bytes, is_store, is_device: false });
            self
        }
    }

    #[test]
    fn entries_make_operations() {
        let mut guest = Guest::default();
        guest.user().kernel(0).mark(1, 2);
        for _ in 0..3 {
            guest.user().kernel(0).access(AREA, 8, false).kernel(1).access(AREA + 60, 8, true);
            guest.user().kernel(64).run(0, KERNEL + 65, &[0x0F, 0x22, 0xD8]);
        }
        guest.user().mark(4, 0).user().kernel(0);
        let expected = r#"{"region":0,"operations":3,"kernel":{"instructions":12,"loads":3,"stores":3,"locked":0,"privileged":{"mov to cr3":3}},"user":{"instructions":7},"data":{"sum":6,"most":2,"lines":[["0xfffffffff0000000",3,3,3],["0xfffffffff0000040",3,0,3]]},"code":{"sum":6,"most":2,"lines":[["0xffffffff80600000",3,6,0],["0xffffffff80600040",3,6,0]]},"processors":1,"shared":[],"entries":[{"at":"0xffffffff80600000","count":3,"instructions":6,"loads":3,"stores":3,"locked":0,"privileged":{},"least":2,"most":2,"data_lines":6,"code_lines":3},{"at":"0xffffffff80600040","count":3,"instructions":6,"loads":0,"stores":0,"locked":0,"privileged":{"mov to cr3":3},"least":2,"most":2,"data_lines":0,"code_lines":3}],"executed":[["0xffffffff80600000",3],["0xffffffff80600001",3],["0xffffffff80600040",3],["0xffffffff80600041",3]]}"#;
        assert_eq!(guest.lines, [expected]);
    }

    #[test]
    fn only_marked_operations_count() {
        let mut guest = Guest::default();
        guest.mark(1, 0).user().kernel(0).access(AREA, 8, true).user();
        guest.mark(2, 0).user().kernel(128).user().mark(3, 0);
        guest.user().kernel(0).access(AREA, 8, true).user();
        guest.mark(2, 0).user().mark(2, 0).user().mark(4, 0);
        assert_eq!(guest.lines.len(), 1);
        let line = &guest.lines[0];
        assert!(line.starts_with(r#"{"region":0,"operations":3,"kernel":{"instructions":1,"loads":0,"#), "{line}");
        assert!(line.contains(r#""user":{"instructions":4},"data":{"sum":0,"most":0,"lines":[]}"#), "{line}");
        assert!(line.contains(r#""entries":[{"at":"0xffffffff80600080","count":1,"#), "{line}");
    }

    /// Each processor counts between marks of its own; lines that one writes and another one touches are told.
    #[test]
    fn lines_between_processors_are_seen() {
        let mut guest = Guest::default();
        let access = |guest: &mut Guest, cpu, address, is_store| {
            guest.run(cpu, KERNEL, &[0x90]);
            guest.counter.access(cpu, &Access { address, bytes: 8, is_store, is_device: false });
            guest.run(cpu, 0x1000, &[0x90]);
        };
        let mark = |guest: &mut Guest, cpu, kind| {
            guest.run(cpu, 0x1000, &[0x0F, 0x1F, 0x80, 0, kind, 0x4B, 0x4D]);
        };
        mark(&mut guest, 0, 1);
        access(&mut guest, 0, AREA + 0x400, true);
        for cpu in [1, 70] {
            mark(&mut guest, cpu, 5);
            // Its own, what both read, what one writes and the other reads, what both write.
            access(&mut guest, cpu, AREA + 0x1000 * cpu as u64, true);
            access(&mut guest, cpu, AREA, false);
            access(&mut guest, cpu, AREA + 0x40, cpu == 70);
            access(&mut guest, cpu, AREA + 0x80 + cpu as u64 / 2, true);
            mark(&mut guest, cpu, 6);
            access(&mut guest, cpu, AREA + 0x400, true);
        }
        mark(&mut guest, 0, 4);
        let expected = r#""processors":2,"shared":[["0xfffffffff0000040",2,1],["0xfffffffff0000080",2,2]],"#;
        assert!(guest.lines[0].contains(expected), "{}", guest.lines[0]);
        assert!(guest.lines[0].contains(r#""operations":1,"kernel":{"instructions":8,"loads":3,"stores":5,"#));
    }

    #[test]
    fn each_region_starts_from_nothing() {
        let mut guest = Guest::default();
        for _ in 0..2 {
            guest.mark(1, 1).user().kernel(0).user().mark(4, 0);
        }
        assert_eq!(guest.lines[1], guest.lines[0].replace(r#""region":0"#, r#""region":1"#));
        assert!(!guest.counter.is_open());
    }

    #[test]
    fn another_processor_has_entries_of_its_own() {
        let mut guest = Guest::default();
        guest.mark(1, 0).mark(2, 0).user().kernel(0);
        // The other one is in the kernel when the region begins: that is no entry.
        guest.run(1, KERNEL + 64, &[0x90]).run(1, 0x2000, &[0x90]).run(1, KERNEL + 128, &[0x90]).kernel(1);
        guest.user().run(1, 0x2000, &[0x90]).mark(4, 0);
        let line = &guest.lines[0];
        assert!(line.contains(r#""kernel":{"instructions":4,"#), "{line}");
        assert!(line.contains(r#"[{"at":"0xffffffff80600000","count":1,"instructions":2,"#), "{line}");
        assert!(line.contains(r#"{"at":"0xffffffff80600080","count":1,"instructions":1,"#), "{line}");
        assert_eq!(line.matches(r#""at":"#).count(), 2);
    }
}
