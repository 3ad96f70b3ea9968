//! Spaces and their pages.

use core::fmt::{self, Write};

use kcore::inspect::PageView;
use kcore::machine::{Machine, SpaceRef};

use crate::menu::Done;
use crate::session::Session;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn list_spaces(&mut self) -> Done {
        let k = self.k;
        for space in k.spaces.inhabited() {
            let Some(view) = k.spaces.view(space) else { continue };
            let mut text = arrayvec::ArrayString::<192>::new();
            let _ = write!(text, "{}, {} threads, root table {:x}", self.space(space), view.threads, view.root.0);
            let kind = match view {
                _ if view.is_sigma0 => ", sigma0",
                _ if view.is_privileged => ", privileged",
                _ => "",
            };
            let _ = write!(text, "{kind}");
            if !view.redirector.is_nil() {
                let _ = write!(text, ", redirected to {}", self.id(view.redirector));
            }
            writeln!(self.out, "{text}")?;
            if view.is_initialised {
                let (kip, utcb) = (view.kip_area, view.utcb_area);
                writeln!(self.out, "  KIP {:x}, UTCBs {:x} to {:x}", kip.base(), utcb.base(), utcb.last())?;
            }
            for (thread, _) in k.inhabited().filter(|(_, view)| view.space == Some(space)) {
                self.thread_line(thread, "  ")?;
            }
        }
        Ok(None)
    }

    pub(super) fn page_table(&mut self) -> Done {
        let space = self.ask_space()?;
        let from = self.ask_number("from address", 0)?;
        let k = self.k;
        let mut run: Option<Run> = None;
        let mut result = Ok(());
        let out = &mut self.out;
        let end = k.spaces.pages(space, from, &mut |page| {
            match &mut run {
                Some(run) if run.takes(&page) => run.count += 1,
                _ => {
                    if let Some(run) = run.replace(Run { first: page, count: 1 }) {
                        result = run.print(out);
                    }
                }
            }
            result.is_ok()
        });
        result?;
        if let Some(run) = run {
            run.print(&mut self.out)?;
        }
        if end.loose > 0 {
            writeln!(self.out, "BROKEN: {} entries lead to tables that are none", end.loose)?;
        }
        Ok(None)
    }

    pub(super) fn page_table_places(&mut self) -> Done {
        let address = self.ask_address("address", 0)?;
        const LEVELS: [(&str, u32); 4] = [("PML4", 39), ("PDPT", 30), ("PD", 21), ("PT", 12)];
        for (name, shift) in LEVELS {
            writeln!(
                self.out,
                "  {name:4} entry {:3x}, byte {:3x}",
                address >> shift & 0x1FF,
                (address >> shift & 0x1FF) * 8
            )?;
        }
        writeln!(self.out, "  offset {:3x}", address & 0xFFF)?;
        Ok(None)
    }

    /// Prints a page of a space with its origin.
    pub(crate) fn page_line(&mut self, space: SpaceRef, page: &PageView, before: &str) -> fmt::Result {
        let mut text = arrayvec::ArrayString::<160>::new();
        let _ = write!(
            text,
            "{before}{} at {:x}, {} bytes at {:x}, {}",
            self.space(space),
            page.address,
            Size(page.size_log2),
            page.frame,
            rights(page)
        );
        writeln!(self.out, "{text}")
    }
}

/// Pages that follow each other and are alike.
struct Run {
    first: PageView,
    count: u64,
}

impl Run {
    fn takes(&self, page: &PageView) -> bool {
        let first = &self.first;
        let distance = self.count << first.size_log2;
        page.size_log2 == first.size_log2
            && page.address == first.address.wrapping_add(distance)
            && page.frame == first.frame.wrapping_add(distance)
            && (page.access, page.cache, page.is_kernel_page) == (first.access, first.cache, first.is_kernel_page)
    }

    fn print(&self, out: &mut dyn Write) -> fmt::Result {
        let first = &self.first;
        let last = first.address.wrapping_add(self.count << first.size_log2).wrapping_sub(1);
        writeln!(
            out,
            "{:12x} to {last:12x} -> {:12x}  {:>4} x {:4}  {}{}{}",
            first.address,
            first.frame,
            self.count,
            Size(first.size_log2),
            rights(first),
            if first.cache.index() == 0 { "" } else { ", other memory type" },
            if first.is_kernel_page { ", the kernel's" } else { "" }
        )
    }
}

pub(crate) fn rights(page: &PageView) -> &'static str {
    match (page.access.write, page.access.execute) {
        (false, false) => "r--",
        (false, true) => "r-x",
        (true, false) => "rw-",
        (true, true) => "rwx",
    }
}

/// A size, given by its log2.
pub(crate) struct Size(pub u32);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, unit) = match self.0 {
            0..10 => (0, ""),
            10..20 => (10, "K"),
            20..30 => (20, "M"),
            _ => (30, "G"),
        };
        let mut text = arrayvec::ArrayString::<24>::new();
        write!(text, "{}{unit}", 1u64 << (self.0 - shift).min(63))?;
        f.pad(&text)
    }
}
