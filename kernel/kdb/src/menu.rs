//! Commands and menus: how they are called, by key and by name.

use kcore::machine::Machine;

use crate::session::{Leave, Session};

/// How a command ends: it may leave the debugger. An error of printing means that the person has seen enough, or did not
/// want to answer a question.
pub type Done = Result<Option<Leave>, core::fmt::Error>;

/// What a command does.
pub enum Action<M: Machine + 'static> {
    /// Does something.
    Run(fn(&mut Session<'_, '_, M>) -> Done),
    /// Opens another menu.
    Menu(&'static Menu<M>),
}

/// A command.
pub struct Command<M: Machine + 'static> {
    /// The key that calls it in its menu.
    pub key: u8,
    /// The word that calls it.
    pub name: &'static str,
    /// What it shows or does.
    pub help: &'static str,
    /// What it does.
    pub action: Action<M>,
}

/// A menu.
pub struct Menu<M: Machine + 'static> {
    /// Its name, as the prompt has it.
    pub name: &'static str,
    /// Its commands.
    pub commands: &'static [Command<M>],
}

impl<M: Machine> Menu<M> {
    /// The command with this key.
    pub fn by_key(&self, key: u8) -> Option<&'static Command<M>> {
        self.commands.iter().find(|command| command.key == key)
    }

    /// The command with this name, or the only one that begins so.
    pub fn by_name(&self, name: &str) -> Option<&'static Command<M>> {
        let exact = self.commands.iter().find(|command| command.name == name);
        let mut fitting = self.commands.iter().filter(|command| !name.is_empty() && command.name.starts_with(name));
        exact.or_else(|| fitting.next().filter(|_| fitting.next().is_none()))
    }
}
