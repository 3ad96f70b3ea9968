//! The boot menu.

use std::fmt::Write;

/// Where the files are on the medium.
pub const DIR: &str = "boot/marcona";
/// Boot modules behind the root task.
const SERVER: &str = "console";

/// The kernel.
const KERNEL: &str = "kernel";
/// The kernel with the debugger in it.
pub const DEBUGGER: &str = "kernel-kdb";

/// What an entry starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program {
    /// The beginning of the entry's name.
    name: &'static str,
    title: &'static str,
    file: &'static str,
    kernel: &'static str,
}

/// What can be started.
const PROGRAMS: [Program; 4] = [
    Program { name: "pingpong", title: "Ping-pong: what a message costs", file: "pingpong", kernel: KERNEL },
    Program { name: "l4test", title: "Conformance suite", file: "l4test", kernel: KERNEL },
    Program { name: "scale", title: "Scaling benchmark: messages on many processors", file: "scale", kernel: KERNEL },
    Program {
        name: "debugger",
        title: "Kernel debugger, worked by the serial line: a program with mistakes",
        file: "deadlock",
        kernel: DEBUGGER,
    },
];

impl Program {
    /// Whether the kernel leaves the screen to a console server: the debugger draws on it itself.
    fn has_server(&self) -> bool {
        self.kernel == KERNEL
    }

    /// Whether it is of use with this output: the debugger takes keys of the serial line alone.
    fn takes(&self, output: Output) -> bool {
        self.kernel == KERNEL || output != Output::Screen
    }
}

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
        let entries = |output| PROGRAMS.iter().map(move |program| Self { program, output });
        Output::ALL.into_iter().flat_map(entries).filter(|entry| entry.program.takes(entry.output))
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
        let Program { title, file, kernel, .. } = *self.program;
        let console = self.output.word();
        let mut line = |line: String| writeln!(text, "{indent}{line}").expect("strings take all that is written");
        line(format!("menuentry \"{title}\" --id {} {{", self.name()));
        let sigma1 = if self.program.has_server() { " sigma1=3" } else { "" };
        line(format!("    multiboot2 /{DIR}/kickstart {console}{sigma1}"));
        if self.output == Output::Serial {
            // The screen stays in text mode where there is one, with the menu's last words.
            line("    set gfxpayload=text".to_owned());
        }
        line(format!("    module2 /{DIR}/{kernel} {kernel} {console}"));
        line(format!("    module2 /{DIR}/sigma0 sigma0"));
        line(format!("    module2 /{DIR}/{file} {file}"));
        // Without a screen nobody needs the machine when the last line has been sent.
        let end = if self.output == Output::Serial { " end=off" } else { "" };
        if self.program.has_server() {
            line(format!("    module2 /{DIR}/{SERVER} {SERVER} {console}{end}"));
        }
        line("}".to_owned());
    }
}

/// A line of a menu: words as GRUB's language has them, which takes nothing between single quotes for its own.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The menu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Menu {
    /// What boots by itself.
    pub first: Entry,
    /// How long the menu waits for a key before that.
    pub wait_seconds: u32,
}

/// The images that stand on the medium, but for [`DEBUGGER`].
pub fn files() -> impl Iterator<Item = &'static str> {
    ["kickstart", KERNEL, "sigma0", SERVER].into_iter().chain(PROGRAMS.iter().map(|program| program.file))
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
            Entry::all().filter(|entry| entry.output == output).for_each(|entry| entry.write(&mut text, indent));
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

    use super::{DEBUGGER, DIR, Entry, Menu, files, line};

    #[test]
    fn entries_have_names_of_their_own() {
        let names: HashSet<String> = Entry::names().collect();
        assert_eq!(names.len(), 11);
        for name in names {
            assert_eq!(Entry::of_name(&name).map(Entry::name), Some(name));
        }
        assert_eq!(Entry::of_name("pong"), None);
    }

    #[test]
    fn words_of_the_menu_are_taken_as_they_are() {
        assert_eq!(line(["module", "/boot/a", "x=$y;", "it's"]), r"'module' '/boot/a' 'x=$y;' 'it'\''s'");
    }

    #[test]
    fn the_menu_starts_what_is_on_the_medium() {
        let first = Entry::of_name("scale-serial").expect("an entry");
        let text = Menu { first, wait_seconds: 7 }.text();
        assert!(text.contains("set timeout=7\nset default='serial>scale-serial'\n"), "{text}");
        let known: Vec<String> = files().chain([DEBUGGER]).map(|name| format!("/{DIR}/{name}")).collect();
        let mut entries = 0;
        for line in text.lines().map(str::trim) {
            if line.starts_with("module2 ") || line.starts_with("multiboot2 ") {
                let file = line.split(' ').nth(1).expect("a file");
                assert!(known.iter().any(|known| known == file), "{line}");
            }
            entries += usize::from(line.starts_with("menuentry"));
        }
        assert_eq!(entries, 11);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
