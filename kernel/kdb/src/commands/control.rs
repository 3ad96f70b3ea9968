//! Going on: go, steps, breakpoints, reset; where the debugger was entered.

use core::fmt::{self, Write};

use kcore::machine::Machine;

use crate::menu::Done;
use crate::probe::{BREAKPOINTS, Breakpoint, BreakpointKind};
use crate::session::{Leave, Session};

/// Callers that are shown.
const CALLERS_MAX: usize = 32;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn go(&mut self) -> Done {
        if self.probe.can_go() {
            return Ok(Some(Leave::Go));
        }
        writeln!(self.out, "this machine cannot go on: reset starts it anew")?;
        Ok(None)
    }

    pub(super) fn single_step(&mut self) -> Done {
        self.step(Leave::Step)
    }

    pub(super) fn branch_step(&mut self) -> Done {
        self.step(Leave::Branch)
    }

    fn step(&mut self, leave: Leave) -> Done {
        if self.probe.can_go() && self.probe.can_step() {
            return Ok(Some(leave));
        }
        writeln!(self.out, "there is no step from here: the debugger was not entered from user code")?;
        Ok(None)
    }

    pub(super) fn reset(&mut self) -> Done {
        if self.ask_key("reset", "ny")? == 'y' {
            self.probe.reset();
            writeln!(self.out, "the machine does not reset")?;
        }
        Ok(None)
    }

    pub(super) fn crash(&mut self) -> Done {
        if self.ask_key("end the kernel", "ny")? == 'y' {
            self.probe.crash();
            writeln!(self.out, "this machine is dead already")?;
        }
        Ok(None)
    }

    pub(super) fn frame(&mut self) -> Done {
        self.show_entry()?;
        let entry = self.probe.entry(self.probe.cpu());
        if let Some(registers) = entry.and_then(|entry| entry.registers) {
            self.registers(&registers)?;
        }
        let mut callers = [0; CALLERS_MAX];
        let count = self.probe.callers(&mut callers);
        for (depth, &caller) in callers[..count].iter().enumerate() {
            let mut text = arrayvec::ArrayString::<192>::new();
            let _ = write!(text, "{depth:>4} {}", self.address(caller));
            writeln!(self.out, "{text}")?;
        }
        Ok(None)
    }

    /// Where the debugger was entered.
    pub(crate) fn show_entry(&mut self) -> fmt::Result {
        let Some(entry) = self.probe.entry(self.probe.cpu()) else { return Ok(()) };
        let mut text = arrayvec::ArrayString::<256>::new();
        let _ = match entry.thread {
            Some(thread) => write!(text, "thread {}, ", self.thread(thread)),
            None => write!(text, "no thread, "),
        };
        let _ = if entry.is_user {
            write!(text, "user code at ip {:x}, sp {:x}, flags {:x}", entry.ip, entry.sp, entry.flags)
        } else {
            write!(text, "kernel at {}, sp {:x}", self.address(entry.ip), entry.sp)
        };
        writeln!(self.out, "{text}")?;
        if entry.error != 0 {
            writeln!(self.out, "vector {}, error code {:x}", entry.vector, entry.error)?;
        }
        Ok(())
    }

    pub(super) fn breakpoint(&mut self) -> Done {
        for number in 0..BREAKPOINTS {
            match self.probe.breakpoint(number) {
                None => writeln!(self.out, "{number}: not set")?,
                Some(Breakpoint { address, len_log2, kind }) => {
                    writeln!(self.out, "{number}: {kind:?} at {address:x}, {} bytes", 1 << len_log2)?;
                }
            }
        }
        let number = self.ask_number("which", 0)? as usize;
        if number >= BREAKPOINTS {
            return self.refuse(format_args!("there are {BREAKPOINTS}, from 0 on"));
        }
        let kind = match self.ask_key("instruction, write, access, port; or clear", "iwapc")? {
            'i' => BreakpointKind::Instruction,
            'w' => BreakpointKind::Write,
            'a' => BreakpointKind::Access,
            'p' => BreakpointKind::Port,
            _ => return self.set(number, None),
        };
        let address = self.ask_address("address", 0)?;
        let len_log2 = match kind {
            BreakpointKind::Instruction => 0,
            _ => match self.ask_number("bytes: 1, 2, 4, 8", 1)? {
                1 => 0,
                2 => 1,
                4 => 2,
                8 => 3,
                _ => return self.refuse(format_args!("a breakpoint is about 1, 2, 4 or 8 bytes")),
            },
        };
        if address & ((1 << len_log2) - 1) != 0 {
            return self.refuse(format_args!("the address is a multiple of the number of bytes"));
        }
        self.set(number, Some(Breakpoint { address, len_log2, kind }))
    }

    fn set(&mut self, number: usize, breakpoint: Option<Breakpoint>) -> Done {
        if !self.probe.set_breakpoint(number, breakpoint) {
            writeln!(self.out, "this machine has no such breakpoint")?;
        }
        Ok(None)
    }
}
