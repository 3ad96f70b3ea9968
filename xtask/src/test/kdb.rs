//! The kernel debugger as a person uses it: keys are typed on the serial line, and what it shows is read. The program
//! `deadlock` plants what docs/debugging.md finds; the steps are the same.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSymbol};

use super::boots::{self, PATIENCE};
use super::media::{await_screen, watched, with_console};
use super::{Case, Lab};
use crate::config::Chosen;
use crate::monitor::Monitor;
use crate::qemu::{Console, End, Ended, Input, Machine, Module, Typing};
use crate::{build, dump, gdb, packages, project};

/// What the debugger says when it waits for the first key.
const PROMPT: &str = "? lists the commands, g leaves\nkdb> ";
/// Switches the pages off, as nobody turns them.
const NO_PAGES: &str = "cl0\r\x1b";

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("kdb::finds_a_ring_of_calls", "", ring),
        Case::new("kdb::finds_a_leaked_mapping", "", leak),
        Case::new("kdb::finds_a_runaway_thread", "", runaway),
        Case::new("kdb::promises_hold_on_four_processors", "", promises),
        Case::new("kdb::each_command_answers", "", each_command),
        Case::new("kdb::stops_at_breakpoints_and_steps", "Kernel debugger, stops", steps),
        Case::new("kdb::stops_at_hardware_breakpoints", "Kernel debugger, stops", hardware_breakpoint),
        Case::new("kdb::a_non_maskable_interrupt_enters", "Kernel debugger, stops", non_maskable),
        Case::new("kdb::escape_breaks_in", "Kernel debugger, stops", break_in),
        Case::new("kdb::keyboard_and_screen_will_do", "Kernel debugger, stops", keyboard_and_screen),
        Case::new("kdb::three_keys_enter_beside_the_console_server", "Kernel debugger, stops", three_keys),
        Case::new("kdb::a_panic_shows_where_and_for_whom", "", panic),
        Case::new("kdb::tracepoints_are_recorded_and_shown", "", traced),
        Case::new("kdb::tracepoints_stop", "Kernel debugger, stops", stops_at_tracepoints),
        Case::new("kdb::a_panic_shows_the_last_events", "", last_events),
        Case::new("kdb::a_dump_shows_all_mistakes", "", from_a_dump),
        Case::new("kdb::gdb_finds_all_mistakes", "", in_gdb),
        Case::new("kdb::any_kernel_tells_what_went_wrong", "", astray),
        Case::new("kdb::a_kernel_without_it_has_nothing_of_it", "", nothing_left),
    ]
}

/// A machine with the debugger in the kernel that boots the program with the three mistakes.
pub fn machine(lab: &Lab, args: &str) -> Result<Machine> {
    machine_with(lab, "trace", args)
}

/// The same, with a kernel of this configuration.
fn machine_with(lab: &Lab, config: &str, args: &str) -> Result<Machine> {
    let dir = build::images(&["kernel"], &Chosen::of(Some(config))?)?;
    let mut machine = boots::machine(lab, "max", 256);
    machine.modules[0] = Module::new(dir.join("kernel"));
    machine.modules[2] = Module { file: lab.image("deadlock"), args: args.to_owned() };
    Ok(machine)
}

/// Types keys when the debugger waits for them; the program must end well.
fn typed(machine: &Machine, keys: &str) -> Result<String> {
    let ended = boot(machine, &format!("{NO_PAGES}{keys}"), PROMPT)?;
    ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, boots::tail(&ended.console));
    Ok(ended.console)
}

fn boot(machine: &Machine, keys: &str, prompt: &'static str) -> Result<Ended> {
    boot_typing(machine, Typing::at(prompt, keys))
}

fn boot_typing(machine: &Machine, typing: Typing) -> Result<Ended> {
    machine.boot(&Console { input: Input::Typed(typing), ..Console::none() }, Some(PATIENCE))
}

/// Whether all of these are said, in this order.
fn check(console: &str, parts: &[&str]) -> Result<()> {
    let mut rest = console;
    for part in parts {
        let at = rest.find(part).with_context(|| format!("no `{part}` where it should be in\n{console}"))?;
        rest = &rest[at + part.len()..];
    }
    Ok(())
}

/// Whether all of these are said, in this order, and the machine is reset or off in the end.
fn check_reset(ended: &Ended, parts: &[&str]) -> Result<()> {
    check(&ended.console, parts)?;
    ensure!(ended.end == End::Off, "{}", ended.end);
    Ok(())
}

fn ring(lab: &Lab) -> Result<()> {
    let console = typed(&machine(lab, "")?, "w/ring\rg")?;
    check(
        &console,
        &["--- \"deadlock\" ---", "RING of 3: ", "(ring.a) -> ", "(ring.b) -> ", "(ring.c) -> ", "(ring.a)"],
    )?;
    check(
        &console,
        &["1 rings; 3 can never go on by themselves", "thread ", "(ring.a)", "sends to", "(ring.b)", "space "],
    )
}

fn leak(lab: &Lab) -> Result<()> {
    let console = typed(&machine(lab, "")?, "msclient\rmsclient\r50000000\r\x1bg")?;
    check(&console, &["kdb/mdb> space", "50000000   4K r-- at ", "(server) at "])?;
    check(&console, &["kdb/mdb> page", "sigma0", "(root) at ", "(server) at ", "(client) at 50000000"])
}

fn runaway(lab: &Lab) -> Result<()> {
    let console = typed(&machine(lab, "")?, "qtrunaway\rg")?;
    check(&console, &["processor 0: runs", "(root)", "ready with priority 50", "(runaway)", "pri 50"])?;
    check(&console, &["thread ", "(runaway)", "does      ready", "user      ip "])
}

fn promises(lab: &Lab) -> Result<()> {
    // The second one keeps the kernel out of the tables of programs.
    for cpu in ["max", "Nehalem"] {
        let mut machine = machine(lab, "")?;
        (machine.cpus, machine.cpu) = (4, cpu.to_owned());
        let console = typed(&machine, "kaS2\rc\x1bqg")?;
        let parts = ["threads: sound; ", "spaces:  sound; ", "kdb/arch> switch_cpu", "CR0 ", "processor 3: idle"];
        check(&console, &parts).context(cpu)?;
    }
    Ok(())
}

fn shows(text: &'static str) -> impl Fn(&[String]) -> bool {
    move |lines| lines.iter().any(|line| line.contains(text))
}

/// A person finds the ring of calls without a serial line, and then wants no more of the screen.
fn keyboard_and_screen(lab: &Lab) -> Result<()> {
    let mut machine = machine(lab, "")?;
    machine.has_screen = true;
    let (_, serial) = watched(machine, |monitor| {
        await_screen(monitor, shows("? lists the commands, g leaves"))?;
        monitor.press("w")?;
        await_screen(monitor, shows("RING of 3: "))?;
        // Lines are typed with capitals, taken back, completed; an arrow brings the last one.
        for key in ["c", "m", "l", "u", "p", "ret", "shift-w", "backspace", "w", "a", "tab", "ret"] {
            monitor.press(key)?;
        }
        await_screen(monitor, shows("kdb> waits"))?;
        for key in ["c", "spc", "l", "spc", "7", "ret", "up"] {
            monitor.press(key)?;
        }
        await_screen(monitor, |lines| lines.iter().filter(|line| line.contains("c l 7")).count() == 2)?;
        for key in ["ctrl-u", "c", "spc", "c", "ret"] {
            monitor.press(key)?;
        }
        await_screen(monitor, shows("kdb> c c"))
    })?;
    check(&serial, &["RING of 3: ", "waits", "RING of 3: ", "prints on the serial line"])
}

/// The debugger has the screen while a person is in it, and the console server has it afterwards.
fn three_keys(lab: &Lab) -> Result<()> {
    let kernel = machine(lab, "")?.modules.swap_remove(0);
    let mut machine = with_console(lab, "pingpong", "menu mrs=0..0", "console=both");
    machine.modules[0] = Module { args: machine.modules[0].args.clone(), ..kernel };
    let (_, serial) = watched(machine, |monitor| {
        await_screen(monitor, shows("q: quit"))?;
        monitor.press("ctrl-alt-esc")?;
        let lines = await_screen(monitor, shows("? lists the commands, g leaves"))?;
        ensure!(!shows("q: quit")(&lines), "the page of the server is still there\n{}", lines.join("\n"));
        monitor.press("l")?;
        await_screen(monitor, shows("sigma1"))?;
        monitor.press("g")?;
        let lines = await_screen(monitor, shows("q: quit"))?;
        ensure!(!shows("kdb>")(&lines), "the debugger's lines are still there\n{}", lines.join("\n"));
        // The program's own keys are those before and behind.
        monitor.press("2")?;
        await_screen(monitor, shows("g: again"))
    })?;
    check(&serial, &["q: quit", "Control, Alt and Escape", "kdb> ", "g: again"])
}

/// Commands of all menus, one after the other, with answers to what they ask.
const ALL: &str = "cccc\x1bltroot\rTroot\rwk/kcore::ipc\rKBqQSFroot\r p1\r\rdkffffffff80600000\r20\rDroot\r1000000\r20\r\
    UkNOWHERE\rUk\r4\rb0\rc#ks\x1bmmp1000000\rMsserver\ri60\rI\x1b\
    acmpr61\r1\rS0\rliCgPffffffff80600000\rIVal\x1b\x1bck\x1b?g";

fn each_command(lab: &Lab) -> Result<()> {
    let console = typed(&machine(lab, "")?, ALL)?;
    let parts = [
        "kdb/config> console",
        "prints on the serial line",
        "kdb> threads",
        "(sigma0)",
        "kdb> showtcb",
        "in        space",
        "kdb> showtcbext",
        "message registers",
        "kdb> waits",
        "kdb> check",
        "kdb> find",
        "symbol ffffffff",
        "kcore::ipc",
        "kdb> kip",
        "conventional",
        "kdb> bootinfo",
        "program at ",
        "kdb> showqueue",
        "kdb> showqueueall",
        "sleep with a timeout",
        "kdb> listspaces",
        "kdb> dumpframe",
        "rip ",
        "kdb> frame",
        "rax ",
        "kdb> ptab",
        " -> ",
        "kdb> memdump",
        "ffffffff80600000 ",
        "kdb> memdumpspace",
        "0000000001000000 ",
        "kdb> disas",
        "is neither a number nor a symbol",
        "kdb> breakpoint",
        "0: not set",
        "kdb> stats",
        "KiB in all",
        "bytes of 8192 were used at most",
        "kdb> mdb",
        "kdb/mdb> page",
        "kdb/mdb> all",
        "kdb/mdb> space",
        "kdb/mdb> port",
        "all programs reach all ports",
    ];
    check(&console, &parts)?;
    let arch = [
        "kdb/arch> ctrlregs",
        "CR0 ",
        "kdb/arch> dumpmsrs",
        "LSTAR",
        "kdb/arch> ports",
        "kdb/arch> switch_cpu",
        "kdb/arch> lvt",
        "LVT timer",
        "kdb/arch> idt",
        " 14: ffffffff",
        "kdb/arch> cpu",
        "kdb/arch> gdt",
        "kdb/arch> pgtcalc",
        "PML4 entry 1ff",
        "kdb/arch> intctrl",
        "input   0",
        "kdb/arch> screendump",
        "kdb/arch> acpi",
        "APIC",
        " tables",
    ];
    check(&console, &arch)?;
    // The debugger must not come near the end of its stack, whatever it is asked.
    let used = console.split(" bytes of 8192 were used").next().and_then(|before| before.rsplit('\n').next());
    let used: usize = used.unwrap_or_default().trim().parse().context("no number of bytes")?;
    ensure!(used <= 6144, "{used} bytes of the stack were used");
    Ok(())
}

/// A single step, a step to a branch, and a hardware breakpoint at the instruction behind.
fn steps(lab: &Lab) -> Result<()> {
    // Each stop greets anew and is in the root menu; pages stay off.
    let console = typed(&machine(lab, "")?, "ss  g")?;
    let places = console.matches("single step ---").count();
    ensure!(places == 2, "{places} single steps\n{}", boots::tail(&console));
    check(&console, &["breakpoint of a program deadlock ---", "single step ---", "user code at ip ", "single step ---"])
}

/// Where the runaway jumps back, again and again.
fn jump_of_the_runaway(lab: &Lab) -> Result<u64> {
    let bytes = std::fs::read(lab.image("deadlock.debug"))?;
    let elf = object::File::parse(&*bytes)?;
    let is_it = |name: &str| format!("{:#}", rustc_demangle::demangle(name)).ends_with("deadlock::run_away");
    let found = elf.symbols().find(|symbol| symbol.name().is_ok_and(is_it)).context("the program has no runaway")?;
    let code = elf.section_by_name(".text").and_then(|text| text.data_range(found.address(), 64).ok()?);
    // A jump two bytes back over a pause.
    let jump = code.and_then(|code| code.windows(2).position(|bytes| bytes == [0xEB, 0xFC]));
    Ok(found.address() + jump.context("the runaway has another loop")? as u64)
}

/// At an instruction that the runaway executes again and again.
fn hardware_breakpoint(lab: &Lab) -> Result<()> {
    let at = jump_of_the_runaway(lab)?;
    let keys = format!("\x1b{NO_PAGES}b0\ri{at:x}\rgb0\rc6y");
    let ended = boot(&machine(lab, "wait")?, &keys, "all is planted")?;
    let met = format!("user code at ip {at:x}");
    let set = format!("0: Instruction at {at:x}");
    check_reset(&ended, &["break-in ---", "0: not set", "hardware breakpoint 0 ---", "(runaway), ", &met, &set])
}

/// From outside, as soon as a program runs.
fn non_maskable(lab: &Lab) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("monitor");
    let machine = Machine { monitor: Some(socket.clone()), ..machine(lab, "wait")? };
    std::thread::scope(|scope| {
        let boot = scope.spawn(|| boot(&machine, &format!("{NO_PAGES}q6y"), PROMPT));
        let asked = Monitor::connect(&socket).and_then(|mut monitor| {
            let end = Instant::now() + PATIENCE;
            while !monitor.ask(0, "info registers")?.contains("CPL=3") {
                ensure!(Instant::now() < end, "no program runs");
                std::thread::sleep(Duration::from_millis(10));
            }
            monitor.ask(0, "nmi").map(drop)
        });
        let ended = boot.join().expect("a boot does not panic")?;
        asked.with_context(|| boots::tail(&ended.console))?;
        check_reset(&ended, &["non-maskable interrupt", "thread ", "processor 0: runs", "kdb> reset"])
    })
}

/// Whoever runs: the root task may be about to wait, or the runaway may have begun.
fn break_in(lab: &Lab) -> Result<()> {
    let parts = [
        "processor 0: break-in ---",
        ", user code at ip ",
        "RING of 3",
        "processor 0: runs",
        "(runaway)",
        "kdb> showtcb",
        "thread 41.2 (runaway)",
        "kdb> disas",
        "jmp",
        "kdb> reset",
    ];
    let at = jump_of_the_runaway(lab)?;
    let keys = format!("\x1b{NO_PAGES}wqtrunaway\rUsrunaway\r{at:x}\r4\r6y");
    let ended = boot(&machine(lab, "wait")?, &keys, "all is planted")?;
    check_reset(&ended, &parts)
}

/// A panic shows where it was, with names, and for whom the kernel worked; then one can look around, but not go on.
fn panic(lab: &Lab) -> Result<()> {
    let ended = boot(&machine(lab, "")?, &format!("{NO_PAGES}!y{NO_PAGES}gwk6y"), PROMPT)?;
    let parts = [
        "kernel panic: asked for in the debugger",
        "marcona: processor 0, sp ",
        "marcona: for thread ",
        " root, user ip ",
        "return addresses on the stack",
        "kernel::kdb::",
        "panic: asked for in the debugger ---",
        "this machine cannot go on",
        "RING of 3",
        "threads: sound",
        "kdb> reset",
    ];
    check_reset(&ended, &parts)
}

/// The three mistakes in a dump of the memory, with a kernel that has no debugger: threads have numbers alone; and with one
/// that has names. When all is planted shows in the dump itself.
fn from_a_dump(lab: &Lab) -> Result<()> {
    let named = machine(lab, "wait")?;
    let mut plain = boots::machine(lab, "max", 64);
    plain.modules[2] = named.modules[2].clone();
    dumped(&plain, &["RING of 3: 3c.2 -> 3d.2 -> 3e.2 -> 3c.2", "threads: sound", "spaces:  sound"])?;
    let parts = [
        "--- frame ---",
        "(runaway), user code at ip ",
        "--- threads ---",
        "(ring.a)",
        "sends to",
        "(server)",
        "--- waits ---",
        "RING of 3: ",
        "(ring.a) -> ",
        "--- showqueueall ---",
        "(runaway)",
        "--- mdb all ---",
        "(server) at ",
        "(client) at 50000000",
        "threads: sound",
        "spaces:  sound",
    ];
    dumped(&Machine { memory_mib: 64, ..named }, &parts)
}

/// Boots, and dumps the memory until all of these are in the report.
fn dumped(machine: &Machine, parts: &[&str]) -> Result<()> {
    let kernel = machine.modules[0].file.with_extension("debug");
    dumped_when(machine, |file| dump::report(file, &kernel, &[]).and_then(|report| check(&report.text, parts)))
}

/// Boots, and dumps the memory until `look` finds in it what it looks for.
pub fn dumped_when(machine: &Machine, look: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (socket, file) = (dir.path().join("monitor"), dir.path().join("dump"));
    let mut machine = machine.clone();
    machine.monitor = Some(socket.clone());
    std::thread::scope(|scope| {
        let boot = scope.spawn(|| machine.boot(&Console::none(), Some(PATIENCE)));
        let looked = Monitor::connect(&socket).and_then(|mut monitor| {
            let looked = look_until(&mut monitor, &file, &look);
            monitor.quit().and(looked)
        });
        let Ended { end, console, .. } = boot.join().expect("a boot does not panic")?;
        looked.with_context(|| boots::tail(&console))?;
        ensure!(end == End::Off, "{end}\n{}", boots::tail(&console));
        Ok(())
    })
}

fn look_until(monitor: &mut Monitor, file: &Path, look: &impl Fn(&Path) -> Result<()>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(200));
        monitor.stop()?;
        monitor.dump(file)?;
        monitor.go_on()?;
        let found = look(file);
        std::fs::remove_file(file)?;
        if found.is_ok() || Instant::now() > end {
            return found;
        }
    }
}

/// What a person types into gdb: up to where all is planted, then the same three mistakes, and into one of the threads.
const SCRIPT: &str = "hbreak run_away\ncontinue\nl4-cpus\nl4 waits\nl4 mdb space client\nl4-thread ring.a\n\
    x/i $rip\nl4-back\ninfo symbol $rip\nl4-console\nkill\n";

fn in_gdb(lab: &Lab) -> Result<()> {
    packages::program("gdb", &["gdb"])?;
    let dir = tempfile::tempdir()?;
    let (script, log) = (dir.path().join("script"), dir.path().join("console"));
    std::fs::write(&script, SCRIPT)?;
    let output = gdb::command(&machine(lab, "wait")?, &log, Some(&script))?.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let parts = [
        "Breakpoint 1, run_away",
        "processor 0: runs",
        "(runaway)",
        "RING of 3: ",
        "(ring.a) -> ",
        "(ring.b) -> ",
        "50000000   4K r-- at ",
        "(server) at ",
        "called from:",
        " <",
        "=> 0xffffffffffb00002",
        "run_away + ",
        "marcona: Marcona ",
    ];
    check(&said, &parts).with_context(|| errors.into_owned())
}

/// Lets the kernel go astray in a function: it executes where nothing is, with a word in a register that shows where.
fn astray_in(function: &str) -> Result<String> {
    let bytes = std::fs::read(project::image_dir().join("kernel.debug"))?;
    let elf = object::File::parse(&*bytes)?;
    let is_it = |name: &str| format!("{:#}", rustc_demangle::demangle(name)) == function;
    let symbol = elf.symbols().find(|symbol| symbol.name().is_ok_and(is_it)).context("no such function")?;
    let address = symbol.address();
    Ok(format!(
        "hbreak *{address:#x}\ncontinue\ndelete\nset $rbx=0x1234567890abcdef\nset $rip=0xffffffffc0de0000\ncontinue\n"
    ))
}

/// A kernel without the debugger says as much of its end as one with it, but for names of threads.
fn astray(lab: &Lab) -> Result<()> {
    packages::program("gdb", &["gdb"])?;
    let dir = tempfile::tempdir()?;
    let (script, log) = (dir.path().join("script"), dir.path().join("console"));
    std::fs::write(&script, astray_in("kernel::trap::user_trap")?)?;
    let machine = boots::machine(lab, "max", 64);
    let output = gdb::command(&machine, &log, Some(&script))?.stdin(Stdio::null()).output()?;
    let parts = [
        "kernel panic: exception 14 in the kernel: error 0x10, ip 0xffffffffc0de0000",
        "marcona: processor 0, sp ",
        "marcona: rax ",
        " rbx 1234567890abcdef",
        "marcona: for thread ",
        "user ip ",
        "return addresses on the stack:",
        "marcona:   ffffffffc0de0000",
        " common_gate",
    ];
    let said = std::fs::read_to_string(&log)?;
    check(&said, &parts).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Names of the debugger's functions in a kernel.
fn names_in(config: &str) -> Result<(usize, usize)> {
    let dir = build::images(&["kernel"], &Chosen::of(Some(config))?)?;
    let bytes = std::fs::read(dir.join("kernel.debug"))?;
    let elf = object::File::parse(&*bytes)?;
    let names = elf.symbols().filter_map(|symbol| Some(format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?))));
    let of_debugger = |name: &String| ["kdb::", "kernel::kdb", "yaxpeax"].iter().any(|part| name.contains(part));
    let (ours, all): (Vec<String>, Vec<String>) = names.partition(of_debugger);
    Ok((ours.len(), all.len()))
}

/// A machine whose kernel has tracepoints, and records these events from the start.
fn tracing(lab: &Lab, trace: &str) -> Result<Machine> {
    let mut machine = machine_with(lab, "trace", "")?;
    machine.modules[0].args = format!("trace={trace} tracepages=16");
    Ok(machine)
}

/// All commands of both menus, on two processors.
fn traced(lab: &Lab) -> Result<()> {
    let mut machine = tracing(lab, "all")?;
    machine.cpus = 2;
    let keys = "rlRlttroot\rli5,21\rltai\rdipc\r\rDeSYSCALL_IP\t\rr1\rl\x1b\
        yd#8\r0\rcFipc\rsd#4\r0\rtipc_transfer\rsC0\rTroot\rsd#4\r0\rzsfall\rucRcrd#4\r0\r\x1bYg";
    let console = typed(&machine, keys)?;
    let tracepoints = [
        "kdb/tracepoints> list",
        " 0 SYSCALL_IPC ",
        " recorded",
        "IPC_MAPGRANT_ITEM",
        "kdb/tracepoints> resetcounters",
        "kdb/tracepoints> list",
        " 0 SYSCALL_IPC                  calls               0  recorded",
        "only of thread 3a.1(root)",
        "only of interrupt lines 5 33",
        "kdb/tracepoints> disable",
        "kdb/tracepoints> disableall",
        "kdb/tracepoints> enable",
        "SYSCALL_IPC",
        "recorded by 1 processors",
    ];
    check(&console, &tracepoints)?;
    let trace = [
        "kdb/trace> dump",
        "(root) SYSCALL_RETURN call SYSCALL_IPC",
        "X86_BREAKPOINT ip ",
        "8 events",
        "kdb/trace> counters",
        "kdb/trace> groups",
        "kdb/trace> filters",
        "IPC_TRANSFER\n",
        "IPC_DETAILS\n",
        "kdb/trace> dump",
        "4 events",
        "kdb/trace> events",
        "kdb/trace> filters",
        "IPC_TRANSFER\n",
        "of processor 0\nabout thread 3a.1(root)\nIPC_TRANSFER\n",
        "IPC_TRANSFER from 3a.1(root)",
        "kdb/trace> clear",
        "all events",
        "kdb/trace> record",
        "kdb/trace> programs",
        "0 records",
        "kdb/trace> reset\n",
        "0 events",
        "kdb> tracedump",
        "0 events",
    ];
    check(&console, &trace)
}

/// The debugger is entered at an event, when the kernel has done what it was about; keys that nobody reads are lost meanwhile.
fn stops_at_tracepoints(lab: &Lab) -> Result<()> {
    let keys = format!("\x1b{NO_PAGES}rex86_apic_timer\re\r\x1bg");
    // Escape breaks in, and the next interrupt of the clock stops whoever runs then.
    let typing = Typing::at("all is planted", keys).then("X86_APIC_TIMER ---", "rlD\x1bltrunaway\r6y");
    let ended = boot_typing(&machine(lab, "wait")?, typing)?;
    let parts = [
        "break-in ---",
        "kdb/tracepoints> enable",
        "processor 0: X86_APIC_TIMER ---",
        ", user code at ip ",
        "X86_APIC_TIMER ",
        " stops",
        "kdb/tracepoints> disableall",
        "kdb> showtcb",
        "(runaway)",
        "kdb> reset",
    ];
    check_reset(&ended, &parts)
}

/// What happened last is on the console, before the debugger waits for keys.
fn last_events(lab: &Lab) -> Result<()> {
    let ended = boot(&tracing(lab, "all")?, &format!("{NO_PAGES}!y6y"), PROMPT)?;
    let parts = [
        "kernel panic: asked for in the debugger",
        "marcona: processor 0, sp ",
        " cpu 0 ",
        " SYSCALL_RETURN call ",
        " X86_BREAKPOINT ip 0x",
        "kdb> reset",
    ];
    check(&ended.console, &parts)?;
    let lines = ended.console.lines().filter(|line| line.starts_with("marcona: ") && line.contains(" cpu 0 ")).count();
    ensure!(lines == 16, "{lines} events\n{}", ended.console);
    Ok(())
}

fn nothing_left(_: &Lab) -> Result<()> {
    let (with, without) = (names_in("trace")?, names_in("default")?);
    ensure!(with.0 > 50, "the debugger has {} functions: the names are not what this looks for", with.0);
    ensure!(without.0 == 0 && without.1 > 100, "{} of {} names are the debugger's", without.0, without.1);
    // Nor has it anything of the trace.
    let dir = build::images(&["kernel"], &Chosen::by_default()?)?;
    let bytes = std::fs::read(dir.join("kernel.debug"))?;
    let elf = object::File::parse(&*bytes)?;
    let of_trace = |symbol: &object::Symbol<'_, '_>| {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or_default()));
        symbol.size() > 0 && ["kernel_trace", "trace::", "trace_buffer"].iter().any(|part| name.contains(part))
    };
    let found = elf.symbols().filter(of_trace).count();
    ensure!(found == 0, "{found} symbols are of the trace");
    Ok(())
}
