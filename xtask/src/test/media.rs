//! The image for real machines, and what a person sees of it: text is looked for on pictures of the screen.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::boots::{PATIENCE, check_success, machine, tail};
use super::{Case, Lab};
use crate::image::{self, Entry, Firmware, Medium, Menu};
use crate::monitor::Monitor;
use crate::qemu::{self, Console, End, Machine, Module};

/// Numbers of message registers of which the benchmark has a row.
const ROWS: u32 = 64;
/// What the line below a page says when the program has ended well.
const ENDED: &str = "ended with status 0";

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    use Firmware::{Bios, Uefi};
    use Medium::{Cd, Usb};
    let mut cases = vec![
        Case::new("media::the_machine_can_be_switched_off", "Boot, power", switched_off),
        Case::new("media::the_status_of_a_program_comes_back", "Boot, power", failing_program),
        Case::new("media::a_key_switches_the_machine_off", "Boot, power", switched_off_by_key),
        Case::new("media::three_keys_start_the_machine_again", "Boot, power", restarted),
        Case::new("media::two_images_are_the_same", "", same_each_time),
        Case::new("media::results_stay_on_the_text_screen", "Boot, consoles", text_screen),
        Case::new("media::keys_come_from_the_keyboard", "Boot, consoles", keyboard),
        Case::new("media::nothing_is_written_to_a_serial_line_that_is_not_wanted", "Boot, consoles", no_serial_output),
    ];
    for (name, firmware, medium) in [("cd_by_bios", Bios, Cd), ("usb_by_uefi", Uefi, Usb)] {
        cases.push(Case::new(format!("media::results_stay_on_the_screen_from_{name}"), "Boot, consoles", move |lab| {
            let dir = TempDir::new()?;
            let image = make(lab, "pingpong-screen", dir.path())?;
            let flash = firmware.flash()?;
            see_tables(medium.machine(&image, flash.as_ref()), &["inter", "intra"])
        }));
    }
    cases.push(Case::new("media::the_debugger_is_in_the_menu", "Kernel debugger, input", debugger));
    for (name, firmware, medium) in [("usb_by_bios", Bios, Usb), ("cd_by_uefi", Uefi, Cd)] {
        cases.push(Case::new(format!("media::boots_from_{name}"), "Boot, media", move |lab| {
            let dir = TempDir::new()?;
            let image = make(lab, "pingpong-serial", dir.path())?;
            let flash = firmware.flash()?;
            let ended = medium.machine(&image, flash.as_ref()).boot(&Console::none(), Some(PATIENCE))?;
            check_success(&ended)?;
            let rows = ended.console.lines().filter(|line| row_of(line).is_some()).count();
            ensure!(rows == 2 * ROWS as usize, "{rows} rows\n{}", tail(&ended.console));
            Ok(())
        }));
    }
    cases
}

/// The image with the entry that boots at once.
fn make(lab: &Lab, entry: &str, dir: &Path) -> Result<PathBuf> {
    let first = Entry::of_name(entry).context("the menu has the entry")?;
    let image = dir.join("marcona.iso");
    image::from_images(&lab.dir, Menu { first, wait_seconds: 0 }, &image)?;
    Ok(image)
}

fn same_each_time(lab: &Lab) -> Result<()> {
    let dirs = [TempDir::new()?, TempDir::new()?];
    let first = std::fs::read(make(lab, "pingpong", dirs[0].path())?)?;
    // Times on media count seconds, those of FAT file systems two of them.
    thread::sleep(Duration::from_millis(2100));
    let images = [first, std::fs::read(make(lab, "pingpong", dirs[1].path())?)?];
    let differing = images[0].iter().zip(&images[1]).position(|(first, second)| first != second);
    ensure!(differing.is_none() && images[0].len() == images[1].len(), "they differ from byte {differing:?} on");
    Ok(())
}

/// The program enters it; a key of the keyboard shows what there is to see, on the screen and on the serial line.
fn debugger(lab: &Lab) -> Result<()> {
    let dir = TempDir::new()?;
    let image = make(lab, "debugger", dir.path())?;
    let (_, serial) = watched(Medium::Cd.machine(&image, None), |monitor| {
        await_screen(monitor, |lines| lines.iter().any(|line| line.contains("? lists the commands")))?;
        monitor.press("w")?;
        await_screen(monitor, |lines| lines.iter().any(|line| line.contains("RING of")))
    })?;
    ensure!(serial.contains("RING of"), "{}", tail(&serial));
    Ok(())
}

/// Runs a machine that does not end by itself, as long as `watch` looks at it.
pub fn watched<T>(mut machine: Machine, watch: impl FnOnce(&mut Monitor) -> Result<T>) -> Result<(T, String)> {
    let dir = TempDir::new()?;
    let socket = dir.path().join("monitor");
    machine.monitor = Some(socket.clone());
    machine.has_exit = false;
    thread::scope(|scope| {
        let boot = scope.spawn(|| machine.boot(&Console::none(), Some(PATIENCE)));
        let seen = Monitor::connect(&socket).and_then(|mut monitor| {
            let seen = watch(&mut monitor);
            monitor.quit().and(seen)
        });
        let ended = boot.join().expect("a boot does not panic")?;
        Ok((seen.with_context(|| format!("{}\n{}", ended.end, tail(&ended.console)))?, ended.console))
    })
}

/// The lines of the screen, as soon as `is_there` says that they are what is waited for.
pub fn await_screen(monitor: &mut Monitor, is_there: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
    let end = Instant::now() + PATIENCE / 2;
    let mut before = vec![];
    loop {
        // A screen that changes its mode meanwhile has no picture.
        let lines = monitor.screenshot().and_then(|shot| shot.lines()).unwrap_or_default();
        // The emulator takes a picture while the machine goes on drawing: what stands there twice is not half of it.
        if is_there(&lines) && lines == before {
            return Ok(lines);
        }
        before.clone_from(&lines);
        if Instant::now() > end {
            bail!("the screen shows\n{}", lines.join("\n"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The number of the page and of the last page, from the line below it.
fn pages_of(lines: &[String]) -> Option<(usize, usize)> {
    let text = lines.iter().find_map(|line| line.split_once("| page ").map(|(_, text)| text))?;
    let (page, rest) = text.split_once(" of ")?;
    Some((page.parse().ok()?, rest.split(' ').next()?.parse().ok()?))
}

/// The number of message registers of a row of the table.
fn row_of(line: &str) -> Option<u32> {
    let mut columns = line.split('|');
    let mrs = columns.next()?.trim().parse().ok()?;
    let values: Vec<f64> = columns.filter_map(|column| column.trim().parse().ok()).collect();
    (values.len() == 2).then_some(mrs)
}

/// All text that was printed, page by page, when the program has ended.
fn read_pages(monitor: &mut Monitor) -> Result<Vec<String>> {
    let has_ended = |lines: &[String]| lines.iter().any(|line| line.contains(ENDED));
    let lines = await_screen(monitor, has_ended)?;
    let (_, last) = pages_of(&lines).context("no line says which page this is")?;
    monitor.press("home")?;
    let mut text = vec![];
    for page in 1..=last {
        let lines = await_screen(monitor, |lines| pages_of(lines) == Some((page, last)))?;
        text.extend(lines.into_iter().filter(|line| !line.contains("| page ")));
        monitor.press("pgdn")?;
    }
    Ok(text)
}

/// Boots the benchmark and finds its tables, complete and in order, on the pages of the screen.
pub fn see_tables(machine: Machine, modes: &[&str]) -> Result<()> {
    let (text, _) = watched(machine, read_pages)?;
    check_tables(&text, modes)
}

/// A head with the name of each mode, then a row for each number of message registers, in order.
pub fn check_tables(text: &[String], modes: &[&str]) -> Result<()> {
    let mut found: Vec<(String, Vec<u32>)> = vec![];
    for line in text {
        if let Some(mode) = modes.iter().find(|mode| line.contains(&format!("({mode}), one way"))) {
            found.push(((*mode).to_owned(), vec![]));
        } else if let (Some(mrs), Some((_, rows))) = (row_of(line), found.last_mut()) {
            rows.push(mrs);
        }
    }
    let expected: Vec<(String, Vec<u32>)> =
        modes.iter().map(|mode| ((*mode).to_owned(), (0..ROWS).collect())).collect();
    ensure!(found == expected, "the tables are {found:?}\n{}", text.join("\n"));
    Ok(())
}

/// A machine that boots kickstart directly, with the console server.
pub fn with_console(lab: &Lab, program: &str, args: &str, word: &str) -> Machine {
    let mut machine = machine(lab, "max", 256);
    machine.has_screen = true;
    machine.boot_args = format!("sigma1=3 {word}");
    word.clone_into(&mut machine.modules[0].args);
    machine.modules[2] = Module { file: lab.image(program), args: args.to_owned() };
    machine.modules.push(Module { file: lab.image("console"), args: word.to_owned() });
    machine
}

/// What the kernel said while it booted comes before the tables.
fn text_screen(lab: &Lab) -> Result<()> {
    let (text, _) = watched(with_console(lab, "pingpong", "", "console=both"), read_pages)?;
    check_tables(&text, &["inter", "intra"])?;
    let place = |part: &str| text.iter().position(|line| line.contains(part));
    let (kernel, table) = (place("marcona: built with"), place("one way"));
    ensure!(kernel.is_some() && kernel < table, "no line of the kernel before the tables\n{}", text.join("\n"));
    Ok(())
}

/// The menu of the benchmark is worked by keys of the keyboard.
fn keyboard(lab: &Lab) -> Result<()> {
    let shows = |text: &'static str| move |lines: &[String]| lines.iter().any(|line| line.contains(text));
    let machine = with_console(lab, "pingpong", "menu mrs=0..0", "console=screen");
    watched(machine, |monitor| {
        await_screen(monitor, shows("q: quit"))?;
        monitor.press("2")?;
        await_screen(monitor, shows("g: again"))?;
        monitor.press("q")?;
        thread::sleep(Duration::from_millis(100));
        monitor.press("q")?;
        await_screen(monitor, shows(ENDED))
    })
    .map(drop)
}

/// It ends, by itself and not by a reset, when the program has ended, whose status is known all the same. It is the console
/// server that switches it off, and the program itself without one.
fn switched_off(lab: &Lab) -> Result<()> {
    for board in ["pc", "q35", "microvm"] {
        let mut served = with_console(lab, "pingpong", "mrs=0..0", "console=serial");
        served.modules[3].args = "console=serial end=off".to_owned();
        let mut alone = machine(lab, "max", 256);
        alone.modules[2].args = "mrs=0..0".to_owned();
        for mut machine in [served, alone] {
            (machine.has_exit, machine.restarts, machine.has_screen, machine.board) =
                (false, true, false, board.to_owned());
            let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
            let tables = ended.console.matches("one way").count();
            ensure!(ended.end == End::Program(0) && tables == 2, "{board}: {}\n{}", ended.end, tail(&ended.console));
        }
    }
    Ok(())
}

/// The status of a program that fails comes back by the device for it, or else by the program's last line.
fn failing_program(lab: &Lab) -> Result<()> {
    for has_exit in [false, true] {
        let mut machine = machine(lab, "max", 256);
        machine.modules[2].args = "no-such-word".to_owned();
        (machine.has_exit, machine.restarts) = (has_exit, true);
        let ended = machine.boot(&Console::none(), Some(PATIENCE))?;
        let has_failed = matches!(ended.end, End::Program(1..));
        let is_told = qemu::told_status(&ended.console).is_some();
        ensure!(has_failed && is_told != has_exit, "{}\n{}", ended.end, tail(&ended.console));
    }
    Ok(())
}

/// A key switches it off when the program has ended and a person has seen what it printed.
fn switched_off_by_key(lab: &Lab) -> Result<()> {
    let mut machine = with_console(lab, "pingpong", "mrs=0..0", "console=both");
    let dir = TempDir::new()?;
    let socket = dir.path().join("monitor");
    (machine.monitor, machine.has_exit, machine.restarts) = (Some(socket.clone()), false, true);
    thread::scope(|scope| {
        let boot = scope.spawn(|| machine.boot(&Console::none(), Some(PATIENCE)));
        let mut monitor = Monitor::connect(&socket)?;
        await_screen(&mut monitor, |lines| lines.iter().any(|line| line.contains(ENDED)))?;
        monitor.press("esc")?;
        let ended = boot.join().expect("a boot does not panic")?;
        ensure!(ended.end == End::Program(0), "{}\n{}", ended.end, tail(&ended.console));
        Ok(())
    })
}

/// The loader is there a second time.
fn restarted(lab: &Lab) -> Result<()> {
    let mut machine = with_console(lab, "pingpong", "mrs=0..0", "console=both");
    machine.restarts = true;
    let (_, serial) = watched(machine, |monitor| {
        let has_ended = |lines: &[String]| lines.iter().any(|line| line.contains(ENDED));
        let first = await_screen(monitor, has_ended)?;
        monitor.press("ctrl-alt-delete")?;
        // The same program measures again, and never quite the same.
        await_screen(monitor, |lines| has_ended(lines) && lines != first)
    })?;
    let starts = serial.matches("kickstart ").count();
    ensure!(starts >= 2, "the loader started {starts} times\n{}", tail(&serial));
    Ok(())
}

/// What goes to the screen alone does not go to the serial line, be it from loader, kernel, server or program.
fn no_serial_output(lab: &Lab) -> Result<()> {
    let machine = with_console(lab, "pingpong", "mrs=0..0", "console=screen");
    let (_, serial) =
        watched(machine, |monitor| await_screen(monitor, |lines| lines.iter().any(|line| line.contains(ENDED))))?;
    ensure!(serial.is_empty(), "the serial line says\n{serial}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_tables, pages_of, row_of};

    #[test]
    fn tables_must_be_complete() {
        let table = |mode: &str, rows: u32| {
            let head = format!("IPC somewhere ({mode}), one way, mean of 1 rounds");
            [head].into_iter().chain((0..rows).map(|mrs| format!("{mrs:4} |  1.00 | 0.10"))).collect::<Vec<_>>()
        };
        assert!(check_tables(&table("inter", 64), &["inter"]).is_ok());
        assert!(check_tables(&[table("inter", 64), table("intra", 64)].concat(), &["inter", "intra"]).is_ok());
        assert!(check_tables(&table("inter", 63), &["inter"]).is_err());
        assert!(check_tables(&table("inter", 64), &["inter", "intra"]).is_err());
    }

    #[test]
    fn lines_are_taken_apart() {
        assert_eq!(row_of("   7 |        61.73 |         0.62"), Some(7));
        assert_eq!(row_of(" MRs |        ticks |           us"), None);
        assert_eq!(pages_of(&[" Marcona | page 2 of 14 | PgUp".to_owned()]), Some((2, 14)));
        assert_eq!(pages_of(&["nothing".to_owned()]), None);
    }
}
