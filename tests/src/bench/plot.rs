//! A plot as SVG: points of throughput over workers, both in powers of two,
//! with the line on which they would lie if nothing were shared.

use std::fmt::Write as _;

/// Size of the picture and of the margins around the plot, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;

/// Greys and colours that can be read on white and on black.
const INK: &str = "#7d8590";
const GRID: &str = "#7d859055";
const LINE: &str = "#2f81f7";

/// What is drawn.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// By x, ascending, all above zero; each with the text that stands at it.
    pub(super) points: &'a [(f64, f64, String)],
    /// What the dashed line is; it goes through the origin and has this slope.
    pub(super) ideal: (&'a str, f64),
    /// What the dotted line is, and its height; `None` for no such line.
    pub(super) ceiling: Option<(&'a str, f64)>,
}

/// Where values lie in the picture, on scales of powers of two.
struct Scale {
    x: [f64; 2],
    y: [f64; 2],
}

impl Scale {
    fn of(plot: &Plot<'_>) -> Self {
        let xs = plot.points.iter().map(|point| point.0);
        let (slope, ceiling) = (plot.ideal.1, plot.ceiling.map(|(_, height)| height));
        let ideal = plot.points.iter().map(|point| point.0 * slope);
        let ys = plot.points.iter().map(|point| point.1).chain(ideal);
        let bounds = |values: Vec<f64>| {
            let (least, most) = values
                .iter()
                .fold((f64::MAX, f64::MIN), |(least, most), value| {
                    (least.min(*value), most.max(*value))
                });
            [
                least.log2().floor(),
                most.log2().ceil().max(least.log2().floor() + 1.0),
            ]
        };
        Self {
            x: bounds(xs.collect()),
            y: bounds(ys.chain(ceiling).collect()),
        }
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |value: f64, [from, to]: [f64; 2]| (value.log2() - from) / (to - from);
        (
            LEFT + share(x, self.x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - share(y, self.y) * (HEIGHT - TOP - BOTTOM),
        )
    }

    /// The powers of two of an axis.
    fn ticks([from, to]: [f64; 2]) -> impl Iterator<Item = f64> {
        (from as i32..=to as i32).map(f64::from).map(f64::exp2)
    }
}

impl Plot<'_> {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        let scale = Scale::of(self);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n"
        );
        text(&mut svg, (WIDTH / 2.0, 20.0), "middle", self.title);
        text(&mut svg, (WIDTH / 2.0, HEIGHT - 12.0), "middle", self.x);
        let middle = HEIGHT / 2.0;
        writeln!(
            svg,
            "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.y
        )
        .expect("a string takes all");
        self.draw_axes(&mut svg, &scale);
        self.draw_lines(&mut svg, &scale);
        self.draw_points(&mut svg, &scale);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, scale: &Scale) {
        let [bottom, top] = scale.y.map(f64::exp2);
        let [left, right] = scale.x.map(f64::exp2);
        for x in Scale::ticks(scale.x) {
            let (from, to) = (scale.place(x, bottom), scale.place(x, top));
            line(svg, from, to, GRID, "");
            text(svg, (from.0, from.1 + 18.0), "middle", &format!("{x}"));
        }
        for y in Scale::ticks(scale.y) {
            let (from, to) = (scale.place(left, y), scale.place(right, y));
            line(svg, from, to, GRID, "");
            text(svg, (from.0 - 8.0, from.1 + 4.0), "end", &format!("{y}"));
        }
    }

    fn draw_lines(&self, svg: &mut String, scale: &Scale) {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return;
        };
        let (name, slope) = self.ideal;
        let from = scale.place(first.0, first.0 * slope);
        let to = scale.place(last.0, last.0 * slope);
        line(svg, from, to, INK, " stroke-dasharray=\"6 4\"");
        text(
            svg,
            (LEFT + 10.0, TOP + 16.0),
            "start",
            &format!("– – {name}"),
        );
        if let Some((name, height)) = self.ceiling {
            let [from, to] = [first.0, last.0].map(|x| scale.place(x, height));
            line(svg, from, to, INK, " stroke-dasharray=\"2 4\"");
            text(
                svg,
                (LEFT + 10.0, TOP + 34.0),
                "start",
                &format!("· · · {name}"),
            );
        }
    }

    fn draw_points(&self, svg: &mut String, scale: &Scale) {
        let places: Vec<(f64, f64)> = self
            .points
            .iter()
            .map(|(x, y, _)| scale.place(*x, *y))
            .collect();
        for pair in places.windows(2) {
            line(svg, pair[0], pair[1], LINE, " stroke-width=\"2\"");
        }
        for ((x, y), (_, _, label)) in places.iter().zip(self.points) {
            writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{LINE}\"/>"
            )
            .expect("a string takes all");
            text(svg, (x + 8.0, y + 16.0), "start", label);
        }
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"{more}/>"
    )
    .expect("a string takes all");
}

/// Writes a text, which has nothing in it that XML would take for markup.
fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    )
    .expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_the_ideal_line_lie_on_one_line_inside_the_picture() {
        let points: Vec<_> = [1.0, 2.0, 4.0, 16.0]
            .map(|x| (x, x * 5.0, format!("{x}")))
            .to_vec();
        let plot = Plot {
            title: "t",
            x: "x",
            y: "y",
            points: &points,
            ideal: ("ideal", 5.0),
            ceiling: None,
        };
        let scale = Scale::of(&plot);
        let places: Vec<_> = points.iter().map(|(x, y, _)| scale.place(*x, *y)).collect();
        let slope = |a: (f64, f64), b: (f64, f64)| (b.1 - a.1) / (b.0 - a.0);
        let first = slope(places[0], places[1]);
        for pair in places.windows(2) {
            assert!((slope(pair[0], pair[1]) - first).abs() < 1e-9);
        }
        for (x, y) in places {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
        assert_eq!(plot.svg().matches("<circle").count(), 4);
    }
}
