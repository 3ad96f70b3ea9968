//! How processors make each other forget translations: the machine's side of [`kcore::cross::shootdown`], where the
//! protocol is.

use kcore::cross::shootdown::{self, Batch, CPUS_MAX, Peers, Stale};
use kcore::machine::CpuId;
use kcore::trace::Event;
use khal::irq::IrqOff;

use crate::area::{self, Area};
use crate::config::MAX_CPUS;
use crate::machine::{HARDWARE, local_apic};
use crate::{KERNEL, config, kdb, layout, trace};

/// The processors that have started; before the core is there, none but the first changes anything.
struct Started;

fn area_of(cpu: usize) -> &'static Area {
    // SAFETY: the processors that the core knows have areas.
    unsafe { area::of(CpuId::new(cpu as u32)) }
}

impl Peers for Started {
    #[inline]
    fn count(&self) -> usize {
        if config::SMP { KERNEL.get().cpus.len() } else { 1 }
    }

    #[inline]
    fn own(&self) -> usize {
        area::cpu().index()
    }

    #[inline]
    fn batch(&self, cpu: usize) -> &Batch {
        &area_of(cpu).batch
    }

    #[inline]
    fn is_loaded(&self, cpu: usize, word: usize) -> bool {
        area_of(cpu).space_word.get() == word
    }

    #[inline]
    fn has_identifier(&self, word: usize) -> bool {
        HARDWARE.get().has_identifier(word)
    }

    #[inline]
    fn interrupt(&self, cpu: usize) {
        if config::DEBUG {
            kdb::note_sent(cpu);
        }
        // SAFETY: interrupts are off in the kernel, and no other token is in use here.
        let irq = unsafe { IrqOff::assume() };
        local_apic().interrupt_non_maskably(area_of(cpu).apic_id.get(), &irq);
        trace::point(Event::SmpIpi, || [cpu as u64]);
    }

    #[inline]
    fn forget(&self, what: Stale) {
        let hardware = HARDWARE.get();
        match what {
            Stale::Page(word, address) => hardware.forget_page_here(word, address),
            Stale::KernelPage(address) => khal::tlb::invalidate_page(address),
            Stale::All => khal::tlb::invalidate_all(),
            Stale::Space(word) => hardware.forget_space_here(word),
            Stale::Caches => khal::cache::flush(),
        }
    }
}

/// The page at `address` in the space with `word` has changed, and is forgotten here already.
pub fn add_page(word: usize, address: usize) {
    shootdown::add_page(&Started, word, address);
}

/// The space with `word` goes away. Complete when this returns.
pub fn forget_space(word: usize) {
    shootdown::forget_space(&Started, word);
}

/// All processors forget the page of the kernel at `address`. Complete when this returns.
pub fn forget_kernel_page(address: usize) {
    shootdown::forget_kernel_page(&Started, address);
}

/// All other processors write their caches back and empty them. Complete when this returns.
pub fn flush_caches() {
    shootdown::flush_caches(&Started);
}

/// All processors forget what was added; returns when they have.
#[inline]
pub fn complete() {
    if !area::here().batch.is_empty() {
        complete_batch();
    }
}

fn complete_batch() {
    shootdown::complete(&Started);
}

/// This processor is about to look up user pages and copy them.
pub fn begin_copy() {
    area::here().batch.begin_copy();
}

/// The copy is done.
pub fn end_copy() {
    area::here().batch.end_copy();
}

/// Answers those who ask this processor, in the handler of the non-maskable interrupt; whether somebody did.
pub fn answer() -> bool {
    shootdown::answer(&Started)
}

const _: () = assert!(MAX_CPUS <= CPUS_MAX && layout::AREA_BYTES.is_power_of_two());
