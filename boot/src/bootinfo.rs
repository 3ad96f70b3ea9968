//! The generic boot information for the root task, in words of the root task's width (see [`l4_abi::w64::bootinfo`]).

use l4_abi::w64::bootinfo::{Header, MAGIC, Module as ModuleRecord, Multiboot, RootPointer, SimpleExec, VERSION};

use crate::failure::{Failure, Problem, Subject};
use crate::kip::Width;
use crate::load::{Image, Part};
use crate::ram::Ram;
use crate::request::Busy;
use crate::{Extent, Memory, ROOT, Request, SIGMA0};

const TOO_LONG: Failure = Problem::BootinfoTooLong.of(Subject::Memory);
const NO_ROOM: Failure = Problem::NoRoomFor("boot information").of(Subject::Memory);

/// Words of a structure, counted at the 64-bit width.
const fn words<T>() -> usize {
    size_of::<T>() / 8
}

/// Writes the boot information to one free page of `page` bytes and returns the place: a record for each module from
/// sigma0 on, then one for the copy of the Multiboot information at `mbi`, and one for the root pointer of ACPI.
pub(crate) fn write(
    memory: &mut impl Memory,
    request: &Request,
    ram: &Ram,
    page: u64,
    busy: &Busy,
    mbi: Option<Extent>,
) -> Result<Extent, Failure> {
    let place = ram.lowest_free(page, page, busy).ok_or(NO_ROOM)?;
    let bytes = memory.bytes_mut(place).ok_or(NO_ROOM)?;
    bytes.fill(0);
    let width = Width::of(request.image(ROOT)?.class);
    fill(&mut Writer { bytes, width, at: 0 }, request, mbi).ok_or(TOO_LONG)?;
    Ok(place)
}

fn fill(out: &mut Writer<'_>, request: &Request, mbi: Option<Extent>) -> Option<()> {
    let modules = &request.modules()[SIGMA0..];
    let first = out.size_of::<Header>();
    out.at = first;
    for module in modules {
        let text = request.text(module);
        match &module.image {
            Some(image) => out.executable(image, text)?,
            None => out.module(module.place, text)?,
        }
    }
    if let Some(mbi) = mbi {
        out.record([Multiboot::KIND, VERSION, 0, mbi.start], &[])?;
    }
    let root_pointer = request.root_pointer();
    if let Some(copy) = root_pointer {
        out.root_pointer(copy)?;
    }
    let records = modules.len() + usize::from(mbi.is_some()) + usize::from(root_pointer.is_some());
    let header: [u64; words::<Header>()] = [MAGIC, VERSION, out.at as u64, first as u64, records as u64, 0, 0, 0];
    out.words_at(0, &header)
}

/// Puts records one after the other.
struct Writer<'a> {
    bytes: &'a mut [u8],
    width: Width,
    at: usize,
}

impl Writer<'_> {
    /// Bytes of a structure at this width.
    fn size_of<T>(&self) -> usize {
        words::<T>() * self.width.bytes() as usize
    }

    fn words_at(&mut self, offset: usize, words: &[u64]) -> Option<()> {
        let size = self.width.bytes() as usize;
        words.iter().enumerate().try_for_each(|(i, word)| self.width.put(self.bytes, offset + i * size, *word))
    }

    /// A record with `text` behind it. The third word, which leads to the next record, is filled in here; so is the
    /// last, which leads to the text, if there is one.
    fn record<const N: usize>(&mut self, mut words: [u64; N], text: &[u8]) -> Option<()> {
        let size = self.width.bytes() as usize;
        let (start, text_offset) = (self.at, N * size);
        let mut end = start + text_offset;
        if !text.is_empty() {
            words[N - 1] = text_offset as u64;
            // The NUL is there already: the page was cleared.
            kformats::le::put(self.bytes, end, text)?;
            end = (end + text.len() + 1).next_multiple_of(size);
        }
        words[2] = (end - start) as u64;
        self.words_at(start, &words)?;
        self.at = end;
        (end <= self.bytes.len()).then_some(())
    }

    fn module(&mut self, place: Extent, text: &[u8]) -> Option<()> {
        let words: [u64; words::<ModuleRecord>()] = [ModuleRecord::KIND, VERSION, 0, place.start, place.len(), 0];
        self.record(words, text)
    }

    fn root_pointer(&mut self, copy: &[u8]) -> Option<()> {
        let size = self.width.bytes() as usize;
        let offset = words::<RootPointer>() * size;
        let next = (offset + copy.len()).next_multiple_of(size);
        kformats::le::put(self.bytes, self.at + offset, copy)?;
        self.words_at(self.at, &[RootPointer::KIND, VERSION, next as u64, offset as u64, copy.len() as u64])?;
        self.at += next;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn executable(&mut self, image: &Image, text: &[u8]) -> Option<()> {
        let part = |part: Part| [part.physical, part.virt, part.len];
        let ([t0, t1, t2], [d0, d1, d2], [b0, b1, b2]) = (part(image.text), part(image.data), part(image.bss));
        let (entry, class, label) = (image.entry, image.class as u64, 0);
        let words: [u64; words::<SimpleExec>()] =
            [SimpleExec::KIND, VERSION, 0, t0, t1, t2, d0, d1, d2, b0, b1, b2, entry, class, label, 0];
        self.record(words, text)
    }
}
