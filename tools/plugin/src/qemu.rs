//! QEMU's plugin interface, version 1 (`qemu-plugin.h` of QEMU 7.2), as far as it is used here.
//!
//! QEMU calls [`qemu_plugin_install`] once, then [`translate`] for each block that it translates, and from the translated
//! code [`execute`] before each instruction and [`access`] after each access of kernel code to memory.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::counter::{Access, Counter};
use crate::instruction::{Instruction, Side};

/// Which version of the interface this plugin was made for; QEMU reads it.
// SAFETY: only QEMU looks for a symbol of this name, and it wants this type.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU's name")]
pub static qemu_plugin_version: c_int = 1;

/// A block that is being translated.
#[repr(C)]
struct Block {
    _private: [u8; 0],
}

/// An instruction of such a block.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// The physical side of an access.
#[repr(C)]
struct Physical {
    _private: [u8; 0],
}

/// Callbacks read and write no registers.
const NO_REGISTERS: c_int = 0;
/// Callbacks for loads and stores.
const LOADS_AND_STORES: c_int = 3;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: unsafe extern "C" fn(u64, *mut Block));
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Handle;
    fn qemu_plugin_insn_data(instruction: *const Handle) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const Handle) -> usize;
    fn qemu_plugin_insn_vaddr(instruction: *const Handle) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Handle,
        callback: unsafe extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Handle,
        callback: unsafe extern "C" fn(c_uint, u32, u64, *mut c_void),
        flags: c_int,
        accesses: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    fn qemu_plugin_mem_is_store(info: u32) -> bool;
    fn qemu_plugin_get_hwaddr(info: u32, address: u64) -> *const Physical;
    fn qemu_plugin_hwaddr_is_io(physical: *const Physical) -> bool;
}

/// What the callbacks share. The processors of the guest may be threads of QEMU.
struct Plugin {
    stubs: u64,
    counter: Mutex<Counter>,
    out: Mutex<File>,
    /// Instructions that were translated, by address and bytes: they stay, as translated code points to them.
    known: Mutex<HashMap<(u64, Vec<u8>), &'static Instruction>>,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// A region is open. Known without a lock, because most instructions are executed outside.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// A panic aborts, as it cannot leave a callback: nobody sees what it left behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the arguments `out=FILE` and `stubs=ADDRESS`.
///
/// # Safety
/// Called by QEMU: `argv` has `argc` pointers to strings.
// SAFETY: only QEMU looks for a symbol of this name, and it wants this type.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0)).map(|index| {
        // SAFETY: `argv` has `argc` pointers, by contract.
        let argument = unsafe { *argv.wrapping_add(index) };
        // SAFETY: each is a string, by contract, which stays as long as the plugin.
        unsafe { CStr::from_ptr(argument) }.to_string_lossy().into_owned()
    });
    let plugin = Plugin::new(&arguments.collect::<Vec<_>>());
    match plugin.and_then(|plugin| PLUGIN.set(plugin).map_err(|_| "load it once".to_owned())) {
        Ok(()) => {
            // SAFETY: QEMU gave this id, and the callback has the type that it calls.
            unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translate) };
            0
        }
        Err(error) => complain(&error),
    }
}

fn complain(what: &str) -> c_int {
    eprintln!("marcona plugin: {what}");
    1
}

impl Plugin {
    fn new(arguments: &[String]) -> Result<Self, String> {
        let (mut out, mut stubs) = (None, 0xFFFF_FFFF_FFB0_0000);
        for argument in arguments {
            match argument.split_once('=') {
                Some(("out", file)) => out = Some(file),
                Some(("stubs", address)) => {
                    let digits = address.trim_start_matches("0x");
                    stubs = u64::from_str_radix(digits, 16).map_err(|error| format!("{argument}: {error}"))?;
                }
                _ => return Err(format!("{argument} means nothing: there are out=FILE and stubs=ADDRESS")),
            }
        }
        let file = out.ok_or("say out=FILE")?;
        let out = File::create(file).map_err(|error| format!("cannot write {file}: {error}"))?;
        Ok(Self { stubs, counter: Mutex::default(), out: Mutex::new(out), known: Mutex::default() })
    }

    fn instruction(&self, address: u64, bytes: &[u8]) -> &'static Instruction {
        let mut known = lock(&self.known);
        let new = || Box::leak(Box::new(Instruction::new(address, bytes, self.stubs)));
        known.entry((address, bytes.to_owned())).or_insert_with(|| new())
    }

    fn execute(&self, cpu: usize, instruction: &Instruction) {
        let mut counter = lock(&self.counter);
        if let Some(mut line) = counter.execute(cpu, instruction) {
            line.push('\n');
            if let Err(error) = lock(&self.out).write_all(line.as_bytes()) {
                complain(&format!("a region is lost: {error}"));
            }
        }
        IS_OPEN.store(counter.is_open(), Relaxed);
    }
}

/// # Safety
/// Called by QEMU, with a block that it is translating.
unsafe extern "C" fn translate(_id: u64, block: *mut Block) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: the block is QEMU's.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: the block has an instruction with this index.
        let handle = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: the handle is QEMU's, valid during this call; so it is below.
        let address = unsafe { qemu_plugin_insn_vaddr(handle) };
        // SAFETY: as above.
        let bytes = unsafe { qemu_plugin_insn_size(handle) };
        // SAFETY: as above.
        let first = unsafe { qemu_plugin_insn_data(handle) };
        // SAFETY: QEMU keeps so many bytes of the instruction there during this call.
        let bytes = unsafe { std::slice::from_raw_parts(first, bytes) };
        let instruction = plugin.instruction(address, bytes);
        let data = std::ptr::from_ref(instruction).cast_mut().cast();
        // SAFETY: the callback has the type that QEMU calls, and takes the pointer for what it is: an instruction that
        // stays for good.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(handle, execute, NO_REGISTERS, data) };
        if instruction.side == Side::Kernel {
            let nothing = std::ptr::null_mut();
            // SAFETY: the callback has the type that QEMU calls, and ignores the pointer.
            unsafe { qemu_plugin_register_vcpu_mem_cb(handle, access, NO_REGISTERS, LOADS_AND_STORES, nothing) };
        }
    }
}

/// # Safety
/// Called by QEMU, with the pointer that [`translate`] registered.
unsafe extern "C" fn execute(cpu: c_uint, data: *mut c_void) {
    // SAFETY: the pointer is to an instruction, which nobody changes.
    let instruction = unsafe { &*data.cast_const().cast::<Instruction>() };
    if !IS_OPEN.load(Relaxed) && instruction.mark.is_none() {
        return;
    }
    if let Some(plugin) = PLUGIN.get() {
        plugin.execute(cpu as usize, instruction);
    }
}

/// # Safety
/// Called by QEMU, behind an access to memory.
unsafe extern "C" fn access(cpu: c_uint, info: u32, address: u64, _data: *mut c_void) {
    let Some(plugin) = PLUGIN.get().filter(|_| IS_OPEN.load(Relaxed)) else { return };
    // SAFETY: QEMU gave this description of an access; so it is below.
    let bytes = 1 << unsafe { qemu_plugin_mem_size_shift(info) };
    // SAFETY: as above.
    let is_store = unsafe { qemu_plugin_mem_is_store(info) };
    // SAFETY: as above, and the access was made just now.
    let physical = unsafe { qemu_plugin_get_hwaddr(info, address) };
    // SAFETY: the handle is QEMU's, valid during this call.
    let is_device = !physical.is_null() && unsafe { qemu_plugin_hwaddr_is_io(physical) };
    lock(&plugin.counter).access(cpu as usize, &Access { address, bytes, is_store, is_device });
}
