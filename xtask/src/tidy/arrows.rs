//! Which crate may know which: the arrows of ARCHITECTURE.md, against what the manifests say.

use anyhow::Result;

use super::{Finding, sources};
use crate::project::{self, CRATES, Package};

/// Compares the manifests with the table of crates.
pub fn check() -> Result<Vec<Finding>> {
    let packages = project::packages()?;
    let mut findings = Vec::new();
    for package in &packages {
        let manifest = sources::read(&package.manifest_path)?;
        findings.extend(check_package(package, &manifest));
    }
    let missing = CRATES.iter().filter(|entry| packages.iter().all(|package| package.name != entry.name));
    findings.extend(missing.map(|entry| {
        Finding::anywhere(format!("{} is no package: remove it from CRATES in xtask/src/project.rs", entry.name))
    }));
    Ok(findings)
}

fn check_package(package: &Package, manifest: &str) -> Vec<Finding> {
    let Some(entry) = CRATES.iter().find(|entry| entry.name == package.name) else {
        let mend = format!("enter {} in CRATES in xtask/src/project.rs and in ARCHITECTURE.md", package.name);
        return vec![Finding::at(&package.manifest_path, 1, mend)];
    };
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    let wrong = ours.filter(|dependency| !entry.knows.contains(&dependency.name.as_str()));
    wrong
        .map(|dependency| {
            let line = manifest.lines().position(|line| line.starts_with(&dependency.name)).map_or(1, |line| line + 1);
            let what = format!("{} must not know {}: remove the dependency", package.name, dependency.name);
            Finding::at(&package.manifest_path, line, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::check_package;
    use crate::project::Package;

    fn check(name: &str, dependency: &str, expected: &[&str]) {
        let json = format!(
            r#"{{"name":"{name}","manifest_path":"/p/Cargo.toml","targets":[],
                "dependencies":[{{"name":"{dependency}","path":"/d"}},{{"name":"arrayvec","path":null}}]}}"#
        );
        let package: Package = serde_json::from_str(&json).expect("sound JSON");
        let manifest = format!("[package]\n\n[dependencies]\n{dependency}.workspace = true\n");
        let findings: Vec<String> = check_package(&package, &manifest).iter().map(ToString::to_string).collect();
        assert_eq!(findings, expected);
    }

    #[test]
    fn an_arrow_against_the_map_is_found() {
        check("kcore", "l4-abi", &[]);
        check("kernel", "khal", &[]);
        check("kcore", "khal", &["/p/Cargo.toml:4: kcore must not know khal: remove the dependency"]);
        check("pingpong", "kcore", &["/p/Cargo.toml:4: pingpong must not know kcore: remove the dependency"]);
        check(
            "new",
            "l4-abi",
            &["/p/Cargo.toml:1: enter new in CRATES in xtask/src/project.rs and in ARCHITECTURE.md"],
        );
    }
}
