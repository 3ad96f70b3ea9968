//! Faults at I/O ports: a general-protection fault of an instruction that uses ports which are closed to its space.

use kcore::machine::TcbRef;
use kcore::trace::Event;
use kformats::code::port_access::{LEN_MAX, MemoryAt, PortAccess, PortNumber};

use super::Core;
use crate::frame::{Frame, frame};
use crate::{layout, port_map, trace};

/// Settles the general-protection fault of `thread`, the running one, if its instruction needs a port: the thread's pager
/// is asked. `false`: it is an exception like others, also if the instruction cannot be read any more.
pub fn settle(here: &mut Core<'_>, thread: TcbRef) -> bool {
    let (frame, tcb) = (frame(thread), here.k.tcb(thread));
    if !here.k.spaces.has_io_fpages() || frame.error_code.get() != 0 {
        return false;
    }
    let ip = tcb.ip.get();
    let mut bytes = [0; LEN_MAX];
    let count = here.read_user(tcb.space(), ip, &mut bytes);
    let Some(access) = PortAccess::decode(&bytes[..count]) else { return false };
    let port = match access.port {
        PortNumber::Immediate(port) => u16::from(port),
        PortNumber::Dx => frame.rdx.get() as u16,
    };
    let size = 1 << access.size_log2;
    trace::point(Event::X86IoPortSpace, || [port.into(), access.size_log2.into(), ip as u64]);
    if here.io_fault(thread, port, access.size_log2, ip) {
        return true;
    }
    // All ports are open that there are.
    if usize::from(port) + size > 1 << 16 || access.memory.is_some_and(|at| !is_memory_canonical(frame, at, size)) {
        return false;
    }
    // They were not when the instruction looked, or this processor has not seen yet that the space has a port map.
    port_map::forget_here(here.k.machine, tcb.space_word.get());
    true
}

/// Whether the `size` bytes of a string are where there can be memory.
fn is_memory_canonical(frame: &Frame, at: MemoryAt, size: usize) -> bool {
    let first = match at {
        MemoryAt::Rdi => frame.rdi.get(),
        MemoryAt::Rsi => frame.rsi.get(),
    };
    layout::is_canonical(first) && layout::is_canonical(first.wrapping_add(size - 1))
}
