//! Bar charts, written by hand: groups of bars, each group on a scale of its own.

use std::fmt::Write as _;

use crate::spread::{Spread, short};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 170.0;
/// Right of the longest bar, for its figure.
const FIGURES: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 5.0;
const HEADING: f64 = 34.0;
const MARGIN: f64 = 14.0;
/// A scale for figures that are all zero.
const LEAST: f64 = 1e-9;

/// Bars that are compared with each other.
pub struct Group {
    /// What was measured, with its unit.
    pub name: String,
    /// From the top.
    pub bars: Vec<Bar>,
}

/// One bar.
pub struct Bar {
    /// Who.
    pub label: String,
    /// As long as the median; a line shows the bounds.
    pub value: Spread,
    /// Whether it is ours.
    pub own: bool,
}

/// A chart as SVG.
pub fn chart(title: &str, groups: &[Group]) -> String {
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = MARGIN * 2.0 + 24.0 + groups.len() as f64 * HEADING + bars as f64 * (BAR + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut y = MARGIN + 14.0;
    text(&mut svg, MARGIN, y, "font-size=\"15\" font-weight=\"bold\"", title);
    y += 10.0;
    for group in groups {
        y += HEADING - 8.0;
        text(&mut svg, MARGIN, y, "font-weight=\"bold\"", &group.name);
        y += 8.0;
        let largest = group.bars.iter().map(|bar| bar.value.max).fold(0.0, f64::max);
        let scale = (WIDTH - LABELS - FIGURES - MARGIN) / largest.max(LEAST);
        for bar in &group.bars {
            draw(&mut svg, y, bar, scale);
            y += BAR + GAP;
        }
    }
    svg += "</svg>\n";
    svg
}

fn draw(svg: &mut String, y: f64, bar: &Bar, scale: f64) {
    let Spread { min, median, max } = bar.value;
    let colour = if bar.own { "#1f6fb2" } else { "#b5bcc4" };
    let (low, high, middle) = (LABELS + min * scale, LABELS + max * scale, y + BAR / 2.0);
    text(svg, LABELS - 8.0, y + 12.0, "text-anchor=\"end\"", &bar.label);
    let long = (median * scale).max(0.5);
    let _ = writeln!(
        svg,
        "<rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
         <path d=\"M{low:.1} {middle:.1}H{high:.1}\" stroke=\"#444\" stroke-width=\"1.5\"/>"
    );
    text(svg, high.max(LABELS + long) + 6.0, y + 12.0, "", &short(median));
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, figures: [f64; 3]) -> Bar {
        Bar { label: label.into(), value: Spread::of(figures).unwrap(), own: label == "ours" }
    }

    #[test]
    fn bars_are_as_long_as_their_medians_and_stay_inside() {
        let bars = vec![bar("ours", [1.0, 2.0, 4.0]), bar("A<B & C", [1.0, 1.0, 1.0])];
        let svg = chart("t", &[Group { name: "g".into(), bars }]);
        assert!(svg.contains("A&lt;B &amp; C"), "{svg}");
        let part = |name: &str, line: &str| -> f64 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let bars: Vec<&str> =
            svg.lines().filter(|line| line.contains("y=") && line.starts_with("<rect")).collect();
        let widths: Vec<f64> = bars.iter().map(|line| part("width", line)).collect();
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01, "{widths:?}");
        // The bounds of the first bar reach as far as anything: twice its length.
        assert!(LABELS + widths[0] * 2.0 <= WIDTH - FIGURES);
        let height = part("height", svg.lines().next().unwrap());
        assert!(bars.iter().all(|line| part("y", line) + BAR < height), "{svg}");
    }

    #[test]
    fn zeros_are_drawn_and_so_is_nothing() {
        let zero = chart("t", &[Group { name: "g".into(), bars: vec![bar("a", [0.0; 3])] }]);
        assert!(!zero.contains("NaN") && !zero.contains("inf"), "{zero}");
        assert!(chart("t", &[]).ends_with("</svg>\n"));
    }
}
