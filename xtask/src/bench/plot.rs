//! Figures as pictures: SVG files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Figure;

/// Size of a picture in pixels.
const SIZE: (u32, u32) = (960, 540);
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
