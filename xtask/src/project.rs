//! The workspace: where it is, which crates it has, what each of them may know and contain.
//!
//! [`CRATES`] is the one table: `build`, `test` and `tidy` all read it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// The bare-metal target of the kernel and of user programs.
pub const TARGET: &str = "x86_64-unknown-none";

/// The architecture that a command works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 32-bit x86.
    #[value(name = "x86_32")]
    X86_32,
}

impl Arch {
    /// Refuses the architecture that cannot be built yet.
    pub fn check(self) -> Result<()> {
        match self {
            Self::X86_64 => Ok(()),
            Self::X86_32 => crate::usage!("architecture x86_32 is not available yet: leave out --arch or say x86_64"),
        }
    }
}

/// What a crate is built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Plain Rust that compiles for the host and for bare metal.
    Library,
    /// A library that needs the bare machine or the kernel under it.
    MachineLibrary,
    /// A bare-metal image that each boot needs.
    System,
    /// A bare-metal image that can be the root task.
    Program,
    /// A program of the host.
    Tool,
}

/// What tests run on the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostTests {
    /// All targets and the examples in the documentation.
    All,
    /// The library target only.
    Library,
    /// None.
    No,
}

/// A crate of the workspace.
#[derive(Debug)]
pub struct Crate {
    /// Its name.
    pub name: &'static str,
    /// What it is built for.
    pub kind: Kind,
    /// Its tests on the host.
    pub tests: HostTests,
    /// The crates of the workspace that it may know.
    pub knows: &'static [&'static str],
    /// It may contain `unsafe`; all others forbid it.
    pub may_be_unsafe: bool,
}

const fn entry(name: &'static str, kind: Kind, tests: HostTests, knows: &'static [&'static str]) -> Crate {
    Crate { name, kind, tests, knows, may_be_unsafe: false }
}

const fn with_unsafe(mut entry: Crate) -> Crate {
    entry.may_be_unsafe = true;
    entry
}

/// Every crate of the workspace. The arrows are those of ARCHITECTURE.md.
pub const CRATES: &[Crate] = &[
    entry("l4-abi", Kind::Library, HostTests::All, &[]),
    entry("kformats", Kind::Library, HostTests::All, &["dice"]),
    entry("keys", Kind::Library, HostTests::All, &[]),
    entry("screen", Kind::Library, HostTests::All, &["kformats"]),
    // Its tests compare it with the model, which knows nothing of it.
    entry("kcore", Kind::Library, HostTests::All, &["l4-abi", "kformats", "model"]),
    entry("model", Kind::Tool, HostTests::All, &[]),
    with_unsafe(entry("khal", Kind::MachineLibrary, HostTests::Library, &["dice", "kformats"])),
    with_unsafe(entry("l4", Kind::MachineLibrary, HostTests::Library, &["l4-abi"])),
    with_unsafe(entry("l4-rt", Kind::MachineLibrary, HostTests::No, &["l4-abi", "kformats", "l4"])),
    with_unsafe(entry("kickstart", Kind::System, HostTests::Library, &["dice", "l4-abi", "kformats", "screen"])),
    entry("kdb", Kind::Library, HostTests::All, &["dice", "l4-abi", "kcore", "kformats"]),
    with_unsafe(entry(
        "kernel",
        Kind::System,
        HostTests::No,
        &["keys", "l4-abi", "kcore", "kdb", "kformats", "khal", "screen"],
    )),
    entry("sigma0", Kind::System, HostTests::Library, &["l4-abi", "l4", "l4-rt"]),
    entry("console", Kind::System, HostTests::Library, &["keys", "kformats", "l4", "l4-rt", "screen"]),
    entry("dice", Kind::Library, HostTests::All, &[]),
    entry("measure", Kind::MachineLibrary, HostTests::Library, &["l4", "l4-rt"]),
    entry("pingpong", Kind::Program, HostTests::Library, &["l4", "l4-rt", "measure"]),
    // A conformance suite must do what hostile programs do; its chapters forbid `unsafe`, its world and assembly cannot.
    with_unsafe(entry("l4test", Kind::Program, HostTests::Library, &["l4-abi", "l4", "l4-rt"])),
    entry("bench", Kind::Program, HostTests::Library, &["l4", "l4-rt", "measure"]),
    entry("scale", Kind::Program, HostTests::Library, &["l4", "l4-rt", "measure"]),
    // It takes whatever others send to it.
    with_unsafe(entry("storm", Kind::Program, HostTests::No, &["dice", "l4", "l4-rt", "measure"])),
    // Its calls are what hostile programs make.
    with_unsafe(entry("fuzz", Kind::Program, HostTests::No, &["dice", "l4", "l4-rt", "measure"])),
    entry("siege", Kind::Program, HostTests::No, &["dice", "l4", "l4-rt", "measure"]),
    entry("drivers", Kind::Program, HostTests::No, &["l4", "l4-rt"]),
    entry("deadlock", Kind::Program, HostTests::No, &["l4", "l4-rt", "measure"]),
    // The emulator's interface is one of pointers.
    with_unsafe(entry("plugin", Kind::Tool, HostTests::Library, &[])),
    entry("damage", Kind::Tool, HostTests::All, &["dice", "kconfig", "kcore", "kformats", "l4", "l4-abi", "sigma0"]),
    // libFuzzer calls it by a symbol.
    with_unsafe(entry("feed", Kind::Tool, HostTests::No, &["damage"])),
    entry("kconfig", Kind::Tool, HostTests::All, &[]),
    entry("xtask", Kind::Tool, HostTests::All, &["kconfig", "kcore", "kdb", "kformats", "l4-abi", "screen"]),
    entry("xtask-launch", Kind::Tool, HostTests::No, &[]),
];

/// The names of the crates of one kind.
pub fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    CRATES.iter().filter(move |entry| entry.kind == kind).map(|entry| entry.name)
}

/// The names of all images: what `cargo xtask build` makes.
pub fn images() -> Vec<&'static str> {
    names(Kind::System).chain(names(Kind::Program)).collect()
}

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tool's crate is a folder of the workspace")
}

/// Where the images stand.
pub fn image_dir() -> PathBuf {
    root().join("target/marcona/x86_64")
}

/// `path` as it is named from the root of the workspace, if it is below.
pub fn relative(path: &Path) -> &Path {
    path.strip_prefix(root()).unwrap_or(path)
}

/// The cargo that started this tool, to be run at the root of the workspace.
pub fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    command
}

/// A package as cargo sees it.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its manifest.
    pub manifest_path: PathBuf,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

/// A line of a manifest's dependencies.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The name of the other package.
    pub name: String,
    /// The folder of a package of this workspace.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Package {
    /// The root files of its libraries and programs.
    pub fn roots(&self) -> impl Iterator<Item = (&Path, bool)> {
        let built = self.targets.iter().filter(|target| target.is_library() || target.is("bin"));
        built.map(|target| (target.src_path.as_path(), target.is_library()))
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.manifest_path.parent().expect("a manifest is in a folder")
    }
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }

    fn is_library(&self) -> bool {
        self.is("lib")
    }
}

/// The packages of the workspace.
pub fn packages() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let output = cargo("metadata").args(["--no-deps", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

/// The crates of the table whose library alone is for the host; an image comes to have one as soon as there is logic
/// that a host can test.
pub fn host_libraries() -> Result<impl Iterator<Item = &'static Crate>> {
    let mut packages = packages()?;
    packages.retain(|package| package.roots().any(|(_, is_library)| is_library));
    let has_one = move |entry: &&Crate| packages.iter().any(|package| package.name == entry.name);
    Ok(CRATES.iter().filter(|entry| entry.tests == HostTests::Library).filter(has_one))
}
