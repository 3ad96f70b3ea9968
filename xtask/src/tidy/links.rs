//! Links in Markdown documents: files and headings that are pointed to must be there.

use std::path::Path;

use anyhow::Result;

use super::{Finding, sources};

/// Follows the links of all documents.
pub fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in sources::files()?.into_iter().filter(|file| sources::has_extension(file, "md")) {
        let text = sources::read(&file)?;
        for (line, target) in links(&text) {
            if let Some(what) = dead(&file, &text, target)? {
                findings.push(Finding::at(&file, line, what));
            }
        }
    }
    Ok(findings)
}

/// The lines of `text` that are not in a fenced block, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((index + 1, line))
    })
}

/// The targets of links, with the numbers of their lines; not those in code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // Every other part is code.
        for part in line.split('`').step_by(2) {
            let ends = part.match_indices("](").map(|(at, mark)| &part[at + mark.len()..]);
            links.extend(ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| (number, target)));
        }
    }
    links
}

/// What is wrong with a link from `file`, whose text is `text`; addresses on the net are not followed.
fn dead(file: &Path, text: &str, target: &str) -> Result<Option<String>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let other = file.with_file_name(path);
    if !path.is_empty() && !other.exists() {
        return Ok(Some(format!("{path} does not exist: mend the link")));
    }
    let has_heading = |text: &str| heading.is_empty() || headings(text).any(|own| own == heading);
    let is_there = match path.is_empty() || heading.is_empty() {
        true => has_heading(text),
        false => has_heading(&sources::read(&other)?),
    };
    Ok((!is_there).then(|| format!("{target} leads to no heading: mend the link")))
}

/// The names by which headings can be linked: lower case, hyphens for spaces, other marks left out.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
        let kept = title.trim().chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dead, headings, links};

    const TEXT: &str =
        "# The `xtask` tool, part 1\nsee [a](src/main.rs) and [b](#x), not `[c](d)`\n```\n[e](f)\n# g\n```\n";

    #[test]
    fn links_in_code_are_none() {
        assert_eq!(links(TEXT), [(2, "src/main.rs"), (2, "#x")]);
    }

    #[test]
    fn headings_have_the_names_that_readers_see() {
        assert_eq!(headings(TEXT).collect::<Vec<_>>(), ["the-xtask-tool-part-1"]);
    }

    #[test]
    fn dead_links_are_told_from_living_ones() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("page.md");
        let check = |target: &str, is_dead| {
            let result = dead(&file, TEXT, target).expect("the files can be read");
            assert_eq!(result.is_some(), is_dead, "{target}: {result:?}");
        };
        check("src/main.rs", false);
        check("src", false);
        check("src/none.rs", true);
        check("#the-xtask-tool-part-1", false);
        check("#elsewhere", true);
        check("https://example.org/none", false);
    }
}
