//! How things are shown; what the kernel was built with; statistics.

use core::fmt::Write;

use kcore::kmem::FRAME_SIZE;
use kcore::machine::Machine;

use crate::menu::Done;
use crate::session::{IdForm, Mode, Session};

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn set_mode(&mut self) -> Done {
        self.state.mode = match self.ask_key("keys or lines", "kl")? {
            'l' => Mode::Lines,
            _ => Mode::Keys,
        };
        Ok(None)
    }

    pub(super) fn set_prefix(&mut self) -> Done {
        self.state.shows_cpu = self.ask_key("processor in prompts", "yn")? == 'y';
        Ok(None)
    }

    pub(super) fn set_ids(&mut self) -> Done {
        self.state.ids = match self.ask_key("name, TCB or raw id", "ntr")? {
            't' => IdForm::Tcb,
            'r' => IdForm::Raw,
            _ => IdForm::Name,
        };
        Ok(None)
    }

    pub(super) fn set_words(&mut self) -> Done {
        let bytes = self.ask_number("bytes of a word: 1, 2, 4, 8", self.state.word_bytes.into())?;
        if !matches!(bytes, 1 | 2 | 4 | 8) {
            return self.refuse(format_args!("there are words of 1, 2, 4 and 8 bytes"));
        }
        self.state.word_bytes = bytes as u8;
        Ok(None)
    }

    pub(super) fn set_lines(&mut self) -> Done {
        const MAX: u64 = 1000;
        let lines = self.ask_number("lines of a page", self.state.page as u64)?;
        if lines > MAX || lines == 1 {
            return self.refuse(format_args!("a page has 2 to {MAX:#x} lines, or 0 for no pages"));
        }
        self.state.page = lines as usize;
        Ok(None)
    }

    pub(super) fn next_console(&mut self) -> Done {
        let name = self.probe.next_console();
        writeln!(self.out, "  prints on {name}")?;
        Ok(None)
    }

    pub(super) fn kernel_words(&mut self) -> Done {
        let (out, words) = (&mut self.out, self.probe.words());
        for word in words.split(' ') {
            writeln!(out, "  {word}")?;
        }
        Ok(None)
    }

    pub(super) fn kernel_memory(&mut self) -> Done {
        let kib = |frames: usize| frames as u64 * FRAME_SIZE / 1024;
        let k = self.k;
        let (total, free) = (k.kmem.total(), k.kmem.free_count());
        writeln!(
            self.out,
            "{:>10} KiB in all, {} free, {} claimed",
            kib(total),
            kib(free),
            kib(k.kmem.reserved_count())
        )?;
        for (start, end, locality) in k.kmem.regions() {
            writeln!(self.out, "           {:#x} to {:#x}, locality {locality}", start.0, end.0)?;
        }
        let mut all = 0;
        for space in k.spaces.inhabited() {
            let frames = k.spaces.frames_of(space);
            all += frames;
            let mut text = arrayvec::ArrayString::<64>::new();
            let _ = write!(text, "{}", self.space(space));
            writeln!(self.out, "{:>10} KiB {text}: tables, their shadows, UTCBs, ports", kib(frames))?;
        }
        let nodes = k.spaces.node_pages();
        let spaces = k.spaces.space_pages();
        let tcbs = self.thread_pages(FRAME_SIZE as usize >> kcore::thread::TCB_SIZE_LOG2);
        let frames = self.thread_pages(FRAME_SIZE as usize >> (kcore::thread::TCB_SIZE_LOG2 + 1));
        writeln!(self.out, "{:>10} KiB mapping nodes, {} in use", kib(nodes), k.spaces.mapdb().used())?;
        writeln!(self.out, "{:>10} KiB spaces", kib(spaces))?;
        writeln!(self.out, "{:>10} KiB TCBs", kib(tcbs))?;
        writeln!(self.out, "{:>10} KiB saved registers", kib(frames))?;
        let rest = total.saturating_sub(free + all + nodes + spaces + tcbs + frames);
        writeln!(self.out, "{:>10} KiB the rest: the kernel's own tables, areas of processors", kib(rest))?;
        Ok(None)
    }

    /// Pages of a table of threads, so many slots each, that have memory behind them.
    fn thread_pages(&self, slots_per_page: usize) -> usize {
        let claimed =
            self.k.backed().filter(|(_, tcb)| tcb.is_claimed()).map(|(thread, _)| thread.index() / slots_per_page);
        let mut last = None;
        claimed.filter(|&page| last.replace(page) != Some(page)).count()
    }

    pub(super) fn stack(&mut self) -> Done {
        match self.probe.stack_used() {
            Some((used, size)) => writeln!(self.out, "{used} bytes of {size} were used at most")?,
            None => writeln!(self.out, "the debugger does not run on a stack of this kernel")?,
        }
        Ok(None)
    }
}
