//! `--report FILE.html`: a run as one page that needs nothing else.
//!
//! | file | draws |
//! |---|---|
//! | [`curves`] | numbers over epochs: loss, accuracy, learning rate; gradients, updates and dead units by layer |
//! | [`rates`] | loss against learning rate |
//! | [`pictures`] | pictures in the page: filters, samples |
//!
//! The frame is [`crate::page`]'s. What a run has not (held-out data, classes, pictures) has no section.

pub mod curves;
pub mod pictures;
pub mod rates;

use crate::history::EpochRecord;
use crate::metrics::Metrics;
use crate::page::{escape, page};
use crate::range_test::RangePoint;
use crate::search::Trial;
use curves::{Scale, Series};
use pictures::Picture;
use std::fmt::Write;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// The model.
    pub title: &'a str,
    /// One line about the run.
    pub below: &'a str,
    /// Shown on top: what, and how much.
    pub facts: Vec<(&'a str, String)>,
    /// The epochs.
    pub history: &'a [EpochRecord],
    /// The last evaluation's figures, and the classes' names.
    pub metrics: Option<(&'a Metrics, &'a [String])>,
    /// Runs that were compared: of a search the best first, of folds in turn.
    pub trials: Vec<&'a Trial>,
    /// A range test.
    pub rates: &'a [RangePoint],
    /// The filters of the first layer.
    pub filters: Vec<Picture>,
    /// Samples that the network gets most wrong, each with a line about it.
    pub worst: Vec<(Picture, String)>,
}

const STYLE: &str = "
.series { fill: none; stroke-width: 2; stroke-linejoin: round; }
.dot { stroke: none; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; font-size: 12.5px; color: var(--faint); max-width: 150px; }
figure svg { image-rendering: pixelated; border-radius: 4px; }
td.cell { min-width: 26px; text-align: center; }
";

/// Classes beyond this many have no matrix: it would be a gray square.
const MOST_CLASSES: usize = 50;

impl Report<'_> {
    /// The page.
    pub fn page(&self) -> String {
        let column = |get: fn(&EpochRecord) -> Option<f64>| self.history.iter().map(get).collect::<Vec<_>>();
        let series = |name: &str, values| Series { name: name.into(), values };
        let loss = [series("learnt from", column(|r| Some(r.train_loss))), series("held out", column(|r| r.val_loss))];
        let accuracy = [
            series("learnt from", column(|r| r.train_accuracy.map(|x| 100.0 * x))),
            series("held out", column(|r| r.val_accuracy.map(|x| 100.0 * x))),
        ];
        let rate = [series("learning rate", column(|r| Some(r.rate)))];
        let trials: Vec<Series> =
            self.trials.iter().map(|t| Series { name: t.name.clone(), values: t.losses.clone() }).collect();
        let body = [
            self.trials(),
            curves::draw("Losses of the runs", "By epoch, on held-out data.", &trials, Scale::Logarithmic),
            rates::draw(self.rates),
            curves::draw("Loss", "The mean over samples, by epoch.", &loss, Scale::Linear),
            curves::draw("Accuracy, %", "The share of right predictions, by epoch.", &accuracy, Scale::Linear),
            curves::draw("Learning rate", "That of the last update of each epoch.", &rate, Scale::Logarithmic),
            curves::draw(
                "Gradient norms",
                "By layer, of the last update of each epoch. Where lines of early layers lie orders below those of late ones, \
                 gradients vanish; where they rise without end, they explode.",
                &self.by_layer(|r| r.norms.iter().map(|n| (&n.name[..], n.gradient)).collect()),
                Scale::Logarithmic,
            ),
            curves::draw(
                "Updates",
                "By layer, the norm of the last update of each epoch as a share of that of the weights. About a thousandth is usual.",
                &self.by_layer(|r| r.norms.iter().map(|n| (&n.name[..], n.update / n.weight)).collect()),
                Scale::Logarithmic,
            ),
            curves::draw(
                "Dead units, %",
                "By layer of ReLUs, those that are 0 for every sample of a batch.",
                &self.by_layer(|r| r.activity.iter().map(|a| (&a.name[..], 100.0 * a.dead_share())).collect()),
                Scale::Linear,
            ),
            self.confusion(),
            pictures::section("First filters", "Each scaled to its own range.", self.filters.iter().map(|p| (p, ""))),
            pictures::section(
                "Most wrong",
                "The wrongly classified samples to whose class the network gives least.",
                self.worst.iter().map(|(p, text)| (p, text.as_str())),
            ),
        ];
        page(self.title, self.below, &self.facts, STYLE, &body.concat())
    }

    /// The runs as a table.
    fn trials(&self) -> String {
        if self.trials.is_empty() {
            return String::new();
        }
        let row = |t: &&Trial| {
            let measure = t.measure.map_or_else(|| "failed".into(), |m| format!("{m:.5}"));
            let (name, epochs, seconds) = (escape(&t.name), t.epochs, t.seconds);
            format!("<tr><td class=\"text\">{name}</td><td>{epochs}</td><td>{measure}</td><td>{seconds:.1}</td></tr>\n")
        };
        let rows: String = self.trials.iter().map(row).collect();
        let head = "<tr><th class=\"text\">run</th><th>epochs</th><th>measure</th><th>seconds</th></tr>";
        format!(
            "<h2>Runs</h2>\n<p>The measure is that of the best epoch.</p>\n<table><thead>{head}</thead>\n<tbody>\n{rows}</tbody></table>\n"
        )
    }

    /// A line a layer: what the layers of an epoch have.
    fn by_layer(&self, get: fn(&EpochRecord) -> Vec<(&str, f32)>) -> Vec<Series> {
        let Some(last) = self.history.last() else { return Vec::new() };
        let of = |name: &str| {
            let value = |r: &EpochRecord| get(r).iter().find(|(n, _)| *n == name).map(|(_, x)| f64::from(*x));
            self.history.iter().map(value).collect()
        };
        get(last).iter().map(|(name, _)| Series { name: name.to_string(), values: of(name) }).collect()
    }

    /// The confusion matrix as a table, a cell's shade its share of the row.
    fn confusion(&self) -> String {
        let Some((metrics, names)) = self.metrics.filter(|(m, _)| m.confusion.classes <= MOST_CLASSES) else {
            return String::new();
        };
        let (n, counts) = (metrics.confusion.classes, &metrics.confusion.counts);
        let name = |c: usize| escape(names.get(c).map_or(&c.to_string(), |name| name));
        let heads: String = (0..n).map(|c| format!("<th>{}</th>", name(c))).collect();
        let mut rows = String::new();
        for actual in 0..n {
            let row = &counts[actual * n..][..n];
            let sum = row.iter().sum::<u64>().max(1) as f64;
            let _ = write!(rows, "<tr><td class=\"text\">{}</td>", name(actual));
            for (predicted, count) in row.iter().enumerate() {
                let shade = 0.8 * *count as f64 / sum;
                let colour = if actual == predicted { "63,163,107" } else { "226,112,63" };
                let count = if *count > 0 { count.to_string() } else { String::new() };
                let _ = write!(rows, "<td class=\"cell\" style=\"background:rgba({colour},{shade:.3})\">{count}</td>");
            }
            let m = metrics.classes.get(actual);
            let recall = m.map_or_else(String::new, |m| format!("{:.1} %", 100.0 * m.recall));
            let _ = writeln!(rows, "<td>{recall}</td></tr>");
        }
        format!(
            "<h2>Confusion</h2>\n<p>Actual classes down, predictions across; the last column is the recall.</p>\n\
             <table class=\"confusion\"><thead><tr><th></th>{heads}<th>recall</th></tr></thead>\n<tbody>\n{rows}</tbody></table>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Scores;
    use crate::step::{LayerActivity, LayerNorms};

    fn record(epoch: u32) -> EpochRecord {
        let norm = |name: &str, gradient| LayerNorms { name: name.into(), gradient, update: 0.1, weight: 1.0 };
        EpochRecord {
            epoch,
            rate: 0.1 / f64::from(epoch + 1),
            train_loss: 1.0 / f64::from(epoch + 1),
            train_accuracy: Some(0.5),
            val_loss: Some(f64::NAN),
            val_accuracy: Some(0.4),
            seconds: 1.0,
            norms: vec![norm("conv<1>", 0.1), norm("fc", 0.0)],
            activity: vec![LayerActivity { name: "relu".into(), rms: 1.0, units: 8, dead: 2 }],
        }
    }

    fn parsed(page: &str) -> roxmltree::Document<'_> {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(page, options).unwrap()
    }

    #[test]
    fn a_page_has_every_section() {
        let scores = Scores { values: &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4], classes: 2, logits: false };
        let metrics = Metrics::new(scores, &[0, 1, 1]);
        let names = vec!["<cat>".to_string(), "dog".into()];
        let picture = Picture::planes([1, 2, 2], &[0.0, 1.0, 0.5, 0.25], Some(1.0));
        let history: Vec<EpochRecord> = (0..3).map(record).collect();
        let trial =
            Trial { name: "lr=<1>".into(), epochs: 3, measure: None, losses: vec![None, Some(0.5)], seconds: 1.0 };
        let points = [1e-3, 1e-2].map(|rate| RangePoint { rate, loss: 1.0, smooth: 1.0 - rate });
        let report = Report {
            trials: vec![&trial],
            rates: &points,
            title: "evil <name> & \u{1}",
            below: "3 epochs",
            facts: vec![("accuracy", "1 < 2 %".into())],
            history: &history,
            metrics: Some((&metrics, &names)),
            filters: vec![picture.clone(), picture.clone()],
            worst: vec![(picture, "<dog> taken for \"cat\"".into())],
        };
        let page = report.page();
        let xml = parsed(&page);
        let count = |tag: &'static str, class: &'static str| {
            let fits = |n: &roxmltree::Node<'_, '_>| n.has_tag_name(tag) && n.attribute("class").unwrap_or("") == class;
            xml.descendants().filter(fits).count()
        };
        assert_eq!(count("h2", ""), 12);
        // Loss of the held-out data is NaN and a gradient is 0: neither has a place, the rest has.
        assert_eq!(count("path", "series"), 1 + 2 + 1 + 1 + 2 + 1 + 2);
        assert_eq!((count("td", "cell"), count("image", ""), count("figcaption", "")), (4, 3, 1));
        assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
        for word in ["://", "src=", "url(", "@import", "<link", "<script", "<img", "javascript"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn a_run_without_anything_is_a_page() {
        let page = Report::default().page();
        assert_eq!(parsed(&page).descendants().filter(|n| n.has_tag_name("h2")).count(), 0);
    }
}
