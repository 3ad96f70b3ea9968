//! The task states of the processors: their stacks, and with I/O fpages the way to the port map.

use kcore::machine::{CpuId, PhysAddr};
use kcore::options::Options;
use kcore::var::Var;
use khal::desc::{InterruptStack, Tss};

use crate::config::MAX_CPUS;
use crate::{layout, mitigations};

/// By number of the processor. With I/O fpages they are used at [`layout::TASK_STATES`].
#[repr(C, align(4096))]
struct TaskStates([Tss; MAX_CPUS]);

static ALL: TaskStates = TaskStates([const { Tss::new() }; MAX_CPUS]);

const _: () = assert!(size_of::<TaskStates>() == layout::TASK_STATES_BYTES);

/// Where they are in the image.
pub fn address() -> usize {
    (&raw const ALL).addr()
}

/// The frames in which they are.
pub fn frames() -> PhysAddr {
    PhysAddr((address() - layout::KERNEL_BASE) as u64)
}

/// The task state of processor `cpu`, filled in. The kernel's own tables are in use.
pub fn of(options: Options, cpu: CpuId) -> &'static Tss {
    let state = if options.io_fpages { near_port_map(cpu) } else { &ALL.0[cpu.index()] };
    let area = layout::area(cpu.index());
    let (stack, interrupt_stack, fault_stack) = if mitigations::isolate_tables() {
        (layout::AREA_ENTRY_STACK_TOP, layout::AREA_INTERRUPT_ENTRY_STACK_TOP, layout::AREA_FAULT_ENTRY_STACK_TOP)
    } else {
        (layout::AREA_STACK_TOP, layout::AREA_INTERRUPT_STACK_TOP, layout::AREA_FAULT_STACK_TOP)
    };
    state.set_kernel_stack(area + stack);
    // Of the exceptions that come here each ends everything: they can share a stack.
    state.set_interrupt_stack(InterruptStack::Ist1, area + interrupt_stack);
    state.set_interrupt_stack(InterruptStack::Ist2, area + layout::AREA_DEBUG_STACK_TOP);
    state.set_interrupt_stack(InterruptStack::Ist3, area + fault_stack);
    let goes_on: *const Var<usize> = core::ptr::with_exposed_provenance(area + layout::AREA_DEBUG_STACK_TOP);
    // SAFETY: the word is in this processor's porch, behind a stack that is not in use yet; it is an atomic.
    unsafe { &*goes_on }.set(area + stack);
    state
}

fn near_port_map(cpu: CpuId) -> &'static Tss {
    let state: *const Tss = core::ptr::with_exposed_provenance(layout::TASK_STATES + cpu.index() * size_of::<Tss>());
    // SAFETY: with I/O fpages the tables map [`ALL`] there for ever; a task state is made of atomics.
    let state: &'static Tss = unsafe { &*state };
    state.set_port_map(layout::PORT_MAP);
    state
}
