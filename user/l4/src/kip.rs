//! The kernel interface page and what it says.

use core::ffi::CStr;
use core::ptr::null_mut;
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use l4_abi::{API_FLAGS, KIP_MAGIC, KIP_SIZE, KernelDescriptor, Kip, MemoryDescriptor, ProcessorDescriptor, ThreadId};

static KIP: AtomicPtr<Kip> = AtomicPtr::new(null_mut());

/// Remembers where the page is.
pub(crate) fn set(page: *const Kip) -> &'static Kip {
    KIP.store(page.cast_mut(), Relaxed);
    let kip = kip();
    assert!(kip.magic == KIP_MAGIC && kip.api_flags == API_FLAGS, "this is no X.2 kernel of our word size");
    kip
}

/// The kernel interface page.
///
/// # Panics
/// Before [`crate::init`].
#[doc(alias = "L4_GetKernelInterface")]
pub fn kip() -> &'static Kip {
    let page = KIP.load(Relaxed);
    // SAFETY: `page` is null or the address that KernelInterface gave, where the kernel has mapped the page for good; all
    // bit patterns are values of its fields.
    unsafe { page.as_ref() }.expect("init comes before any use of the kernel interface page")
}

/// The bytes of the page from an offset on; none if the offset is outside.
fn bytes_from(offset: usize) -> &'static [u8] {
    let page: *const Kip = kip();
    // SAFETY: the whole page is mapped wherever its beginning is, and the kernel only writes to it before users run.
    let page = unsafe { slice::from_raw_parts(page.cast::<u8>(), KIP_SIZE) };
    page.get(offset..).unwrap_or(&[])
}

/// As many of `count` structures at `offset` as are inside the page.
///
/// # Safety
/// All bit patterns are values of `T`.
unsafe fn table<T>(offset: usize, count: usize) -> &'static [T] {
    let bytes = bytes_from(offset);
    let count = count.min(bytes.len() / size_of::<T>());
    let first = bytes.as_ptr().cast::<T>();
    if !first.is_aligned() {
        return &[];
    }
    // SAFETY: aligned, inside the page, and the caller says that any bytes will do.
    unsafe { slice::from_raw_parts(first, count) }
}

/// What the kernel is.
#[doc(alias = "L4_KernelId")]
#[doc(alias = "L4_KernelGenDate")]
#[doc(alias = "L4_KernelVersion")]
#[doc(alias = "L4_KernelSupplier")]
pub fn kernel_descriptor() -> Option<&'static KernelDescriptor> {
    // SAFETY: the descriptor consists of plain words.
    unsafe { table(kip().kernel_desc_ptr as usize, 1) }.first()
}

/// The strings behind the kernel descriptor: the version, then the features.
fn strings() -> impl Iterator<Item = &'static str> {
    let mut rest = bytes_from(kip().kernel_desc_ptr as usize + size_of::<KernelDescriptor>());
    core::iter::from_fn(move || {
        let text = CStr::from_bytes_until_nul(rest).ok()?;
        rest = &rest[text.count_bytes() + 1..];
        text.to_str().ok()
    })
}

/// The kernel's name and version.
#[doc(alias = "L4_KernelVersionString")]
pub fn kernel_version_string() -> &'static str {
    strings().next().unwrap_or("")
}

/// The names of the features that the kernel announces.
#[doc(alias = "L4_Feature")]
pub fn features() -> impl Iterator<Item = &'static str> {
    strings().skip(1).take_while(|feature| !feature.is_empty())
}

/// Whether the kernel announces a feature.
#[doc(alias = "L4_HasFeature")]
pub fn has_feature(name: &str) -> bool {
    features().any(|feature| feature == name)
}

/// The memory descriptors; later ones override earlier ones.
#[doc(alias = "L4_MemoryDesc")]
#[doc(alias = "L4_NumMemoryDescriptors")]
pub fn memory_descriptors() -> &'static [MemoryDescriptor] {
    let info = kip().memory_info;
    // SAFETY: a descriptor consists of plain words.
    unsafe { table(info.ptr() as usize, info.n() as usize) }
}

/// Number of processors.
#[doc(alias = "L4_NumProcessors")]
pub fn num_processors() -> usize {
    kip().processor_info.count() as usize
}

/// What is known of a processor.
#[doc(alias = "L4_ProcDesc")]
pub fn processor_descriptor(processor: usize) -> Option<&'static ProcessorDescriptor> {
    if processor >= num_processors() {
        return None;
    }
    let offset = kip().processor_desc_ptr as usize + (processor << kip().processor_info.descriptor_log2());
    // SAFETY: a descriptor consists of plain words.
    unsafe { table(offset, 1) }.first()
}

/// The id of sigma0.
pub fn sigma0_id() -> ThreadId {
    kip().thread_info.sigma0()
}

/// The id of the root task's first thread.
pub fn root_task_id() -> ThreadId {
    kip().thread_info.root_task()
}
