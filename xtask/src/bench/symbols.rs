//! Names for addresses of the kernel, from the symbols of its image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::elf::{FileHeader64, STT_FUNC, STT_NOTYPE, STT_OBJECT};
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSymbol, SymbolFlags};

/// What the names of the symbols that tell the memory map begin with.
const LAYOUT: &str = "layout_";
/// What the names of those end with that tell the distance of the slots of a table.
const STRIDE: &str = "_stride";

/// The entries of the gates, one for each vector in their order.
const GATES: &str = "gate_entries";
/// Their distance.
const GATE_BYTES: u64 = 16;

/// The symbols of the kernel.
#[derive(Debug, Default)]
pub struct Symbols {
    /// Functions and labels of assembly, by address.
    code: Vec<Symbol>,
    /// Statics, by address.
    data: Vec<Symbol>,
    /// Tables of the memory map, by address.
    tables: Vec<Table>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Symbol {
    address: u64,
    bytes: u64,
    name: String,
}

/// A table of the memory map.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Table {
    address: u64,
    stride: u64,
    name: String,
}

impl Symbols {
    /// The symbols of an image.
    pub fn read(image: &Path) -> Result<Self> {
        let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        let elf = ElfFile::<FileHeader64<LittleEndian>>::parse(bytes.as_slice())
            .with_context(|| format!("{} is not sound", image.display()))?;
        let mut symbols = Self::default();
        let all: Vec<_> = elf.symbols().collect();
        let value = |name: &str| all.iter().find(|own| own.name() == Ok(name)).map(|symbol| symbol.address());
        for symbol in &all {
            let Ok(name) = symbol.name() else { continue };
            let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
            let address = symbol.address();
            if let Some(table) = name.strip_prefix(LAYOUT) {
                if let Some(stride) = value(&format!("{name}{STRIDE}")) {
                    symbols.tables.push(Table { address, stride: stride.max(1), name: table.replace('_', " ") });
                }
                continue;
            }
            // Without a section it is a number.
            let is_placed = symbol.section_index().is_some();
            let list = match st_info.st_type() {
                STT_OBJECT if is_placed => &mut symbols.data,
                STT_FUNC | STT_NOTYPE if is_placed && !name.starts_with("__") && !name.is_empty() => &mut symbols.code,
                _ => continue,
            };
            list.push(Symbol { address, bytes: symbol.size(), name: demangled(name) });
        }
        symbols.code.sort();
        symbols.data.sort();
        symbols.tables.sort();
        Ok(symbols)
    }

    /// Where a table of the memory map begins.
    pub fn table(&self, name: &str) -> Option<u64> {
        self.tables.iter().find(|table| table.name == name).map(|table| table.address)
    }

    /// The address of a function or label.
    pub fn code(&self, name: &str) -> Option<u64> {
        self.code.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// The function that an instruction is in.
    pub fn function(&self, address: u64) -> &str {
        last(&self.code, address, |symbol| symbol.address).map_or("unknown code", |symbol| symbol.name.as_str())
    }

    /// The name of a place where the kernel is entered.
    pub fn entry(&self, address: u64) -> String {
        match last(&self.code, address, |symbol| symbol.address) {
            Some(symbol) if symbol.name == GATES => format!("vector {}", (address - symbol.address) / GATE_BYTES),
            Some(symbol) => symbol.name.clone(),
            None => format!("{address:#x}"),
        }
    }

    /// What a line of data is part of.
    pub fn data(&self, address: u64) -> String {
        let own = last(&self.data, address, |symbol| symbol.address);
        if let Some(symbol) = own.filter(|symbol| address - symbol.address < symbol.bytes) {
            return format!("{} + {:#x}", symbol.name, address - symbol.address);
        }
        // A line can begin with the end of one static and hold the next.
        if let Some(symbol) = self.data.iter().find(|symbol| (address..address + 64).contains(&symbol.address)) {
            return format!("{} - {:#x}", symbol.name, symbol.address - address);
        }
        match last(&self.tables, address, |table| table.address) {
            Some(table) => {
                let offset = address - table.address;
                format!("{} {:#x} + {:#x}", table.name, offset / table.stride, offset % table.stride)
            }
            None => format!("{address:#x}"),
        }
    }
}

/// The last element at or before `address`.
fn last<T>(list: &[T], address: u64, key: impl Fn(&T) -> u64) -> Option<&T> {
    list.partition_point(|element| key(element) <= address).checked_sub(1).map(|index| &list[index])
}

/// The name as the source has it, without generic arguments: instances of the same code are one.
fn demangled(name: &str) -> String {
    let full = format!("{:#}", rustc_demangle::demangle(name));
    let (mut short, mut depth) = (String::new(), 0_u32);
    for letter in full.chars() {
        // What follows a name or a path is a list of arguments; what does not is the type of a method.
        let is_list = short.ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':');
        match letter {
            '<' if depth > 0 || is_list => depth += 1,
            // An arrow closes nothing.
            '>' if depth > 0 => depth -= u32::from(!short.ends_with('-')),
            _ if depth == 0 => {
                let is_behind_list = short.ends_with("::") && matches!(letter, ':' | '>');
                short.truncate(if is_behind_list { short.len() - 2 } else { short.len() });
                short.push(letter);
            }
            _ => {}
        }
    }
    short.trim_end_matches("::").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Symbol, Symbols, Table, demangled};

    #[test]
    fn addresses_have_names() {
        let symbol = |address, bytes, name: &str| Symbol { address, bytes, name: name.to_owned() };
        let table = |address, stride, name: &str| Table { address, stride, name: name.to_owned() };
        let symbols = Symbols {
            code: vec![symbol(0x100, 0x20, "first"), symbol(0x140, 0, "second"), symbol(0x200, 0, "gate_entries")],
            data: vec![symbol(0x1008, 0x100, "STATE")],
            tables: vec![table(0x8000, 0x200, "tcb"), table(0x9000, 0x1000, "area")],
        };
        assert_eq!(
            [0x100, 0x13F, 0x150, 0x10].map(|at| symbols.function(at)),
            ["first", "first", "second", "unknown code"]
        );
        assert_eq!([0x140, 0x2E0, 0x10].map(|at| symbols.entry(at)), ["second", "vector 14", "0x10"]);
        assert_eq!(symbols.data(0x1040), "STATE + 0x38");
        assert_eq!(symbols.data(0x1000), "STATE - 0x8");
        assert_eq!(symbols.data(0x8440), "tcb 0x2 + 0x40");
        assert_eq!(symbols.data(0x9080), "area 0x0 + 0x80");
        assert_eq!(symbols.data(0x2000), "0x2000");
        assert_eq!((symbols.table("area"), symbols.table("none")), (Some(0x9000), None));
    }

    #[test]
    fn names_are_those_of_the_source() {
        let mangled = "_RNvMNtCsewqfwNyAQ3o_5kcore3ipcINtNtB4_6kernel4HereNtNtCsdWlcbR3l4j7_6kernel7machine8HardwareE10send_phaseBQ_";
        assert_eq!(demangled(mangled), "<kcore::kernel::Here>::send_phase");
        assert_eq!(demangled("resume_user"), "resume_user");
        let mangled =
            "_RINvMNtCsewqfwNyAQ3o_5kcore5mapdbNtB3_5MapDb5allocKh1_NtNtCsdWlcbR3l4j7_6kernel7machine8HardwareEBU_";
        assert_eq!(demangled(mangled), "<kcore::mapdb::MapDb>::alloc");
        assert_eq!(
            demangled("_RNvMNtCsewqfwNyAQ3o_6kernel7machineNtB2_8Hardware4back"),
            "<kernel::machine::Hardware>::back"
        );
    }
}
