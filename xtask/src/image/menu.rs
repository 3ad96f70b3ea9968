//! The boot menu.

use std::fmt::Write;

/// Where the files are on the medium.
pub const DIR: &str = "boot/marcona";
/// Boot modules behind the root task.
const SERVER: &str = "console";

/// What an entry starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program {
    /// Its file, and the beginning of the entry's name.
    name: &'static str,
    title: &'static str,
    /// What stands on its command line.
    args: &'static str,
}

/// What can be started.
const PROGRAMS: [Program; 3] = [
    Program { name: "pingpong", title: "Ping-pong: what a message costs", args: "" },
    Program { name: "l4test", title: "Conformance suite", args: "" },
    Program { name: "scale", title: "Scaling benchmark: messages on many processors", args: "" },
];

/// Where output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// To the screen and to the first serial line.
    Both,
    /// To the first serial line.
    Serial,
    /// To the screen.
    Screen,
}

impl Output {
    /// All of them.
    const ALL: [Self; 3] = [Self::Both, Self::Serial, Self::Screen];

    /// What follows the program's name in the name of an entry.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Both => "",
            Self::Serial => "-serial",
            Self::Screen => "-screen",
        }
    }

    /// What loader, kernel and console server are told.
    const fn word(self) -> &'static str {
        match self {
            Self::Both => "console=both",
            Self::Serial => "console=serial",
            Self::Screen => "console=screen",
        }
    }
}

/// An entry of the menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    program: &'static Program,
    output: Output,
}

impl Entry {
    /// All entries, those for both consoles first.
    pub fn all() -> impl Iterator<Item = Self> {
        Output::ALL.into_iter().flat_map(|output| PROGRAMS.iter().map(move |program| Self { program, output }))
    }

    /// Their names.
    pub fn names() -> impl Iterator<Item = String> {
        Self::all().map(Self::name)
    }

    /// The entry with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::all().find(|entry| entry.name() == name)
    }

    /// Its name.
    pub fn name(self) -> String {
        format!("{}{}", self.program.name, self.output.suffix())
    }

    /// Its lines, indented by `indent`.
    fn write(self, text: &mut String, indent: &str) {
        let Program { name, title, args } = *self.program;
        let console = self.output.word();
        let mut line = |line: String| writeln!(text, "{indent}{line}").expect("strings take all that is written");
        line(format!("menuentry \"{title}\" --id {} {{", self.name()));
        line(format!("    multiboot2 /{DIR}/kickstart {console} sigma1=3"));
        if self.output == Output::Serial {
            // The screen stays in text mode where there is one, with the menu's last words.
            line("    set gfxpayload=text".to_owned());
        }
        line(format!("    module2 /{DIR}/kernel kernel {console}"));
        line(format!("    module2 /{DIR}/sigma0 sigma0"));
        line(format!("    module2 /{DIR}/{name} {}", [name, args].join(" ").trim_end()));
        // Without a screen nobody needs the machine when the last line has been sent.
        let end = if self.output == Output::Serial { " end=off" } else { "" };
        line(format!("    module2 /{DIR}/{SERVER} {SERVER} {console}{end}"));
        line("}".to_owned());
    }
}

/// The menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Menu {
    /// What boots by itself.
    pub first: Entry,
    /// How long the menu waits for a key before that.
    pub wait_seconds: u32,
}

/// The images that stand on the medium.
pub fn files() -> impl Iterator<Item = &'static str> {
    ["kickstart", "kernel", "sigma0", SERVER].into_iter().chain(PROGRAMS.iter().map(|program| program.name))
}

impl Menu {
    /// The file that GRUB reads.
    pub fn text(&self) -> String {
        let mut text = String::from("# The boot menu of Marcona.\n");
        // Where there is no serial line, GRUB says so and goes on.
        text += "serial --unit=0 --speed=115200\n";
        text += "terminal_input --append serial\nterminal_output --append serial\n";
        text += &format!("set timeout={}\nset default={}\n\n", self.wait_seconds, self.default());
        for output in Output::ALL {
            let (open, indent) = match output {
                Output::Both => (None, ""),
                Output::Serial => (Some("On the serial line alone"), "    "),
                Output::Screen => (Some("On the screen alone"), "    "),
            };
            if let Some(title) = open {
                text += &format!("submenu \"{title}\" --id {} {{\n", output.suffix().trim_start_matches('-'));
            }
            for program in &PROGRAMS {
                Entry { program, output }.write(&mut text, indent);
            }
            if open.is_some() {
                text += "}\n";
            }
        }
        text
    }

    /// GRUB's name of the first entry: those in a submenu have its name before them.
    fn default(&self) -> String {
        match self.first.output {
            Output::Both => self.first.name(),
            output => format!("'{}>{}'", output.suffix().trim_start_matches('-'), self.first.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{DIR, Entry, Menu, files};

    #[test]
    fn entries_have_names_of_their_own() {
        let names: HashSet<String> = Entry::names().collect();
        assert_eq!(names.len(), 9);
        for name in names {
            assert_eq!(Entry::of_name(&name).map(Entry::name), Some(name));
        }
        assert_eq!(Entry::of_name("pong"), None);
    }

    #[test]
    fn the_menu_starts_what_is_on_the_medium() {
        let first = Entry::of_name("scale-serial").expect("an entry");
        let text = Menu { first, wait_seconds: 7 }.text();
        assert!(text.contains("set timeout=7\nset default='serial>scale-serial'\n"), "{text}");
        let known: Vec<String> = files().map(|name| format!("/{DIR}/{name}")).collect();
        let mut entries = 0;
        for line in text.lines().map(str::trim) {
            if line.starts_with("module2 ") || line.starts_with("multiboot2 ") {
                let file = line.split(' ').nth(1).expect("a file");
                assert!(known.iter().any(|known| known == file), "{line}");
            }
            entries += usize::from(line.starts_with("menuentry"));
        }
        assert_eq!(entries, 9);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
