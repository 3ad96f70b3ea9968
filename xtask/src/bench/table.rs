//! Figures as tables of text.

use std::io::{self, Write};

use super::Figure;
use super::region::Way;

/// Sizes of messages that a table of everything shows.
const MRS: [u32; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 32, 63];

/// Prints all figures; with `is_whole` all sizes of messages, too.
pub fn print(out: &mut impl Write, figures: &[Figure], is_whole: bool) -> io::Result<()> {
    writeln!(
        out,
        "Instructions, mean: per message one way, per page, per KiB, else per operation. Behind the bar what the"
    )?;
    writeln!(
        out,
        "kernel does in an operation, which for a message is a call and its reply. Instructions are not cycles.\n"
    )?;
    if let Some(figure) = figures.first() {
        writeln!(out, "mitigations={}\n", figure.mitigations)?;
    }
    write!(out, "{:<20}{:<16}{:>5} {:>10} |", "", "", "MRs", "value")?;
    for title in ["instr.", "loads", "stores", "data", "code", "privileged", "locked"] {
        write!(out, "{title:>11}")?;
    }
    writeln!(out)?;
    for figure in figures.iter().filter(|figure| is_whole || figure.mrs.is_none_or(|mrs| MRS.contains(&mrs))) {
        let mrs = figure.mrs.map(|mrs| mrs.to_string()).unwrap_or_default();
        write!(out, "{:<20}{:<16}{mrs:>5} {:>10.2} |", figure.bench, figure.mode, figure.value)?;
        if let Some(seen) = &figure.counts {
            let counts = &seen.counts;
            let (data, code) = (counts.data.mean, counts.code.mean);
            for number in [counts.kernel, counts.loads, counts.stores, data, code, counts.privileged(), counts.locked] {
                write!(out, "{number:>11.2}")?;
            }
        }
        writeln!(out)?;
    }
    writeln!(out, "\ndata, code: distinct lines of 64 bytes")
}

/// Prints the lines of each figure's operation.
pub fn print_lines(out: &mut impl Write, figures: &[Figure]) -> io::Result<()> {
    for (figure, seen) in figures.iter().filter_map(|figure| Some((figure, figure.counts.as_ref()?))) {
        for (title, lines, list) in [("data", &seen.counts.data, &seen.data), ("code", &seen.counts.code, &seen.code)] {
            writeln!(out, "\n{}: {:.2} lines of {title}, at most {}", figure.name(), lines.mean, lines.most)?;
            for (name, part) in list {
                writeln!(out, "{:>9.1} %  {name}", part * 100.0)?;
            }
        }
    }
    Ok(())
}

/// Prints what the functions of the kernel contribute to each figure's operation, the most first, and the ways through it.
pub fn print_functions(out: &mut impl Write, figures: &[Figure]) -> io::Result<()> {
    for (figure, seen) in figures.iter().filter_map(|figure| Some((figure, figure.counts.as_ref()?))) {
        writeln!(out, "\n{}: {:.2} instructions of the kernel", figure.name(), seen.counts.kernel)?;
        let mut functions: Vec<_> = seen.functions.iter().collect();
        functions.sort_by(|one, other| other.1.total_cmp(one.1));
        for (name, count) in functions {
            writeln!(out, "{count:>11.2}  {name}")?;
        }
        for (name, way) in seen.ways.iter().zip(&seen.counts.ways) {
            let Way { times, instructions, least, most, data_lines, code_lines, .. } = way;
            writeln!(
                out,
                "{times:>11.2}  times in by {name}: {instructions:.2} instructions ({least} to {most}), \
                 {data_lines:.2} lines of data, {code_lines:.2} of code"
            )?;
        }
        for (name, count) in &seen.counts.privileged {
            writeln!(out, "{count:>11.2}  times {name}")?;
        }
    }
    Ok(())
}
