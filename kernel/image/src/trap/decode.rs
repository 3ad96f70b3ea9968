//! From registers to system calls and back (amd64 ABI, System calls).

use kcore::machine::TcbRef;
use kcore::syscall::{Exregs, ScheduleArgs, SpaceControlArgs, ThreadControlArgs};
use kcore::trace::Event;
use l4_abi::{
    ExregsControl, Fpage, PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SpaceControl, SysError,
    ThreadId, TimeControl, Timeouts, UnmapControl, Word,
};

use super::{Core, vector};
use crate::frame::{Frame, frame};
use crate::machine;
use crate::stubs::{Call, IPC_RETURN, call_at};
use crate::trace;

fn id(word: usize) -> ThreadId {
    ThreadId::from_raw(word as Word)
}

/// Carries out the system call whose registers are in the frame of `thread`, the running one. Returns who runs, if there is
/// nothing to decide about that.
#[inline(always)]
pub fn syscall(here: &mut Core<'_>, thread: TcbRef) -> Option<TcbRef> {
    let frame = frame(thread);
    let behind = frame.rcx.get();
    here.k.tcb(thread).ip.set(behind);
    if behind == IPC_RETURN as usize {
        return ipc(here, thread, frame);
    }
    other_syscall(here, thread, frame, behind);
    None
}

#[inline(never)]
fn other_syscall(here: &mut Core<'_>, thread: TcbRef, frame: &Frame, behind: usize) {
    let Some(call) = call_at(behind as u64) else {
        // A SYSCALL outside the stubs is no instruction of this machine.
        here.k.tcb(thread).ip.set(behind.wrapping_sub(2));
        machine::set_exception(thread, vector::INVALID_OPCODE, 0);
        return here.exception(thread);
    };
    let traced = trace::wants(trace::OTHER_CALLS).then(|| trace::call(call, frame));
    match call {
        Call::Ipc => _ = ipc(here, thread, frame),
        Call::ExchangeRegisters => exchange_registers(here, thread, frame),
        Call::ThreadControl => thread_control(here, thread, frame),
        Call::ThreadSwitch => here.thread_switch(thread, id(frame.rdi.get())),
        Call::Schedule => schedule(here, thread, frame),
        Call::Unmap => unmap(here, thread, frame),
        Call::SpaceControl => space_control(here, thread, frame),
        Call::ProcessorControl => processor_control(here, thread, frame),
        Call::MemoryControl => memory_control(here, thread, frame),
    }
    if let Some(event) = traced {
        trace::returned(event, thread, frame);
    }
}

/// Stores the message registers that came in processor registers.
fn store_message_registers(here: &Core<'_>, thread: TcbRef, frame: &Frame) {
    let utcb = here.k.utcb(thread);
    for (index, register) in frame.message_registers().into_iter().enumerate() {
        utcb.set_mr(index, register.get() as Word);
    }
}

fn fail(here: &Core<'_>, thread: TcbRef, error: SysError) {
    here.k.utcb(thread).set_error_code(Word::from(error.raw()));
}

/// 1, or 0 with ErrorCode set: the result of the calls that say only that.
fn success(here: &Core<'_>, thread: TcbRef, result: Result<(), SysError>) -> usize {
    match result {
        Ok(()) => 1,
        Err(error) => {
            fail(here, thread, error);
            0
        }
    }
}

#[inline(always)]
fn ipc(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) -> Option<TcbRef> {
    if trace::wants(Event::SyscallIpc.bit()) {
        trace::call(Call::Ipc, frame);
    }
    store_message_registers(here, thread, frame);
    let timeouts = Timeouts::from_raw(frame.r8.get() as Word);
    here.ipc(thread, id(frame.rsi.get()), id(frame.rdx.get()), timeouts)
}

fn exchange_registers(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    let args = Exregs {
        dest: id(frame.rax.get()),
        control: ExregsControl::from_raw(frame.rsi.get() as Word),
        sp: frame.rdx.get(),
        ip: frame.r8.get(),
        flags: frame.r9.get(),
        handle: frame.r10.get() as Word,
        pager: id(frame.rdi.get()),
    };
    // Zero everywhere: what an error leaves.
    let outputs = [&frame.rax, &frame.rsi, &frame.rdx, &frame.r8, &frame.r9, &frame.r10, &frame.rdi];
    let mut values = [0; 7];
    match here.exchange_registers(thread, args) {
        Ok(old) => {
            let (result, state) = (old.thread.raw() as usize, old.state.raw() as usize);
            values = [result, state, old.sp, old.ip, old.flags, old.handle as usize, old.pager.raw() as usize];
        }
        Err(error) => fail(here, thread, error),
    }
    for (register, value) in outputs.into_iter().zip(values) {
        register.set(value);
    }
}

fn thread_control(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    let args = ThreadControlArgs {
        dest: id(frame.rdi.get()),
        space: id(frame.r8.get()),
        scheduler: id(frame.rdx.get()),
        pager: id(frame.rsi.get()),
        utcb_location: frame.r9.get() as Word,
    };
    let result = here.thread_control(thread, args);
    frame.rax.set(success(here, thread, result));
}

fn schedule(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    let args = ScheduleArgs {
        dest: id(frame.rdi.get()),
        time: TimeControl::from_raw(frame.rdx.get() as Word),
        processor: ProcessorControl::from_raw(frame.r8.get() as Word),
        prio: PrioControl::from_raw(frame.rsi.get() as Word),
        preemption: PreemptionControl::from_raw(frame.r9.get() as Word),
    };
    let (result, time) = match here.schedule(thread, args) {
        Ok(reply) => {
            here.k.utcb(thread).set_error_code(0);
            reply.map_or((ScheduleResult::Error, 0), |reply| (reply.state, reply.time.raw()))
        }
        Err(error) => {
            fail(here, thread, error);
            (ScheduleResult::Error, 0)
        }
    };
    frame.rax.set(result.raw() as usize);
    frame.rdx.set(time as usize);
}

fn unmap(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    store_message_registers(here, thread, frame);
    frame.rdi.set(here.k.tcb(thread).local_id.get().raw() as usize);
    here.unmap(thread, UnmapControl::from_raw(frame.rdx.get() as Word));
}

fn space_control(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    let args = SpaceControlArgs {
        space: id(frame.rdi.get()),
        kip_area: Fpage::from_raw(frame.rdx.get() as Word),
        utcb_area: Fpage::from_raw(frame.r8.get() as Word),
        redirector: id(frame.r9.get()),
    };
    let control = SpaceControl::from_raw(frame.rsi.get() as Word);
    let result = here.space_control(thread, args);
    let old = if result.is_ok() { here.control_memory(args.space, control) } else { SpaceControl::NONE };
    frame.rax.set(success(here, thread, result));
    frame.rdx.set(old.raw() as usize);
}

/// Processors run at a fixed speed: after the check of privilege every request is refused.
fn processor_control(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    let error = if here.k.is_privileged(thread) { SysError::InvalidParameter } else { SysError::NoPrivilege };
    frame.rax.set(success(here, thread, Err(error)));
}

/// What the call has to do may take more steps than this; whether it succeeds is certain now.
fn memory_control(here: &mut Core<'_>, thread: TcbRef, frame: &Frame) {
    store_message_registers(here, thread, frame);
    let attributes = [frame.rbp.get(), frame.rsi.get(), frame.r8.get(), frame.rdi.get()];
    let result = here.memory_control(thread, frame.rdx.get() as Word, attributes.map(|word| word as Word));
    let result = success(here, thread, result);
    frame.rdi.set(here.k.tcb(thread).local_id.get().raw() as usize);
    frame.rdx.set(result);
    frame.rax.set(result);
}
