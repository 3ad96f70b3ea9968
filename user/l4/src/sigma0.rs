//! Asking sigma0 for memory and ports (sigma0 protocol).

use l4_abi::protocol::Sigma0Request;
use l4_abi::{Acceptor, Fpage, IoFpage, IpcError, ThreadId};

use crate::message::{Msg, accept, accept_untyped};
use crate::{ipc, kip};

/// The feature of kernels that keep I/O ports from spaces to which they were not mapped.
pub const IO_FPAGES: &str = "ioflexpages";

/// Asks for memory or ports and has it mapped into the window; `None` if sigma0 refuses. Nothing is accepted afterwards.
///
/// # Errors
/// Those of the call, above all overflow for a nil window.
///
/// # Safety
/// The window has no memory that this program uses already, except as what it asks for.
pub unsafe fn request(request: Sigma0Request, window: Fpage) -> Result<Option<Fpage>, IpcError> {
    let tag = request.tag();
    Msg::of_words(tag, &request.words()[..tag.untyped()]).load();
    // SAFETY: the caller promises that the window is free.
    unsafe { accept(Acceptor::map_grant(window)) };
    let outcome = ipc::call(kip::sigma0_id());
    accept_untyped();
    let item = Msg::store(outcome?.tag).map_item(0);
    Ok(item.map(|item| item.fpage).filter(|fpage| !fpage.is_nil()))
}

/// Asks for this page, to be mapped at its own address.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// This program uses no other memory there.
#[doc(alias = "L4_Sigma0_GetPage")]
#[doc(alias = "L4_Sigma0_GetPage_RcvWindow")]
pub unsafe fn get_page(page: Fpage) -> Result<Option<Fpage>, IpcError> {
    // SAFETY: the caller's promise is the same.
    unsafe { self::request(Sigma0Request::page(page), page) }
}

/// Asks for any 2^`size_log2` bytes of memory, to be mapped into the window; in the complete address space that is at
/// their physical address.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// This program uses no memory in the window.
#[doc(alias = "L4_Sigma0_GetAny")]
pub unsafe fn get_any(size_log2: u32, window: Fpage) -> Result<Option<Fpage>, IpcError> {
    // SAFETY: the caller's promise is the same.
    unsafe { self::request(Sigma0Request::any(size_log2), window) }
}

/// Asks for these I/O ports, which sigma0 gives to one thread alone; whether this space has them now. A kernel without
/// [`IO_FPAGES`] lets everybody use all ports, and there is nothing to ask for.
///
/// # Errors
/// Those of the call.
pub fn get_ports(ports: IoFpage) -> Result<bool, IpcError> {
    if !kip::has_feature(IO_FPAGES) {
        return Ok(true);
    }
    let request = Sigma0Request::page(ports.fpage());
    let tag = request.tag();
    Msg::of_words(tag, &request.words()[..tag.untyped()]).load();
    // SAFETY: no page fits into a window of ports. A refusal, which has the form of a page, needs some window.
    unsafe { accept(Acceptor::map_grant(ports.fpage())) };
    let outcome = ipc::call(kip::sigma0_id());
    accept_untyped();
    Ok(Msg::store(outcome?.tag).map_item(0).is_some_and(|item| !item.fpage.is_nil()))
}

/// Whether a message can come from sigma0 itself.
pub fn is_sigma0(thread: ThreadId) -> bool {
    thread == kip::sigma0_id()
}
