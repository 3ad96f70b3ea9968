use kformats::console::{Outputs, SerialLine};

use crate::Options;

fn check(command_line: &str, expected: Result<Options, &str>) {
    let options = Options::parse(command_line.as_bytes()).map_err(|failure| failure.to_string());
    assert_eq!(options, expected.map_err(String::from), "{command_line:?}");
}

#[test]
fn without_options_the_defaults_hold() {
    check("", Ok(Options::default()));
    check("  /boot/kickstart  ", Ok(Options::default()));
}

#[test]
fn options_take_sizes_and_words() {
    let usual = Options::default();
    check("maxmem=64M", Ok(Options { max_memory: 64 << 20, ..usual }));
    check("kickstart maxmem=0x10001", Ok(Options { max_memory: 0x1_0000, ..usual }));
    check("kick kmem=2g maxmem=9K", Ok(Options { kernel_memory: Some(2 << 30), max_memory: 8 << 10, ..usual }));
    check("kmem=0", Ok(Options { kernel_memory: Some(0), ..usual }));
    check("bootinfo=no mbi=off", Ok(Options { bootinfo: false, mbi: false, ..usual }));
    check("bootinfo=disable\tmbi=enable", Ok(Options { bootinfo: false, ..usual }));
    check("decode-all=yes verbose=on", Ok(Options { decode_all: true, verbose: true, ..usual }));
    check("sigma1=3", Ok(Options { sigma1: Some(3), ..usual }));
    let serial = SerialLine { port: 0x2F8, divisor: 12 };
    check(
        "console=screen serial=1,9600",
        Ok(Options { outputs: Outputs { serial: false, screen: true }, serial, ..usual }),
    );
}

#[test]
fn what_is_no_option_is_named() {
    check("kickstart maxmen=64M", Err("command line: there is no option maxmen=64M"));
    check("mbi=no quiet", Err("command line: there is no option quiet"));
    for word in [
        "kmem=",
        "kmem=M",
        "kmem=12q",
        "kmem=1MM",
        "kmem=-1",
        "kmem=17179869184G",
        "maxmem=0x",
        "mbi=maybe",
        "sigma1=",
        "console=no",
    ] {
        check(word, Err(&format!("command line: {word} has no value of its kind")));
    }
}
