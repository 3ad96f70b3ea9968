//! The kernel's symbols, written into the place that its image keeps for them (kernel/formats/src/symbols.rs).

use anyhow::{Context, Result, anyhow, bail};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Where the kernel's addresses are counted from.
const BASE: u64 = 0xFFFF_FFFF_8000_0000;
/// Begin and end of the place.
const PLACE: [&str; 2] = ["kernel_symbols", "kernel_symbols_end"];

/// A symbol: how far it is from [`BASE`], and its name as people write it.
pub type Symbol = (u32, String);

/// The functions and tables of a kernel, in the order of their addresses.
pub fn of_kernel(elf: &object::File<'_>) -> Vec<Symbol> {
    let named = elf.symbols().filter(|symbol| {
        matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Label | SymbolKind::Unknown)
    });
    let mut symbols: Vec<Symbol> = named
        .filter_map(|symbol| {
            let offset = u32::try_from(symbol.address().checked_sub(BASE)?).ok()?;
            let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
            (symbol.is_definition() && !name.is_empty() && !name.starts_with(".L") && !name.starts_with("__"))
                .then_some((offset, name))
        })
        .collect();
    symbols.sort();
    // Of several names of a place the first in the alphabet stays.
    symbols.dedup_by_key(|symbol| symbol.0);
    symbols
}

/// Writes the symbols of the kernel in `bytes` into the place that it has for them, if it has one.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let (range, symbols) = {
        let elf = object::File::parse(&*bytes).map_err(|error| anyhow!("not an ELF file: {error}"))?;
        let address =
            |name: &str| elf.symbols().find(|symbol| symbol.name() == Ok(name)).map(|symbol| symbol.address());
        let [Some(begin), Some(end)] = PLACE.map(address) else { return Ok(()) };
        if begin == end {
            return Ok(());
        }
        let section =
            elf.sections().find(|section| (section.address()..section.address() + section.size()).contains(&begin));
        let section = section.context("the place for symbols is in no section")?;
        let (at, _) = section.file_range().context("the place for symbols is not in the file")?;
        let from = usize::try_from(at + begin - section.address())?;
        (from..from + usize::try_from(end - begin)?, of_kernel(&elf))
    };
    let place = bytes.get_mut(range).context("the place for symbols is beyond the file")?;
    let borrowed = symbols.iter().map(|(offset, name)| (*offset, name.as_str()));
    if kformats::symbols::encode(borrowed, place).is_err() {
        bail!(
            "{} symbols do not fit into {} bytes: enlarge the place in kernel/image/src/symbols.rs",
            symbols.len(),
            place.len()
        );
    }
    Ok(())
}
