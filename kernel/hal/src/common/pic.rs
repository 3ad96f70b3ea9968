//! The two 8259A interrupt controllers (Intel 8259A datasheet): moved out of the way of exceptions and silenced, and for
//! machines without I/O APIC driven line by line.
//!
//! The second controller's output is input 2 of the first. Lines 0 to 7 are inputs of the first, 8 to 15 of the second.
//! The controllers remember an edge that comes while its line is masked.

use crate::port::Port;

/// First vector of the controllers after [`disable`]; they own 16 from here, in the order of the lines.
pub const VECTOR_BASE: u8 = 0x30;
/// Lines of both.
pub const LINES: u8 = 16;
/// The line where the second controller is.
pub const CASCADE: u8 = 2;
/// The line of the real-time clock.
pub const REAL_TIME_CLOCK: u8 = 8;

const INIT_EDGE_CASCADE_ICW4: u8 = 0x11;
const MODE_8086: u8 = 0x01;
const ALL_MASKED: u8 = 0xFF;
/// What is read from the command port next: the inputs in service.
const READ_IN_SERVICE: u8 = 0x0B;
/// Ends the interrupt of the input in the low three bits.
const END_OF_INTERRUPT: u8 = 0x60;
/// The input of either controller by which it says that what it announced is gone.
const SPURIOUS_INPUT: u8 = 7;

/// Moves the controllers' vectors to [`VECTOR_BASE`] and masks all their inputs.
///
/// # Safety
/// Nobody drives the interrupt controllers at the same time.
pub unsafe fn disable() {
    // Each controller: first vector, and how it is wired to the other one (a set of inputs on the first, an input number
    // on the second).
    for (which, vector, wiring) in [(FIRST, VECTOR_BASE, 1 << CASCADE), (SECOND, VECTOR_BASE + 8, CASCADE)] {
        // SAFETY: the caller keeps others away.
        let mut pic = unsafe { Pic::new(which) };
        pic.command.write(INIT_EDGE_CASCADE_ICW4);
        for word in [vector, wiring, MODE_8086, ALL_MASKED] {
            pic.data.write(word);
        }
    }
}

const FIRST: u16 = 0x20;
const SECOND: u16 = 0xA0;

/// One controller.
struct Pic {
    command: Port<u8>,
    /// The mask: a bit per input.
    data: Port<u8>,
}

impl Pic {
    /// # Safety
    /// Nobody else drives the controller while the value lives.
    unsafe fn new(command: u16) -> Self {
        // SAFETY: an interrupt controller changes no memory; the caller keeps others away.
        let first = unsafe { Port::new(command) };
        // SAFETY: as above.
        let second = unsafe { Port::new(command + 1) };
        Self { command: first, data: second }
    }

    fn mask(&mut self, input: u8) {
        let mask = self.data.read();
        self.data.write(mask | 1 << input);
    }

    fn unmask(&mut self, input: u8) {
        let mask = self.data.read();
        self.data.write(mask & !(1 << input));
    }

    fn is_in_service(&mut self, input: u8) -> bool {
        self.command.write(READ_IN_SERVICE);
        self.command.read() >> input & 1 != 0
    }

    fn end_of_interrupt(&mut self, input: u8) {
        self.command.write(END_OF_INTERRUPT | input);
    }
}

/// Both controllers.
pub struct Pics {
    first: Pic,
    second: Pic,
}

impl Pics {
    /// The controllers of the machine, after [`disable`].
    ///
    /// # Safety
    /// Nobody else drives them while the value lives.
    pub unsafe fn new() -> Self {
        // SAFETY: by contract.
        let first = unsafe { Pic::new(FIRST) };
        // SAFETY: by contract.
        let second = unsafe { Pic::new(SECOND) };
        Self { first, second }
    }

    /// The controller of `line` and its input there.
    fn input(&mut self, line: u8) -> (&mut Pic, u8) {
        debug_assert!(line < LINES);
        if line < 8 { (&mut self.first, line) } else { (&mut self.second, line - 8) }
    }

    /// Lets the lines of the second controller through; each is masked on its own.
    pub fn connect(&mut self) {
        self.first.unmask(CASCADE);
    }

    /// Holds `line` back.
    pub fn mask(&mut self, line: u8) {
        let (pic, input) = self.input(line);
        pic.mask(input);
    }

    /// Lets `line` through; it interrupts at once if it came meanwhile.
    pub fn unmask(&mut self, line: u8) {
        let (pic, input) = self.input(line);
        pic.unmask(input);
    }

    /// Takes the interrupt of `line`, which the processor accepted: masks the line and ends the interrupt. `false`:
    /// there is none, the controller has changed its mind.
    pub fn take(&mut self, line: u8) -> bool {
        let (pic, input) = self.input(line);
        let is_real = input != SPURIOUS_INPUT || pic.is_in_service(input);
        if is_real {
            pic.mask(input);
            pic.end_of_interrupt(input);
        }
        // The first controller has the second in service either way.
        if line >= 8 {
            self.first.end_of_interrupt(CASCADE);
        }
        is_real
    }
}
