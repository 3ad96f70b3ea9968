//! The debugger's services for user code behind a breakpoint, (kernel debugger ABI for user code): with one it
//! is entered, without one a line is printed. [`kcore::debugger`] does what takes time.

use kcore::debugger::Then;
use kcore::machine::TcbRef;
use kcore::thread::Print;
use kformats::code::breakpoint::{BYTES_MAX, Breakpoint, OPCODE, Request, Service};

use super::Core;
use crate::frame::frame;
use crate::{config, console, kdb};

/// What ReadChar returns when there is no character: (char)-1 in the whole register.
const NO_CHARACTER: usize = usize::MAX;

/// The running thread `thread` executed a breakpoint and is behind it.
pub fn breakpoint(here: &mut Core<'_>, thread: TcbRef) {
    let Breakpoint { request, stops } = decode(here, thread);
    let then = if stops { Then::Stop } else { Then::GoOn };
    match request {
        Request::Enter(text) if config::DEBUG && stops => {
            kdb::requested(here, thread, text.map(|text| text as usize));
        }
        Request::Enter(Some(text)) => here.print(thread, Print::EnterWithText, text as usize, then),
        Request::Enter(None) => here.print(thread, Print::Enter, 0, then),
        Request::Service(service) => serve(here, thread, service, then),
        Request::Unknown if config::DEBUG && stops => kdb::unknown(here, thread, None),
        Request::Unknown => here.unknown_breakpoint(thread, then),
    }
}

/// What the bytes around the instruction pointer of `thread` say. Only the one-byte breakpoint is a call of the debugger:
/// the two-byte INT 3, and a page that is gone, are none.
fn decode(here: &Core<'_>, thread: TcbRef) -> Breakpoint {
    let tcb = here.k.tcb(thread);
    let mut bytes = [0; 1 + BYTES_MAX];
    let count = here.read_user(tcb.space(), tcb.ip.get().wrapping_sub(1), &mut bytes);
    match bytes[..count] {
        [OPCODE, ref behind @ ..] => Breakpoint::decode(behind),
        _ => Breakpoint::UNKNOWN,
    }
}

fn serve(here: &mut Core<'_>, thread: TcbRef, service: Service, then: Then) {
    let rax = &frame(thread).rax;
    match service {
        Service::PrintChar => here.print(thread, Print::Char, rax.get(), Then::GoOn),
        Service::PrintString => here.print(thread, Print::Text, rax.get(), Then::GoOn),
        // Without a debugger nothing looks out for keys, and nobody asks for names.
        Service::ToggleBreakin if config::DEBUG => kdb::toggle_break_in(),
        Service::NameThread if config::DEBUG => kdb::name(here, thread, false, rax.get()),
        Service::NameSpace if config::DEBUG => kdb::name(here, thread, true, rax.get()),
        Service::ToggleBreakin | Service::NameThread | Service::NameSpace => {}
        Service::ReadChar => rax.set(console::read().map_or(NO_CHARACTER, usize::from)),
        Service::ReadCharBlocked => match console::read() {
            Some(character) => rax.set(character.into()),
            None => {
                let ip = &here.k.tcb(thread).ip;
                ip.set(ip.get().wrapping_sub(1));
                here.sleep_for_input(thread);
            }
        },
        Service::Other(number) if config::DEBUG && then == Then::Stop => kdb::unknown(here, thread, Some(number)),
        Service::Other(number) => here.print(thread, Print::UnknownService, number.into(), then),
    }
}
