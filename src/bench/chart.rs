//! Bars, as SVG: one a setting, with its value above it and a line from the least to the greatest of its rounds.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Spread, thousands};

/// One bar, or several side by side.
#[derive(Clone, Debug)]
pub struct Group {
    /// Below it.
    pub name: String,
    /// One a series.
    pub bars: Vec<Spread>,
}

/// A chart of bars.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What was measured, and how: below the title.
    pub subtitle: String,
    /// Along the values.
    pub unit: String,
    /// Digits behind the point.
    pub digits: usize,
    /// Names of the bars of a group; one series needs none.
    pub series: Vec<String>,
    /// From left to right.
    pub groups: Vec<Group>,
    /// A line across, with its name: what would be even, or wanted.
    pub line: Option<(f64, String)>,
}

fn written(value: f64, digits: usize) -> String {
    if digits == 0 { thousands(value) } else { format!("{value:.digits$}") }
}

const SIZE: (u32, u32) = (760, 440);
const INK: RGBColor = RGBColor(38, 42, 51);
const FAINT: RGBColor = RGBColor(222, 225, 230);
const GREY: RGBColor = RGBColor(102, 109, 122);
/// Told apart also without colours, by how dark they are.
const COLOURS: [RGBColor; 4] = [
    RGBColor(38, 84, 143),
    RGBColor(226, 149, 60),
    RGBColor(120, 172, 112),
    RGBColor(170, 176, 186),
];

/// Widths of all groups together, of each 1: how much of it is bars.
const FILLED: f64 = 0.68;

impl Chart {
    /// Writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| error.to_string())?;
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let font = |size: u32, colour: &RGBColor| ("sans-serif", size).into_font().color(colour);
        area.draw(&Text::new(self.title.clone(), (24, 18), font(21, &INK)))?;
        area.draw(&Text::new(self.subtitle.clone(), (24, 46), font(13, &GREY)))?;
        let most = self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.max);
        let most = most.chain(self.line.iter().map(|(value, _)| *value)).fold(0.1, f64::max);
        let count = self.groups.len().max(1) as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin_top(if self.series.len() > 1 { 92 } else { 74 })
            .margin_right(if self.line.is_some() { 56 } else { 24 })
            .margin_bottom(12)
            .margin_left(16)
            .x_label_area_size(34)
            .y_label_area_size(76)
            .build_cartesian_2d(0.0..count, 0.0..most * 1.12)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|value| written(*value, self.digits))
            .y_desc(self.unit.clone())
            .label_style(font(13, &GREY))
            .axis_desc_style(font(13, &GREY))
            .axis_style(FAINT)
            .bold_line_style(FAINT)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let above = Pos::new(HPos::Center, VPos::Bottom);
        let many = self.groups.iter().map(|group| group.bars.len()).sum::<usize>() > 12;
        for (position, group) in self.groups.iter().enumerate() {
            let width = FILLED / group.bars.len().max(1) as f64;
            let left = position as f64 + (1.0 - FILLED) / 2.0;
            for (series, bar) in group.bars.iter().enumerate() {
                let (from, to) = (left + width * series as f64, left + width * (series + 1) as f64);
                let colour = COLOURS[series % COLOURS.len()];
                let (from, to) = (from + width * 0.04, to - width * 0.04);
                let middle = from.midpoint(to);
                chart.draw_series([Rectangle::new(
                    [(from, 0.0), (to, bar.median)],
                    colour.filled(),
                )])?;
                if bar.max > bar.min {
                    let reach = vec![(middle, bar.min), (middle, bar.max)];
                    chart.draw_series([PathElement::new(reach, INK.stroke_width(2))])?;
                }
                let size = if many { 10 } else { 14 };
                let style = font(size, &INK).pos(above);
                let at = (middle, bar.max.max(bar.median) + most * 0.012);
                chart.draw_series([Text::new(written(bar.median, self.digits), at, style)])?;
            }
        }
        if let Some((value, name)) = &self.line {
            let across = vec![(0.0, *value), (count, *value)];
            chart.draw_series([PathElement::new(across, GREY.stroke_width(1))])?;
            let (x, y) = chart.plotting_area().map_coordinate(&(count, *value));
            let style = font(12, &GREY).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name.clone(), (x + 6, y), style))?;
        }
        // Names stand where the axis would have put numbers.
        let plot = chart.plotting_area();
        for (position, group) in self.groups.iter().enumerate() {
            let (x, y) = plot.map_coordinate(&(position as f64 + 0.5, 0.0));
            let style = font(14, &INK).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(group.name.clone(), (x, y + 10), style))?;
        }
        if self.series.len() > 1 {
            let mut x = 24;
            for (name, colour) in self.series.iter().zip(COLOURS) {
                area.draw(&Rectangle::new([(x, 70), (x + 12, 82)], colour.filled()))?;
                area.draw(&Text::new(name.clone(), (x + 18, 69), font(13, &INK)))?;
                x += 44 + 8 * name.chars().count() as i32;
            }
        }
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Spread {
        Spread { median, min: median * 0.9, max: median * 1.1 }
    }

    #[test]
    fn a_chart_shows_every_bar_with_its_value_and_its_name() {
        let chart = Chart {
            title: "A & B".into(),
            subtitle: "how".into(),
            unit: "calls a second".into(),
            digits: 0,
            series: vec!["one".into(), "two".into()],
            groups: ["left", "right"]
                .map(|name| Group { name: name.into(), bars: vec![spread(1000.0), spread(2500.0)] })
                .to_vec(),
            line: Some((1500.0, "even".into())),
        };
        let mut text = String::new();
        chart.draw(&mut text).unwrap();
        for shown in ["A &amp; B", "how", "calls a second", "one", "two", "left", "right", "even"] {
            assert!(text.contains(shown), "{shown}");
        }
        assert!(text.matches("2,500").count() >= 2, "one above each bar of that height");
        assert!(text.trim_end().ends_with("</svg>"));
    }
}
