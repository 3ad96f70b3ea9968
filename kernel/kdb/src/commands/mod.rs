//! The commands, by menu: keys and names are those of other X.2 kernels' debuggers where they mean the same.

mod arch;
mod checks;
mod config;
mod control;
mod kernel_page;
mod mappings;
mod memory;
mod spaces;
mod threads;
mod trace;
mod waits;

use core::marker::PhantomData;

use kcore::machine::Machine;

use crate::menu::{Action, Command, Menu};

pub use trace::Filters;

/// The menus for a kernel on some machine.
pub struct Menus<M>(PhantomData<M>);

macro_rules! menu {
    ($name:literal: $($key:literal $word:literal $help:literal => $kind:ident $what:ident),* $(,)?) => {
        Menu { name: $name, commands: &[$(Command { key: $key, name: $word, help: $help, action: menu!(@$kind $what) }),*] }
    };
    (@run $what:ident) => { Action::Run(|session| session.$what()) };
    (@open $what:ident) => { Action::Menu(&Self::$what) };
}

impl<M: Machine + 'static> Menus<M> {
    /// The menu that is open at first.
    pub const ROOT: Menu<M> = menu!("root":
        b'g' "go" "leave the debugger" => run go,
        b'a' "arch" "processor, interrupts, ports, firmware" => open ARCH,
        b'c' "config" "how the debugger shows things, and what the kernel was built with" => open CONFIG,
        b'#' "stats" "kernel memory" => open STATISTICS,
        b'l' "threads" "all threads and what they do" => run threads,
        b't' "showtcb" "a thread" => run show_tcb,
        b'T' "showtcbext" "a thread with registers, message registers and stack" => run show_tcb_extended,
        b'w' "waits" "who waits for whom, and rings of those who do" => run waits,
        b'k' "check" "whether all promises of the kernel's tables hold" => run check,
        b'/' "find" "threads, spaces and symbols by a part of their names" => run find,
        b'K' "kip" "the kernel interface page" => run kip,
        b'B' "bootinfo" "what the loader left: modules and programs" => run boot_info,
        b'q' "showqueue" "who runs and who is ready, by processor" => run show_queue,
        b'Q' "showqueueall" "the same, and who is on the way, sleeps, or lost its partner" => run show_queue_all,
        b'S' "listspaces" "all spaces and their threads" => run list_spaces,
        b'F' "dumpframe" "the saved registers of a thread" => run dump_frame,
        b' ' "frame" "where the debugger was entered, and who called" => run frame,
        b'p' "ptab" "the pages of a space" => run page_table,
        b'd' "memdump" "memory as the kernel sees it" => run dump_memory,
        b'D' "memdumpspace" "memory of a space" => run dump_memory_of_space,
        b'm' "mdb" "mappings and where they came from" => open MAPPINGS,
        b'b' "breakpoint" "hardware breakpoints" => run breakpoint,
        b's' "singlestep" "execute one instruction" => run single_step,
        b'j' "branchstep" "run to the next branch that is taken" => run branch_step,
        b'U' "disas" "instructions" => run disassemble,
        b'r' "tracepoints" "what is recorded of what the kernel does, and where it stops" => open TRACEPOINTS,
        b'y' "trace" "what was recorded" => open TRACE,
        b'Y' "tracedump" "the last of it" => run dump_trace_at_once,
        b'!' "crash" "end the kernel by a panic, to see what is left of it" => run crash,
        b'6' "reset" "start the machine anew" => run reset,
    );

    const ARCH: Menu<M> = menu!("arch":
        b'c' "ctrlregs" "control registers" => run control_registers,
        b'm' "dumpmsrs" "model-specific registers" => run msrs,
        b'p' "ports" "read or write a port" => run port,
        b'n' "enable_nmi" "let non-maskable interrupts through, or not" => run enable_nmi,
        b'N' "send_nmi" "a non-maskable interrupt to a processor" => run send_nmi,
        b'S' "switch_cpu" "look at another processor" => run switch_cpu,
        b'l' "lvt" "local APIC" => run local_vectors,
        b'i' "idt" "interrupt descriptor table" => run idt,
        b'g' "gdt" "global descriptor table" => run gdt,
        b'C' "cpu" "identification and features" => run cpu,
        b'P' "pgtcalc" "places of an address in page tables" => run page_table_places,
        b'I' "intctrl" "interrupt controllers" => run interrupt_controllers,
        b'V' "screendump" "the text screen" => run screen,
        b'a' "acpi" "tables of the firmware" => open ACPI,
    );

    const ACPI: Menu<M> = menu!("acpi":
        b'l' "list" "all tables" => run acpi_tables,
        b'd' "dump" "a table" => run acpi_dump,
    );

    const CONFIG: Menu<M> = menu!("config":
        b'm' "mode" "keys, or lines with names" => run set_mode,
        b'p' "prefix" "the processor in prompts, or not" => run set_prefix,
        b't' "ids" "threads by name and number, TCB address, or raw id" => run set_ids,
        b'w' "words" "size of the words in memory dumps" => run set_words,
        b'l' "lines" "lines of a page; 0: no pages" => run set_lines,
        b'c' "console" "the next console: all, the serial line, the screen" => run next_console,
        b'k' "kernel" "what the kernel was built with" => run kernel_words,
    );

    const STATISTICS: Menu<M> = menu!("stats":
        b'k' "kmem" "kernel memory, by what it is used for" => run kernel_memory,
        b's' "stack" "the debugger's own stack" => run stack,
    );

    const TRACEPOINTS: Menu<M> = menu!("tracepoints":
        b'l' "list" "all of them, how often they came, and what is done then" => run list_tracepoints,
        b'e' "enable" "record one, or enter the debugger there" => run enable_tracepoint,
        b'd' "disable" "do neither" => run disable_tracepoint,
        b'E' "enableall" "record all of them" => run enable_all_tracepoints,
        b'D' "disableall" "neither record nor stop at any" => run disable_all_tracepoints,
        b'R' "resetcounters" "count from 0 again" => run reset_counters,
        b'i' "lines" "interrupts of some lines only" => run restrict_interrupts,
        b't' "thread" "events of chosen threads only" => run choose_traced_thread,
    );

    const TRACE: Menu<M> = menu!("trace":
        b'd' "dump" "the last events that the filters let through" => run dump_trace,
        b'r' "reset" "forget all events" => run reset_trace,
        b'R' "resetcounters" "count from 0 again" => run reset_counters,
        b'c' "counters" "how often events came, by processor" => run show_counters,
        b'u' "programs" "what programs wrote to the trace buffer" => run dump_of_programs,
        b'f' "record" "which events are recorded, by all processors" => run set_recorded,
        b'F' "groups" "show only these groups of events" => run filter_groups,
        b't' "events" "show only these tracepoints" => run filter_events,
        b'C' "cpu" "show only events of a processor" => run filter_cpu,
        b'T' "thread" "show only events about a thread" => run filter_thread,
        b's' "filters" "what is shown" => run show_filters,
        b'z' "clear" "show everything" => run clear_filters,
    );

    const MAPPINGS: Menu<M> = menu!("mdb":
        b'm' "page" "the tree of a page of memory" => run tree_of_page,
        b'M' "all" "all trees" => run all_trees,
        b's' "space" "what a space has from others" => run mappings_of_space,
        b'i' "port" "who has a port, and from whom" => run tree_of_port,
        b'I' "allports" "all ports" => run all_ports,
    );
}
