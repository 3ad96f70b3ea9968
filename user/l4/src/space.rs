//! Spaces and mappings (X.2, SpaceControl, Unmap, MemoryControl, ProcessorControl).

use l4_abi::{Fpage, MR_COUNT, PageAttribute, Rights, SpaceControl, SysError, ThreadId, UnmapControl, Word};

use crate::{arch, thread::last_error, utcb};

/// Sets the areas of a new space, the redirector of any; returns the old control word. Nil fpages leave the areas of an
/// initialised space alone, nilthread the redirector.
///
/// # Errors
/// NoPrivilege, InvalidSpace, UtcbArea, KipArea.
#[doc(alias = "L4_SpaceControl")]
pub fn space_control(
    space: ThreadId,
    control: SpaceControl,
    kip_area: Fpage,
    utcb_area: Fpage,
    redirector: ThreadId,
) -> Result<SpaceControl, SysError> {
    let (result, old_control) = arch::space_control(space, control, kip_area, utcb_area, redirector);
    if result == 0 { Err(last_error()) } else { Ok(old_control) }
}

/// Gives the space of `space`, which has its areas, a quota of kernel memory in KiB, or none; returns the old one. What the
/// space would take beyond it, for page tables, mappings or threads, is refused as if the kernel had no memory. For
/// privileged threads. An extension of X.2 that other kernels ignore: these return no quota.
///
/// # Errors
/// NoPrivilege, InvalidSpace; UtcbArea if the space has no areas.
pub fn set_quota(space: ThreadId, kib: Option<Word>) -> Result<Option<Word>, SysError> {
    let old = control_memory(space, SpaceControl::quota(kib))?;
    Ok(old.quota_kib().flatten())
}

/// How much kernel memory the space of `space`, which has its areas, takes, in KiB, rounded up. For privileged threads. An
/// extension of X.2: `None` on other kernels.
///
/// # Errors
/// NoPrivilege, InvalidSpace; UtcbArea if the space has no areas.
pub fn memory_used(space: ThreadId) -> Result<Option<Word>, SysError> {
    let old = control_memory(space, SpaceControl::USAGE)?;
    Ok(old.asks_for_usage().then_some(old.kib()))
}

fn control_memory(space: ThreadId, control: SpaceControl) -> Result<SpaceControl, SysError> {
    space_control(space, control, Fpage::NIL, Fpage::NIL, ThreadId::NIL)
}

/// Revokes the rights in each fpage from all mappings derived from it; leaves the access status in their rights. At most
/// 64 fpages; the message registers are overwritten.
///
/// # Panics
/// For no fpage, or more than 64.
#[doc(alias = "L4_Unmap")]
#[doc(alias = "L4_UnmapFpages")]
pub fn unmap(fpages: &mut [Fpage]) {
    // SAFETY: own mappings stay as they are.
    unsafe { unmap_by(UnmapControl::unmap(fpages.len()), fpages) }
}

/// Revokes the rights in each fpage from this space's mappings and all derived ones; leaves the access status in their
/// rights. At most 64 fpages; the message registers are overwritten.
///
/// # Panics
/// For no fpage, or more than 64.
///
/// # Safety
/// This program does not use the memory in a way that was revoked.
#[doc(alias = "L4_Flush")]
#[doc(alias = "L4_FlushFpages")]
pub unsafe fn flush(fpages: &mut [Fpage]) {
    // SAFETY: the caller's promise is the same.
    unsafe { unmap_by(UnmapControl::flush(fpages.len()), fpages) }
}

/// # Safety
/// This program does not use the memory in a way that was revoked.
unsafe fn unmap_by(control: UnmapControl, fpages: &mut [Fpage]) {
    load_fpages(fpages);
    // SAFETY: the caller's promise is the same.
    unsafe { arch::unmap(control) };
    for (i, fpage) in fpages.iter_mut().enumerate() {
        *fpage = Fpage::from_raw(utcb().mr(i));
    }
}

fn load_fpages(fpages: &[Fpage]) {
    assert!((1..=MR_COUNT).contains(&fpages.len()), "1 to 64 fpages fit the message registers");
    for (i, fpage) in fpages.iter().enumerate() {
        utcb().set_mr(i, fpage.raw());
    }
}

/// Unmaps one page from all others.
#[doc(alias = "L4_UnmapFpage")]
pub fn unmap_fpage(fpage: Fpage) -> Fpage {
    let mut fpages = [fpage];
    unmap(&mut fpages);
    fpages[0]
}

/// How the derived mappings of an fpage have been accessed since the last time: written, read, executed.
#[doc(alias = "L4_GetStatus")]
#[doc(alias = "L4_WasWritten")]
#[doc(alias = "L4_WasReferenced")]
#[doc(alias = "L4_WaseXecuted")]
pub fn status(fpage: Fpage) -> Rights {
    unmap_fpage(fpage.with_rights(Rights::NONE)).rights()
}

/// Sets the caching attributes of own mappings and of those derived from them. The low two rights bits of each fpage
/// choose its attribute. At most 64 fpages; the message registers are overwritten.
///
/// # Errors
/// NoPrivilege, InvalidParameter.
///
/// # Panics
/// For no fpage, or more than 64.
#[doc(alias = "L4_MemoryControl")]
#[doc(alias = "L4_Set_PageAttributes")]
pub fn memory_control(fpages: &[Fpage], attributes: [PageAttribute; 4]) -> Result<(), SysError> {
    load_fpages(fpages);
    let result = arch::memory_control(fpages.len() as Word - 1, attributes.map(PageAttribute::raw));
    if result == 0 { Err(last_error()) } else { Ok(()) }
}

/// Sets the caching attribute of one page.
///
/// # Errors
/// As [`memory_control`].
#[doc(alias = "L4_Set_PageAttribute")]
pub fn set_page_attribute(fpage: Fpage, attribute: PageAttribute) -> Result<(), SysError> {
    memory_control(&[fpage.with_rights(Rights::NONE)], [attribute; 4])
}

/// Sets frequencies in kHz and voltage in mV of a processor.
///
/// # Errors
/// NoPrivilege, or what a kernel without such control reports.
#[doc(alias = "L4_ProcessorControl")]
pub fn processor_control(
    processor: Word,
    internal_khz: Word,
    external_khz: Word,
    voltage_mv: Word,
) -> Result<(), SysError> {
    let result = arch::processor_control(processor, internal_khz, external_khz, voltage_mv);
    if result == 0 { Err(last_error()) } else { Ok(()) }
}
