//! What a program needs besides system calls: start, panic, output and keys, its command line, exit.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//!
//! l4_rt::entry!(main);
//!
//! fn main() {
//!     l4_rt::println!("hello");
//! }
//! ```
//!
//! A program is linked by `user.ld` at an `image_base` of its choice, which its build script gives.
#![no_std]

#[cfg_attr(target_arch = "x86_64", path = "x86_64/mod.rs")]
mod arch;

mod args;
pub mod console;
mod device;
mod image;
pub mod keyboard;
mod physical;
pub mod port;
pub mod power;
pub mod serial;
mod storage;

use core::panic::PanicInfo;

pub use args::{Args, args};
pub use device::{DeviceMemory, multiboot_info};
pub use image::{image_contains, image_pages, touch_image};
pub use physical::PhysicalMemory;
pub use storage::Storage;

/// Status of a program that panicked.
pub const PANIC_STATUS: u8 = 101;

/// Makes a function the program's `main`: it runs on a stack of its own after [`l4::init`]; its return is `exit(0)`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn l4_main() {
            let main: fn() = $main;
            main()
        }
    };
}

/// [`entry!`] for sigma0, whose `main` gets the right to use physical memory. To use it is to promise what
/// [`PhysicalMemory::new`] asks for.
#[macro_export]
macro_rules! sigma0_entry {
    ($main:path) => {
        $crate::entry!(sigma0_main);

        fn sigma0_main() {
            let main: fn($crate::PhysicalMemory) = $main;
            // SAFETY: the program says that it is sigma0 and keeps the promises.
            main(unsafe { $crate::PhysicalMemory::new() })
        }
    };
}

/// Called by the start code of the architecture, on the first stack.
extern "C" fn begin() -> ! {
    unsafe extern "Rust" {
        fn l4_main();
    }
    l4::init();
    // SAFETY: `entry!` defines it, with this signature.
    unsafe { l4_main() };
    exit(0)
}

/// Ends the program, and with it the machine. A console server hears of it, and does what it was told to; without one an
/// emulator that has a device for it ends with this status, and elsewhere the status is said on the serial line, and the
/// machine is switched off. If it stays on, the thread sleeps for ever.
pub fn exit(status: u8) -> ! {
    serial::flush();
    let is_told = console::tell_end(status);
    arch::exit_emulator(status);
    if !is_told {
        println!("l4-rt: {}{status}", console::ENDED);
        serial::flush();
        power::Power::find().off();
    }
    l4::time::sleep_forever()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    serial::flush();
    // Who panics may be anybody, in whatever state: one instruction ends the emulator, before much else is tried.
    arch::exit_emulator(PANIC_STATUS);
    exit(PANIC_STATUS)
}

/// Prints on the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!($($arg)*))
    };
}

/// Prints on the console and ends the line.
#[macro_export]
macro_rules! println {
    () => {
        $crate::print!("\n")
    };
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arg)*)))
    };
}
