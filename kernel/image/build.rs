//! Hands the linker script to the linker, for the bare machine only, and the chosen configuration to the compiler.
//!
//! The configuration is a file with a line `NAME=VALUE` for each option of config/Kconfig: the one that the environment names,
//! else that of the defaults. `cargo xtask` evaluates what was chosen and writes such a file.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names the file.
const VARIABLE: &str = "MARCONA_KERNEL_CONFIG";
const DEFAULT: &str = "../../config/default";

fn main() {
    println!("cargo:rerun-if-changed=kernel.ld");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo:rustc-link-arg-bins=-T{}/kernel.ld", env!("CARGO_MANIFEST_DIR"));
    }
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let file = env::var_os(VARIABLE).map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from);
    println!("cargo:rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let options: Vec<(&str, &str)> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let out = env::var_os("OUT_DIR").expect("cargo names a folder for what is generated");
    fs::write(Path::new(&out).join("config.rs"), constants(&options)).expect("the folder can be written");
}

/// A constant for each option, and all of them in words.
fn constants(options: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in options.iter().filter(|(name, _)| !is_member(name, options)) {
        let constant = match *value {
            "y" => "bool = true".to_owned(),
            "n" => "bool = false".to_owned(),
            value if value.starts_with('"') => format!("&str = {value}"),
            value => format!("usize = {value}"),
        };
        writeln!(text, "pub const {name}: {constant};").expect("text takes text");
    }
    writeln!(text, "pub const WORDS: &str = {:?};", words(options).join(" ")).expect("text takes text");
    text
}

/// Whether the option is one of those among which a choice was made that another option tells.
fn is_member(name: &str, options: &[(&str, &str)]) -> bool {
    let tells = |(other, value): &(&str, &str)| {
        !["y", "n"].contains(value) && name.strip_prefix(other).is_some_and(|rest| rest.starts_with('_'))
    };
    options.iter().any(tells)
}

/// What the kernel says of itself: options that are on, and values that count.
fn words(options: &[(&str, &str)]) -> Vec<String> {
    let value = |name: &str| options.iter().find(|(own, _)| *own == name).map_or("n", |(_, value)| value);
    let is_on = |name: &str| value(name) == "y";
    let counts = |name: &str| match name {
        "SMP" | "KDB_NO_ASSERTS" => false,
        "SMP_MAX_PROCS" => is_on("SMP"),
        "KDB_COMPORT" | "KDB_COMSPEED" => is_on("KDB_CONS_COM"),
        _ => !is_member(name, options),
    };
    let mut words: Vec<String> = options
        .iter()
        .filter(|(name, value)| counts(name) && *value != "n")
        .map(|&(name, value)| match (name, value) {
            ("SMP_MAX_PROCS", count) => format!("SMP={count}"),
            (name, "y") => name.to_owned(),
            (name, value) => format!("{name}={}", value.trim_matches('"')),
        })
        .collect();
    if !is_on("KDB_NO_ASSERTS") {
        words.push("ASSERTIONS".to_owned());
    }
    words
}
