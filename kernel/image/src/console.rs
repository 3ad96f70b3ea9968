//! The console: a serial port and the screen, for the kernel's own lines and for the debugger's services, or nothing.
//!
//! The screen is the kernel's while it boots. If there is a sigma1, that is whose it is afterwards, and the kernel draws on
//! it again only to say why it stops.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use kcore::machine::PhysAddr;
use kcore::options::Options;
use kformats::console::SerialLine;
use kformats::multiboot::Framebuffer;
use khal::port::Port;
use khal::uart::Uart;
use screen::{Canvas, Mode, Surface, Terminal};

use crate::once::BootCell;
use crate::{config, kdb, keyboard, layout};

/// The first port of the serial line; 0 if there is none.
static PORT: AtomicU16 = AtomicU16::new(0);

/// What the screen is like, if it is drawn on.
static MODE: BootCell<Option<Mode>> = BootCell::new();
/// Where its memory is now; 0 if it cannot be reached, or is somebody else's.
static WINDOW: AtomicUsize = AtomicUsize::new(0);
/// Whether it is somebody else's.
static IS_LEFT: AtomicBool = AtomicBool::new(false);

/// What stands on the screen. Whoever draws has it alone; others leave the screen out meanwhile.
struct Shown {
    is_taken: AtomicBool,
    terminal: UnsafeCell<Terminal>,
}

// SAFETY: `is_taken` lets one processor in at a time.
unsafe impl Sync for Shown {}

static SHOWN: Shown = Shown { is_taken: AtomicBool::new(false), terminal: UnsafeCell::new(Terminal::EMPTY) };

impl Shown {
    /// Draws with `f`, unless somebody else does.
    fn with(&self, f: impl FnOnce(&mut Terminal)) {
        if !self.is_taken.swap(true, Acquire) {
            // SAFETY: nobody else comes here before `is_taken` is false again.
            f(unsafe { &mut *self.terminal.get() });
            self.is_taken.store(false, Release);
        }
    }
}

/// The memory of the screen at a kernel address.
struct Window {
    start: usize,
    bytes: usize,
}

impl Window {
    fn pointer<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.bytes, "the screen is drawn on inside");
        ptr::with_exposed_provenance_mut(self.start + offset)
    }
}

impl Canvas for Window {
    fn put_byte(&mut self, offset: usize, byte: u8) {
        // SAFETY: it is mapped where `WINDOW` says, and no memory of the kernel is there.
        unsafe { self.pointer::<u8>(offset).write_volatile(byte) };
    }

    fn put_word(&mut self, offset: usize, word: u32) {
        // SAFETY: as above; screens begin at multiples of four, and so does the word.
        unsafe { self.pointer::<u32>(offset).write_volatile(word) };
    }
}

/// The screen as it can be drawn on now.
fn surface() -> Option<Surface<Window>> {
    let start = if MUTED.load(Relaxed) & SCREEN_MUTED == 0 { WINDOW.load(Relaxed) } else { 0 };
    let mode = MODE.try_get().copied().flatten().filter(|_| start != 0)?;
    Some(Surface::new(mode, Window { start, bytes: mode.bytes() }))
}

/// Which parts of the console a person has switched off.
static MUTED: AtomicU8 = AtomicU8::new(0);
const SERIAL_MUTED: u8 = 1 << 0;
const SCREEN_MUTED: u8 = 1 << 1;

/// Prints on the next one of: all consoles, the serial line, the screen. Its name.
pub fn choose_next() -> &'static str {
    let has_screen = MODE.try_get().copied().flatten().is_some();
    let (muted, name) = match (PORT.load(Relaxed) != 0, has_screen, MUTED.load(Relaxed)) {
        (true, true, 0) => (SCREEN_MUTED, "the serial line"),
        (true, true, SCREEN_MUTED) => (SERIAL_MUTED, "the screen"),
        (true, true, _) => (0, "serial line and screen"),
        (false, true, _) => (0, "the screen, which is all there is"),
        (true, false, _) => (0, "the serial line, which is all there is"),
        (false, false, _) => (0, "nothing, as there is nothing"),
    };
    MUTED.store(muted, Relaxed);
    name
}

/// The console for the length of one message.
pub struct Console(Option<Uart>);

fn console() -> Console {
    let port = PORT.load(Relaxed);
    // SAFETY: user code may drive the port too, after boot; each access of the kernel is for one byte, whatever state the
    // port is in.
    Console((port != 0).then(|| unsafe { Uart::new(port) }))
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(mut surface) = surface() {
            SHOWN.with(|terminal| terminal.on(&mut surface).write_str(text).unwrap_or_default());
        }
        let uart = self.0.as_mut().filter(|_| MUTED.load(Relaxed) & SERIAL_MUTED == 0);
        uart.map_or(Ok(()), |uart| uart.write_str(text))
    }
}

/// Prepares the serial line that was chosen when the kernel was built.
pub fn start() {
    start_serial(config::BOOT_OPTIONS);
}

fn start_serial(options: Options) {
    let SerialLine { port, divisor } = options.serial;
    PORT.store(if options.outputs.serial { port } else { 0 }, Relaxed);
    if let Some(mut uart) = console().0 {
        uart.start(divisor);
    }
}

/// Has the console that was chosen at boot. The rough tables are in use.
pub fn choose(options: Options, screen: Option<&Framebuffer>) {
    start_serial(options);
    let mode = screen.filter(|_| options.outputs.screen).and_then(Mode::new);
    MODE.set(mode.filter(|mode| mode.bytes() <= layout::SCREEN_BYTES - layout::LARGE_PAGE_BYTES));
    if let Some(mode) = MODE.get()
        && mode.address + mode.bytes() as u64 <= layout::ROUGH_BYTES
    {
        WINDOW.store(mode.address as usize, Relaxed);
        clear();
    }
}

fn clear() {
    if let Some(mut surface) = surface() {
        if surface.mode().is_text() {
            khal::cursor::hide();
        }
        SHOWN.with(|terminal| terminal.clear(&mut surface));
    }
}

/// The memory that the kernel's tables must map at [`layout::SCREEN`]: where it begins, in a large page, and how many
/// large pages it is.
pub fn screen_memory() -> Option<(PhysAddr, usize)> {
    let mode = (*MODE.get())?;
    let start = mode.address & !(layout::LARGE_PAGE_BYTES as u64 - 1);
    let bytes = (mode.address - start) as usize + mode.bytes();
    Some((PhysAddr(start), bytes.div_ceil(layout::LARGE_PAGE_BYTES)))
}

/// Does without the screen while tables change.
pub fn hide_screen() {
    WINDOW.store(0, Relaxed);
}

/// Draws on the screen where the kernel's tables have it.
pub fn show_screen() {
    if let Some(mode) = MODE.get() {
        let is_new = mode.address + mode.bytes() as u64 > layout::ROUGH_BYTES;
        WINDOW.store(own_window(mode), Relaxed);
        if is_new {
            clear();
        }
    }
}

fn own_window(mode: &Mode) -> usize {
    layout::SCREEN + (mode.address & (layout::LARGE_PAGE_BYTES as u64 - 1)) as usize
}

/// Leaves the screen to who is to have it from now on.
pub fn leave_screen() {
    IS_LEFT.store(true, Relaxed);
    hide_screen();
}

/// Prints one line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(console(), "marcona: {text}");
}

/// The steps of the boot that have begun.
static STEPS: AtomicU8 = AtomicU8::new(0);

/// Says which step of the boot begins: its number to the port that boards show on a display of their own, and its name in a
/// kernel that was built to tell.
pub fn step(name: &str) {
    let number = STEPS.load(Relaxed).wrapping_add(1);
    STEPS.store(number, Relaxed);
    show_number(number);
    if config::VERBOSE_INIT {
        line(format_args!("boot: {name}"));
    }
}

/// Shows a number to who looks at the board alone.
fn show_number(number: u8) {
    const DIAGNOSTICS: u16 = 0x80;
    // SAFETY: the port has nothing behind it but a display.
    unsafe { Port::<u8>::new(DIAGNOSTICS) }.write(number);
}

/// Prints a character; `false` if there is no room for it now. Without a console it is gone.
pub fn put(character: u8) -> bool {
    let uart = console().0.filter(|_| MUTED.load(Relaxed) & SERIAL_MUTED == 0);
    let has_room = uart.is_none_or(|mut uart| uart.try_send(character));
    if has_room && let Some(mut surface) = surface() {
        SHOWN.with(|terminal| terminal.put(&mut surface, character));
    }
    has_room
}

/// Prints a text as it is.
pub fn write(text: &str) {
    let _ = console().write_str(text);
}

/// Whether the line was broken since this was last asked: a person wants attention.
pub fn take_break() -> bool {
    console().0.is_some_and(|mut uart| uart.take_break())
}

/// The next character that was typed, if there is one.
pub fn read() -> Option<u8> {
    let kept = if config::KDB_BREAKIN { kdb::take_kept_key() } else { None };
    kept.or_else(receive)
}

/// The next character that comes from serial line or keyboard.
pub fn receive() -> Option<u8> {
    console().0.and_then(|mut uart| uart.receive()).or_else(keyboard::receive)
}

/// The console for the last words: whatever there is, whoever had it.
pub fn of_a_panic() -> Console {
    /// Added to the number of the last step.
    const STOPPED: u8 = 0x80;
    show_number(STOPPED | STEPS.load(Relaxed));
    take_screen();
    MUTED.store(0, Relaxed);
    console()
}

/// Takes the screen back from who has it, as nobody runs who could draw; whether somebody had it.
pub fn take_screen() -> bool {
    let was_left = IS_LEFT.swap(false, Relaxed);
    if was_left && let Some(Some(mode)) = MODE.try_get() {
        WINDOW.store(own_window(mode), Relaxed);
        clear();
    }
    was_left
}
