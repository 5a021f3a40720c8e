//! How good predictions are: accuracy, precision, recall, F1, confusion, areas under curves, log loss.
//!
//! Definitions and names are scikit-learn's (`sklearn.metrics`), a division by zero giving 0 as its default does:
//!
//! ```text
//! precision_c = hits_c / predicted_c      recall_c = hits_c / actual_c      F1_c = 2 p r / (p + r)
//! macro: the mean over the classes that occur in labels or predictions      micro: of the summed counts
//! ROC-AUC   the chance that a positive scores above a negative, ties half; several classes: mean over one against the rest
//! PR-AUC    average precision, sum (R_n - R_{n-1}) P_n over falling scores, without interpolation
//! log loss  -mean ln p[label], p clipped to [eps, 1 - eps] of f64
//! ```
//!
//! With two or more classes scores are a row of logits (or probabilities) a sample; where probabilities are needed, logits go
//! through a softmax.

use serde::{Deserialize, Serialize};

/// The scores of samples: row after row, a number a class.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    /// Row-major.
    pub values: &'a [f32],
    /// The length of a row.
    pub classes: usize,
    /// Whether the rows are logits (else probabilities).
    pub logits: bool,
}

impl Scores<'_> {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.classes.max(1))
    }

    /// Each row as probabilities.
    pub fn probabilities(&self) -> Vec<f64> {
        let of = |row: &[f32]| -> Vec<f64> {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            if !self.logits {
                return row;
            }
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let e: Vec<f64> = row.iter().map(|x| (x - most).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|x| x / sum).collect()
        };
        self.rows().flat_map(of).collect()
    }

    /// The class of the largest score of each row; the first where several are equal, as numpy's argmax.
    pub fn predictions(&self) -> Vec<u32> {
        let best = |row: &[f32]| {
            let mut best = 0;
            for (i, x) in row.iter().enumerate() {
                if *x > row[best] {
                    best = i;
                }
            }
            best as u32
        };
        self.rows().map(best).collect()
    }
}

/// Which class was taken for which: `counts[actual * classes + predicted]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// The number of classes.
    pub classes: usize,
    /// Row-major, actual classes down.
    pub counts: Vec<u64>,
}

impl Confusion {
    /// Counts predictions against labels, both below `classes`.
    pub fn new(labels: &[u32], predictions: &[u32], classes: usize) -> Confusion {
        let mut counts = vec![0; classes * classes];
        for (&label, &prediction) in labels.iter().zip(predictions) {
            counts[label as usize * classes + prediction as usize] += 1;
        }
        Confusion { classes, counts }
    }

    fn hits(&self, c: usize) -> u64 {
        self.counts[c * self.classes + c]
    }

    fn actual(&self, c: usize) -> u64 {
        self.counts[c * self.classes..][..self.classes].iter().sum()
    }

    fn predicted(&self, c: usize) -> u64 {
        self.counts.iter().skip(c).step_by(self.classes.max(1)).sum()
    }

    /// Precision, recall and F1 of a class.
    pub fn of_class(&self, c: usize) -> ClassMetrics {
        let (hits, actual, predicted) = (self.hits(c), self.actual(c), self.predicted(c));
        ClassMetrics {
            precision: ratio(hits, predicted),
            recall: ratio(hits, actual),
            f1: ratio(2 * hits, actual + predicted),
            samples: actual,
        }
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// A class against the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Of those taken for the class, the share that is of it.
    pub precision: f64,
    /// Of those of the class, the share that was found.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Samples of the class.
    pub samples: u64,
}

/// All figures of an evaluation with classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Samples.
    pub samples: usize,
    /// The share of right predictions; micro precision, recall and F1 are the same number where each sample has one class.
    pub accuracy: f64,
    /// The share of samples whose class is among the five (or however many) best.
    pub top_k: f64,
    /// That number: 5, or fewer where there are not so many classes.
    pub k: usize,
    /// Mean over classes.
    pub precision_macro: f64,
    /// Mean over classes.
    pub recall_macro: f64,
    /// Mean over classes.
    pub f1_macro: f64,
    /// Of the summed counts.
    pub f1_micro: f64,
    /// Area under the ROC curve; none where a class has no sample or all.
    pub roc_auc: Option<f64>,
    /// Average precision; none where a class has no sample.
    pub pr_auc: Option<f64>,
    /// Cross-entropy of the probabilities.
    pub log_loss: f64,
    /// Class by class.
    pub classes: Vec<ClassMetrics>,
    /// Which class was taken for which.
    pub confusion: Confusion,
}

impl Metrics {
    /// The figures of these scores against labels (below the number of classes, as many as rows).
    pub fn new(scores: Scores<'_>, labels: &[u32]) -> Metrics {
        let predictions = scores.predictions();
        let confusion = Confusion::new(labels, &predictions, scores.classes);
        let classes: Vec<ClassMetrics> = (0..scores.classes).map(|c| confusion.of_class(c)).collect();
        let occurring: Vec<usize> =
            (0..scores.classes).filter(|&c| confusion.actual(c) + confusion.predicted(c) > 0).collect();
        let mean = |get: fn(&ClassMetrics) -> f64| {
            occurring.iter().map(|&c| get(&classes[c])).sum::<f64>() / occurring.len().max(1) as f64
        };
        let accuracy = ratio((0..scores.classes).map(|c| confusion.hits(c)).sum(), labels.len() as u64);
        let probabilities = scores.probabilities();
        let k = scores.classes.min(5);
        Metrics {
            samples: labels.len(),
            accuracy,
            top_k: top_k(scores, labels, k),
            k,
            precision_macro: mean(|c| c.precision),
            recall_macro: mean(|c| c.recall),
            f1_macro: mean(|c| c.f1),
            f1_micro: accuracy,
            roc_auc: over_classes(&probabilities, scores.classes, labels, roc_auc),
            pr_auc: over_classes(&probabilities, scores.classes, labels, average_precision),
            log_loss: log_loss(&probabilities, scores.classes, labels),
            classes,
            confusion,
        }
    }

    /// An aligned table: the figures, and a line a class under its name.
    pub fn table(&self, names: &[String]) -> String {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let area = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.4}"));
        let rows = [
            ("samples".to_string(), self.samples.to_string()),
            ("accuracy".into(), percent(self.accuracy)),
            (format!("top-{}", self.k), percent(self.top_k)),
            ("precision (macro)".into(), percent(self.precision_macro)),
            ("recall (macro)".into(), percent(self.recall_macro)),
            ("F1 (macro)".into(), percent(self.f1_macro)),
            ("F1 (micro)".into(), percent(self.f1_micro)),
            ("ROC-AUC".into(), area(self.roc_auc)),
            ("PR-AUC".into(), area(self.pr_auc)),
            ("log loss".into(), format!("{:.4}", self.log_loss)),
        ];
        let mut out: String = rows.iter().map(|(name, value)| format!("{name:<18}{value:>10}\n")).collect();
        let name = |c: usize| names.get(c).cloned().unwrap_or_else(|| c.to_string());
        let width = (0..self.classes.len()).map(|c| name(c).chars().count()).max().unwrap_or(0).max(5);
        out += &format!("\n{:<width$}  precision    recall        F1  samples\n", "class");
        for (c, m) in self.classes.iter().enumerate() {
            let [p, r, f] = [m.precision, m.recall, m.f1].map(percent);
            out += &format!("{:<width$}  {p:>9} {r:>9} {f:>9} {:>8}\n", name(c), m.samples);
        }
        out
    }
}

/// The share of samples whose label is among the `k` best scores; of equal scores the later class is the better one, as in
/// scikit-learn's `top_k_accuracy_score`.
pub fn top_k(scores: Scores<'_>, labels: &[u32], k: usize) -> f64 {
    let hit = |(row, &label): (&[f32], &u32)| {
        let own = row[label as usize];
        let better = |(c, x): (usize, &f32)| *x > own || (*x == own && c > label as usize);
        row.iter().enumerate().filter(|&(c, x)| better((c, x))).count() < k
    };
    ratio(scores.rows().zip(labels).filter(|&(row, label)| hit((row, label))).count() as u64, labels.len() as u64)
}

/// Two classes: of the second's probability. More: the mean over each class against the rest. None if one is not defined.
fn over_classes(
    probabilities: &[f64],
    classes: usize,
    labels: &[u32],
    area: fn(&[f64], &[bool]) -> Option<f64>,
) -> Option<f64> {
    let of = |class: usize| {
        let scores: Vec<f64> = probabilities.iter().skip(class).step_by(classes).copied().collect();
        let positive: Vec<bool> = labels.iter().map(|&label| label as usize == class).collect();
        area(&scores, &positive)
    };
    match classes {
        0 | 1 => None,
        2 => of(1),
        _ => (0..classes).map(of).sum::<Option<f64>>().map(|sum| sum / classes as f64),
    }
}

/// Samples in falling order of score, those of equal score together: `(positives, negatives)` of each group.
fn groups(scores: &[f64], positive: &[bool]) -> Vec<(u64, u64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let same = |&a: &usize, &b: &usize| scores[a] == scores[b];
    let count = |group: &[usize]| {
        let positives = group.iter().filter(|&&i| positive[i]).count() as u64;
        (positives, group.len() as u64 - positives)
    };
    order.chunk_by(same).map(count).collect()
}

/// The area under the ROC curve; none without a positive or without a negative.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let (mut above, mut twice_area, mut negatives) = (0u64, 0u128, 0u64);
    for (p, n) in groups(scores, positive) {
        // Each negative is beaten by the positives above it, and by half of those level with it.
        twice_area += u128::from(n) * u128::from(2 * above + p);
        above += p;
        negatives += n;
    }
    (above > 0 && negatives > 0).then(|| twice_area as f64 / 2.0 / (above as f64 * negatives as f64))
}

/// The average precision; none without a positive.
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let all = positive.iter().filter(|&&p| p).count();
    let (mut hits, mut taken, mut sum) = (0, 0, 0.0);
    for (p, n) in groups(scores, positive) {
        hits += p;
        taken += p + n;
        sum += p as f64 / all as f64 * ratio(hits, taken);
    }
    (all > 0).then_some(sum)
}

/// The mean of `-ln p[label]`, rows scaled to sum to 1.
pub fn log_loss(probabilities: &[f64], classes: usize, labels: &[u32]) -> f64 {
    let loss = |(row, &label): (&[f64], &u32)| {
        let p = row[label as usize] / row.iter().sum::<f64>();
        -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
    };
    probabilities.chunks_exact(classes.max(1)).zip(labels).map(loss).sum::<f64>() / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 40] = [
        0.1, 0.5, 0.9, 0.3, 0.6, 0.0, 0.4, 0.8, 0.2, 0.5, 0.9, 0.3, 0.7, 0.1, 0.5, 0.8, 0.2, 0.6, 1.0, 0.4, 0.7, 0.1,
        0.5, 0.9, 0.3, 0.6, 0.0, 0.4, 0.8, 0.2, 0.6, 0.9, 0.3, 0.7, 0.1, 0.5, 0.8, 0.2, 0.6, 1.0,
    ];
    const LABELS: [u32; 10] = [0, 1, 2, 3, 0, 0, 2, 1, 3, 3];

    fn scores() -> Scores<'static> {
        Scores { values: &SCORES, classes: 4, logits: true }
    }

    #[track_caller]
    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-7, "{got} is not {expected}");
    }

    /// scikit-learn 1.x on the same numbers: `precision_recall_fscore_support`, `roc_auc_score(multi_class="ovr")`, the mean
    /// of `average_precision_score`, `log_loss`, `top_k_accuracy_score(k=2)`, `confusion_matrix`.
    #[test]
    fn figures_are_scikit_learns() {
        let m = Metrics::new(scores(), &LABELS);
        near(m.accuracy, 0.3);
        near(m.f1_micro, 0.3);
        near(m.precision_macro, 0.18333333333333335);
        near(m.recall_macro, 0.29166666666666663);
        near(m.f1_macro, 0.225);
        near(m.roc_auc.unwrap(), 0.35491071428571425);
        near(m.pr_auc.unwrap(), 0.29768518518518516);
        near(m.log_loss, 1.4830756577822188);
        near(top_k(scores(), &LABELS, 2), 0.5);
        assert_eq!((m.k, m.top_k), (4, 1.0));
        assert_eq!(m.confusion.counts, [0, 0, 2, 1, 0, 0, 0, 2, 0, 1, 1, 0, 0, 1, 0, 2]);
    }

    #[test]
    fn equal_scores_count_half_or_come_together() {
        let s = [0.9, 0.8, 0.8, 0.4, 0.4, 0.4, 0.1, 0.05];
        let y = [true, false, true, true, false, false, false, true];
        near(roc_auc(&s, &y).unwrap(), 0.59375);
        near(average_precision(&s, &y).unwrap(), 2.0 / 3.0);
        assert_eq!((roc_auc(&s, &[true; 8]), average_precision(&s, &[false; 8])), (None, None));
    }

    /// Two classes: areas are of the second's probability.
    #[test]
    fn two_classes_have_one_curve() {
        let p = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4];
        let scores = Scores { values: &p, classes: 2, logits: false };
        let m = Metrics::new(scores, &[0, 1, 1]);
        assert_eq!((m.roc_auc, m.pr_auc), (Some(1.0), Some(1.0)));
        near(m.log_loss, -(f64::from(0.9f32) * f64::from(0.8f32) * f64::from(0.4f32)).ln() / 3.0);
        assert_eq!(m.accuracy, 2.0 / 3.0);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let m = Metrics::new(Scores { values: &[], classes: 3, logits: true }, &[]);
        assert_eq!((m.accuracy, m.f1_macro, m.log_loss, m.roc_auc), (0.0, 0.0, 0.0, None));
        let one = Metrics::new(Scores { values: &[1.0, 0.0], classes: 1, logits: true }, &[0, 0]);
        assert_eq!((one.accuracy, one.roc_auc), (1.0, None));
        assert_eq!(serde_json::from_str::<Metrics>(&serde_json::to_string(&one).unwrap()).unwrap(), one);
    }

    #[test]
    fn tables_are_aligned() {
        let p = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4];
        let m = Metrics::new(Scores { values: &p, classes: 2, logits: false }, &[0, 1, 1]);
        let expected = "\
samples                    3
accuracy             66.67 %
top-2               100.00 %
precision (macro)    75.00 %
recall (macro)       75.00 %
F1 (macro)           66.67 %
F1 (micro)           66.67 %
ROC-AUC               1.0000
PR-AUC                1.0000
log loss              0.4149

class  precision    recall        F1  samples
cat      50.00 %  100.00 %   66.67 %        1
1       100.00 %   50.00 %   66.67 %        2
";
        assert_eq!(m.table(&["cat".into()]), expected);
    }
}
