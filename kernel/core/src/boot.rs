//! The beginning (X.2, Generic booting): which memory is the kernel's, and the initial servers, which are threads that start
//! without a start message, each in a privileged space.

use core::fmt;

use l4_abi::{
    Fpage, KIP_AREA_LOG2, Kip, MemoryDescriptor, MemoryType, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE,
    ROOT_UTCB_AREA_LOG2, Rights, ServerWords, ThreadId, Word,
};

use crate::kernel::{Here, ThreadNumbers};
use crate::kmem::{FRAME_SIZE, REGIONS_MAX};
use crate::machine::{Machine, NoMemory, PhysAddr};
use crate::space::SpaceKind;

/// Descriptors begin and end at multiples of so many bytes (X.2, Memory Descriptor).
const DESCRIPTOR_GRAIN: u64 = 1 << 10;

/// The priority of the initial servers.
const SERVER_PRIORITY: u8 = 255;

/// What is known of an initial server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its id.
    pub id: ThreadId,
    /// Where it starts.
    pub ip: usize,
    /// Its initial stack pointer.
    pub sp: usize,
    /// Its pager; nilthread for sigma0, whose faults the kernel resolves.
    pub pager: ThreadId,
    /// Its scheduler.
    pub scheduler: ThreadId,
    /// Whether it is sigma0.
    pub is_sigma0: bool,
}

/// The initial servers that a loader names in the kernel interface page: sigma0, and one or both of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitialServers {
    sigma0: ServerWords,
    sigma1: Option<ServerWords>,
    root_task: Option<ServerWords>,
}

/// Why the servers that a loader names cannot be started. Displayed as a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadServers {
    /// There is no sigma0: nobody could have any memory.
    NoSigma0,
    /// The server of this name is made for narrower words than the kernel's.
    Narrow(&'static str),
}

impl fmt::Display for BadServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSigma0 => f.write_str("the loader gave no sigma0"),
            Self::Narrow(name) => write!(f, "{name} is a 32-bit program, for which this kernel has no mode"),
        }
    }
}

/// Initial stack pointer with which a loader asks for a space of 32-bit programs (amd64 ABI, 32-bit compatibility mode).
/// No program has such a stack.
const COMPATIBILITY_MODE_SP: Word = 1 << (Word::BITS - 1);

impl InitialServers {
    /// What `kip` says. A server is there if its memory is not empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(kip: &Kip) -> Result<Self, BadServers> {
        let named = [("sigma0", kip.sigma0), ("sigma1", kip.sigma1), ("the root task", kip.root_server)];
        let present = named.map(|(name, words)| words.is_present().then_some((name, words)));
        let is_narrow = |words: ServerWords| Word::BITS == 64 && words.sp == COMPATIBILITY_MODE_SP;
        if let Some((name, _)) = present.into_iter().flatten().find(|&(_, words)| is_narrow(words)) {
            return Err(BadServers::Narrow(name));
        }
        let [sigma0, sigma1, root_task] = present.map(|server| server.map(|(_, words)| words));
        Ok(Self { sigma0: sigma0.ok_or(BadServers::NoSigma0)?, sigma1, root_task })
    }

    /// Whether there is a root task.
    pub fn has_root_task(&self) -> bool {
        self.root_task.is_some()
    }

    /// Whether there is a sigma1.
    pub fn has_sigma1(&self) -> bool {
        self.sigma1.is_some()
    }

    /// The servers, in the order in which they are started. The root task is the scheduler of all.
    pub fn list(&self, numbers: ThreadNumbers) -> impl Iterator<Item = Server> {
        let server = |words: ServerWords, id, pager| Server {
            id,
            ip: words.ip as usize,
            sp: words.sp as usize,
            pager,
            scheduler: numbers.root_task(),
            is_sigma0: id == numbers.sigma0(),
        };
        let sigma0 = server(self.sigma0, numbers.sigma0(), ThreadId::NIL);
        let sigma1 = self.sigma1.map(|words| server(words, numbers.sigma1(), numbers.sigma0()));
        let root_task = self.root_task.map(|words| server(words, numbers.root_task(), numbers.sigma0()));
        [Some(sigma0), sigma1, root_task].into_iter().flatten()
    }
}

const KIP_AREA: Fpage = Fpage::new(ROOT_KIP_AREA_BASE, KIP_AREA_LOG2, Rights::NONE).expect("aligned");
const UTCB_AREA: Fpage = Fpage::new(ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights::NONE).expect("aligned");

impl<M: Machine> Here<'_, M> {
    /// Makes an initial server with its space and lets it run.
    ///
    /// # Errors
    /// [`NoMemory`]: kernel memory does not even suffice for the initial servers.
    pub fn start_server(&mut self, server: Server) -> Result<(), NoMemory> {
        let thread = self.k.slot(server.id).expect("the ids of the initial servers fit the table");
        self.k.machine.back_thread(&mut self.held, thread)?;
        let kind = if server.is_sigma0 { SpaceKind::Sigma0 } else { SpaceKind::Privileged };
        let space = self.k.spaces.create(&mut self.held, kind)?;
        self.k.spaces.initialise(&mut self.held, space, KIP_AREA, UTCB_AREA)?;
        let location = ROOT_UTCB_AREA_BASE as usize;
        let utcb = self.allocate_utcb(space, location).map_err(|_| NoMemory)?;
        self.k.spaces.get(space).add_thread();
        self.fill_tcb(thread, space, server.scheduler);
        self.set_utcb_location(thread, location);
        self.install_utcb(thread, server.id, utcb, server.pager);
        let tcb = self.k.tcb(thread);
        tcb.ip.set(server.ip);
        tcb.sp.set(server.sp);
        tcb.priority.set(SERVER_PRIORITY);
        tcb.sensitive_priority.set(SERVER_PRIORITY);
        tcb.set_id(server.id);
        self.make_ready(thread);
        Ok(())
    }
}

/// A range of physical memory: first address and end.
pub type Range = (PhysAddr, PhysAddr);

/// Finds kernel memory among a loader's descriptors: the physical memory that is reserved, in whole frames below `limit`,
/// without `image` and without what a later descriptor says to be something else. A loader that caps memory reserves all
/// above, and servers, modules and tables may lie there (X.2, Memory Descriptor).
///
/// Ranges for which there is no room are left out; what is left of the room is empty ranges.
pub fn kernel_memory(descriptors: &[MemoryDescriptor], image: Range, limit: PhysAddr) -> [Range; REGIONS_MAX] {
    const NONE: Range = (PhysAddr(0), PhysAddr(0));
    let mut found = [NONE; REGIONS_MAX];
    let mut room = found.iter_mut();
    for (index, reserved) in descriptors.iter().enumerate().filter(|(_, d)| is_physical(d, MemoryType::Reserved)) {
        let (mut at, end) = extent(reserved);
        let end = end.min(limit.0);
        let later = || {
            let physical = descriptors[index + 1..].iter().filter(|later| !later.is_virtual());
            physical.map(extent).chain([(image.0.0, image.1.0)])
        };
        while at < end {
            if let Some((_, behind)) = later().find(|(low, high)| *low <= at && at < *high) {
                at = behind;
                continue;
            }
            let stop = later().map(|(low, _)| low).filter(|low| *low > at).fold(end, u64::min);
            let (first, last) = (at.next_multiple_of(FRAME_SIZE), stop - stop % FRAME_SIZE);
            if first < last
                && let Some(slot) = room.next()
            {
                *slot = (PhysAddr(first), PhysAddr(last));
            }
            at = stop;
        }
    }
    found
}

/// Whether a loader's descriptors say that any part of a frame is memory that programs or the kernel use: no device can be
/// there, whatever the firmware's tables say of it. Of several descriptors the last one counts (X.2, Memory Descriptor).
pub fn is_memory(descriptors: &[MemoryDescriptor], frame: PhysAddr) -> bool {
    let kind_at = |at: u64| {
        let covers = |descriptor: &&MemoryDescriptor| {
            let (low, end) = extent(descriptor);
            !descriptor.is_virtual() && low <= at && at < end
        };
        descriptors.iter().rev().find(covers).map(|descriptor| descriptor.kind())
    };
    let parts = (0..FRAME_SIZE / DESCRIPTOR_GRAIN).map(|part| frame.0.saturating_add(part * DESCRIPTOR_GRAIN));
    let mut kinds = parts.filter_map(kind_at);
    kinds.any(|kind| matches!(kind, MemoryType::Conventional | MemoryType::Reserved | MemoryType::BootLoader))
}

pub(crate) fn is_physical(descriptor: &MemoryDescriptor, kind: MemoryType) -> bool {
    descriptor.kind() == kind && !descriptor.is_virtual()
}

/// First address and end of what `descriptor` describes.
pub(crate) fn extent(descriptor: &MemoryDescriptor) -> (u64, u64) {
    (descriptor.low() as u64, (descriptor.high() as u64).saturating_add(1))
}
