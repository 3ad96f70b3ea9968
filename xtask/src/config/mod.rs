//! `cargo xtask config`: what the kernel is built with. Options are in `config/Kconfig`, named configurations beside it.

mod chosen;
mod terminal;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use kconfig::{Configuration, Item, Options, Settings, Value};

pub use chosen::{Chosen, VARIABLE, options};

use crate::{build, project, qemu, test, usage};
use chosen::File;

/// Status of a check that found something.
const FOUND_STATUS: u8 = 1;

/// Options of `config`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Choose values: `set SMP=n`, `set KDB_COMSPEED=9600 VERBOSE_INIT=y`
    Set {
        /// What to choose
        #[arg(value_name = "KEY=VALUE", required = true)]
        wishes: Vec<String>,
        /// The configuration to change, in place of the current one
        #[arg(long, value_name = "NAME|FILE")]
        config: Option<String>,
    },
    /// Say what is wrong with configurations, and which wishes do not count
    Check {
        /// What to check [default: the current configuration and all named ones]
        #[arg(value_name = "NAME|FILE")]
        files: Vec<String>,
        /// Repair them; the damaged file stays beside as NAME.old
        #[arg(long)]
        repair: bool,
    },
    /// Make the default the current configuration; what was chosen stays beside as .config.old
    Default,
    /// Make a named configuration, or a file, the current one
    Load {
        /// Which
        #[arg(value_name = "NAME|FILE")]
        config: String,
    },
    /// Keep the current configuration under a name, in config/
    Save {
        /// Which
        name: String,
    },
    /// List all options with their values, and why one cannot be chosen
    Show {
        /// What to show [default: the current configuration]
        #[arg(value_name = "NAME|FILE")]
        config: Option<String>,
    },
    /// List the named configurations
    List,
    /// Build and boot kernels in which each two choices are together once; takes about half an hour
    Cover,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let options = options()?;
    match &args.command {
        Some(Command::Set { wishes, config }) => set(&options, wishes, config.as_deref()),
        Some(Command::Check { files, repair }) => check(&options, files, *repair),
        Some(Command::Default) => default(&options),
        Some(Command::Load { config }) => load(&options, config),
        Some(Command::Save { name }) => save(&options, name),
        Some(Command::Show { config }) => show(&options, config.as_deref()),
        Some(Command::List) => list(),
        Some(Command::Cover) => cover(),
        None if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => terminal::run(&options),
        None => show(&options, None),
    }
}

fn set(options: &Options, wishes: &[String], config: Option<&str>) -> Result<ExitCode> {
    let path = match config {
        None => chosen::current(),
        // A name may be new, if it is one.
        Some(name) if chosen::is_name(name) && !Path::new(name).is_file() => chosen::named(name),
        Some(file) => PathBuf::from(file),
    };
    let mut file = File::open(options, &path)?;
    let mut settings = file.settings.clone();
    let mut lines = Vec::new();
    for wish in wishes {
        let Some((name, value)) = wish.split_once('=') else {
            usage!("{wish} says no value: type KEY=VALUE, as in SMP=n");
        };
        match settings.set(options, name.trim(), value.trim()) {
            Ok(Some(id)) => lines.push((id, name.trim().trim_start_matches("CONFIG_").to_owned())),
            Ok(None) => println!("{name}={value} (this kernel has nothing else)"),
            Err(refusal) => usage!("{refusal}"),
        }
    }
    file.tell_repairs();
    tell_backup(file.save(options, &settings)?);
    let configuration = options.evaluate(&settings);
    for (id, name) in lines {
        if let Some(shown) = options.find(&name) {
            println!("{name}={}", configuration.value(shown));
        }
        if let Some((_, wish, reason)) = configuration.idle_wishes().into_iter().find(|(idle, ..)| *idle == id) {
            println!("    {name}={wish} is kept, and does not count now: {reason}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_backup(backup: Option<PathBuf>) {
    if let Some(backup) = backup {
        eprintln!("the file as it was is {}", project::relative(&backup).display());
    }
}

fn check(options: &Options, files: &[String], repair: bool) -> Result<ExitCode> {
    let mut paths: Vec<PathBuf> = files.iter().map(|name| chosen::find(name)).collect::<Result<_>>()?;
    if files.is_empty() {
        paths.extend(Some(chosen::current()).filter(|file| file.is_file()));
        paths.extend(chosen::names()?.iter().map(|name| chosen::named(name)));
    }
    let mut is_sound = true;
    for path in paths {
        let mut file = File::open(options, &path)?;
        let name = project::relative(&path).display().to_string();
        for repair in &file.repairs {
            println!("{name}: {repair}");
        }
        for (id, wish, reason) in options.evaluate(&file.settings).idle_wishes() {
            println!("{name}: {}={wish} does not count: {reason}", options.get(id).name);
        }
        if file.repairs.is_empty() {
            println!("{name}: sound");
        } else if repair {
            let settings = file.settings.clone();
            tell_backup(file.save(options, &settings)?);
            println!("{name}: repaired");
        } else {
            println!("{name}: to be repaired; `cargo xtask config check --repair` does it");
            is_sound = false;
        }
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(FOUND_STATUS) })
}

/// Writes the current configuration anew. What is there stays beside, unless it is the same.
fn replace_current(options: &Options, file: &File, settings: &Settings) -> Result<()> {
    let current = chosen::current();
    let before = std::fs::read(&current).unwrap_or_default();
    let mut new = file.clone();
    new.path.clone_from(&current);
    new.document.update(options, settings);
    let text = new.document.text();
    if !before.is_empty() && before != text.as_bytes() {
        let old = chosen::beside(&current);
        chosen::write(&old, &before)?;
        eprintln!("what was chosen before is {}", project::relative(&old).display());
    }
    chosen::write(&current, text.as_bytes())
}

fn default(options: &Options) -> Result<ExitCode> {
    load(options, chosen::DEFAULT)
}

fn load(options: &Options, config: &str) -> Result<ExitCode> {
    let file = File::open(options, &chosen::find(config)?)?;
    file.tell_repairs();
    replace_current(options, &file, &file.settings)?;
    println!("{} is as {config}", project::relative(&chosen::current()).display());
    Ok(ExitCode::SUCCESS)
}

/// Refuses a name that no configuration can be saved under.
fn check_new_name(name: &str) -> Result<()> {
    if !chosen::is_name(name) || name == chosen::DEFAULT {
        usage!("a configuration cannot be called {name}: take letters, digits and dashes, and not {}", chosen::DEFAULT);
    }
    Ok(())
}

fn save(options: &Options, name: &str) -> Result<ExitCode> {
    check_new_name(name)?;
    let current = File::open(options, &chosen::current())?;
    current.tell_repairs();
    let mut file = File::open(options, &chosen::named(name))?;
    if file.document == kconfig::Document::default() {
        file.document = current.document.clone();
    }
    tell_backup(file.save(options, &current.settings)?);
    println!("{} is saved", project::relative(&file.path).display());
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<ExitCode> {
    chosen::names()?.iter().for_each(|name| println!("{name}"));
    Ok(ExitCode::SUCCESS)
}

fn cover() -> Result<ExitCode> {
    qemu::ensure()?;
    let dir = build::images(&["kickstart", "kernel", "sigma0", "pingpong"], &Chosen::by_default()?)?;
    let is_sound = test::configurations::cover_all(&dir)?;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(FOUND_STATUS) })
}

fn show(options: &Options, config: Option<&str>) -> Result<ExitCode> {
    let path = config.map(chosen::find).transpose()?.unwrap_or_else(chosen::current);
    let file = File::open(options, &path)?;
    file.tell_repairs();
    print!("{}", listing(options, &file.settings));
    Ok(ExitCode::SUCCESS)
}

/// All options in their menus, a line each.
fn listing(options: &Options, settings: &Settings) -> String {
    let configuration = options.evaluate(settings);
    let mut text = String::new();
    list_items(&configuration, options, &options.menu, &mut text);
    text
}

fn list_items(configuration: &Configuration<'_>, options: &Options, items: &[Item], text: &mut String) {
    for item in items {
        let (shown, prompt, obstacles) = match item {
            Item::Menu(title, items) => {
                text.push_str(&format!("{title}\n"));
                list_items(configuration, options, items, text);
                continue;
            }
            Item::Option(id) => {
                let option = options.get(*id);
                let shown = format!("{}={}", option.name, configuration.value(*id));
                (shown, option.prompt.as_deref().unwrap_or(""), configuration.obstacles(*id))
            }
            Item::Choice(id) => {
                let choice = options.choice(*id);
                let member = configuration.chosen(*id).unwrap_or(choice.members[0]);
                let shown = kconfig::text_of(options, member, &Value::Bool(true));
                (shown, choice.prompt.as_str(), configuration.obstacles_of_choice(*id))
            }
        };
        let reason = if obstacles.is_empty() { String::new() } else { format!(" ({})", obstacles.join(", ")) };
        text.push_str(format!("  {shown:<24} {prompt}{reason}").trim_end());
        text.push('\n');
    }
}
