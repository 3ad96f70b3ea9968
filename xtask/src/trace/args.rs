//! Events and their arguments in words.

use kformats::trace::{Event, Kind, Record};
use l4_abi::{Fpage, IpcError, MsgTag, SysError, Time, Timeouts};

use super::who::Who;

/// A name of a record's event.
pub fn name_of(record: &Record) -> String {
    record.event().map_or_else(|| format!("event {}", record.event), |event| event.point().name.to_owned())
}

/// The arguments of a record by name, as a person reads them.
pub fn arguments<'r>(record: &'r Record, who: &'r Who) -> impl Iterator<Item = (&'static str, String)> + 'r {
    let point = record.event().map(Event::point);
    let kinds = point.into_iter().flat_map(|point| point.args).zip(record.args);
    let kinds = kinds.map(|((name, kind), word)| (name, kind_in(record, name, kind), word));
    kinds.filter(|(_, kind, _)| *kind != Kind::None).map(|(name, kind, word)| (name, shown(kind, word, who)))
}

/// What an argument of this record is. What a system call returns hangs on the call: Ipc a sender, an error of its own kind and
/// the tag of what was received, the others a word and an error.
fn kind_in(record: &Record, name: &str, kind: Kind) -> Kind {
    if record.event() != Some(Event::SyscallReturn) {
        return kind;
    }
    let is_ipc = record.args[0] == Event::SyscallIpc as u64;
    match name {
        "result" if is_ipc => Kind::Thread,
        "error" => {
            if is_ipc {
                Kind::IpcError
            } else {
                Kind::SysError
            }
        }
        "received" if !is_ipc => Kind::None,
        _ => kind,
    }
}

/// A word of this kind.
fn shown(kind: Kind, word: u64, who: &Who) -> String {
    match kind {
        Kind::Thread => who.thread(word),
        Kind::Space => who.space(word),
        Kind::Tag => tag(MsgTag::from_raw(word)),
        Kind::Fpage => fpage(Fpage::from_raw(word)),
        Kind::Timeouts => {
            let timeouts = Timeouts::from_raw(word);
            format!("send {}, receive {}", time(timeouts.snd()), time(timeouts.rcv()))
        }
        Kind::Clock if word == u64::MAX => "never".to_owned(),
        Kind::Clock => format!("{word} us"),
        Kind::IpcError => ipc_error(word),
        Kind::SysError => sys_error(word),
        Kind::Call => Event::new(word as usize).map_or_else(|| word.to_string(), |call| call.point().name.to_owned()),
        Kind::Rights => rights(word),
        Kind::Processor | Kind::Line | Kind::Number => word.to_string(),
        Kind::Address | Kind::Physical | Kind::Port | Kind::Word | Kind::None => format!("{word:#x}"),
    }
}

/// Label, numbers of words, flags.
fn tag(tag: MsgTag) -> String {
    let flags = [(tag.is_error(), 'E'), (tag.is_xcpu(), 'X'), (tag.is_redirected(), 'r'), (tag.is_propagated(), 'p')];
    let flags: String = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter).collect();
    let flags = if flags.is_empty() { flags } else { format!(", flags {flags}") };
    format!("label {:#x}, untyped {}, typed {}{flags}", tag.label(), tag.untyped(), tag.typed())
}

fn fpage(fpage: Fpage) -> String {
    let rights = rights(fpage.rights().bits());
    match fpage.as_io() {
        _ if fpage.is_nil() => "nil".to_owned(),
        _ if fpage.is_complete() => format!("all {rights}"),
        Some(ports) => format!("ports {:#x} to {:#x}", ports.port(), ports.last()),
        None => format!("{:#x} size 2^{} {rights}", fpage.base(), fpage.size_log2()),
    }
}

fn rights(word: u64) -> String {
    let letters = [(4, 'r'), (2, 'w'), (1, 'x')];
    letters.into_iter().map(|(bit, letter)| if word & bit != 0 { letter } else { '-' }).collect()
}

fn time(time: Time) -> String {
    match time.length_us() {
        _ if time.is_never() => "never".to_owned(),
        Some(us) => format!("{us} us"),
        None => format!("point {:#x}", time.raw()),
    }
}

fn ipc_error(word: u64) -> String {
    match IpcError::from_raw(word) {
        None if word == 0 => "none".to_owned(),
        None => format!("{word:#x}"),
        Some(error) => format!("{:?} in phase {:?}", error.kind, error.phase),
    }
}

fn sys_error(word: u64) -> String {
    let found = usize::try_from(word).ok().and_then(|word| SysError::ALL.get(word.checked_sub(1)?));
    match found {
        None if word == 0 => "none".to_owned(),
        None => format!("{word:#x}"),
        Some(error) => format!("{error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use kformats::trace::{Event, Kind, Record};
    use l4_abi::{Fpage, IpcError, IpcErrorKind, MsgTag, Phase, Rights, ThreadId};

    use super::{arguments, name_of, shown};
    use crate::trace::who::Who;

    #[test]
    fn words_are_shown_by_their_kind() {
        let who = Who::nobody();
        let check = |kind, word: u64, expected: &str| assert_eq!(shown(kind, word, &who), expected, "{kind:?}");
        check(Kind::Thread, ThreadId::global(0x3C, 2).raw(), "3c.2");
        check(Kind::Tag, MsgTag::new(0x123, 4, 2).raw(), "label 0x123, untyped 4, typed 2");
        check(Kind::Tag, MsgTag::new(0, 0, 0).with_flags(0xC000).raw(), "label 0x0, untyped 0, typed 0, flags EX");
        let page = Fpage::new(0x4000, 12, Rights::from_bits_truncate(6)).expect("a page");
        check(Kind::Fpage, page.raw(), "0x4000 size 2^12 rw-");
        check(Kind::Fpage, 0, "nil");
        check(Kind::Clock, u64::MAX, "never");
        check(Kind::Clock, 7, "7 us");
        check(Kind::IpcError, 0, "none");
        let error = IpcError::new(Phase::Receive, IpcErrorKind::Timeout).raw();
        check(Kind::IpcError, error, "Timeout in phase Receive");
        check(Kind::SysError, 3, "InvalidSpace");
        check(Kind::SysError, 0, "none");
        check(Kind::SysError, u64::MAX, &format!("{:#x}", u64::MAX));
        check(Kind::Call, Event::SyscallUnmap.number() as u64, "SYSCALL_UNMAP");
        check(Kind::Rights, 5, "r-x");
        check(Kind::Processor, 12, "12");
        check(Kind::Address, 0x1000, "0x1000");
    }

    #[test]
    fn arguments_have_their_names() {
        let who = Who::nobody();
        let record = Record { event: Event::SmpIpi.number() as u16, args: [3, 9, 9, 9], ..Record::default() };
        assert_eq!(arguments(&record, &who).collect::<Vec<_>>(), [("processor", "3".to_owned())]);
        assert_eq!(name_of(&record), "SMP_IPI");
        let back = |call: Event, word: u64, error: u64| {
            let (event, args) = (Event::SyscallReturn as u16, [call as u64, word, error, 0]);
            let record = Record { event, args, ..Record::default() };
            arguments(&record, &who).map(|(name, text)| format!("{name} {text}")).collect::<Vec<_>>().join(", ")
        };
        let ipc = back(Event::SyscallIpc, ThreadId::global(0x3C, 2).raw(), 3);
        assert_eq!(
            ipc,
            "call SYSCALL_IPC, result 3c.2, error Timeout in phase Receive, received label 0x0, untyped 0, typed 0"
        );
        let other = back(Event::SyscallThreadControl, 0, 3);
        assert_eq!(other, "call SYSCALL_THREAD_CONTROL, result 0x0, error InvalidSpace");
        let unknown = Record { event: 999, ..record };
        assert_eq!((name_of(&unknown), arguments(&unknown, &who).count()), ("event 999".to_owned(), 0));
    }
}
