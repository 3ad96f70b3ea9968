//! Who threads and spaces are: the names they gave themselves, and which thread is in which space.

use std::collections::BTreeMap;

use kcore::kernel::ThreadNumbers;
use kdb::names::Named;
use l4_abi::ThreadId;

use crate::dump::remains::Roster;

/// What is known of threads and spaces. Numbers are shown as the debugger shows them, in hexadecimal.
pub struct Who {
    /// Borders of the thread numbers, if they are known.
    pub numbers: Option<ThreadNumbers>,
    /// Names of threads by their global ids.
    pub threads: BTreeMap<u64, String>,
    /// Names of spaces by their numbers.
    pub spaces: BTreeMap<usize, String>,
    /// In which space a thread is, by its global id.
    pub homes: BTreeMap<u64, usize>,
}

impl Who {
    /// Nothing is known.
    pub fn nobody() -> Self {
        Self { numbers: None, threads: BTreeMap::new(), spaces: BTreeMap::new(), homes: BTreeMap::new() }
    }

    /// What a kernel's tables say.
    pub fn of(roster: &Roster) -> Self {
        let mut who = Self { numbers: Some(roster.numbers), ..Self::nobody() };
        for (named, name) in roster.names.all() {
            let name = name.as_str().to_owned();
            match named {
                Named::Thread(id) => drop(who.threads.insert(id.raw(), name)),
                Named::Space(number) => drop(who.spaces.insert(number, name)),
            }
        }
        who.homes = roster.threads.iter().map(|(id, space)| (id.raw(), space.index())).collect();
        // Those that are there from the start give no names.
        for (id, name) in [(roster.numbers.sigma0(), "sigma0"), (roster.numbers.root_task(), "root")] {
            if let Some(space) = who.homes.get(&(id.raw())) {
                who.spaces.entry(*space).or_insert_with(|| name.to_owned());
            }
        }
        who
    }

    /// Whether a global id is that of an interrupt.
    pub fn is_interrupt(&self, id: u64) -> bool {
        let id = ThreadId::from_raw(id);
        self.numbers.is_some_and(|numbers| id.is_global() && id.thread_no() < u64::from(numbers.system_base))
    }

    /// A thread as a person reads it, by any id.
    pub fn thread(&self, raw: u64) -> String {
        let id = ThreadId::from_raw(raw);
        match id {
            _ if id.is_nil() => "nilthread".to_owned(),
            _ if id.is_any() => "anythread".to_owned(),
            _ if id.is_any_local() => "anylocalthread".to_owned(),
            _ if id.is_local() => format!("local {raw:x}"),
            _ => {
                let name = self.threads.get(&raw).cloned().or_else(|| self.given_name(id));
                let name = name.map_or_else(String::new, |name| format!(" ({name})"));
                format!("{:x}.{:x}{name}", id.thread_no(), id.version())
            }
        }
    }

    /// What those are called that are there from the start.
    fn given_name(&self, id: ThreadId) -> Option<String> {
        let numbers = self.numbers?;
        match id {
            _ if self.is_interrupt(id.raw()) => Some(format!("interrupt {}", id.thread_no())),
            _ if id == numbers.sigma0() => Some("sigma0".to_owned()),
            _ if id == numbers.sigma1() => Some("sigma1".to_owned()),
            _ if id == numbers.root_task() => Some("root task".to_owned()),
            _ => None,
        }
    }

    /// A space as a person reads it.
    pub fn space(&self, number: u64) -> String {
        let known = usize::try_from(number).ok();
        match known.and_then(|number| self.spaces.get(&number)) {
            Some(name) => format!("space {number:x} ({name})"),
            None => format!("space {number:x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use kcore::kernel::ThreadNumbers;
    use l4_abi::ThreadId;

    use super::Who;

    #[test]
    fn threads_are_shown_as_the_debugger_shows_them() {
        let mut who = Who::nobody();
        let raw = |number, version| ThreadId::global(number, version).raw();
        assert_eq!(who.thread(raw(0x3C, 2)), "3c.2");
        who.numbers = Some(ThreadNumbers { system_base: 0x18, user_base: 0x30 });
        who.threads.insert(raw(0x3C, 2), "ring.a".to_owned());
        who.spaces.insert(11, "server".to_owned());
        for (id, shown) in [
            (raw(0x3C, 2), "3c.2 (ring.a)"),
            (raw(0x3C, 3), "3c.3"),
            (raw(0x30, 1), "30.1 (sigma0)"),
            (raw(0x32, 1), "32.1 (root task)"),
            (raw(17, 1), "11.1 (interrupt 17)"),
            (0, "nilthread"),
            (u64::MAX, "anythread"),
            (0x7000_0040, "local 70000040"),
        ] {
            assert_eq!(who.thread(id), shown);
        }
        assert!(who.is_interrupt(raw(17, 1)) && !who.is_interrupt(raw(0x18, 1)) && !who.is_interrupt(0));
        assert_eq!((who.space(11), who.space(12)), ("space b (server)".to_owned(), "space c".to_owned()));
    }
}
