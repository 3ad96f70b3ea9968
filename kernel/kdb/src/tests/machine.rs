//! A machine without hardware, on which the core's own system calls make what the debugger then looks at.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kcore::boot::Server;
use kcore::cross::claims::Claims;
use kcore::kernel::{Here, Kernel, ThreadNumbers};
use kcore::kmem::Kmem;
use kcore::lock::{Held, rank};
use kcore::machine::{
    CpuId, EXCEPTION_IMAGE_WORDS, Machine, Mmu, NoMemory, NodeRef, PhysAddr, PhysMem, SpaceRef, TcbRef, Tlb, UserRegs,
};
use kcore::mapdb::Node;
use kcore::pool::Table;
use kcore::sched::Cpu;
use kcore::space::{Space, SpaceConfig, Spaces};
use kcore::thread::Tcb;
use kcore::trace::Sink;
use kcore::var::Var;
use kformats::paging::Amd64;
use l4_abi::{ThreadId, Utcb, Word};

/// Where kernel memory begins and ends.
pub const KMEM: (u64, u64) = (0x10_0000, 0x40_0000);
/// Distance of kernel memory from where the kernel sees it.
pub const KERNEL_BASE: usize = 0xFFFF_8000_0000_0000;
/// Where the debugger takes the TCBs to be.
pub const TCB_TABLE: u64 = 0xFFFF_FFFF_A000_0000;
const NUMBERS: ThreadNumbers = ThreadNumbers { system_base: 16, user_base: 32 };
const THREADS: usize = 96;
const NODES: usize = 2048;
const SPACES: usize = 32;

/// The machine. For one thread of the host.
#[derive(Default)]
pub struct Fake {
    words: RefCell<BTreeMap<u64, usize>>,
    utcbs: RefCell<BTreeMap<usize, &'static Utcb>>,
}

pub type World = &'static Kernel<'static, Fake>;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn table<T>(len: usize, slot: impl Fn() -> T) -> &'static [T] {
    Vec::leak((0..len).map(|_| slot()).collect())
}

/// A kernel with sigma0 and the root task on the first of two processors.
pub fn world() -> World {
    let machine = leak(Fake::default());
    let kmem = leak(Kmem::new());
    assert!(kmem.add_region(&mut Held::nothing(), PhysAddr(KMEM.0), PhysAddr(KMEM.1), 0));
    let cpus: &[&Cpu] = Vec::leak((0..2).map(|_| leak(Cpu::new()) as &Cpu).collect());
    cpus.iter().for_each(|cpu| cpu.start());
    let config = SpaceConfig { user_end: 1 << 47, physical_end: 1 << 40, kip: PhysAddr(0x1000) };
    let nodes = Table { slots: table(NODES, Node::default), backed: table(1, Var::zero) };
    let spaces = Table { slots: table(SPACES, Space::default), backed: table(1, Var::zero) };
    let spaces = Spaces::new(machine, kmem, spaces, nodes, config);
    let tcbs = table(THREADS, Tcb::default);
    let k = leak(Kernel { machine, tcbs, cpus, spaces, kmem, numbers: NUMBERS, creation: Claims::new() });
    for (id, pager) in [(NUMBERS.sigma0(), ThreadId::NIL), (NUMBERS.root_task(), NUMBERS.sigma0())] {
        let is_sigma0 = pager.is_nil();
        let server = Server { id, ip: 0x40_0000, sp: 0x50_0000, pager, scheduler: NUMBERS.root_task(), is_sigma0 };
        assert!(here(k).start_server(server).is_ok(), "there is memory");
    }
    dispatch(k);
    k
}

/// The core at the beginning of a kernel entry of processor 0.
pub fn here(k: World) -> Here<'static, Fake> {
    Here::new(k, CpuId::new(0))
}

/// What the dispatcher does after a kernel entry.
pub fn dispatch(k: World) {
    loop {
        let mut here = here(k);
        here.attend();
        match here.choose() {
            Some(thread) if k.tcb(thread).work() != kcore::thread::Work::None => here.step(thread),
            _ => return,
        }
    }
}

impl Sink for Fake {}

impl PhysMem for Fake {
    fn read(&self, at: PhysAddr) -> usize {
        // Who looks elsewhere would fault in a kernel.
        assert!(
            (KMEM.0..KMEM.1).contains(&at.0) && at.0.is_multiple_of(8),
            "a word of kernel memory is at {:#x}",
            at.0
        );
        self.words.borrow().get(&at.0).copied().unwrap_or(0)
    }
    fn write(&self, at: PhysAddr, word: usize) {
        self.words.borrow_mut().insert(at.0, word);
    }
    fn update(&self, at: PhysAddr, clear: usize, set: usize) -> usize {
        let old = self.read(at);
        self.write(at, old & !clear | set);
        old
    }
    fn replace(&self, at: PhysAddr, old: usize, new: usize) -> bool {
        let is_old = self.read(at) == old;
        if is_old {
            self.write(at, new);
        }
        is_old
    }
    fn zero_frame(&self, frame: PhysAddr) {
        (0..512).for_each(|word| self.write(PhysAddr(frame.0 + word * 8), 0));
    }
}

impl Tlb for Fake {
    fn invalidate(&self, _space: SpaceRef, _at: usize, _size_log2: u32) {}
    fn invalidate_all(&self, _space: SpaceRef) {}
    fn complete(&self) {}
    fn flush_caches(&self) {}
}

impl Mmu for Fake {
    type Format = Amd64;
    fn format(&self) -> Amd64 {
        Amd64 { no_execute: true, global: true, pat: true, huge: false }
    }
    fn init_root(&self, _root: PhysAddr) {}
    fn space_word(&self, _space: SpaceRef, root: PhysAddr) -> usize {
        root.0 as usize
    }
    fn back_nodes(&self, _: &Kmem, _: &mut Held<{ rank::NODES }>, _: NodeRef) -> Result<(), NoMemory> {
        Ok(())
    }
    fn release_nodes(&self, _: &Kmem, _: &mut Held<{ rank::NODES }>, _: NodeRef) {}
    fn back_spaces(&self, _: &Kmem, _: &mut Held<{ rank::SPACE }>, _: SpaceRef) -> Result<(), NoMemory> {
        Ok(())
    }
    fn release_spaces(&self, _: &Kmem, _: &mut Held<{ rank::SPACE }>, _: SpaceRef) {}
}

impl Machine for Fake {
    fn now_us(&self) -> u64 {
        1000
    }
    fn kernel_address(&self, phys: PhysAddr) -> usize {
        KERNEL_BASE + phys.0 as usize
    }
    fn utcb(&self, address: usize) -> &Utcb {
        self.utcbs.borrow_mut().entry(address).or_insert_with(|| leak(Utcb::new()))
    }
    fn copy(&self, _from: PhysAddr, _to: PhysAddr, _len: usize) {}
    fn read_user_word(&self, _at: PhysAddr) -> usize {
        0
    }
    fn ipc_return_ip(&self) -> usize {
        0xFFFF_FFFF_FFB0_0002
    }
    fn back_thread(&self, _: &mut Held<{ rank::NONE }>, _: TcbRef) -> Result<(), NoMemory> {
        Ok(())
    }
    fn release_thread(&self, _: &mut Held<{ rank::NONE }>, _: TcbRef) {}
    fn reset_registers(&self, _thread: TcbRef) {}
    fn default_flags(&self) -> usize {
        0x202
    }
    fn user_flags(&self, _old: usize, wanted: usize) -> usize {
        wanted
    }
    fn forget_thread(&self, _thread: TcbRef) {}
    fn ipc_return(&self, _thread: TcbRef, _tcb: &Tcb, _from: ThreadId) {}
    fn unmap_return(&self, _thread: TcbRef, _utcb: &Utcb) {}
    fn exception_image(&self, _: TcbRef, _: UserRegs, _: &mut [Word; EXCEPTION_IMAGE_WORDS]) -> usize {
        0
    }
    fn load_exception_image(&self, _thread: TcbRef, regs: UserRegs, _words: &[Word]) -> UserRegs {
        regs
    }
}
