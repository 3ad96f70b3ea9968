//! Threads and queues.

use core::fmt::{self, Write};

use kcore::machine::{CpuId, Machine, TcbRef};
use l4_abi::{ThreadId, UTCB_MR0_OFFSET};

use crate::menu::Done;
use crate::probe::Registers;
use crate::session::Session;
use crate::show::{Left, Period, UtcbWord};

/// Message registers and words of the stack that are shown.
const MESSAGE_REGISTERS: usize = 16;
const STACK_WORDS: usize = 16;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn threads(&mut self) -> Done {
        let k = self.k;
        let mut count = 0;
        for (thread, _) in k.inhabited() {
            self.thread_line(thread, "")?;
            count += 1;
        }
        writeln!(self.out, "{count} threads")?;
        Ok(None)
    }

    pub(super) fn show_tcb(&mut self) -> Done {
        let thread = self.ask_thread()?;
        self.tcb(thread)?;
        Ok(None)
    }

    pub(super) fn show_tcb_extended(&mut self) -> Done {
        let thread = self.ask_thread()?;
        self.tcb(thread)?;
        self.user_registers(thread)?;
        let Some(view) = self.k.tcb_at(thread).map(kcore::thread::Tcb::view) else { return Ok(None) };
        write!(self.out, "  message registers")?;
        for index in 0..MESSAGE_REGISTERS {
            let Some(word) = self.utcb_at(&view, UTCB_MR0_OFFSET + index * 8) else {
                write!(self.out, " [no UTCB]")?;
                break;
            };
            let before = if index % 4 == 0 { "\n   " } else { "" };
            write!(self.out, "{before} {word:016x}")?;
        }
        writeln!(self.out, "\n  kernel message {:x?}", [0, 1, 2].map(|n| self.message_word(thread, n)))?;
        write!(self.out, "  stack at {:x}", view.sp)?;
        let Some(space) = view.space else { return Ok(None) };
        for index in 0..STACK_WORDS {
            let mut bytes = [0; 8];
            let at = (view.sp as u64).wrapping_add(index as u64 * 8);
            if self.read_space(space, at, &mut bytes) < bytes.len() {
                write!(self.out, "\n    [not mapped]")?;
                break;
            }
            let before = if index % 4 == 0 { "\n   " } else { "" };
            write!(self.out, "{before} {:016x}", u64::from_le_bytes(bytes))?;
        }
        writeln!(self.out)?;
        Ok(None)
    }

    fn message_word(&self, thread: TcbRef, index: usize) -> usize {
        self.k.tcb_at(thread).map_or(0, |tcb| tcb.message_word(index))
    }

    fn tcb(&mut self, thread: TcbRef) -> fmt::Result {
        let Some(view) = self.k.tcb_at(thread).map(kcore::thread::Tcb::view) else {
            return writeln!(self.out, "no such slot");
        };
        let at = self.probe.tcb_table() + ((thread.index() as u64) << kcore::thread::TCB_SIZE_LOG2);
        let mut text = arrayvec::ArrayString::<192>::new();
        let _ = write!(text, "thread {}  id {:x}  TCB {at:x}", self.thread(thread), view.id.raw());
        writeln!(self.out, "{text}")?;
        if !view.is_anything() {
            return writeln!(self.out, "  nobody is in this slot");
        }
        text.clear();
        let _ = self.describe(&mut text, thread, &view);
        writeln!(self.out, "  does      {text}")?;
        writeln!(
            self.out,
            "  state     {:?}, {}for {:?}, work {:?}, arrival {:?}",
            Word(view.status),
            if view.is_plain { "plain, " } else { "" },
            Word(view.purpose),
            Word(view.work),
            Word(view.arrival)
        )?;
        text.clear();
        let _ = write!(text, "  partner   {}", self.id(view.partner));
        for (name, peer) in [("peer", view.peer), ("string with", view.outer_peer)] {
            if let Some(peer) = peer {
                let _ = write!(text, ", {name} {}", self.thread(peer));
            }
        }
        writeln!(self.out, "{text}")?;
        text.clear();
        let _ = match view.space {
            Some(space) => write!(text, "  in        {}", self.space(space)),
            None => write!(text, "  in        no space"),
        };
        for (name, word) in [("pager", UtcbWord::Pager), ("exceptions to", UtcbWord::ExceptionHandler)] {
            if let Some(id) = self.utcb_word(&view, word) {
                let _ = write!(text, "  {name} {}", self.id(ThreadId::from_raw(id as _)));
            }
        }
        writeln!(self.out, "{text}")?;
        writeln!(self.out, "  user      ip {:x}  sp {:x}  flags {:x}", view.ip, view.sp, view.flags)?;
        writeln!(self.out, "  UTCB      {:x}, local id {:x}", view.utcb, view.local_id.raw())?;
        text.clear();
        let _ = write!(text, "{}", self.id(view.scheduler));
        writeln!(
            self.out,
            "  runs      at processor {}, home {}; priority {}, sensitive {}; scheduler {text}",
            view.affinity, view.home, view.priority, view.sensitive_priority
        )?;
        writeln!(
            self.out,
            "  time      slice {} of {}; quantum {} of {}; delay {} of {} us",
            Left(view.slice_left_us),
            Period(view.time_slice),
            Left(view.quantum_left_us),
            Period(view.total_quantum),
            view.delay_left_us,
            view.max_delay_us
        )?;
        if view.has_senders {
            writeln!(self.out, "  senders")?;
            let k = self.k;
            self.list(&mut k.senders(thread), "    ")?;
        }
        Ok(())
    }

    pub(super) fn dump_frame(&mut self) -> Done {
        let thread = self.ask_thread()?;
        self.user_registers(thread)?;
        Ok(None)
    }

    fn user_registers(&mut self, thread: TcbRef) -> fmt::Result {
        let Some(view) = self.k.tcb_at(thread).map(kcore::thread::Tcb::view).filter(|view| view.is_claimed) else {
            return writeln!(self.out, "  nothing is saved");
        };
        if let Some((vector, error)) = self.probe.exception(thread) {
            writeln!(self.out, "  last exception {vector}, error code {error:x}")?;
        }
        writeln!(self.out, "  rip {:016x}  rsp {:016x}  flags {:x}", view.ip, view.sp, view.flags)?;
        match self.probe.registers(thread) {
            Some(registers) => self.registers(&registers),
            None => writeln!(self.out, "  its registers are not to be had"),
        }
    }

    pub(super) fn registers(&mut self, r: &Registers) -> fmt::Result {
        let rows = [
            [("rax", r.rax), ("rbx", r.rbx), ("rcx", r.rcx), ("rdx", r.rdx)],
            [("rsi", r.rsi), ("rdi", r.rdi), ("rbp", r.rbp), ("r8 ", r.r8)],
            [("r9 ", r.r9), ("r10", r.r10), ("r11", r.r11), ("r12", r.r12)],
        ];
        for row in rows {
            for (name, value) in row {
                write!(self.out, "  {name} {value:016x}")?;
            }
            writeln!(self.out)?;
        }
        writeln!(self.out, "  r13 {:016x}  r14 {:016x}  r15 {:016x}", r.r13, r.r14, r.r15)
    }

    pub(super) fn show_queue(&mut self) -> Done {
        for cpu in 0..self.k.cpus.len() {
            self.queue(CpuId::new(cpu as u32))?;
        }
        Ok(None)
    }

    pub(super) fn show_queue_all(&mut self) -> Done {
        for cpu in 0..self.k.cpus.len() {
            let cpu = CpuId::new(cpu as u32);
            self.queue(cpu)?;
            let k = self.k;
            let view = k.cpus[cpu.index()].view();
            for (name, other) in [("time of", view.slice_owner), ("gives to", view.donee), ("delays", view.delaying)] {
                if let Some(thread) = other {
                    let mut text = arrayvec::ArrayString::<128>::new();
                    let _ = write!(text, "  {name:8} {}", self.thread(thread));
                    writeln!(self.out, "{text}")?;
                }
            }
            if view.has_mail {
                writeln!(self.out, "  on the way here")?;
                self.list(&mut k.arriving(cpu), "    ")?;
            }
            if view.has_orphans {
                writeln!(self.out, "  queued on threads that left")?;
                self.list(&mut k.orphans(cpu), "    ")?;
            }
            writeln!(self.out, "  {} sleep with a timeout", view.sleepers)?;
            let sleepers = k.inhabited().filter(|(_, view)| view.deadline.is_some());
            for (thread, view) in sleepers {
                if usize::from(view.home) == cpu.index() {
                    self.thread_line(thread, "    ")?;
                }
            }
        }
        Ok(None)
    }

    fn queue(&mut self, cpu: CpuId) -> fmt::Result {
        let k = self.k;
        match k.cpus[cpu.index()].view().current {
            None => writeln!(self.out, "processor {}: idle", cpu.index())?,
            Some(thread) => {
                writeln!(self.out, "processor {}: runs", cpu.index())?;
                self.thread_line(thread, "    ")?;
            }
        }
        for priority in k.ready_priorities(cpu) {
            writeln!(self.out, "  ready with priority {priority}")?;
            self.list(&mut k.ready(cpu, priority), "    ")?;
        }
        Ok(())
    }

    pub(super) fn find(&mut self) -> Done {
        let part = self.ask_text("part of a name")?;
        let k = self.k;
        let mut count = 0;
        for (thread, view) in k.inhabited() {
            let name = self.probe.name(crate::names::Named::Thread(view.id));
            if name.is_some_and(|name| crate::words::contains(name.as_str(), &part)) {
                self.thread_line(thread, "thread ")?;
                count += 1;
            }
        }
        for space in k.spaces.inhabited() {
            let name = self.probe.name(crate::names::Named::Space(space.index()));
            if let Some(name) = name.filter(|name| crate::words::contains(name.as_str(), &part)) {
                writeln!(self.out, "space  {:x} ({})", space.index(), name.as_str())?;
                count += 1;
            }
        }
        if !part.is_empty() {
            let (out, symbols) = (&mut self.out, self.probe.symbols());
            for (address, name) in symbols.all().filter(|(_, name)| crate::words::contains(name.as_str(), &part)) {
                writeln!(out, "symbol {address:016x} {}", name.as_str())?;
                count += 1;
            }
        }
        writeln!(self.out, "{count} found")?;
        Ok(None)
    }
}

/// A word of a table that may mean nothing.
struct Word<T>(Option<T>);

impl<T: fmt::Debug> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("BROKEN"),
        }
    }
}
