//! Options, wishes and files, sound and damaged; and what holds of the kernel's own options.

use crate::{Configuration, Document, Options, Settings, Value, cover};

const KERNEL: &str = include_str!("../../../config/Kconfig");

const SMALL: &str = r#"
mainmenu "Small"

config ENGINE
	bool "Engine"
	default y
	help
	  What drives it.

	  More words.

if ENGINE
config TURBO
	bool "Turbo"
	depends on FUEL_DIESEL || FORCE
endif

config FORCE
	bool "Force"

menu "Fuel"
	depends on ENGINE

choice
	prompt "Fuel"
	default FUEL_PETROL

config FUEL_DIESEL
	bool "Diesel"

config FUEL_PETROL
	bool "Petrol"

endchoice

config OCTANE
	int
	default 0 if FUEL_DIESEL
	default 95

config TANK
	int "Litres" if ENGINE
	range 10 20 if TURBO
	range 10 90
	default 20 if TURBO
	default 50

endmenu

config PLATE
	hex "Plate" if !FORCE
	range 0x10 0xff
	default 0x10

config WHEELS
	def_bool y
	help
	  It has wheels.
"#;

fn options() -> Options {
    Options::parse(SMALL).expect("this is sound")
}

fn kernel() -> Options {
    Options::parse(KERNEL).expect("the kernel's options are sound")
}

/// Wishes as words, all taken.
#[track_caller]
fn wishes(options: &Options, words: &str) -> Settings {
    let mut settings = Settings::default();
    for word in words.split_whitespace() {
        let (name, value) = word.split_once('=').expect("NAME=VALUE");
        settings.set(options, name, value).unwrap_or_else(|refusal| panic!("{refusal}"));
    }
    settings
}

fn value(configuration: &Configuration<'_>, options: &Options, name: &str) -> String {
    configuration.value(options.find(name).expect("there is one")).to_string()
}

/// What wishes come to.
#[track_caller]
fn check(words: &str, expected: &str) {
    let options = options();
    let configuration = options.evaluate(&wishes(&options, words));
    for word in expected.split_whitespace() {
        let (name, expected) = word.split_once('=').expect("NAME=VALUE");
        assert_eq!(value(&configuration, &options, name), expected, "{name} with {words:?}");
    }
}

#[test]
fn defaults_hold_where_nothing_is_wished() {
    check("", "ENGINE=y TURBO=n FORCE=n FUEL_DIESEL=n FUEL_PETROL=y OCTANE=95 TANK=50 PLATE=0x10 WHEELS=y");
}

#[test]
fn wishes_count_where_they_can() {
    check("TURBO=y", "TURBO=n");
    check("TURBO=y FORCE=y", "TURBO=y TANK=20");
    check("TURBO=y FUEL_DIESEL=y", "TURBO=y OCTANE=0 FUEL_PETROL=n");
    check("ENGINE=n TURBO=y FORCE=y", "TURBO=n FUEL_PETROL=n");
    check("PLATE=0x20", "PLATE=0x20");
    check("PLATE=0x20 FORCE=y", "PLATE=0x10");
    check("TANK=90", "TANK=90");
    check("TANK=90 TURBO=y FORCE=y", "TANK=20");
    check("ENGINE=n ENGINE=y", "ENGINE=y");
}

#[test]
fn of_a_choice_the_last_wish_counts() {
    check("FUEL_DIESEL=y FUEL_PETROL=y", "FUEL_DIESEL=n FUEL_PETROL=y");
    check("FUEL_DIESEL=y FUEL_DIESEL=n", "FUEL_PETROL=y");
}

#[test]
fn values_that_a_choice_gives_choose_its_member() {
    check("OCTANE=0", "FUEL_DIESEL=y OCTANE=0");
    check("OCTANE=0 OCTANE=95", "FUEL_PETROL=y OCTANE=95");
}

/// A wish that was not taken says why, and nothing has changed.
#[test]
fn refusals_name_the_mend() {
    let options = options();
    let rows = [
        ("ENGINES", "y", "no option is called ENGINES; there is ENGINE"),
        ("COLOUR", "red", "no option is called COLOUR"),
        ("ENGINE", "maybe", "ENGINE cannot be maybe: it takes y or n"),
        ("TANK", "x", "TANK cannot be x: it takes a number"),
        ("TANK", "-1", "TANK cannot be -1: it takes a number"),
        ("TANK", "91", "TANK cannot be 91: it takes 10 to 20 or 10 to 90"),
        ("TANK", "99999999999999999999", "TANK cannot be 99999999999999999999: it takes a number"),
        ("PLATE", "0x100", "PLATE cannot be 0x100: it takes 0x10 to 0xff"),
        ("OCTANE", "98", "OCTANE cannot be 98: it takes 0, 95"),
        ("WHEELS", "n", "WHEELS cannot be chosen: it is a fact of this kernel: It has wheels"),
    ];
    for (name, value, expected) in rows {
        let mut settings = wishes(&options, "TANK=30");
        let refusal = settings.set(&options, name, value).expect_err("this is wrong");
        assert_eq!(refusal.to_string(), expected);
        assert_eq!(settings, wishes(&options, "TANK=30"));
    }
    assert_eq!(Settings::default().set(&options, "WHEELS", "y"), Ok(None));
    assert!(Settings::default().set(&options, "CONFIG_ENGINE", "off").is_ok());
}

#[test]
fn who_cannot_be_chosen_says_why() {
    let options = options();
    let check = |words: &str, name: &str, expected: &[&str]| {
        let configuration = options.evaluate(&wishes(&options, words));
        assert_eq!(
            configuration.obstacles(options.find(name).expect("there is one")),
            expected,
            "{name} with {words:?}"
        );
    };
    check("", "ENGINE", &[]);
    check("", "TURBO", &["it needs FUEL_DIESEL or FORCE"]);
    check("ENGINE=n FORCE=y", "TURBO", &["it needs ENGINE=y"]);
    check("FORCE=y", "PLATE", &["it needs FORCE=n"]);
    check("", "WHEELS", &["it is a fact of this kernel: It has wheels"]);
    check("", "OCTANE", &["it follows from a choice"]);
    check("ENGINE=n", "FUEL_DIESEL", &["it needs ENGINE=y"]);

    let chain = kernel();
    let configuration = chain.evaluate(&wishes(&chain, "IOAPIC=n SMP_MAX_PROCS=40"));
    let id = chain.find("SMP_MAX_PROCS").expect("there is one");
    assert_eq!(configuration.obstacles(id), ["it needs SMP=y", "SMP needs IOAPIC=y"]);
    let idle = configuration.idle_wishes();
    assert_eq!(idle, [(id, Value::Int(40), "it needs SMP=y, SMP needs IOAPIC=y".to_owned())]);
}

#[test]
fn what_is_not_understood_is_refused() {
    let check = |text: &str, expected: &str| {
        let error = Options::parse(text).expect_err("this is wrong");
        assert!(error.contains(expected), "{error}");
    };
    check("config A\n\tbool \"A\"\n\tselect B\n", "A: this is not understood");
    check("config A\n\tbool \"A\"\n\tdepends on B\n", "A: nothing is called B");
    check("config A\n\tdefault y\n", "A has no type");
    check("config A\n\tbool \"A\"\n\nconfig A\n\tbool \"A\"\n", "A is there twice");
    check("config A\n\tbool \"A\"\n\tdepends on B\n\nconfig B\n\tbool \"B\"\n\tdepends on A\n", "depends on itself");
    check("choice\n\tprompt \"C\"\n\tdefault B\n\nconfig A\n\tbool \"A\"\n\nendchoice\n", "B is no member");
    check("source \"other\"\n", "");
    check("nonsense\n", "line ");
}

// --- files ---

/// What a file comes to: the file after it was read, and how many repairs were told.
#[track_caller]
fn reopen(text: &[u8], expected: &str, repairs: &[&str]) -> Settings {
    let options = options();
    let (mut document, settings, told) = Document::open(&options, text);
    document.update(&options, &settings);
    assert_eq!(document.text(), expected);
    assert_eq!(told.len(), repairs.len(), "{told:?}");
    for (told, expected) in told.iter().zip(repairs) {
        assert!(told.contains(expected), "{told}");
    }
    // What was repaired is sound.
    let (again, same, none) = Document::open(&options, document.text().as_bytes());
    assert_eq!((again.text(), &same, &none[..]), (document.text(), &settings, &[][..]));
    settings
}

#[test]
fn sound_files_stay_as_they_are() {
    let text = "# why\n\n ENGINE = y\nTANK=30\n  # more\nOCTANE=0\nWHEELS=y\nPLATE=0x20\n";
    let settings = reopen(text.as_bytes(), text, &[]);
    assert_eq!(settings, wishes(&options(), "ENGINE=y TANK=30 OCTANE=0 PLATE=0x20"));
}

#[test]
fn old_and_damaged_lines_are_repaired_and_kept() {
    reopen(b"CONFIG_TURBO=y\r\n", "TURBO=y\n", &["written TURBO=y"]);
    reopen(b"# CONFIG_ENGINE is not set\n", "ENGINE=n\n", &["written ENGINE=n"]);
    reopen(b"# CONFIG_OTHER is not set", "# CONFIG_OTHER is not set\n", &[]);
    reopen(b"ENGINE=yes\n", "ENGINE=y\n", &["written ENGINE=y"]);
    reopen(b"TANK=\"30\"\n", "TANK=30\n", &["written TANK=30"]);
    reopen(
        b"TANK=900\n",
        "# it takes 10 to 20 or 10 to 90: TANK=900\nTANK=20\n",
        &["kept as a comment", "taken as 20"],
    );
    reopen(b"TANK=many\n", "# it takes a number: TANK=many\n", &["kept as a comment"]);
    reopen(b"SAILS=3\n", "# no option is called SAILS: SAILS=3\n", &["no option"]);
    reopen(
        b"WHEELS=n\n",
        "# WHEELS cannot be chosen: it is a fact of this kernel: It has wheels: WHEELS=n\n",
        &["fact"],
    );
    reopen(b"<<<<<<< mine\n", "# not understood: <<<<<<< mine\n", &["not understood"]);
    reopen(b"TANK=30\nTANK=40\n", "# a later line counts: TANK=30\nTANK=40\n", &["counts in place"]);
    reopen(
        b"FUEL_DIESEL=y\nFUEL_PETROL=y\n",
        "# a later line counts: FUEL_DIESEL=y\nFUEL_PETROL=y\n",
        &["counts in place"],
    );
    reopen(b"\xFF\xFEx=\0\n", "# not text: \\xff\\xfex=\\x00\n", &["not text"]);
    reopen(b"A\x1b[2J=y\n", "# not text: A\\u{1b}[2J=y\n", &["not text"]);
    reopen(b"", "", &[]);
    reopen(b"\n\n", "\n\n", &[]);
}

#[test]
fn changes_stay_in_their_lines() {
    let options = options();
    let (mut document, mut settings, _) = Document::open(&options, b"# a\nTANK=30\n# b\nSAILS=3\nFUEL_DIESEL=y\n");
    settings.set(&options, "TANK", "40").expect("in range");
    settings.set(&options, "FUEL_PETROL", "y").expect("a member");
    settings.set(&options, "FORCE", "y").expect("an option");
    document.update(&options, &settings);
    let expected = "# a\nTANK=40\n# b\n# no option is called SAILS: SAILS=3\nOCTANE=95\nFORCE=y\n";
    assert_eq!(document.text(), expected);
    settings.forget(options.find("TANK").expect("there is one"));
    document.update(&options, &settings);
    assert_eq!(document.text(), expected.replace("TANK=40\n", ""));
}

/// Bytes changed anywhere: nothing panics, each line is still there, and reading twice repairs nothing more.
#[test]
fn any_damage_is_survived() {
    let options = kernel();
    let sound = "# a comment\nSMP=y\nSMP_MAX_PROCS=40\nKDB_COMSPEED=9600\nSPIN_WHEELS=y\nMITIGATIONS=full\n";
    let mut seed = 1u64;
    let mut random = move |bound: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % bound
    };
    for _ in 0..3000 {
        let mut bytes = sound.as_bytes().to_vec();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"=#\n\ry\0\xC3"[random(7)]),
            }
        }
        let (mut document, settings, _) = Document::open(&options, &bytes);
        document.update(&options, &settings);
        let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        assert!(lines(document.text().as_bytes()) >= lines(&bytes), "{:?}", bytes.escape_ascii().to_string());
        let (again, same, repairs) = Document::open(&options, document.text().as_bytes());
        assert!(same == settings && repairs.is_empty(), "{repairs:?} of {}", document.text());
        assert_eq!(again.text(), document.text());
    }
}

// --- the kernel's own options ---

/// The build without this tool reads the file of the defaults.
#[test]
fn file_of_the_defaults_has_all_of_them() {
    let options = kernel();
    let text = include_str!("../../../config/default");
    let lines: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(lines, options.evaluate(&Settings::default()).resolved());
    let (_, _, repairs) = Document::open(&options, text.as_bytes());
    assert_eq!(repairs, [""; 0]);
}

#[test]
fn names_of_other_kernels_are_taken() {
    let options = kernel();
    let words = "SMP=y SMP_MAX_PROCS=40 SMP_IDLE_POLL=y IOAPIC=y IPC_FASTPATH=y X86_IO_FLEXPAGES=n PERFMON=n \
                 SPIN_WHEELS=y NEW_MDB=y STATIC_TCBS=y KDB_CONS_COM=y KDB_COMPORT=1 KDB_COMSPEED=38400 \
                 KDB_NO_ASSERTS=y VERBOSE_INIT=n";
    let settings = wishes(&options, words);
    let configuration = options.evaluate(&settings);
    for (name, expected) in words.split_whitespace().filter_map(|word| word.split_once('=')) {
        let value = value(&configuration, &options, name);
        assert_eq!(value.trim_start_matches("0x"), expected, "{name}");
    }
    assert!(configuration.idle_wishes().is_empty());
}

/// Each two values that can be together are so in some row.
#[test]
fn covering_set_covers() {
    let options = kernel();
    let rows = cover::pairs(&options, 3);
    assert!((6..=20).contains(&rows.len()), "{} rows", rows.len());
    let resolved: Vec<_> = rows.iter().map(|row| options.evaluate(row)).collect();
    let has = |pair: [(&str, &str); 2]| {
        let is_so =
            |configuration: &Configuration<'_>, (name, expected)| value(configuration, &options, name) == expected;
        resolved.iter().any(|configuration| pair.iter().all(|&one| is_so(configuration, one)))
    };
    let bools = ["SMP", "IPC_FASTPATH", "X86_IO_FLEXPAGES", "PERFMON", "SPIN_WHEELS", "KDB_CONS_COM", "KDB_NO_ASSERTS"];
    for (index, one) in bools.iter().enumerate() {
        for other in &bools[index + 1..] {
            for (a, b) in [("y", "y"), ("y", "n"), ("n", "y"), ("n", "n")] {
                assert!(has([(one, a), (other, b)]), "{one}={a} {other}={b}");
            }
        }
    }
    assert!(has([("SMP_MAX_PROCS", "1"), ("SMP_IDLE_POLL", "y")]));
    assert!(has([("MITIGATIONS", "full"), ("IPC_FASTPATH", "n")]));
    assert!(has([("IOAPIC", "n"), ("KDB_COMSPEED", "300")]));
    assert!(!has([("IOAPIC", "n"), ("SMP", "y")]));
}
