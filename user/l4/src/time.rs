//! Clock and timeouts.

use l4_abi::{Time, Timeouts};

use crate::{arch, ipc, thread};

/// Microseconds since some moment before the program began (X.2, SystemClock).
#[doc(alias = "L4_SystemClock")]
pub fn system_clock_us() -> u64 {
    arch::system_clock()
}

/// The point `us` microseconds from now; `None` beyond half a minute or so.
#[doc(alias = "L4_TimePoint")]
pub fn in_us(us: u64) -> Option<Time> {
    let now_us = system_clock_us();
    Time::point_us(now_us, now_us.saturating_add(us))
}

/// Sleeps for a period, or until a point.
#[doc(alias = "L4_Sleep")]
pub fn sleep(time: Time) {
    // Nobody can send in our own name, so the wait ends by its timeout, or because somebody cancels it.
    let _ = ipc::receive_timeout(thread::my_global_id(), time);
}

/// Sleeps until somebody deletes the thread.
pub fn sleep_forever() -> ! {
    loop {
        sleep(Time::NEVER);
    }
}

/// Both timeouts of an IPC.
#[doc(alias = "L4_Timeouts")]
pub const fn timeouts(snd: Time, rcv: Time) -> Timeouts {
    Timeouts::new(snd, rcv)
}
