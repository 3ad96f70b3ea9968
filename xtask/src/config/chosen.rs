//! Configurations: where they are, and what the build of a kernel gets of one.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kconfig::{Document, Options, Settings, Value};

use crate::{project, usage};

/// The folder of the options and of the named configurations.
const DIR: &str = "config";
/// The file of the options.
const OPTIONS: &str = "config/Kconfig";
/// The configuration that holds when nothing else is said.
pub const DEFAULT: &str = "default";
/// The current configuration, unless the environment names another file.
const CURRENT: &str = ".config";
/// What names that file.
pub const VARIABLE: &str = "MARCONA_CONFIG";

/// The options of the kernel.
pub fn options() -> Result<Options> {
    let text = fs::read_to_string(project::root().join(OPTIONS)).with_context(|| format!("cannot read {OPTIONS}"))?;
    Options::parse(&text).map_err(|error| anyhow!("{OPTIONS}: {error}"))
}

/// The file of the current configuration; it need not be there.
pub fn current() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(|| project::root().join(CURRENT), PathBuf::from)
}

/// The file of a named configuration; it need not be there.
pub fn named(name: &str) -> PathBuf {
    project::root().join(DIR).join(name)
}

/// Whether a configuration can be called so.
pub fn is_name(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    !name.is_empty() && name.chars().all(is_plain) && name != "Kconfig"
}

/// The names of the named configurations.
pub fn names() -> Result<Vec<String>> {
    let entries = fs::read_dir(project::root().join(DIR)).with_context(|| format!("cannot read {DIR}"))?;
    let files = entries.flatten().filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_name(name));
    names.sort();
    Ok(names)
}

/// The file that a person means by a name or a path.
pub fn find(name: &str) -> Result<PathBuf> {
    let (named, path) = (named(name), PathBuf::from(name));
    if is_name(name) && named.is_file() {
        Ok(named)
    } else if path.is_file() {
        Ok(path)
    } else {
        usage!("there is no configuration {name}: there are {}, or name a file", names()?.join(", "))
    }
}

/// A file of wishes, read.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it.
    bytes: Vec<u8>,
    /// Its lines.
    pub document: Document,
    /// Its wishes.
    pub settings: Settings,
    /// What had to be repaired.
    pub repairs: Vec<String>,
}

impl File {
    /// Reads a file; one that is not there wishes nothing.
    pub fn open(options: &Options, path: &Path) -> Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => usage!("cannot read {}: {error}; name another file", path.display()),
        };
        let (document, settings, repairs) = Document::open(options, &bytes);
        Ok(Self { path: path.to_owned(), bytes, document, settings, repairs })
    }

    /// Says on stderr what had to be repaired.
    pub fn tell_repairs(&self) {
        let name = project::relative(&self.path).display();
        self.repairs.iter().for_each(|repair| eprintln!("{name}: {repair}"));
    }

    /// Writes the file with these wishes. What was damaged, and is repaired now, stays beside it as it was. Returns the name
    /// of that.
    pub fn save(&mut self, options: &Options, settings: &Settings) -> Result<Option<PathBuf>> {
        self.document.update(options, settings);
        self.settings = settings.clone();
        let text = self.document.text();
        let mut backup = None;
        if !self.repairs.is_empty() && !self.bytes.is_empty() {
            let file = beside(&self.path);
            write(&file, &self.bytes)?;
            backup = Some(file);
        }
        write(&self.path, text.as_bytes())?;
        self.bytes = text.into_bytes();
        self.repairs.clear();
        Ok(backup)
    }
}

/// A name beside `path` that nobody has: `NAME.old`, `NAME.old2` and so on.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let candidates = (1..).map(|number| match number {
        1 => path.with_file_name(format!("{name}.old")),
        number => path.with_file_name(format!("{name}.old{number}")),
    });
    let mut free = candidates.filter(|candidate| !candidate.exists());
    free.next().expect("there are more names than files")
}

/// Writes a file such that it is complete or as before.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Err(error) = crate::build::replace(path, bytes) {
        usage!("cannot write {}: {error:#}; name another file", path.display());
    }
    Ok(())
}

/// A configuration as the build of a kernel takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// What a person calls it.
    pub name: String,
    /// A line for each option.
    resolved: String,
    /// It is what is built when nothing is said.
    pub is_default: bool,
    /// The lines that differ from those of the default.
    deviations: Vec<String>,
    has_assertions: bool,
    /// The kernel can record what it does.
    pub has_tracepoints: bool,
    /// Processors that the kernel can run.
    pub processors: u32,
}

impl Chosen {
    /// What is built when nothing is said, whatever the current configuration is.
    pub fn by_default() -> Result<Self> {
        let options = options()?;
        Ok(Self::new(DEFAULT, &options, &Settings::default()))
    }

    /// What a person means by `name`; without one the current configuration, if there is one. Says what it repaired.
    pub fn of(name: Option<&str>) -> Result<Self> {
        let options = options()?;
        let (name, path) = match name {
            Some(name) => (name.to_owned(), find(name)?),
            None if current().is_file() => (project::relative(&current()).display().to_string(), current()),
            None => return Self::by_default(),
        };
        let file = File::open(&options, &path)?;
        file.tell_repairs();
        Ok(Self::new(&name, &options, &file.settings))
    }

    /// These wishes.
    pub fn new(name: &str, options: &Options, settings: &Settings) -> Self {
        let configuration = options.evaluate(settings);
        let value = |name: &str| options.find(name).map(|id| configuration.value(id));
        let resolved = configuration.resolved();
        let processors = match value("SMP_MAX_PROCS") {
            Some(Value::Int(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
            _ => 1,
        };
        let default = options.evaluate(&Settings::default()).resolved();
        let differing = resolved.lines().zip(default.lines()).filter(|(own, other)| own != other);
        Self {
            name: name.to_owned(),
            is_default: resolved == default,
            deviations: differing.map(|(own, _)| own.to_owned()).collect(),
            has_assertions: value("KDB_NO_ASSERTS") == Some(&Value::Bool(false)),
            has_tracepoints: value("TRACEPOINTS") == Some(&Value::Bool(true)),
            processors,
            resolved,
        }
    }

    /// What differs from the default, in words.
    pub fn resolved_in_a_line(&self) -> String {
        self.deviations.join(" ")
    }

    /// Whether it comes to what is built when nothing is said.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// Whether the kernel checks its own promises.
    pub fn has_assertions(&self) -> bool {
        self.has_assertions
    }

    /// A word that is the same for the same configuration, and for no other.
    pub fn key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.resolved.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// The file that the build script of the kernel reads.
    pub fn file(&self) -> Result<PathBuf> {
        let dir = project::root().join("target/marcona/config");
        fs::create_dir_all(&dir)?;
        let file = dir.join(self.key());
        match fs::read_to_string(&file) {
            Ok(text) if text == self.resolved => {}
            Ok(_) => bail!("{} is another configuration: remove it", file.display()),
            Err(_) => write(&file, self.resolved.as_bytes())?,
        }
        Ok(file)
    }
}
