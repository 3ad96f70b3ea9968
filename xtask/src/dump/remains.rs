//! A kernel's tables, as they stand in the memory of a dead machine, as the core's own: so whatever looks at a living kernel
//! looks at this one, too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use kcore::cross::claims::Claims;
use kcore::kernel::{Kernel, ThreadNumbers};
use kcore::kmem::Kmem;
use kcore::load::Load;
use kcore::lock::{Held, rank};
use kcore::machine::{
    EXCEPTION_IMAGE_WORDS, Machine, Mmu, NoMemory, NodeRef, PhysAddr, PhysMem, SpaceRef, TcbRef, Tlb, UserRegs,
};
use kcore::mapdb::Node;
use kcore::pool::Table;
use kcore::sched::Cpu;
use kcore::space::{Space, SpaceConfig, Spaces};
use kcore::thread::Tcb;
use kcore::trace::Sink;
use kcore::var::Var;
use kdb::names::Names;
use kformats::paging::Amd64;
use l4_abi::{ThreadId, Utcb, Word};
use object::{Object, ObjectSection, ObjectSymbol};

use super::memory::Memory;
use crate::symbols;

const PAGE: usize = 4096;
/// What kernels that can be read say of themselves first.
const MAGIC: u64 = u64::from_le_bytes(*b"Marcona\x01");
/// Where the image is, as far from its physical address; how much can be there.
pub const KERNEL_BASE: u64 = 0xFFFF_FFFF_8000_0000;
const IMAGE_LIMIT: u64 = 512 << 20;
const DIRECT_MAP_BYTES: u64 = 510 << 30;
/// Threads that a kernel has room for.
const THREADS: usize = 1 << 18;
const USER_END: u64 = (1 << 47) - 4096;

/// The kernel that was booted: its file with symbols.
pub struct Image {
    names: BTreeMap<String, u64>,
    table: Vec<u8>,
    /// Some of what is never written, and where it is: to tell one kernel from another.
    sample: (u64, Vec<u8>),
    /// The kernel's code.
    pub text: std::ops::Range<u64>,
}

impl Image {
    /// Reads the file.
    pub fn open(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let elf =
            object::File::parse(&*bytes).map_err(|error| anyhow!("{} is no ELF file: {error}", file.display()))?;
        let demangled = |name: &str| format!("{:#}", rustc_demangle::demangle(name));
        let names =
            elf.symbols().filter_map(|symbol| Some((demangled(symbol.name().ok()?), symbol.address()))).collect();
        let section = elf.section_by_name(".rodata").context("the kernel has no constants")?;
        let data = section.data().map_err(|error| anyhow!("{error}"))?;
        let list = symbols::of_kernel(&elf);
        let mut table = vec![0; 1 << 20];
        let borrowed = list.iter().map(|(offset, name)| (*offset, name.as_str()));
        let len = kformats::symbols::encode(borrowed, &mut table).map_err(|_| anyhow!("too many symbols"))?;
        table.truncate(len);
        let text = elf.section_by_name(".text").map_or(0..0, |text| text.address()..text.address() + text.size());
        Ok(Self { names, table, sample: (section.address(), data[..data.len().min(PAGE)].to_vec()), text })
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Result<u64> {
        self.names
            .get(name)
            .copied()
            .with_context(|| format!("the kernel has no symbol {name}: name its file with symbols"))
    }

    /// The symbols as the debugger reads them.
    pub fn symbols(&self) -> kformats::symbols::Symbols<'_> {
        kformats::symbols::Symbols::new(&self.table, KERNEL_BASE)
    }
}

/// The dead machine.
pub struct Remains {
    /// Its memory.
    pub memory: Memory,
    root: u64,
    direct_map: u64,
    has_io_fpages: bool,
}

/// What the kernel says of itself.
struct Facts {
    root: u64,
    cpus: usize,
    numbers: ThreadNumbers,
    spaces: usize,
    nodes: usize,
    physical_bits: u32,
    kip: u64,
    has_io_fpages: bool,
}

impl Facts {
    fn read(memory: &Memory, image: &Image) -> Result<Self> {
        let (at, sample) = &image.sample;
        let mut found = vec![0; sample.len()];
        if memory.read(at - KERNEL_BASE, &mut found) < found.len() || found != *sample {
            bail!("the memory is that of another kernel: name its file with symbols by --kernel, or its --config");
        }
        let begin = image.address("kernel_facts")? - KERNEL_BASE;
        let words: Vec<u64> = (0..12).map_while(|index| memory.word(begin + index * 8)).collect();
        let &[magic, layout, root, cpus, system_base, user_base, spaces, nodes, physical_bits, kip, io_fpages, _] =
            words.as_slice()
        else {
            bail!("the memory ends within the kernel");
        };
        if magic != MAGIC {
            bail!("the kernel had not begun to run threads");
        }
        if layout != kcore::load::layout() {
            bail!("the kernel was compiled from other sources than this tool: build the tool of that time");
        }
        let numbers = ThreadNumbers { system_base: u32::try_from(system_base)?, user_base: u32::try_from(user_base)? };
        Ok(Self {
            root,
            cpus: usize::try_from(cpus)?.min(255),
            numbers,
            spaces: usize::try_from(spaces)?.min(THREADS),
            nodes: usize::try_from(nodes)?.min(1 << 24),
            physical_bits: u32::try_from(physical_bits)?.clamp(32, 52),
            kip,
            has_io_fpages: io_fpages != 0,
        })
    }
}

/// A dead kernel.
pub struct Dead {
    /// Its tables.
    pub kernel: &'static Kernel<'static, Remains>,
    /// What its threads and spaces called themselves.
    pub names: Names,
    /// The address of the kernel interface page.
    pub kip: u64,
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn table<T: Default>(len: usize) -> &'static [T] {
    Vec::leak((0..len).map(|_| T::default()).collect())
}

impl Dead {
    /// Reads the tables of a kernel. They stay for as long as the tool runs.
    pub fn new(memory: Memory, image: &Image) -> Result<Self> {
        let facts = Facts::read(&memory, image)?;
        let remains = Remains::new(memory, &facts, image)?;
        let machine = leak(remains);
        let tcbs = tcbs(machine, image.address("layout_tcb")?, facts.numbers);
        let (spaces, nodes) = (table::<Space>(facts.spaces), table::<Node>(facts.nodes));
        let space_map = machine.load_table(spaces, image.address("layout_space")?);
        let node_map = machine.load_table(nodes, image.address("layout_node")?);
        let kmem = leak(Kmem::new());
        machine.load(kmem, image.address("kernel::boot::bring_up::KMEM")?);
        let area = |cpu: u64| -> Result<u64> {
            let (first, stride) = (image.address("area_data")?, image.address("layout_area_stride")?);
            Ok(first + cpu * stride + image.address("area_word_current")?)
        };
        let mut cpus = Vec::new();
        for cpu in 0..facts.cpus as u64 {
            let own: &Cpu = leak(Cpu::new());
            machine.load(own, area(cpu)?);
            cpus.push(own);
        }
        let config =
            SpaceConfig { user_end: USER_END, physical_end: 1 << facts.physical_bits, kip: PhysAddr(facts.kip) };
        let (spaces, nodes) = (Table { slots: spaces, backed: space_map }, Table { slots: nodes, backed: node_map });
        let spaces = Spaces::new(machine, kmem, spaces, nodes, config);
        spaces.take_stock();
        let kernel = leak(Kernel {
            machine,
            tcbs,
            cpus: Vec::leak(cpus),
            spaces,
            kmem,
            numbers: facts.numbers,
            creation: Claims::new(),
        });
        let names = names(machine, image);
        Ok(Self { kernel, names, kip: KERNEL_BASE + facts.kip })
    }
}

/// The thread control blocks up to the last page in which there is any.
fn tcbs(machine: &Remains, at: u64, numbers: ThreadNumbers) -> &'static [Tcb] {
    let size = size_of::<Tcb>();
    let per_page = PAGE / size;
    let mut pages = Vec::new();
    let mut empty = None;
    for page in 0..THREADS / per_page {
        let address = at + (page * PAGE) as u64;
        // All that is not there shows the same frame of zeroes.
        let Some(frame) = machine.translate(address).filter(|frame| Some(*frame) != empty) else { continue };
        let mut bytes = vec![0; PAGE];
        machine.memory.read(frame, &mut bytes);
        if bytes.iter().all(|&byte| byte == 0) {
            empty = Some(frame);
        } else {
            pages.push((page, bytes));
        }
    }
    let last = pages.last().map_or(0, |(page, _)| page + 1) * per_page;
    let tcbs: &'static [Tcb] = table(last.max(numbers.user_base as usize + per_page));
    for (page, bytes) in pages {
        let slots = tcbs[page * per_page..].iter().zip(bytes.chunks(size));
        slots.for_each(|(tcb, bytes)| tcb.load(bytes));
    }
    tcbs
}

/// Who is in the memory of a machine, without what they have.
pub struct Roster {
    /// Borders of the thread numbers.
    pub numbers: ThreadNumbers,
    /// What threads and spaces called themselves.
    pub names: Names,
    /// Threads, and in which spaces they are.
    pub threads: Vec<(ThreadId, SpaceRef)>,
}

impl Roster {
    /// Reads it.
    pub fn read(memory: Memory, image: &Image) -> Result<Self> {
        let facts = Facts::read(&memory, image)?;
        let numbers = facts.numbers;
        let remains = Remains::new(memory, &facts, image)?;
        let tcbs = tcbs(&remains, image.address("layout_tcb")?, numbers);
        let views = tcbs.iter().map(Tcb::view).filter(|view| !view.id.is_nil());
        let threads = views.filter_map(|view| Some((view.id, view.space?))).collect();
        Ok(Self { numbers, names: names(&remains, image), threads })
    }
}

/// What threads and spaces called themselves: nothing, if the kernel has no debugger.
fn names(machine: &Remains, image: &Image) -> Names {
    let names = Names::new();
    if let Ok(at) = image.address("kernel::kdb::NAMES") {
        let mut bytes = vec![0; size_of::<Names>()];
        machine.read_kernel(at, &mut bytes);
        names.load(&bytes);
    }
    names
}

impl Remains {
    fn new(memory: Memory, facts: &Facts, image: &Image) -> Result<Self> {
        let direct_map = image.address("layout_physical")?;
        Ok(Self { memory, root: facts.root, direct_map, has_io_fpages: facts.has_io_fpages })
    }

    /// The physical address of what the kernel has at `address`.
    pub fn translate(&self, address: u64) -> Option<u64> {
        let in_image = address.wrapping_sub(KERNEL_BASE);
        if in_image < IMAGE_LIMIT {
            return Some(in_image);
        }
        let in_direct_map = address.wrapping_sub(self.direct_map);
        if in_direct_map < DIRECT_MAP_BYTES {
            return Some(in_direct_map);
        }
        const FRAME: u64 = 0x000F_FFFF_FFFF_F000;
        const PRESENT: u64 = 1;
        const LARGE: u64 = 1 << 7;
        let mut table = self.root & FRAME;
        for shift in [39, 30, 21, 12] {
            let entry = self.memory.word(table + (address >> shift & 0x1FF) * 8)?;
            if entry & PRESENT == 0 {
                return None;
            }
            if shift == 12 || entry & LARGE != 0 && shift < 39 {
                let inside = (1 << shift) - 1;
                return Some(entry & FRAME & !inside | address & inside);
            }
            table = entry & FRAME;
        }
        None
    }

    /// Reads what the kernel has at `address`; how many bytes are there, from the first on.
    pub fn read_kernel(&self, address: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(at) = address.checked_add(done as u64) else { break };
            let Some(phys) = self.translate(at) else { break };
            let count = (PAGE - at as usize % PAGE).min(bytes.len() - done);
            let read = self.memory.read(phys, &mut bytes[done..done + count]);
            done += read;
            if read < count {
                break;
            }
        }
        done
    }

    fn load<T: Load>(&self, place: &T, at: u64) {
        let mut bytes = vec![0; size_of::<T>()];
        self.read_kernel(at, &mut bytes);
        place.load(&bytes);
    }

    /// Fills the slots of a table that is backed page by page, and says which pages are: those with anything in them.
    fn load_table<T: Load>(&self, slots: &[T], at: u64) -> &'static [Var<usize>] {
        let per_page = PAGE / size_of::<T>();
        let map: &'static [Var<usize>] = table(slots.len().div_ceil(per_page).div_ceil(64));
        let mut empty = None;
        for (page, slots) in slots.chunks(per_page).enumerate() {
            let Some(frame) = self.translate(at + (page * PAGE) as u64).filter(|frame| Some(*frame) != empty) else {
                continue;
            };
            let mut bytes = vec![0; PAGE];
            self.memory.read(frame, &mut bytes);
            if bytes.iter().all(|&byte| byte == 0) {
                empty = Some(frame);
                continue;
            }
            slots.iter().zip(bytes.chunks(size_of::<T>())).for_each(|(slot, bytes)| slot.load(bytes));
            map[page / 64].set(map[page / 64].get() | 1 << (page % 64));
        }
        map
    }
}

// A dead machine does nothing: what the core would ask of it while it works is not asked.

impl Sink for Remains {}

impl PhysMem for Remains {
    fn read(&self, at: PhysAddr) -> usize {
        self.memory.word(at.0).unwrap_or(0) as usize
    }
    fn write(&self, _at: PhysAddr, _word: usize) {}
    fn update(&self, at: PhysAddr, _clear: usize, _set: usize) -> usize {
        self.read(at)
    }
    fn replace(&self, _at: PhysAddr, _old: usize, _new: usize) -> bool {
        true
    }
    fn zero_frame(&self, _frame: PhysAddr) {}
}

impl Tlb for Remains {
    fn invalidate(&self, _space: SpaceRef, _at: usize, _size_log2: u32) {}
    fn invalidate_all(&self, _space: SpaceRef) {}
    fn complete(&self) {}
    fn flush_caches(&self) {}
}

impl Mmu for Remains {
    type Format = Amd64;
    // A table of each level below the root leads to the port map.
    const PORT_MAP_FRAMES: usize = 3;
    fn format(&self) -> Amd64 {
        Amd64 { no_execute: true, global: true, pat: true, huge: true }
    }
    fn init_root(&self, _root: PhysAddr) {}
    fn space_word(&self, _space: SpaceRef, root: PhysAddr) -> usize {
        root.0 as usize
    }
    fn back_nodes(&self, _: &Kmem, _: &mut Held<{ rank::NODES }>, _: NodeRef) -> Result<(), NoMemory> {
        Err(NoMemory)
    }
    fn release_nodes(&self, _: &Kmem, _: &mut Held<{ rank::NODES }>, _: NodeRef) {}
    fn back_spaces(&self, _: &Kmem, _: &mut Held<{ rank::SPACE }>, _: SpaceRef) -> Result<(), NoMemory> {
        Err(NoMemory)
    }
    fn release_spaces(&self, _: &Kmem, _: &mut Held<{ rank::SPACE }>, _: SpaceRef) {}
    fn has_io_fpages(&self) -> bool {
        self.has_io_fpages
    }
}

impl Machine for Remains {
    fn now_us(&self) -> u64 {
        0
    }
    fn kernel_address(&self, phys: PhysAddr) -> usize {
        (self.direct_map + phys.0) as usize
    }
    fn utcb(&self, _address: usize) -> &Utcb {
        static EMPTY: Utcb = Utcb::new();
        &EMPTY
    }
    fn copy(&self, _from: PhysAddr, _to: PhysAddr, _len: usize) {}
    fn read_user_word(&self, at: PhysAddr) -> usize {
        self.read(at)
    }
    fn ipc_return_ip(&self) -> usize {
        0
    }
    fn back_thread(&self, _: &mut Held<{ rank::NONE }>, _: TcbRef) -> Result<(), NoMemory> {
        Err(NoMemory)
    }
    fn release_thread(&self, _: &mut Held<{ rank::NONE }>, _: TcbRef) {}
    fn reset_registers(&self, _thread: TcbRef) {}
    fn default_flags(&self) -> usize {
        0
    }
    fn user_flags(&self, old: usize, _wanted: usize) -> usize {
        old
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
