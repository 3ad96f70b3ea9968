//! Figures as pictures: SVG files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Figure;
use super::scale::{Plan, Row};

/// Size of a picture in pixels.
const SIZE: (u32, u32) = (960, 540);
/// Size of a heat map in pixels.
const SQUARE: (u32, u32) = (820, 900);
/// Height of a bar of the second picture, pixels.
const BAR: u32 = 22;

/// Draws all pictures for which there are figures into `dir`.
pub fn draw(dir: &Path, figures: &[Figure]) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (messages, others): (Vec<&Figure>, Vec<&Figure>) = figures.iter().partition(|figure| figure.mrs.is_some());
    if !messages.is_empty() {
        draw_file(&dir.join("ipc.svg"), SIZE, |area| ipc(area, &messages))?;
    }
    if !others.is_empty() {
        let height = 120 + BAR * others.len() as u32;
        draw_file(&dir.join("operations.svg"), (SIZE.0, height), |area| operations(area, &others))?;
    }
    Ok(())
}

/// Draws how the kernel scales into `dir`: messages between processors as a heat map, pairs as a curve.
pub fn draw_scale(dir: &Path, rows: &[Row], plan: &Plan<'_>) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let cells: Vec<(usize, usize, f64)> = rows
        .iter()
        .filter(|row| row.mode == "latency")
        .filter_map(|row| Some((row.from?, row.to?, row.value)))
        .collect();
    if !cells.is_empty() {
        draw_file(&dir.join("latency.svg"), SQUARE, |area| heat_map(area, &cells, plan))?;
    }
    let pairs: Vec<(f64, f64)> =
        rows.iter().filter(|row| row.mode == "pairs").filter_map(|row| Some((row.count? as f64, row.value))).collect();
    if !pairs.is_empty() {
        draw_file(&dir.join("pairs.svg"), SIZE, |area| scaling(area, &pairs, plan))?;
    }
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw_file(file: &Path, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    draw(&area).with_context(|| format!("cannot draw {}", file.display()))?;
    area.present().map_err(failed).with_context(|| format!("cannot write {}", file.display()))
}

/// The errors of the drawing library cannot be sent between threads.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// Writes what the figures mean below a picture, in lines that fit.
fn write_meaning(area: &Area<'_>, plan: &Plan<'_>, width: u32, top: i32) -> Result<()> {
    const LETTER: u32 = 6;
    const LINE: i32 = 15;
    let text = format!("The figures are {}.", plan.clock.meaning());
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if (line.len() + word.len()) as u32 * LETTER < width - 32 => {
                line.push_str(word);
                line.push(' ');
            }
            _ => lines.push(format!("{word} ")),
        }
    }
    for (place, line) in (0..).zip(&lines) {
        let style = ("sans-serif", 12).into_text_style(area);
        area.draw_text(line.trim_end(), &style, (16, top + place * LINE)).map_err(failed)?;
    }
    Ok(())
}

/// A square for each two processors, the darker the longer a message takes; lines between the sockets.
fn heat_map(area: &Area<'_>, cells: &[(usize, usize, f64)], plan: &Plan<'_>) -> Result<()> {
    let cpus = plan.cpus as usize;
    let between = cells.iter().filter(|(from, to, _)| from != to).map(|cell| cell.2);
    let (least, most) =
        between.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    let own = cells.iter().filter(|(from, to, _)| from == to).map(|cell| cell.2).fold(0.0, f64::max);
    write_meaning(area, plan, SQUARE.0, SQUARE.1 as i32 - 70)?;
    let (upper, _) = area.split_vertically(SQUARE.1 - 80);
    let caption = match least.is_finite() {
        true => format!("IPC, one way: {least:.0} to {most:.0} between processors, up to {own:.0} on one"),
        false => format!("IPC, one way: {own:.0} on the only processor"),
    };
    let mut chart = ChartBuilder::on(&upper)
        .caption(caption, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..cpus as f64, cpus as f64..0.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("to processor")
        .y_desc("from processor")
        .x_label_formatter(&|cpu| format!("{cpu:.0}"))
        .y_label_formatter(&|cpu| format!("{cpu:.0}"))
        .draw()
        .map_err(failed)?;
    let squares = cells.iter().map(|&(from, to, value)| {
        let (x, y) = (to as f64, from as f64);
        Rectangle::new([(x, y), (x + 1.0, y + 1.0)], shade(value, most).filled())
    });
    chart.draw_series(squares).map_err(failed)?;
    let per_socket = f64::from(plan.cpus / plan.sockets);
    for border in (1..plan.sockets).map(|socket| f64::from(socket) * per_socket) {
        let lines = [[(border, 0.0), (border, cpus as f64)], [(0.0, border), (cpus as f64, border)]];
        chart.draw_series(lines.map(|ends| PathElement::new(ends, BLACK.stroke_width(2)))).map_err(failed)?;
    }
    Ok(())
}

/// From white, for nothing, to dark blue, for the most.
fn shade(value: f64, most: f64) -> RGBColor {
    let part = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    let mix = |dark: f64| (255.0 - (255.0 - dark) * part) as u8;
    RGBColor(mix(20.0), mix(60.0), mix(120.0))
}

/// What a message takes by the number of pairs that exchange messages at a time; and, level, what one pair alone takes.
fn scaling(area: &Area<'_>, pairs: &[(f64, f64)], plan: &Plan<'_>) -> Result<()> {
    let most = pairs.iter().map(|pair| pair.1).fold(0.0, f64::max);
    let (count, alone) = (pairs.iter().map(|pair| pair.0).fold(1.0, f64::max), pairs[0].1);
    write_meaning(area, plan, SIZE.0, SIZE.1 as i32 - 50)?;
    let (upper, _) = area.split_vertically(SIZE.1 - 60);
    let mut chart = ChartBuilder::on(&upper)
        .caption(
            "Pairs of threads, each pair on a processor of its own: ticks per message of any pair",
            ("sans-serif", 20),
        )
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..count + 1.0, 0.0..most * 1.2)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("pairs at a time")
        .y_desc("ticks per message")
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&|ticks| format!("{ticks:.0}"))
        .draw()
        .map_err(failed)?;
    let level = LineSeries::new([(1.0, alone), (count, alone)], RGBColor(160, 160, 160));
    chart
        .draw_series(level)
        .map_err(failed)?
        .label("one pair alone")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RGBColor(160, 160, 160)));
    let color = RGBColor(40, 80, 140);
    let curve = LineSeries::new(pairs.iter().copied(), color.stroke_width(2));
    chart
        .draw_series(curve)
        .map_err(failed)?
        .label("measured")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    chart.draw_series(pairs.iter().map(|&pair| Circle::new(pair, 3, color.filled()))).map_err(failed)?;
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw().map_err(failed)
}

/// Instructions of a message by its words, a line per mode.
fn ipc(area: &Area<'_>, figures: &[&Figure]) -> Result<()> {
    let most = figures.iter().map(|figure| figure.value).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("IPC: instructions per message, one way", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..64.0, 0.0..most * 1.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("untyped words")
        .y_desc("instructions (not cycles)")
        .x_labels(17)
        .x_label_formatter(&|words| format!("{words:.0}"))
        .y_label_formatter(&|count| format!("{count:.0}"))
        .draw()
        .map_err(failed)?;
    let mut modes: Vec<&str> = figures.iter().map(|figure| figure.mode.as_str()).collect();
    modes.dedup();
    for (index, mode) in modes.into_iter().enumerate() {
        let color = Palette99::pick(index).stroke_width(2);
        let points = figures.iter().filter(|figure| figure.mode == mode);
        let points = points.filter_map(|figure| Some((f64::from(figure.mrs?), figure.value)));
        let line = chart.draw_series(LineSeries::new(points, color)).map_err(failed)?;
        line.label(mode).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw().map_err(failed)
}

/// Instructions of the kernel in each operation, as bars on a logarithmic scale.
fn operations(area: &Area<'_>, figures: &[&Figure]) -> Result<()> {
    let most = figures.iter().map(|figure| instructions(figure)).fold(10.0, f64::max);
    let bars = figures.len();
    let mut chart = ChartBuilder::on(area)
        .caption("Instructions of the kernel per operation (not cycles)", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(230)
        .build_cartesian_2d((1.0..most * 2.0).log_scale(), 0.0..bars as f64)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|count| format!("{count:.0}"))
        .draw()
        .map_err(failed)?;
    for (index, figure) in figures.iter().enumerate() {
        let bottom = (bars - index) as f64 - 0.85;
        let count = instructions(figure);
        let bar = Rectangle::new([(1.0, bottom), (count.max(1.0), bottom + 0.7)], RGBColor(40, 80, 140).filled());
        chart.draw_series([bar]).map_err(failed)?;
        let (_, y) = chart.backend_coord(&(1.0, bottom + 0.6));
        let name = format!("{}: {count:.0}", figure.name());
        area.draw_text(&name, &("sans-serif", 13).into_text_style(area), (16, y)).map_err(failed)?;
    }
    Ok(())
}

/// Instructions of the kernel in an operation; without the plugin the value has to do.
fn instructions(figure: &Figure) -> f64 {
    figure.counts.as_ref().map_or(figure.value, |seen| seen.counts.kernel)
}
