//! The plots: bars over a logarithmic axis, readable on a light and on a dark page.

use std::path::Path;

use plotters::prelude::*;

use crate::results::Results;

/// A plot of some figures, the product's first.
pub(crate) struct Plot {
    /// The file's name without its ending.
    pub(crate) file: &'static str,
    /// What it shows.
    pub(crate) title: &'static str,
    axis: &'static str,
    /// By which a figure is multiplied.
    factor: f64,
    bars: &'static [(&'static str, &'static str, Who)],
}

/// Whose figure a bar is.
#[derive(Clone, Copy)]
enum Who {
    Us,
    Peer,
    Limit,
}

impl Plot {
    /// The figures that are needed.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.bars.iter().map(|(name, _, _)| *name)
    }
}

use Who::{Limit, Peer, Us};

/// The plots, in the order of the report.
pub(crate) const PLOTS: &[Plot] = &[
    Plot {
        file: "restore",
        title: "W1 restore: 30,630 files",
        axis: "seconds",
        factor: 1.0,
        bars: &[
            ("w1.restore.plain", "plain writes", Limit),
            ("w1.restore.product", "sessionkeep", Us),
            ("w1.restore.find", "find in batches", Limit),
            ("w1.restore.keys_bulk", "document a key, bulk", Peer),
            ("w1.restore.keys_each", "document a key, 16", Peer),
            ("w1.restore.sidecar16", "sidecar, 16", Peer),
            ("w1.restore.sidecar1", "sidecar, one", Peer),
        ],
    },
    Plot {
        file: "upload",
        title: "W1 first upload: 30,630 files",
        axis: "seconds",
        factor: 1.0,
        bars: &[
            ("w1.upload.read", "plain reads", Limit),
            ("w1.upload.product", "sessionkeep", Us),
            ("w1.upload.insert_many", "insert_many", Limit),
            ("w1.upload.keys_bulk", "document a key, bulk", Peer),
            ("w1.upload.keys_each", "document a key, 16", Peer),
            ("w1.upload.sidecar16", "sidecar, 16", Peer),
            ("w1.upload.sidecar1", "sidecar, one", Peer),
        ],
    },
    Plot {
        file: "durable",
        title: "From a write until it is durable",
        axis: "milliseconds",
        factor: 1.0,
        bars: &[
            ("w4.durable.product.p50", "sessionkeep, W4 p50", Us),
            ("w4.durable.product.p99", "sessionkeep, W4 p99", Us),
            ("w4.durable.sidecar.p50", "sidecar, W4 p50", Peer),
            ("w4.durable.sidecar.p99", "sidecar, W4 p99", Peer),
            ("w5.durable.product.p50", "sessionkeep, W5 p50", Us),
            ("w5.durable.product.p99", "sessionkeep, W5 p99", Us),
            ("w5.durable.sidecar.p50", "sidecar, W5 p50", Peer),
            ("w5.durable.sidecar.p99", "sidecar, W5 p99", Peer),
        ],
    },
    Plot {
        file: "behind",
        title: "W2: how far the store is behind the database",
        axis: "milliseconds",
        factor: 1000.0,
        bars: &[
            ("w2.behind.product.p50", "sessionkeep, p50", Us),
            ("w2.behind.product.p99", "sessionkeep, p99", Us),
            ("w2.behind.litestream.p50", "Litestream, p50", Peer),
            ("w2.behind.litestream.p99", "Litestream, p99", Peer),
            ("w2.behind.sidecar.p50", "sidecar, p50", Peer),
            ("w2.behind.sidecar.p99", "sidecar, p99", Peer),
        ],
    },
    Plot {
        file: "cpu",
        title: "Processor time while it runs",
        axis: "percent of a core",
        factor: 1.0,
        bars: &[
            ("idle.cpu.product", "sessionkeep, idle", Us),
            ("idle.cpu.sidecar", "sidecar, idle", Peer),
            ("w5.cpu.product", "sessionkeep, W5", Us),
            ("w5.cpu.sidecar", "sidecar, W5", Peer),
            ("w4.cpu.product", "sessionkeep, W4", Us),
            ("w4.cpu.sidecar", "sidecar, W4", Peer),
            ("w2.cpu.product", "sessionkeep, W2", Us),
            ("w2.cpu.litestream", "Litestream, W2", Peer),
            ("w2.cpu.sidecar", "sidecar, W2", Peer),
        ],
    },
    Plot {
        file: "memory",
        title: "Peak memory (RSS)",
        axis: "MB",
        factor: 1e-6,
        bars: &[
            ("w1.rss.restore.product", "sessionkeep, W1 restore", Us),
            ("w1.rss.restore.sidecar16", "sidecar, W1 restore", Peer),
            ("w1.rss.upload.product", "sessionkeep, W1 upload", Us),
            ("w1.rss.upload.sidecar16", "sidecar, W1 upload", Peer),
            ("w1.rss.upload.keys_each", "document a key, W1 upload", Peer),
            ("w2.rss.product", "sessionkeep, W2", Us),
            ("w2.rss.litestream", "Litestream, W2", Peer),
            ("w2.rss.sidecar", "sidecar, W2", Peer),
            ("w4.rss.product", "sessionkeep, W4", Us),
            ("w4.rss.sidecar", "sidecar, W4", Peer),
        ],
    },
];

/// Draws all plots into a directory.
pub(crate) fn draw(results: &Results, into: &Path) {
    for plot in PLOTS {
        let bars: Vec<(&str, f64, Who)> = plot
            .bars
            .iter()
            .filter_map(|(name, label, who)| Some((*label, results.get(name)? * plot.factor, *who)))
            .filter(|(_, value, _)| *value > 0.0)
            .collect();
        let file = into.join(format!("{}.svg", plot.file));
        one(plot, &bars, &file).expect("a plot can be drawn");
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 760;
const LABELS: i32 = 210;
const BAR: u32 = 26;

fn one(plot: &Plot, bars: &[(&str, f64, Who)], file: &Path) -> Drawn {
    let height = 90 + BAR * bars.len() as u32;
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    // A ground of its own, so that dark pages do not swallow the text.
    root.fill(&WHITE)?;
    let smallest = bars.iter().map(|bar| bar.1).fold(f64::INFINITY, f64::min);
    let largest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let low = 10f64.powf(smallest.log10().floor());
    // Room for the number behind the longest bar.
    let high = largest * (largest / low).powf(0.18).max(2.0);
    let mut chart = ChartBuilder::on(&root)
        .margin(10)
        .margin_right(20)
        .caption(plot.title, ("sans-serif", 17))
        .x_label_area_size(36)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((low..high).log_scale(), 0f64..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(plot.axis)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|value| format!("{value}"))
        .draw()?;
    for (number, (label, value, who)) in bars.iter().enumerate() {
        let top = (bars.len() - number) as f64;
        let colour = match who {
            Us => RGBColor(0x1a, 0x7f, 0x37),
            Peer => RGBColor(0xbc, 0x4c, 0x00),
            Limit => RGBColor(0x6e, 0x77, 0x81),
        };
        let bar = [(low, top - 0.85), (*value, top - 0.15)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let (x, y) = chart.backend_coord(&(*value, top - 0.5));
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        let number = match *value {
            value if value >= 100.0 => format!("{value:.0}"),
            value if value >= 10.0 => format!("{value:.1}"),
            value => format!("{value:.2}"),
        };
        root.draw(&Text::new(number, (x + 6, y - 7), style.clone()))?;
        root.draw(&Text::new((*label).to_owned(), (12, y - 7), style))?;
    }
    root.present()?;
    Ok(())
}
