//! The clauses of the specification, which tests name: the list is `docs/clauses.txt`.

/// The list: parts, and below each its clauses, one a line.
const LIST: &str = include_str!("../../../docs/clauses.txt");

/// What a line of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The title of a part of the specification.
    Part(&'static str),
    /// A clause of the part before.
    Clause(&'static str),
}

/// The list in its order, which is that of the specification.
pub fn entries() -> impl Iterator<Item = Entry> {
    LIST.lines().filter_map(|line| match line.strip_prefix("## ") {
        Some(title) => Some(Entry::Part(title)),
        None if line.is_empty() || line.starts_with('#') => None,
        None => Some(Entry::Clause(line)),
    })
}

/// Whether there is a clause of this name: for the compiler, which refuses tests of others.
pub const fn contains(name: &str) -> bool {
    let (list, name) = (LIST.as_bytes(), name.as_bytes());
    let is_name = !name.is_empty() && name[0] != b'#';
    let mut start = 0;
    while start < list.len() {
        let mut end = start;
        while end < list.len() && list[end] != b'\n' {
            end += 1;
        }
        if is_name && equal(list, start, end, name) {
            return true;
        }
        start = end + 1;
    }
    false
}

const fn equal(list: &[u8], start: usize, end: usize, name: &[u8]) -> bool {
    if end - start != name.len() {
        return false;
    }
    let mut i = 0;
    while i < name.len() && list[start + i] == name[i] {
        i += 1;
    }
    i == name.len()
}

#[cfg(test)]
mod tests {
    use super::{Entry, contains, entries};

    #[test]
    fn clauses_stand_below_parts() {
        assert_eq!(entries().next(), Some(Entry::Part("Data types")));
        assert_eq!(entries().nth(1), Some(Entry::Clause("X.2, Thread identifiers")));
        assert!(entries().all(|entry| matches!(entry, Entry::Part(text) | Entry::Clause(text) if text.trim() == text)));
    }

    #[test]
    fn compiler_and_program_find_the_same_clauses() {
        for entry in entries() {
            let (name, is_clause) = match entry {
                Entry::Part(title) => (title, false),
                Entry::Clause(name) => (name, true),
            };
            assert_eq!(contains(name), is_clause, "{name}");
            assert!(!contains(&name[1..]) && !contains(&name[..name.len() - 1]), "a part of {name} is no clause");
        }
        assert!(!contains("") && !contains("## Data types") && !contains("X.2, Magic"));
    }
}
