//! The command line.

use kformats::console::{Outputs, SerialLine};

/// The command line, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// `console=`: where output goes.
    pub outputs: Outputs,
    /// `serial=`: the serial line.
    pub serial: SerialLine,
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
                _ => Err("console=WORD and serial=LINE,BAUD"),
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
        check("console=x quiet serial=7", true, true, 0x3F8, &["console=x", "quiet", "serial=7"]);
    }
}
