//! The kernel interface page and what it says.

use core::ffi::CStr;
use core::ptr::null_mut;
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use l4_abi::{
    API_FLAGS, KIP_MAGIC, KIP_SIZE, KernelDescriptor, Kip, MemoryDescriptor, MemoryType, ProcessorDescriptor, ThreadId,
    Word,
};

const WORDS: usize = KIP_SIZE / size_of::<Word>();

/// A kernel interface page. What stands there is read and not believed: whatever leads out of the page is not there.
#[repr(C)]
pub struct Page {
    words: [Word; WORDS],
}

const _: () = assert!(size_of::<Page>() == KIP_SIZE && align_of::<Page>() == align_of::<Kip>());

impl Page {
    /// A page with these words, for whoever has one that no kernel mapped.
    pub const fn new(words: [Word; WORDS]) -> Self {
        Self { words }
    }

    /// The fields at fixed places.
    pub const fn kip(&self) -> &Kip {
        const { assert!(size_of::<Kip>() <= KIP_SIZE) };
        let fields: *const Kip = (&raw const self.words).cast();
        // SAFETY: they are inside the page and aligned as it is, and all bit patterns are values of them.
        unsafe { &*fields }
    }

    /// Whether it is of an X.2 kernel of our word size.
    pub fn is_ours(&self) -> bool {
        self.kip().magic == KIP_MAGIC && self.kip().api_flags == API_FLAGS
    }

    /// The bytes of the page from an offset on; none if the offset is outside.
    fn bytes_from(&self, offset: Option<usize>) -> &[u8] {
        let first: *const u8 = (&raw const self.words).cast();
        // SAFETY: they are the words of the page, which initialised bytes make up.
        let bytes = unsafe { slice::from_raw_parts(first, KIP_SIZE) };
        offset.and_then(|offset| bytes.get(offset..)).unwrap_or(&[])
    }

    /// As many of `count` structures at `offset` as are inside the page.
    ///
    /// # Safety
    /// All bit patterns are values of `T`.
    unsafe fn table<T>(&self, offset: Option<usize>, count: usize) -> &[T] {
        let bytes = self.bytes_from(offset);
        let count = count.min(bytes.len() / size_of::<T>());
        let first = bytes.as_ptr().cast::<T>();
        if !first.is_aligned() {
            return &[];
        }
        // SAFETY: aligned, inside the page, and the caller says that any bytes will do.
        unsafe { slice::from_raw_parts(first, count) }
    }

    /// See [`kernel_descriptor`].
    pub fn kernel_descriptor(&self) -> Option<&KernelDescriptor> {
        // SAFETY: the descriptor consists of plain words.
        unsafe { self.table(Some(self.kip().kernel_desc_ptr as usize), 1) }.first()
    }

    /// The strings behind the kernel descriptor: the version, then the features.
    fn strings(&self) -> impl Iterator<Item = &str> {
        let behind = (self.kip().kernel_desc_ptr as usize).checked_add(size_of::<KernelDescriptor>());
        let mut rest = self.bytes_from(behind);
        core::iter::from_fn(move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[text.count_bytes() + 1..];
            text.to_str().ok()
        })
    }

    /// See [`kernel_version_string`].
    pub fn kernel_version_string(&self) -> &str {
        self.strings().next().unwrap_or("")
    }

    /// See [`features`].
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.strings().skip(1).take_while(|feature| !feature.is_empty())
    }

    /// See [`memory_descriptors`].
    pub fn memory_descriptors(&self) -> &[MemoryDescriptor] {
        let info = self.kip().memory_info;
        // SAFETY: a descriptor consists of plain words.
        unsafe { self.table(Some(info.ptr() as usize), info.n() as usize) }
    }

    /// See [`num_processors`].
    pub fn num_processors(&self) -> usize {
        self.kip().processor_info.count() as usize
    }

    /// See [`processor_descriptor`].
    pub fn processor_descriptor(&self, processor: usize) -> Option<&ProcessorDescriptor> {
        if processor >= self.num_processors() {
            return None;
        }
        let distance = processor << self.kip().processor_info.descriptor_log2();
        let offset = (self.kip().processor_desc_ptr as usize).checked_add(distance);
        // SAFETY: a descriptor consists of plain words.
        unsafe { self.table(offset, 1) }.first()
    }
}

static KIP: AtomicPtr<Page> = AtomicPtr::new(null_mut());

/// Remembers where the page is.
pub(crate) fn set(at: *const Kip) -> &'static Kip {
    KIP.store(at.cast_mut().cast(), Relaxed);
    assert!(page().is_ours(), "this is no X.2 kernel of our word size");
    kip()
}

/// The page, as a whole.
fn page() -> &'static Page {
    let page = KIP.load(Relaxed);
    // SAFETY: `page` is null or the address that KernelInterface gave, where the kernel has mapped all of the page for good,
    // to which it writes before users run only; all bit patterns are values of its words.
    unsafe { page.as_ref() }.expect("init comes before any use of the kernel interface page")
}

/// The kernel interface page.
///
/// # Panics
/// Before [`crate::init`].
#[doc(alias = "L4_GetKernelInterface")]
pub fn kip() -> &'static Kip {
    page().kip()
}

/// What the kernel is.
#[doc(alias = "L4_KernelId")]
#[doc(alias = "L4_KernelGenDate")]
#[doc(alias = "L4_KernelVersion")]
#[doc(alias = "L4_KernelSupplier")]
pub fn kernel_descriptor() -> Option<&'static KernelDescriptor> {
    page().kernel_descriptor()
}

/// The kernel's name and version.
#[doc(alias = "L4_KernelVersionString")]
pub fn kernel_version_string() -> &'static str {
    page().kernel_version_string()
}

/// The names of the features that the kernel announces.
#[doc(alias = "L4_Feature")]
pub fn features() -> impl Iterator<Item = &'static str> {
    page().features()
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
    page().memory_descriptors()
}

/// The last address of user memory: where the last descriptor of conventional virtual memory ends; `None` without one.
pub fn last_user_address() -> Option<Word> {
    let is_users = |d: &&MemoryDescriptor| d.is_virtual() && d.kind() == MemoryType::Conventional;
    memory_descriptors().iter().rfind(is_users).map(|users| users.high())
}

/// Number of processors.
#[doc(alias = "L4_NumProcessors")]
pub fn num_processors() -> usize {
    page().num_processors()
}

/// What is known of a processor.
#[doc(alias = "L4_ProcDesc")]
pub fn processor_descriptor(processor: usize) -> Option<&'static ProcessorDescriptor> {
    page().processor_descriptor(processor)
}

/// The id of sigma0.
pub fn sigma0_id() -> ThreadId {
    kip().thread_info.sigma0()
}

/// The id of the root task's first thread.
pub fn root_task_id() -> ThreadId {
    kip().thread_info.root_task()
}
