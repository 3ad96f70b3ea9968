//! What user code finds of the kernel in its page tables, seen from outside: by the monitor of the emulator, which walks the
//! tables that are loaded.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{LittleEndian, Object, ObjectSymbol};

use super::boots::{PATIENCE, machine, tail};
use super::{Case, Lab};
use crate::monitor::Monitor;
use crate::qemu::{Console, End, Ended, Module};

/// A processor with Meltdown.
const WEAK: &str = "Nehalem";
/// One that has all protections.
const STRONG: &str = "max";
const CPUS: u32 = 2;
const PAGE: u64 = 4096;

/// How long it may take until each processor was seen in user mode.
const LONGEST: Duration = Duration::from_secs(120);

/// In an area: the porch.
const PORCH: u64 = 0xC000;
/// Task states and port map, where there are I/O fpages: 32 KiB and three pages.
const PORTS: Range<u64> = 0xFFFF_FEFF_FFFF_8000..0xFFFF_FF00_0000_3000;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("boot::user_code_has_only_the_porch_of_the_kernel", "", |lab| porch(lab, "")),
        Case::new("boot::user_code_has_only_the_porch_and_its_ports", "", |lab| porch(lab, "ioflexpages=yes")),
        Case::new("boot::user_code_has_the_kernel_with_mitigations_off", "", all),
        Case::new("boot::protections_of_the_processor_are_on", "", protections),
        Case::new("boot::no_page_of_the_kernel_is_writable_and_executable", "", |lab| rights_of_all(lab, "")),
        Case::new("boot::no_page_of_the_kernel_with_its_ports_is_writable_and_executable", "", |lab| {
            rights_of_all(lab, "ioflexpages=yes ")
        }),
    ]
}

/// What may be done with a page, in the letters of the monitor: not executed, global, written, user code.
type Rights = String;

/// The pages of the upper half, with what may be done with them.
type Pages = BTreeMap<u64, Rights>;

/// What each processor has in its tables while it is in user mode is what is written down of the porch.
pub fn porch(lab: &Lab, kernel_args: &str) -> Result<()> {
    let expected = expected(&Symbols::read(lab)?, !kernel_args.is_empty())?;
    in_user_mode(lab, kernel_args, |monitor, cpu| {
        let pages = upper_half(&monitor.ask(cpu, "info tlb")?)?;
        let differing = |one: &Pages, other: &Pages| -> Vec<String> {
            let more = one.iter().filter(|(page, rights)| other.get(page) != Some(rights));
            more.map(|(page, rights)| format!("{page:#x} {rights}")).collect()
        };
        let (more, less) = (differing(&pages, &expected), differing(&expected, &pages));
        ensure!(more.is_empty() && less.is_empty(), "processor {cpu} has {more:x?}, and not {less:x?}");
        Ok(())
    })
}

/// Without isolation all of the kernel is there: this way of looking does see it.
fn all(lab: &Lab) -> Result<()> {
    let symbols = Symbols::read(lab)?;
    let table = symbols.get("layout_tcb")?;
    in_user_mode(lab, "mitigations=off", |monitor, cpu| {
        let answer = monitor.ask(cpu, &format!("gva2gpa {table:#x}"))?;
        ensure!(answer.contains("gpa:"), "processor {cpu}, {table:#x}: {answer}");
        Ok(())
    })?;
    in_user_mode(lab, "", |monitor, cpu| {
        let answer = monitor.ask(cpu, &format!("gva2gpa {table:#x}"))?;
        ensure!(answer.contains("Unmapped"), "processor {cpu}, {table:#x}: {answer}");
        Ok(())
    })
}

/// Bits of control registers that are on while user code runs: the kernel obeys write protection (CR0.WP); it neither executes
/// nor touches pages of user code (CR4.SMEP, CR4.SMAP), whose view of descriptor tables is closed (CR4.UMIP); and pages can
/// be not executable (EFER.NXE).
const PROTECTIONS: [(&str, u64); 3] = [("CR0", 1 << 16), ("CR4", 1 << 20 | 1 << 21 | 1 << 11), ("EFER", 1 << 11)];

/// On a processor that has all of them, user code runs with all of them on.
pub fn protections(lab: &Lab) -> Result<()> {
    in_user_mode_of(lab, STRONG, "", |monitor, cpu| {
        let answer = monitor.ask(cpu, "info registers")?;
        for (register, bits) in PROTECTIONS {
            let value = register_value(&answer, register).with_context(|| format!("no {register}: {answer}"))?;
            ensure!(value & bits == bits, "processor {cpu} has {register} {value:#x} without {:#x}", bits & !value);
        }
        Ok(())
    })
}

/// The value of a register in what the monitor says.
fn register_value(answer: &str, register: &str) -> Option<u64> {
    let mut words = answer.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(register)?.strip_prefix('='))?;
    u64::from_str_radix(value, 16).ok()
}

/// Of all pages of the kernel, none is writable and executable, and none is user code's but those that are written down.
pub fn rights_of_all(lab: &Lab, kernel_args: &str) -> Result<()> {
    let symbols = Symbols::read(lab)?;
    let expected = users_pages(&symbols)?;
    in_user_mode(lab, &format!("{kernel_args}mitigations=off"), |monitor, cpu| {
        let pages = upper_half(&monitor.ask(cpu, "info tlb")?)?;
        // The kernel's text, at least, and its data.
        for rights in ["G", "XGW"] {
            ensure!(pages.values().any(|found| found == rights), "processor {cpu} has no page with {rights}");
        }
        let wild: Vec<_> = pages.iter().filter(|(_, rights)| rights.contains('W') && !rights.contains('X')).collect();
        ensure!(wild.is_empty(), "processor {cpu} may write and execute {wild:x?}");
        let users: Pages = pages.into_iter().filter(|(_, rights)| rights.contains('U')).collect();
        ensure!(users == expected, "user code on processor {cpu} has {users:x?}, not {expected:x?}");
        Ok(())
    })
}

/// The pages of the upper half that user code may use: the entries of system calls, and the pages that show a processor's
/// running thread its UTCB.
fn users_pages(symbols: &Symbols) -> Result<Pages> {
    let mut pages = Pages::from([(symbols.get("layout_stubs")?, "GU".to_owned())]);
    for cpu in 0..u64::from(CPUS) {
        pages.insert(symbols.get("layout_utcb_slot")? + cpu * PAGE, "XGU".to_owned());
    }
    Ok(pages)
}

/// Lets `look` look at each processor while it is in user mode.
fn in_user_mode(lab: &Lab, kernel_args: &str, look: impl Fn(&mut Monitor, u32) -> Result<()>) -> Result<()> {
    in_user_mode_of(lab, WEAK, kernel_args, look)
}

/// The same on processors of another kind.
fn in_user_mode_of(
    lab: &Lab,
    cpu: &str,
    kernel_args: &str,
    look: impl Fn(&mut Monitor, u32) -> Result<()>,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("monitor");
    let mut machine = machine(lab, cpu, 256);
    machine.cpus = CPUS;
    machine.monitor = Some(socket.clone());
    kernel_args.clone_into(&mut machine.modules[0].args);
    machine.modules[2] = Module { file: lab.image("storm"), args: "seed=1 ops=100000000".to_owned() };
    thread::scope(|scope| {
        let boot = scope.spawn(|| machine.boot(&Console::none(), Some(PATIENCE)));
        let looked = Monitor::connect(&socket).and_then(|mut monitor| {
            let looked = look_at_all(&mut monitor, look);
            monitor.quit().and(looked)
        });
        let Ended { end, console, .. } = boot.join().expect("a boot does not panic")?;
        looked.with_context(|| tail(&console))?;
        ensure!(end == End::Off, "{end}\n{}", tail(&console));
        Ok(())
    })
}

fn look_at_all(monitor: &mut Monitor, look: impl Fn(&mut Monitor, u32) -> Result<()>) -> Result<()> {
    let end = Instant::now() + LONGEST;
    let mut unseen: Vec<u32> = (0..CPUS).collect();
    while !unseen.is_empty() {
        ensure!(Instant::now() < end, "processors {unseen:?} were never in user mode");
        thread::sleep(Duration::from_millis(2));
        monitor.stop()?;
        for cpu in unseen.clone() {
            if monitor.ask(cpu, "info registers")?.contains("CPL=3") {
                look(monitor, cpu)?;
                unseen.retain(|&other| other != cpu);
            }
        }
        monitor.go_on()?;
    }
    Ok(())
}

/// Takes apart what the monitor says of the tables: lines of an address, a frame and nine letters.
fn upper_half(answer: &str) -> Result<Pages> {
    let mut pages = Pages::new();
    for line in answer.lines() {
        let mut words = line.split_whitespace();
        let (Some(address), _, Some(letters)) = (words.next(), words.next(), words.next()) else { continue };
        let address = u64::from_str_radix(address.trim_end_matches(':'), 16).with_context(|| line.to_owned())?;
        if address >> 63 != 0 {
            pages.insert(address, letters.chars().filter(|letter| "XGPWU".contains(*letter)).collect());
        }
    }
    Ok(pages)
}

/// What stands in `kernel/image/src/boot/paging.rs`, page by page.
fn expected(symbols: &Symbols, has_ports: bool) -> Result<Pages> {
    let mut pages = Pages::new();
    let mut add = |range: Range<u64>, rights: &str| {
        range.step_by(PAGE as usize).for_each(|page| drop(pages.insert(page, rights.to_owned())));
    };
    let page_of = |at: u64| at..at + PAGE;
    add(symbols.get("__text_start")?..symbols.get("__entry_end")?, "");
    add(page_of(symbols.get_static("bring_up3IDT")?), "X");
    add(page_of(symbols.get("layout_stubs")?), "U");
    let states = PORTS.start..0xFFFF_FF00_0000_0000;
    if has_ports {
        add(states.clone(), "XW");
        add(states.end..PORTS.end, "X");
    } else {
        let first = symbols.get_static("task_state3ALL")?;
        add(first..first + (states.end - states.start), "X");
    }
    for cpu in 0..u64::from(CPUS) {
        let area = symbols.get("layout_area")? + cpu * symbols.get("layout_area_stride")?;
        add(page_of(area), "");
        add(page_of(area + PORCH), "XW");
        add(page_of(symbols.get("layout_utcb_slot")? + cpu * PAGE), "XU");
    }
    Ok(pages)
}

/// The addresses of the kernel's symbols.
struct Symbols(BTreeMap<String, u64>);

impl Symbols {
    fn read(lab: &Lab) -> Result<Self> {
        let bytes = fs::read(lab.image("kernel.debug"))?;
        let elf = ElfFile::<FileHeader64<LittleEndian>>::parse(bytes.as_slice())?;
        let named = elf.symbols().filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol.address())));
        Ok(Self(named.collect()))
    }

    fn get(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("the kernel has no symbol {name}"))
    }

    /// A static whose mangled name ends so.
    fn get_static(&self, end: &str) -> Result<u64> {
        let found = self.0.iter().find(|(name, _)| name.starts_with("_R") && name.ends_with(end));
        found.map(|(_, &address)| address).with_context(|| format!("the kernel has no static {end}"))
    }
}

#[cfg(test)]
mod tests {
    use super::upper_half;

    #[test]
    fn registers_are_found_by_name() {
        let answer =
            "CPL=3 II=0\nCR0=80050033 CR2=0000000000000000 CR3=0000000001234000 CR4=003006b0\nEFER=0000000000000d01\n";
        assert_eq!(super::register_value(answer, "CR0"), Some(0x8005_0033));
        assert_eq!(super::register_value(answer, "EFER"), Some(0xD01));
        assert_eq!(super::register_value(answer, "CR8"), None);
    }

    #[test]
    fn the_monitor_s_lines_are_pages() {
        let answer = "0000000000400000: 0000000000901000 X--DA--UW\r\nffffffffffa00000: 000000000e0db000 X---A--U-\n\
                      fffffffff000c000: 000000000e0dc000 X--DA---W\n";
        let pages = upper_half(answer).expect("all lines are right");
        let pages: Vec<_> = pages.iter().map(|(&page, rights)| (page, rights.as_str())).collect();
        assert_eq!(pages, [(0xFFFF_FFFF_F000_C000, "XW"), (0xFFFF_FFFF_FFA0_0000, "XU")]);
    }
}
