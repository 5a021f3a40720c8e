//! A search over hyper-parameters: recipes that differ in some keys, tried on the same held-out data.
//!
//! ```text
//! axes      lr=1e-3|3e-3|1e-2,batch-size=32|64      keys of a recipe and the values that they may have
//! grid      every combination
//! random:N  N of them, drawn by the seed            (Bergstra and Bengio 2012)
//! halving   all for a few epochs, the better half for twice as many, .. until one is left for all      (Jamieson and
//!           Talwalkar 2016); each begins anew, so that its schedule ends with its epochs
//! ```
//!
//! Trials that are done stand in a file, and a search that is begun again goes on behind them.

use crate::recipe::Recipe;
use crate::seeds;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Combinations beyond this many are a mistake, not a search.
const MOST: usize = 4096;

/// A key and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The key.
    pub key: String,
    /// Its values, as on the command line.
    pub values: Vec<String>,
}

/// Which combinations are tried, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// Every one.
    #[default]
    Grid,
    /// So many, at random.
    Random(usize),
    /// Every one, and the better half of them longer.
    Halving,
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<How, String> {
        let count = text.strip_prefix("random:").map(str::parse);
        match (text, count) {
            ("grid", _) => Ok(How::Grid),
            ("halving", _) => Ok(How::Halving),
            (_, Some(Ok(n))) if n > 0 => Ok(How::Random(n)),
            _ => Err("grid, random:COUNT or halving is expected".into()),
        }
    }
}

/// A recipe of the search, and in what it differs.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// `lr=0.001, batch-size=32`.
    pub name: String,
    /// The recipe.
    pub recipe: Recipe,
}

/// A run that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The candidate's name.
    pub name: String,
    /// Epochs that it was given.
    pub epochs: u32,
    /// Its best loss or accuracy, as the recipe watches it; none where the run failed.
    pub measure: Option<f64>,
    /// The loss by epoch, on held-out data where there are any.
    pub losses: Vec<Option<f64>>,
    /// Time, in seconds.
    pub seconds: f64,
}

/// The axes of a text. A comma separates axes where a key of a recipe follows it, so that values may have commas.
pub fn axes(text: &str) -> Result<Vec<Axis>, String> {
    let mut texts: Vec<(&str, String)> = Vec::new();
    for part in text.split(',') {
        let axis = part.split_once('=').map(|(key, values)| (key.trim(), values));
        if let Some((key, values)) = axis.filter(|(key, _)| Recipe::has(key)) {
            texts.push((key, values.to_string()));
        } else if let Some((_, values)) = texts.last_mut() {
            *values = format!("{values},{part}");
        } else {
            return Err(format!("\"{part}\": KEY=VALUE|VALUE|.. is expected, with a key of a recipe"));
        }
    }
    let values = |text: String| text.split('|').map(|v| v.trim().to_string()).collect();
    Ok(texts.into_iter().map(|(key, text)| Axis { key: key.to_string(), values: values(text) }).collect())
}

/// The recipes to be tried.
pub fn candidates(base: &Recipe, axes: &[Axis], how: How) -> Result<Vec<Candidate>, String> {
    let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len())).filter(|&n| n <= MOST);
    let count = count.ok_or_else(|| format!("more than {MOST} combinations"))?;
    let mut numbers: Vec<usize> = (0..count).collect();
    if let How::Random(n) = how {
        seeds::stream(u64::from(base.seed.unwrap_or(1)), seeds::SEARCH, 0, 0).shuffle(&mut numbers);
        numbers.truncate(n);
        numbers.sort_unstable();
    }
    let of = |mut number: usize| {
        let (mut recipe, mut name) = (base.clone(), Vec::new());
        for axis in axes.iter().rev() {
            let value = &axis.values[number % axis.values.len()];
            number /= axis.values.len();
            recipe = recipe.with(&axis.key, value)?;
            name.push(format!("{}={value}", axis.key));
        }
        name.reverse();
        Ok(Candidate { name: name.join(", "), recipe })
    };
    numbers.into_iter().map(of).collect()
}

/// The rounds of successive halving: for how many epochs, and how many candidates are left.
pub fn rounds(candidates: usize, epochs: u32) -> Vec<(u32, usize)> {
    let halvings = candidates.next_power_of_two().trailing_zeros();
    let round = |r: u32| (epochs.checked_shr(halvings - r).unwrap_or(0).max(1), candidates.div_ceil(1 << r));
    (0..=halvings).map(round).collect()
}

/// The trials by their measure, the best first; those that failed last.
pub fn ranked(trials: &[Trial], least_is_best: bool) -> Vec<&Trial> {
    let mut order: Vec<&Trial> = trials.iter().collect();
    let key =
        |t: &Trial| t.measure.filter(|m| m.is_finite()).map_or(f64::INFINITY, |m| if least_is_best { m } else { -m });
    order.sort_by(|a, b| b.epochs.cmp(&a.epochs).then(key(a).total_cmp(&key(b))));
    order
}

/// An aligned table of trials.
pub fn table(trials: &[&Trial], measure: &str) -> String {
    let width = trials.iter().map(|t| t.name.chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:<width$}  epochs  {measure:>10}  seconds\n", "trial");
    for t in trials {
        let value = t.measure.map_or_else(|| "failed".into(), |m| format!("{m:.5}"));
        out += &format!("{:<width$}  {:>6}  {value:>10}  {:>7.1}\n", t.name, t.epochs, t.seconds);
    }
    out
}

/// The file of the trials of one search.
pub struct Log {
    path: PathBuf,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// What makes the search what it is.
    search: String,
    trials: Vec<Trial>,
}

impl Log {
    /// Reads the file if it is there; an error if it is of another search.
    pub fn open(path: &Path, search: &str) -> Result<Log, String> {
        let fail = |reason: String| format!("{}: {reason}", path.display());
        let kept = match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| fail(format!("not the trials of a search: {e}")))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Kept { search: search.into(), trials: Vec::new() },
            Err(e) => return Err(fail(e.to_string())),
        };
        if kept.search != search {
            return Err(fail("the trials are of another search; give the result another name or remove them".into()));
        }
        Ok(Log { path: path.to_path_buf(), kept })
    }

    /// What is done.
    pub fn trials(&self) -> &[Trial] {
        &self.kept.trials
    }

    /// The trial of a candidate, if it is done.
    pub fn find(&self, name: &str, epochs: u32) -> Option<&Trial> {
        self.kept.trials.iter().find(|t| t.name == name && t.epochs == epochs)
    }

    /// Adds a trial and writes the file, under another name first.
    pub fn add(&mut self, trial: Trial) -> Result<(), String> {
        self.kept.trials.push(trial);
        let fail = |e: String| format!("{}: {e}", self.path.display());
        let text = serde_json::to_vec_pretty(&self.kept).map_err(|e| fail(e.to_string()))?;
        let temporary = self.path.with_extension("tmp");
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.path));
        written.map_err(|e| fail(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    fn names(axes: &[Axis], how: How) -> Vec<String> {
        candidates(&Recipe::default(), axes, how).unwrap().into_iter().map(|c| c.name).collect()
    }

    #[test]
    fn axes_are_keys_with_values() {
        let two = axes("lr=1e-3|3e-3, optim=adamw:beta1=0.8,eps=1e-6|sgd,batch-size=32").unwrap();
        let keys: Vec<(&str, usize)> = two.iter().map(|a| (&a.key[..], a.values.len())).collect();
        assert_eq!(keys, [("lr", 2), ("optim", 2), ("batch-size", 1)]);
        assert_eq!(two[1].values[0], "adamw:beta1=0.8,eps=1e-6");
        assert!(axes("rate=1|2").is_err());
        let all = candidates(&Recipe::default(), &two, How::Grid).unwrap();
        assert_eq!((all.len(), &all[1].name[..]), (4, "lr=1e-3, optim=sgd, batch-size=32"));
        assert_eq!((all[2].recipe.lr, all[2].recipe.batch_size), (Some(3e-3), Some(32)));
        let many = Axis { key: "lr".into(), values: vec!["1".into(); 5000] };
        assert!(candidates(&Recipe::default(), &[many], How::Grid).is_err());
    }

    #[test]
    fn some_are_drawn() {
        let axes = axes("lr=1|2|3|4|5|6|7|8").unwrap();
        let some = names(&axes, How::Random(3));
        assert_eq!(some.len(), 3);
        assert_eq!(some, names(&axes, How::Random(3)));
        assert_eq!(names(&axes, How::Random(99)).len(), 8);
        assert_eq!("random:3".parse(), Ok(How::Random(3)));
        assert!("random:0".parse::<How>().is_err() && "best".parse::<How>().is_err());
    }

    #[test]
    fn halves_get_twice_the_epochs() {
        assert_eq!(rounds(8, 16), [(2, 8), (4, 4), (8, 2), (16, 1)]);
        assert_eq!(rounds(5, 10), [(1, 5), (2, 3), (5, 2), (10, 1)]);
        assert_eq!(rounds(1, 7), [(7, 1)]);
        assert_eq!(rounds(4, 1), [(1, 4), (1, 2), (1, 1)]);
    }

    #[test]
    fn trials_are_kept() {
        let folder = Folder::new("search");
        let path = folder.path().join("m.search.json");
        let trial =
            |name: &str, measure| Trial { name: name.into(), epochs: 2, measure, losses: vec![None], seconds: 1.0 };
        let mut log = Log::open(&path, "a").unwrap();
        log.add(trial("x", Some(0.5))).unwrap();
        log.add(trial("y", None)).unwrap();
        log.add(trial("z", Some(0.25))).unwrap();
        let log = Log::open(&path, "a").unwrap();
        assert_eq!((log.trials().len(), log.find("x", 2).is_some(), log.find("x", 3)), (3, true, None));
        assert!(Log::open(&path, "b").is_err_and(|e| e.contains("another search")));
        let order = |least| ranked(log.trials(), least).iter().map(|t| &t.name[..]).collect::<String>();
        assert_eq!((order(true), order(false)), ("zxy".into(), "xzy".into()));
        assert!(table(&ranked(log.trials(), true), "loss").contains("failed"));
        std::fs::write(&path, "{").unwrap();
        assert!(Log::open(&path, "a").is_err());
    }
}
