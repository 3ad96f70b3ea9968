//! How threads, addresses and the like look in what is printed.

use core::fmt::{self, Display, Write};

use kcore::inspect::{Loose, ThreadView};
use kcore::machine::{Machine, SpaceRef, TcbRef};
use kcore::thread::{Purpose, Status, Work};
use l4_abi::{ThreadId, Time, UTCB_MY_GLOBAL_ID_OFFSET};

use crate::names::Named;
use crate::session::{IdForm, Session};

/// Members of a list that are shown.
pub const MEMBERS_SHOWN: usize = 4096;

/// Registers of the UTCB behind MyGlobalId, in words.
#[derive(Clone, Copy)]
pub enum UtcbWord {
    Pager = 3,
    ExceptionHandler = 4,
    ErrorCode = 6,
}

impl<'s, 'k, M: Machine + 'static> Session<'s, 'k, M> {
    /// A thread by its slot.
    pub fn thread(&self, thread: TcbRef) -> Shown<'_, 's, 'k, M> {
        Shown { session: self, what: What::Thread(thread) }
    }

    /// A thread by an id that may be anybody's.
    pub fn id(&self, id: ThreadId) -> Shown<'_, 's, 'k, M> {
        Shown { session: self, what: What::Id(id) }
    }

    /// A space.
    pub fn space(&self, space: SpaceRef) -> Shown<'_, 's, 'k, M> {
        Shown { session: self, what: What::Space(space) }
    }

    /// An address of the kernel's, with its symbol.
    pub fn address(&self, address: u64) -> Shown<'_, 's, 'k, M> {
        Shown { session: self, what: What::Address(address) }
    }

    /// A word of a thread's UTCB, if it has one.
    pub fn utcb_word(&self, view: &ThreadView, word: UtcbWord) -> Option<u64> {
        self.utcb_at(view, UTCB_MY_GLOBAL_ID_OFFSET + word as usize * size_of::<u64>())
    }

    /// The word of a thread's UTCB at an offset.
    pub fn utcb_at(&self, view: &ThreadView, offset: usize) -> Option<u64> {
        let at = (view.utcb as u64).checked_add(offset as u64).filter(|_| view.utcb != 0)?;
        self.kernel_word(at)
    }

    /// A word of the kernel's memory.
    pub fn kernel_word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.probe.read_kernel(address, &mut bytes) == bytes.len()).then(|| u64::from_le_bytes(bytes))
    }

    /// Reads what a space has at an address, by its page tables; what is not mapped is not read.
    pub fn read_space(&self, space: SpaceRef, address: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(at) = address.checked_add(done as u64) else { break };
            let Some(page) = self.k.spaces.page_at(space, at) else { break };
            let offset = at & ((1 << page.size_log2) - 1);
            let left = ((1u64 << page.size_log2) - offset).min((bytes.len() - done) as u64) as usize;
            let read = self.probe.read_physical(page.frame.wrapping_add(offset), &mut bytes[done..done + left]);
            done += read;
            if read < left {
                break;
            }
        }
        done
    }

    /// Prints the members of a list, in a line each, as far as it leads.
    pub fn list(
        &mut self,
        members: &mut dyn Iterator<Item = Result<TcbRef, Loose>>,
        before: &str,
    ) -> Result<usize, fmt::Error> {
        let mut count = 0;
        for member in members {
            match member {
                Ok(_) if count == MEMBERS_SHOWN => {
                    writeln!(self.out, "{before}... more than {MEMBERS_SHOWN}")?;
                    break;
                }
                Ok(thread) => self.thread_line(thread, before)?,
                Err(loose) => writeln!(self.out, "{before}BROKEN: {loose}")?,
            }
            count += 1;
        }
        Ok(count)
    }

    /// A thread and what it does, in a line.
    pub fn thread_line(&mut self, thread: TcbRef, before: &str) -> fmt::Result {
        let Some(view) = self.k.tcb_at(thread).map(kcore::thread::Tcb::view) else {
            return writeln!(self.out, "{before}{:#x} is no slot", thread.index());
        };
        let shown = Shown { session: &*self, what: What::Thread(thread) };
        let mut text = arrayvec::ArrayString::<160>::new();
        let _ = write!(text, "{before}{shown:24} pri {:<3} cpu {:<3} ", view.priority, view.affinity);
        let _ = self.describe(&mut text, thread, &view);
        writeln!(self.out, "{text}")
    }

    /// What a thread is doing, in words.
    pub fn describe(&self, f: &mut dyn fmt::Write, thread: TcbRef, view: &ThreadView) -> fmt::Result {
        if view.is_dying {
            return write!(f, "deleted, others are still queued on it");
        }
        let (Some(status), Some(purpose), Some(work)) = (view.status, view.purpose, view.work) else {
            return write!(f, "BROKEN: its state means nothing");
        };
        let running = self.k.cpus.get(usize::from(view.home)).and_then(|cpu| cpu.view().current);
        match status {
            Status::Inactive => write!(f, "inactive")?,
            Status::Running if running == Some(thread) => write!(f, "runs")?,
            Status::Running if view.is_ready => write!(f, "ready")?,
            Status::Running if view.is_halted => write!(f, "halted")?,
            Status::Running => write!(f, "running")?,
            Status::PendingSend => match view.peer {
                Some(peer) => write!(f, "sends to {}, which does not receive from it", self.thread(peer))?,
                None => write!(f, "on its way to send")?,
            },
            Status::Waiting if purpose == Purpose::Input => write!(f, "waits for a key")?,
            Status::Waiting if view.partner == view.id => write!(f, "sleeps")?,
            Status::Waiting => write!(f, "waits for {}", self.id(view.partner))?,
            Status::Sending | Status::Receiving => {
                let role = if status == Status::Sending { "sends" } else { "receives" };
                match view.peer {
                    Some(peer) => write!(f, "{role}, which {} carries out", self.thread(peer))?,
                    None => write!(f, "{role}")?,
                }
            }
        }
        match purpose {
            Purpose::User | Purpose::Interrupt | Purpose::Input => {}
            Purpose::Start => write!(f, ", to be started")?,
            Purpose::PageFault => write!(f, ", page fault at {:#x}", self.fault_address(thread))?,
            Purpose::IoFault => write!(f, ", port fault")?,
            Purpose::Exception => write!(f, ", exception")?,
            Purpose::Preemption => write!(f, ", total quantum used up")?,
            Purpose::PreemptionFault => write!(f, ", preempted though delayed")?,
        }
        match work {
            Work::None => {}
            Work::Delete => write!(f, ", deletes")?,
            work => write!(f, ", in the kernel: {work:?}")?,
        }
        if view.is_halted && status != Status::Running {
            write!(f, ", halted")?;
        }
        if let Some(at) = view.deadline {
            let now = self.probe.now_us();
            if now != 0 {
                write!(f, ", for {} us more", at.saturating_sub(now))?;
            } else {
                write!(f, ", until {at} us")?;
            }
        }
        Ok(())
    }

    /// The address that the kernel's message of a page fault names.
    fn fault_address(&self, thread: TcbRef) -> usize {
        self.k.tcb_at(thread).map_or(0, |tcb| tcb.message_word(1))
    }
}

/// What is shown.
enum What {
    Thread(TcbRef),
    Id(ThreadId),
    Space(SpaceRef),
    Address(u64),
}

/// Something as a person reads it.
pub struct Shown<'a, 's, 'k, M: Machine + 'static> {
    session: &'a Session<'s, 'k, M>,
    what: What,
}

impl<M: Machine + 'static> Shown<'_, '_, '_, M> {
    fn write(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        match self.what {
            What::Thread(thread) => self.write_thread(f, thread),
            What::Id(id) if id.is_nil() => f.write_str("nilthread"),
            What::Id(id) if id.is_any() => f.write_str("anythread"),
            What::Id(id) if id.is_any_local() => f.write_str("anylocalthread"),
            What::Id(id) if id.is_local() => write!(f, "local {:x}", id.raw()),
            What::Id(id) => self.write_id(f, id),
            What::Space(space) => {
                write!(f, "space {:x}", space.index())?;
                let is_sigma0 = self.session.k.spaces.view(space).is_some_and(|view| view.is_sigma0);
                match self.session.probe.name(Named::Space(space.index())) {
                    Some(name) => write!(f, " ({})", name.as_str()),
                    None if is_sigma0 => f.write_str(" (sigma0)"),
                    None => Ok(()),
                }
            }
            What::Address(address) => {
                write!(f, "{address:016x}")?;
                match self.session.probe.symbols().find(address) {
                    Some((name, 0)) => write!(f, " {}", name.as_str()),
                    Some((name, offset)) => write!(f, " {}+{offset:#x}", name.as_str()),
                    None => Ok(()),
                }
            }
        }
    }

    fn write_thread(&self, f: &mut dyn fmt::Write, thread: TcbRef) -> fmt::Result {
        match self.session.k.tcb_at(thread).map(|tcb| tcb.view().id) {
            None => write!(f, "no thread {:x}", thread.index()),
            Some(id) if id.is_nil() => write!(f, "empty slot {:x}", thread.index()),
            Some(id) => self.write_id(f, id),
        }
    }

    fn write_id(&self, f: &mut dyn fmt::Write, id: ThreadId) -> fmt::Result {
        let number = id.thread_no();
        match self.session.state.ids {
            IdForm::Raw => return write!(f, "{:x}", id.raw()),
            IdForm::Tcb => {
                let at = self.session.probe.tcb_table() + ((number as u64) << kcore::thread::TCB_SIZE_LOG2);
                return write!(f, "{at:x}");
            }
            IdForm::Name => write!(f, "{number:x}.{:x}", id.version())?,
        }
        if let Some(name) = self.session.probe.name(Named::Thread(id)) {
            return write!(f, " ({})", name.as_str());
        }
        let numbers = self.session.k.numbers;
        match id {
            _ if (number as u64) < u64::from(numbers.system_base) => write!(f, " (interrupt {number})"),
            _ if id == numbers.sigma0() => f.write_str(" (sigma0)"),
            _ if id == numbers.sigma1() => f.write_str(" (sigma1)"),
            _ if id == numbers.root_task() => f.write_str(" (root task)"),
            _ => Ok(()),
        }
    }
}

impl<M: Machine + 'static> Display for Shown<'_, '_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a width, what is too short is filled up.
        let mut text = arrayvec::ArrayString::<128>::new();
        let _ = self.write(&mut text);
        f.pad(&text)
    }
}

/// A period or point of time.
pub struct Period(pub Time);

impl Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            time if time.is_never() => f.write_str("never"),
            time => match time.length_us() {
                Some(us) => write!(f, "{us} us"),
                None => write!(f, "point {:#x}", time.raw()),
            },
        }
    }
}

/// What is left of a time that may have no end.
pub struct Left(pub u64);

impl Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { f.write_str("no end") } else { write!(f, "{} us", self.0) }
    }
}
