//! What is seen of the core and of the model.

use l4_abi::{BR_COUNT, MR_COUNT, ThreadId};
use model::{State, Thread};

use super::{Pair, same};
use crate::machine::TcbRef;
use crate::tests::machine::THREADS;
use crate::tests::world::NUMBERS;
use crate::thread::{Status, Tcb};

/// Where pages are looked for: all that is mapped is here.
pub const MEMORY: std::ops::Range<usize> = 0x100_0000..0x104_0000;

/// Compares all that is seen of both.
///
/// # Errors
/// The first difference.
pub fn compare(pair: &Pair) -> Result<(), String> {
    let Pair { w, m } = pair;
    let running = w.here().cpu.current.get().thread().map(|thread| thread.index() as u64);
    same("who runs", running, m.processor.running)?;
    for number in u64::from(NUMBERS.user_base)..THREADS as u64 {
        let tcb = w.k.tcb(TcbRef::new(number as u32));
        let thread = m.threads.get(&number);
        same(&format!("whether there is thread {number}"), tcb.exists(), thread.is_some())?;
        if let Some(thread) = thread {
            compare_thread(pair, tcb, thread).map_err(|what| format!("thread {number}, {what}"))?;
        }
    }
    compare_memory(pair)
}

fn compare_thread(pair: &Pair, tcb: &Tcb, thread: &Thread) -> Result<(), String> {
    let (w, m, number) = (pair.w, &pair.m, thread.id >> 32);
    same("its id", tcb.id.get().raw(), thread.id)?;
    same("what it does", state(tcb), m.schedule_state(number))?;
    let waits_for = if let State::Waits(partner) = thread.state { Some(partner) } else { None };
    same("whom it waits for", tcb.waiting_for().map(ThreadId::raw), waits_for)?;
    same("whether it is halted", tcb.is_halted(), thread.is_halted)?;
    same("its priority", tcb.priority(), thread.priority)?;
    if !thread.is_active() {
        return Ok(());
    }
    let saved = w.k.machine.saved(TcbRef::new(number as u32));
    same("whom its message is from", saved.from.get().map(ThreadId::raw), thread.from)?;
    same("stack pointer", tcb.sp.get() as u64, thread.registers[1])?;
    same("flags", tcb.flags.get() as u64, thread.registers[2])?;
    if thread.state == State::Ready(false) {
        same("instruction pointer", tcb.ip.get() as u64, thread.registers[0])?;
    }
    for (index, register) in saved.general.iter().enumerate() {
        same("general registers", register.get(), thread.general[index])?;
    }
    compare_utcb(tcb.utcb_in(w.k.machine), &thread.utcb)
}

fn compare_utcb(core: &l4_abi::Utcb, model: &model::Utcb) -> Result<(), String> {
    for index in 0..MR_COUNT {
        if core.mr(index) != model.mr[index] {
            same(&format!("MR{index}"), core.mr(index), model.mr[index])?;
        }
    }
    for index in 0..BR_COUNT {
        same("buffer registers", core.br(index), model.br[index])?;
    }
    same("ErrorCode", core.error_code(), model.error_code)?;
    same("ActualSender", core.virtual_sender().raw(), model.virtual_sender)?;
    same("Pager", core.pager().raw(), model.pager)?;
    same("ExceptionHandler", core.exception_handler().raw(), model.exception_handler)?;
    same("UserDefinedHandle", core.user_defined_handle(), model.handle)?;
    same("MyGlobalId", core.my_global_id().raw(), model.my_global_id)
}

/// What Schedule would say of a thread.
fn state(tcb: &Tcb) -> u64 {
    match tcb.status() {
        Status::Inactive => 1,
        Status::PendingSend => 4,
        Status::Sending => 5,
        Status::Waiting => 6,
        Status::Receiving => 7,
        Status::Running if tcb.is_halted() => 2,
        Status::Running => 3,
    }
}

/// Each space has the same pages. A space is named by a thread in it.
fn compare_memory(pair: &Pair) -> Result<(), String> {
    let Pair { w, m } = pair;
    for (&space, _) in m.spaces.iter().filter(|(space, _)| **space != model::SIGMA0) {
        let member = m.threads.iter().find(|(_, thread)| thread.space == space).map(|(number, _)| *number);
        let Some(member) = member else { return Err(format!("space {space} of the model has no thread")) };
        let there = w.k.tcb(TcbRef::new(member as u32)).space();
        for page in MEMORY.step_by(0x1000) {
            let core = w.k.spaces.lookup(there, page).map(|page| (page.phys.0, page.rights.bits()));
            let model = m.memory.at(space, page as u64).map(|page| (page.frame, page.rights));
            if core != model {
                same(&format!("page {page:#x} of thread {member}'s space"), core, model)?;
            }
        }
    }
    Ok(())
}
