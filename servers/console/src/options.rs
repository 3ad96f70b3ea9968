//! The command line.

use kformats::console::{Outputs, SerialLine};

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// `console=`: where output goes.
    pub outputs: Outputs,
    /// `serial=`: the serial line.
    pub serial: SerialLine,
    /// `end=`: what happens when the program has ended.
    pub end: End,
}

/// What happens when the program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum End {
    /// What it printed stays to be looked at.
    #[default]
    Stay,
    /// The machine is switched off.
    Off,
    /// The machine starts again.
    Restart,
}

impl End {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "stay" => Some(Self::Stay),
            "off" => Some(Self::Off),
            "restart" => Some(Self::Restart),
            _ => None,
        }
    }
}

/// Which word of it means nothing, and what could stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown<'a>(pub &'a str, pub &'static str);

impl Options {
    /// What the words say. A word that means nothing is handed to `complain` and otherwise ignored, as somebody must be able
    /// to read of it.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>, mut complain: impl FnMut(Unknown<'a>)) -> Self {
        let mut options = Self::default();
        for word in words {
            let result = match word.split_once('=') {
                Some(("console", value)) => {
                    Outputs::parse(value.as_bytes()).map(|outputs| options.outputs = outputs).ok_or(Outputs::VALUES)
                }
                Some(("serial", value)) => {
                    SerialLine::parse(value.as_bytes()).map(|serial| options.serial = serial).ok_or(SerialLine::VALUES)
                }
                Some(("end", value)) => End::parse(value).map(|end| options.end = end).ok_or("stay, off or restart"),
                _ => Err("console=WORD, serial=LINE,BAUD and end=WORD"),
            };
            if let Err(values) = result {
                complain(Unknown(word, values));
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn words_say_where_output_goes() {
        let check = |line: &'static str, serial, screen, port, wrong: &[&str]| {
            let mut complaints = Vec::new();
            let options = Options::parse(line.split_ascii_whitespace(), |Unknown(word, _)| complaints.push(word));
            assert_eq!(options.outputs, Outputs { serial, screen }, "{line}");
            assert_eq!((options.serial.port, &complaints[..]), (port, wrong), "{line}");
        };
        check("", true, true, 0x3F8, &[]);
        check("console=screen", false, true, 0x3F8, &[]);
        check("console=serial serial=1,9600", true, false, 0x2F8, &[]);
        check("end=off", true, true, 0x3F8, &[]);
        check("console=x quiet serial=7 end=", true, true, 0x3F8, &["console=x", "quiet", "serial=7", "end="]);
        let end = |line: &'static str| Options::parse(line.split(' '), |_| ()).end;
        assert_eq!(
            [end(""), end("end=off"), end("end=restart"), end("end=off end=stay")],
            [End::Stay, End::Off, End::Restart, End::Stay]
        );
    }
}
