//! General-protection faults that are no exceptions, because the kernel carries the instruction out (amd64 ABI, Exception
//! message): model-specific registers for privileged spaces, and segment registers, which mean nothing to 64-bit code.

use kcore::machine::TcbRef;
use kformats::code::faulting::{Faulting, Kind, LEN_MAX, Source};
use khal::msr::Msr;

use super::Core;
use crate::frame::{Frame, frame};
use crate::machine;

/// Settles the fault of the running thread `thread` if that is for the kernel to do: then the thread is behind its
/// instruction.
pub fn settle(here: &Core<'_>, thread: TcbRef) -> bool {
    let tcb = here.k.tcb(thread);
    let mut bytes = [0; LEN_MAX];
    let count = here.read_user(tcb.space(), tcb.ip.get(), &mut bytes);
    let Some(Faulting { kind, len }) = Faulting::decode(&bytes[..count]) else { return false };
    let frame = frame(thread);
    let is_settled = match kind {
        Kind::ReadMsr => here.k.is_privileged(thread) && read_msr(frame),
        Kind::WriteMsr => here.k.is_privileged(thread) && write_msr(frame),
        Kind::LoadSegment(source) => load_segment(frame, source),
    };
    if is_settled {
        tcb.ip.set(tcb.ip.get().wrapping_add(len));
    }
    is_settled
}

fn msr(frame: &Frame) -> Msr {
    Msr(frame.rcx.get() as u32)
}

fn read_msr(frame: &Frame) -> bool {
    let value = msr(frame).try_read();
    if let Some(value) = value {
        frame.rax.set((value as u32) as usize);
        frame.rdx.set((value >> 32) as usize);
    }
    value.is_some()
}

fn write_msr(frame: &Frame) -> bool {
    let value = (frame.rdx.get() as u64) << 32 | u64::from(frame.rax.get() as u32);
    // SAFETY: programs in privileged spaces are part of what the kernel trusts; the specification gives them all of the
    // registers.
    unsafe { msr(frame).try_write(value) }
}

/// All registers become what they are in a fresh thread; the load is left out. Without a selector in the error code it is
/// not the selector that is at fault, but the memory where it should be.
fn load_segment(frame: &Frame, source: Source) -> bool {
    if source == Source::Memory && frame.error_code.get() == 0 {
        return false;
    }
    machine::reset_segments();
    true
}
