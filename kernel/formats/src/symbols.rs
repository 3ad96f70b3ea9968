//! The names of the kernel's functions and tables, small enough to be part of its image.
//!
//! The build tool makes the table from the symbols of the linked image and writes it into a place that the image keeps
//! free. Names stand in the order of their addresses, each as what differs from the one before; every sixteenth one stands
//! whole and is in an index, so that looking up an address takes a search in the index and sixteen steps.
//!
//! Words are little-endian: magic, number of symbols, bytes of the index, bytes of the names; the index, with address and
//! place of every sixteenth symbol, 4 bytes each; the names. A symbol is the distance from the address before, in groups
//! of seven bits, then how many bytes of the name before are kept, how many follow, and those.

use core::fmt;

/// Before the table: whoever finds something else has an image without one.
pub const MAGIC: u32 = 0x3153_4D4B;
const HEADER_BYTES: usize = 16;
const EVERY: usize = 16;
/// Bytes of a name that are kept.
pub const NAME_MAX: usize = 80;

/// There is no room for the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Writes the table of `symbols`, which are sorted by their addresses, to the beginning of `place`; how many bytes it has.
///
/// # Errors
/// [`Full`].
pub fn encode<'a>(symbols: impl Iterator<Item = (u32, &'a str)> + Clone, place: &mut [u8]) -> Result<usize, Full> {
    let count = symbols.clone().count();
    let index_bytes = count.div_ceil(EVERY) * 8;
    let names_at = HEADER_BYTES + index_bytes;
    let mut writer = Writer { place, at: names_at };
    let (mut last_address, mut last_name) = (0, "");
    for (number, (address, name)) in symbols.enumerate() {
        let name = clip(name);
        if number % EVERY == 0 {
            let entry = HEADER_BYTES + number / EVERY * 8;
            let offset = (writer.at - names_at) as u32;
            writer.put(entry, &address.to_le_bytes())?;
            writer.put(entry + 4, &offset.to_le_bytes())?;
            (last_address, last_name) = (address, "");
        }
        let shared = name.bytes().zip(last_name.bytes()).take_while(|(a, b)| a == b).count();
        writer.add_number(address - last_address)?;
        writer.add(&[shared as u8, (name.len() - shared) as u8])?;
        writer.add(&name.as_bytes()[shared..])?;
        (last_address, last_name) = (address, name);
    }
    let end = writer.at;
    let header = [MAGIC, count as u32, index_bytes as u32, (end - names_at) as u32];
    for (index, word) in header.into_iter().enumerate() {
        writer.put(index * 4, &word.to_le_bytes())?;
    }
    Ok(end)
}

fn clip(name: &str) -> &str {
    let end = (0..=name.len().min(NAME_MAX)).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

struct Writer<'p> {
    place: &'p mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Full> {
        self.place.get_mut(at..at + bytes.len()).ok_or(Full)?.copy_from_slice(bytes);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.put(self.at, bytes)?;
        self.at += bytes.len();
        Ok(())
    }

    fn add_number(&mut self, mut number: u32) -> Result<(), Full> {
        while number >= 0x80 {
            self.add(&[number as u8 | 0x80])?;
            number >>= 7;
        }
        self.add(&[number as u8])
    }
}

/// A table of symbols; empty where there is none.
#[derive(Clone, Copy)]
pub struct Symbols<'s> {
    index: &'s [u8],
    names: &'s [u8],
    count: usize,
    /// What addresses are counted from.
    base: u64,
}

/// The name of a symbol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SymbolName {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl SymbolName {
    const EMPTY: Self = Self { bytes: [0; NAME_MAX], len: 0 };

    /// The name.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("?")
    }

    fn change(&mut self, kept: usize, new: &[u8]) -> Option<()> {
        let end = kept.checked_add(new.len()).filter(|&end| kept <= self.len && end <= NAME_MAX)?;
        self.bytes[kept..end].copy_from_slice(new);
        self.len = end;
        Some(())
    }
}

impl fmt::Debug for SymbolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl<'s> Symbols<'s> {
    /// No symbols.
    pub const NONE: Self = Self { index: &[], names: &[], count: 0, base: 0 };

    /// The table at the beginning of `bytes`, whose addresses count from `base`; none if it is not sound.
    pub fn new(bytes: &'s [u8], base: u64) -> Self {
        Self::parse(bytes, base).unwrap_or(Self::NONE)
    }

    fn parse(bytes: &'s [u8], base: u64) -> Option<Self> {
        let word = |index: usize| Some(u32::from_le_bytes(*bytes.get(index * 4..)?.first_chunk()?) as usize);
        if word(0)? != MAGIC as usize {
            return None;
        }
        let (count, index_bytes, names_bytes) = (word(1)?, word(2)?, word(3)?);
        let rest = bytes.get(HEADER_BYTES..)?;
        let index = rest.get(..index_bytes)?;
        let names = rest.get(index_bytes..)?.get(..names_bytes)?;
        (index_bytes == count.div_ceil(EVERY) * 8).then_some(Self { index, names, count, base })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    fn entry(&self, group: usize) -> Option<(u32, usize)> {
        let entry = self.index.get(group * 8..)?;
        let (address, rest) = entry.split_first_chunk()?;
        let offset = rest.first_chunk()?;
        Some((u32::from_le_bytes(*address), u32::from_le_bytes(*offset) as usize))
    }

    /// The symbols from the beginning of a group on, to its end.
    fn group(&self, group: usize) -> Group<'s> {
        let (address, offset) = self.entry(group).unwrap_or((0, usize::MAX));
        let left = self.count.saturating_sub(group * EVERY).min(EVERY);
        Group { names: self.names.get(offset..).unwrap_or(&[]), address, name: SymbolName::EMPTY, left }
    }

    /// The last symbol at or below `address`, and how far behind it that is.
    pub fn find(&self, address: u64) -> Option<(SymbolName, u64)> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        let groups = self.count.div_ceil(EVERY);
        let (mut low, mut high) = (0, groups);
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(middle)?.0 <= offset { low = middle + 1 } else { high = middle }
        }
        let last = self.group(low.checked_sub(1)?).take_while(|&(own, _)| own <= offset).last();
        last.map(|(own, name)| (name, u64::from(offset - own)))
    }

    /// All symbols in the order of their addresses.
    pub fn all(&self) -> impl Iterator<Item = (u64, SymbolName)> {
        let groups = (0..self.count.div_ceil(EVERY)).flat_map(|group| self.group(group));
        groups.map(|(offset, name)| (self.base.wrapping_add(u64::from(offset)), name))
    }
}

struct Group<'s> {
    names: &'s [u8],
    address: u32,
    name: SymbolName,
    left: usize,
}

impl Group<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.names.split_first()?;
        self.names = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = 0;
        for shift in (0..u32::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

impl Iterator for Group<'_> {
    type Item = (u32, SymbolName);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.address = self.address.checked_add(self.number()?)?;
        let (kept, new) = (self.byte()?, self.byte()?);
        let bytes = self.names.get(..new.into())?;
        self.names = &self.names[bytes.len()..];
        self.name.change(kept.into(), bytes)?;
        Some((self.address, self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, NAME_MAX, Symbols, encode};

    const BASE: u64 = 0xFFFF_FFFF_8000_0000;

    fn table(symbols: &[(u32, String)]) -> Vec<u8> {
        let mut place = vec![0; 64 << 10];
        let len = encode(symbols.iter().map(|(at, name)| (*at, name.as_str())), &mut place).expect("there is room");
        place.truncate(len);
        place
    }

    fn many() -> Vec<(u32, String)> {
        (0..1000u32).map(|i| (i * 37 + i % 3, format!("kcore::module{}::function_{i}", i / 50))).collect()
    }

    #[test]
    fn each_symbol_is_found_at_its_address_and_behind() {
        let symbols = many();
        let bytes = table(&symbols);
        let found = Symbols::new(&bytes, BASE);
        assert_eq!(found.count(), symbols.len());
        for (at, name) in &symbols {
            for behind in [0, 5] {
                let (own, offset) = found.find(BASE + u64::from(at + behind)).expect("a symbol is there");
                assert_eq!((own.as_str(), offset), (name.as_str(), u64::from(behind)));
            }
        }
        assert!(found.find(BASE - 1).is_none());
        let all: Vec<_> = found.all().map(|(at, name)| ((at - BASE) as u32, name.as_str().to_owned())).collect();
        assert_eq!(all, symbols);
        assert!(bytes.len() < symbols.len() * 20, "{} bytes", bytes.len());
    }

    #[test]
    fn long_names_are_clipped_where_a_letter_ends() {
        let name = "é".repeat(NAME_MAX);
        let bytes = table(&[(7, name.clone())]);
        let (found, _) = Symbols::new(&bytes, 0).find(7).expect("it is there");
        assert_eq!(found.as_str(), &name[..NAME_MAX]);
    }

    #[test]
    fn nothing_is_found_where_there_is_no_table() {
        for bytes in [&[][..], &[0; 64], &[0xFF; 64]] {
            let symbols = Symbols::new(bytes, BASE);
            assert!(symbols.find(BASE).is_none() && symbols.all().next().is_none());
        }
        let empty = table(&[]);
        assert!(Symbols::new(&empty, 0).find(0).is_none());
        assert_eq!(encode([(1, "a")].into_iter(), &mut [0; 20]), Err(Full));
    }

    /// Whatever a byte of the table is changed to, looking up ends and nothing panics.
    #[test]
    fn damaged_tables_do_no_harm() {
        let bytes = table(&many()[..40]);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let symbols = Symbols::new(&damaged, BASE);
                let _ = symbols.find(BASE + 500);
                let _ = symbols.all().take(10_000).count();
            }
        }
    }
}
