//! I/O ports for tests, where no device is. The supervisor asks sigma0 for them, once and for all, as it gives each port to
//! one thread alone.

use l4::sigma0::{self, IO_FPAGES};
use l4::{IoFpage, MapItem, Word, kip};

use crate::failure::{Failure, Outcome};

/// The first of the 256 ports that the program's space has; tests may map them and not lose them.
const BASE: u16 = 0x9000;
const COUNT_LOG2: u32 = 8;
/// The ports at and behind the one that instructions of [`crate::arch::ports`] name themselves.
const IMMEDIATE: IoFpage = IoFpage::new(0xE0, 2).expect("aligned");
/// The last port.
const LAST: IoFpage = IoFpage::new(0xFFFF, 0).expect("aligned");
/// The port by which the machine ends: for a test's thread that panics.
const EXIT: IoFpage = IoFpage::new(0xF4, 0).expect("aligned");

/// Asks for the ports. For the supervisor.
pub fn request() {
    for ports in [ports(0, COUNT_LOG2), IMMEDIATE, LAST, EXIT] {
        // Tests without them fail and say so.
        let _ = sigma0::get_ports(ports);
    }
}

/// Whether spaces have I/O ports of their own; skips the test otherwise.
pub fn needed() -> Outcome {
    if kip::has_feature(IO_FPAGES) { Ok(()) } else { Err(Failure::skip("the kernel was booted without ioflexpages")) }
}

/// 2^`size_log2` ports at an offset among those of the program's space, a multiple of that.
///
/// # Panics
/// Outside of the 4096 ports where no device is.
pub fn ports(offset: u16, size_log2: u32) -> IoFpage {
    assert!(offset < 0x1000, "the ports end");
    IoFpage::new(BASE + offset, size_log2).expect("the offset is a multiple of the size")
}

/// The item that maps ports.
pub fn map(ports: IoFpage) -> MapItem {
    MapItem::map(ports.fpage(), Word::from(ports.port()))
}

/// The item that grants ports.
pub fn grant(ports: IoFpage) -> MapItem {
    MapItem::grant(ports.fpage(), Word::from(ports.port()))
}
