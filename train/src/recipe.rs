//! A recipe: all that determines a run, with the keys of the command line, in a TOML file.
//!
//! ```toml
//! model = "lenet5.onnx"
//! data = "mnist"
//! val-share = 0.2
//! optim = "adamw"
//! lr = 0.002
//! schedule = "cosine"
//! epochs = 15
//! batch-size = 64
//! ```
//!
//! Every key may be left out: flags stand over a file, and what neither says has its default. The recipe that was used is
//! written beside the result, and gives the same result again.

use crate::augment::Augment;
use crate::data::balance::Sampling;
use crate::loader::{Loading, Normalise};
use crate::picture::{Crop, Filter, Order};
use crate::schedule::{Per, Plateau, Rates, Schedule};
use crate::spec;
use crate::trainer::{Monitor, Settings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Threads that prepare batches: beyond this many they would wait for each other.
const MOST_LOADERS: usize = 64;

/// Why a recipe cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// The file.
    #[error("{place}: {reason}")]
    File {
        /// The file, and the line in it where it is known.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The value of a key.
    #[error("{key} = {reason}")]
    Key {
        /// The key.
        key: &'static str,
        /// Its value, and what is wrong with it.
        reason: String,
    },
}

/// The keys. Losses, optimizers and what else the step is compiled from are words here; who compiles it reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The model, trained or not
    #[cfg_attr(feature = "clap", arg(value_name = "MODEL.onnx"))]
    pub model: Option<PathBuf>,
    /// A folder of pictures by class, .npz (x and y), .csv, or IDX
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH"))]
    pub data: Option<PathBuf>,
    /// Data to be measured on, not learnt from
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", conflicts_with = "val_share"))]
    pub val: Option<PathBuf>,
    /// Or a share of the data to be held out, stratified by class
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE"))]
    pub val_share: Option<f64>,
    /// The target's column in a .csv
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub target: Option<String>,
    /// Subtracted from the values: one number or one a channel
    #[cfg_attr(feature = "clap", arg(long, value_name = "M", value_delimiter = ',', allow_hyphen_values = true))]
    pub mean: Option<Vec<f32>>,
    /// Then multiplied: one number or one a channel
    #[cfg_attr(feature = "clap", arg(long, value_name = "S", value_delimiter = ',', allow_hyphen_values = true))]
    pub scale: Option<Vec<f32>>,
    /// The part of a picture that is used
    #[cfg_attr(feature = "clap", arg(long, value_name = "CROP", value_enum))]
    pub image_crop: Option<Crop>,
    /// How it is resized, antialiased as Pillow does
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILTER", value_enum))]
    pub image_resize: Option<Filter>,
    /// The order of its channels
    #[cfg_attr(feature = "clap", arg(long, value_name = "ORDER", value_enum))]
    pub image_order: Option<Order>,
    /// Fix a symbolic dimension that is not the batch
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME=N"))]
    pub dim: Option<Vec<String>>,
    /// Changes on the fly: flip=0.5,crop=4,rotate=10,brightness=0.2,mix-up=0.2,..
    #[cfg_attr(feature = "clap", arg(long, value_name = "CHANGES"))]
    pub augment: Option<String>,
    /// Samples of an epoch, for unbalanced classes
    #[cfg_attr(feature = "clap", arg(long, value_name = "HOW", value_enum))]
    pub sampling: Option<Sampling>,
    /// Fill small classes up with vectors between each sample and so many of its nearest
    #[cfg_attr(feature = "clap", arg(long, value_name = "NEIGHBOURS"))]
    pub smote: Option<u32>,
    /// Weights of the classes in the loss: `balanced`, or one each
    #[cfg_attr(feature = "clap", arg(long, value_name = "W"))]
    pub class_weights: Option<String>,
    /// cross-entropy, bce, mse, l1, huber, smooth-l1, hinge, focal; parameters as in a schedule
    #[cfg_attr(feature = "clap", arg(long, value_name = "LOSS"))]
    pub loss: Option<String>,
    /// sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, adamw, adamax, nadam, lbfgs; parameters likewise
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub optim: Option<String>,
    /// Learning rate [default: PyTorch's for the optimizer]
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE"))]
    pub lr: Option<f64>,
    /// Weight decay [default: PyTorch's for the optimizer]
    #[cfg_attr(feature = "clap", arg(long, value_name = "D"))]
    pub weight_decay: Option<f64>,
    /// Bound of the norm of all gradients together
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub clip_norm: Option<f64>,
    /// Bound of each gradient's magnitude
    #[cfg_attr(feature = "clap", arg(long, value_name = "V"))]
    pub clip_value: Option<f64>,
    /// Penalty: this times the sum of the weights' magnitudes
    #[cfg_attr(feature = "clap", arg(long, value_name = "F"))]
    pub l1: Option<f64>,
    /// Penalty: this times the sum of the weights' squares
    #[cfg_attr(feature = "clap", arg(long, value_name = "F"))]
    pub l2: Option<f64>,
    /// The share that a moving average of the weights keeps of itself; the average is what is written
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE"))]
    pub average: Option<f64>,
    /// Not trained: weights whose names fit the pattern
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATTERN"))]
    pub freeze: Option<Vec<String>>,
    /// The learning rate of weights whose names fit the pattern, as a factor; the first that fits counts
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATTERN=FACTOR"))]
    pub lr_scale: Option<Vec<String>>,
    /// Give the model a new last layer for the classes of the data; no other flag freezes or slows it
    #[cfg_attr(feature = "clap", arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub replace_head: Option<bool>,
    /// constant, cosine, one-cycle, .., with parameters: step:size=10,gamma=0.5
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME"))]
    pub schedule: Option<String>,
    /// What its times count
    #[cfg_attr(feature = "clap", arg(long, value_name = "UNIT", value_enum))]
    pub schedule_per: Option<Per>,
    /// Steps of warm-up before it
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub warmup: Option<u64>,
    /// Where the warm-up begins, as a share of the rate [default: 1/3]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE"))]
    pub warmup_start: Option<f64>,
    /// Lower the rate without progress: factor=0.1,patience=10,threshold=1e-4,cooldown=0,least=0
    #[cfg_attr(feature = "clap", arg(long, value_name = "HOW"))]
    pub plateau: Option<String>,
    /// Passes over the data [default: 10]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub epochs: Option<u32>,
    /// Samples of a step [default: 32]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub batch_size: Option<u32>,
    /// Batches whose gradients make one update [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub accumulate: Option<u32>,
    /// Values computed again to save memory: none, auto (for at most a tenth more work), or as many as a step needs for at most so
    /// many bytes (K, M, G: powers of 1024) [default: none]
    #[cfg_attr(feature = "clap", arg(long, value_name = "HOW"))]
    pub recompute: Option<String>,
    /// Of all randomness [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "S"))]
    pub seed: Option<u32>,
    /// Threads [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub threads: Option<u32>,
    /// Look at gradients, updates and activations by layer after so many updates, and say what is wrong
    /// [default: 100 with --report]
    #[cfg_attr(feature = "clap", arg(long, value_name = "UPDATES"))]
    pub watch: Option<u32>,
    /// What decides which epoch is best
    #[cfg_attr(feature = "clap", arg(long, value_name = "MEASURE", value_enum))]
    pub monitor: Option<Monitor>,
    /// Stop after so many epochs without a better one, and keep the best
    #[cfg_attr(feature = "clap", arg(long, value_name = "EPOCHS"))]
    pub patience: Option<u32>,
    /// Written after each epoch; a killed run goes on from it
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub checkpoint: Option<PathBuf>,
    /// And within an epoch after so many updates
    #[cfg_attr(feature = "clap", arg(long, value_name = "UPDATES"))]
    pub checkpoint_updates: Option<u64>,
    /// A page with curves, confusions and the worst samples
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE.html"))]
    pub report: Option<PathBuf>,
    /// The trained model [default: the model's name with .trained.onnx]
    #[cfg_attr(feature = "clap", arg(short, long, value_name = "OUT.onnx"))]
    pub output: Option<PathBuf>,
}

impl Recipe {
    /// Reads a file. Paths in it are relative to its folder.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        let file = |line: Option<usize>, reason: String| {
            let line = line.map(|n| format!(", line {n}")).unwrap_or_default();
            RecipeError::File { place: format!("{}{line}", path.display()), reason }
        };
        let text = std::fs::read_to_string(path).map_err(|e| file(None, e.to_string()))?;
        let mut recipe: Recipe = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let at_start = e.span().is_some_and(|span| text[..span.start].ends_with('\n'));
            file(line.map(|n| n + usize::from(at_start)), spec::explain(e.message()))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [&mut recipe.model, &mut recipe.data, &mut recipe.val];
        let paths = paths.into_iter().chain([&mut recipe.checkpoint, &mut recipe.report, &mut recipe.output]);
        for path in paths.flatten() {
            *path = folder.join(&*path);
        }
        Ok(recipe)
    }

    /// This recipe where it says something, else the other.
    pub fn over(&self, other: &Recipe) -> Result<Recipe, RecipeError> {
        let mut table = other.table()?;
        let own = self.table()?;
        // Held-out data are one thing that has two keys.
        if own.contains_key("val") || own.contains_key("val-share") {
            table.remove("val");
            table.remove("val-share");
        }
        table.extend(own);
        Recipe::deserialize(toml::Value::Table(table)).map_err(unwritable)
    }

    fn table(&self) -> Result<toml::Table, RecipeError> {
        toml::Table::try_from(self).map_err(unwritable)
    }

    /// The recipe as a file's text.
    pub fn text(&self) -> Result<String, RecipeError> {
        toml::to_string(self).map_err(unwritable)
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<(), RecipeError> {
        let text = self.text()?;
        let fail = |e: std::io::Error| RecipeError::File { place: path.display().to_string(), reason: e.to_string() };
        std::fs::write(path, text).map_err(fail)
    }

    /// What makes a run the run that it is, for [`Settings::identity`]: all but where things are written and on how many
    /// threads.
    pub fn identity(&self) -> Result<String, RecipeError> {
        let written = Recipe { checkpoint: None, checkpoint_updates: None, report: None, output: None, ..self.clone() };
        Recipe { threads: None, ..written }.text()
    }

    /// This recipe with another value for a key, as it would stand on the command line.
    pub fn with(&self, key: &str, value: &str) -> Result<Recipe, String> {
        let mut table = self.table().map_err(|e| e.to_string())?;
        let number =
            |text: &str| text.parse().map(toml::Value::Integer).or_else(|_| text.parse().map(toml::Value::Float));
        let scalar = match value.parse() {
            Ok(yes) => toml::Value::Boolean(yes),
            Err(_) => number(value).unwrap_or_else(|_| toml::Value::String(value.into())),
        };
        // Keys with several values take the one that is given as a list of one.
        let list = toml::Value::Array(vec![scalar.clone()]);
        let fail = |e: &toml::de::Error| format!("`{key}`: {}", spec::explain(e.message()));
        table.insert(key.into(), scalar);
        Recipe::deserialize(toml::Value::Table(table.clone())).or_else(|e| {
            table.insert(key.into(), list);
            Recipe::deserialize(toml::Value::Table(table)).map_err(|_| fail(&e))
        })
    }

    /// Whether there is such a key.
    pub fn has(key: &str) -> bool {
        let unknown = format!("`{key}`: `{key}` is unknown");
        !Recipe::default().with(key, "").is_err_and(|e| e.starts_with(&unknown))
    }

    /// After how many updates the step is looked into, if it is.
    pub fn watches(&self) -> Option<u64> {
        const USUAL: u32 = 100;
        self.watch.or(self.report.as_ref().map(|_| USUAL)).map(u64::from).filter(|&n| n > 0)
    }

    /// How samples become batches to learn from.
    pub fn loading(&self) -> Result<Loading, RecipeError> {
        let augment = self.augment.as_deref().map(|text| spec::parse::<Augment>(text, None)).transpose();
        let at_least_1 = |key: &'static str, n: Option<u32>, usual: u32| match n.unwrap_or(usual) {
            0 => Err(RecipeError::Key { key, reason: "0: at least 1 is needed".into() }),
            n => Ok(n as usize),
        };
        Ok(Loading {
            batch_size: at_least_1("batch-size", self.batch_size, 32)?,
            shuffle: true,
            sampling: self.sampling.unwrap_or_default(),
            augment: augment.map_err(|reason| RecipeError::Key { key: "augment", reason })?,
            normalise: Normalise {
                mean: self.mean.clone().unwrap_or_else(|| vec![0.0]),
                scale: self.scale.clone().unwrap_or_else(|| vec![1.0]),
            },
            seed: u64::from(self.seed.unwrap_or(1)),
            threads: at_least_1("threads", self.threads, 1)?.min(MOST_LOADERS),
        })
    }

    /// How samples become batches to be measured on: each once, in order, unchanged.
    pub fn measuring(&self) -> Result<Loading, RecipeError> {
        Ok(Loading { shuffle: false, sampling: Sampling::All, augment: None, ..self.loading()? })
    }

    /// The learning rates; `usual` is the optimizer's default.
    pub fn rates(&self, usual: f64) -> Result<Rates, RecipeError> {
        let key = |key: &'static str| move |reason| RecipeError::Key { key, reason };
        let schedule: Schedule =
            spec::parse(self.schedule.as_deref().unwrap_or("constant"), Some("name")).map_err(key("schedule"))?;
        schedule.check().map_err(key("schedule"))?;
        let plain = Rates::new(self.lr.unwrap_or(usual), schedule);
        Ok(Rates {
            per: self.schedule_per.unwrap_or(plain.per),
            warmup: self.warmup.unwrap_or(0),
            warmup_start: self.warmup_start.unwrap_or(plain.warmup_start),
            ..plain
        })
    }

    /// What the loop is told; `usual_rate` is the optimizer's default.
    pub fn settings(&self, usual_rate: f64) -> Result<Settings, RecipeError> {
        let plateau = self.plateau.as_deref().map(|text| spec::parse::<Plateau>(text, None)).transpose();
        let seed = u64::from(self.seed.unwrap_or(1));
        Ok(Settings {
            plateau: plateau.map_err(|reason| RecipeError::Key { key: "plateau", reason })?,
            accumulate: self.accumulate.unwrap_or(1) as usize,
            monitor: self.monitor.unwrap_or_default(),
            patience: self.patience,
            watch: self.watches(),
            checkpoint: self.checkpoint.clone(),
            checkpoint_updates: self.checkpoint_updates,
            identity: self.identity()?,
            ..Settings::new(self.epochs.unwrap_or(10), self.rates(usual_rate)?, seed)
        })
    }
}

/// What TOML cannot hold: a path that is no text.
fn unwritable(e: impl std::fmt::Display) -> RecipeError {
    RecipeError::File { place: "recipe".into(), reason: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    const TEXT: &str = "\
model = \"lenet5.onnx\"
data = \"mnist\"
val-share = 0.2
mean = [0.5, 1.0]
augment = \"crop=2,rotate=10\"
optim = \"adamw\"
lr = 0.002
schedule = \"cosine\"
epochs = 15
batch-size = 64
";

    fn read(text: &str) -> Result<Recipe, String> {
        let folder = Folder::new("recipe");
        let path = folder.write("r.toml", text);
        Recipe::read(&path).map_err(|e| folder.strip(e))
    }

    #[test]
    fn recipes_round_trip() {
        let folder = Folder::new("recipe-round");
        let recipe = Recipe::read(&folder.write("a.toml", TEXT)).unwrap();
        assert_eq!(recipe.model, Some(folder.path().join("lenet5.onnx")));
        let other = folder.path().join("b.toml");
        recipe.write(&other).unwrap();
        assert_eq!(Recipe::read(&other), Ok(recipe.clone()));
        let loading = recipe.loading().unwrap();
        assert_eq!((loading.batch_size, loading.augment.unwrap().rotate, loading.shuffle), (64, 10.0, true));
        let settings = recipe.settings(1e-3).unwrap();
        assert_eq!((settings.epochs, settings.rates.base, settings.rates.per), (15, 0.002, Per::Step));
        let measuring = recipe.measuring().unwrap();
        assert!(measuring.augment.is_none() && !measuring.shuffle && measuring.normalise.mean == [0.5, 1.0]);
        assert_eq!(Recipe::default().settings(1e-3).unwrap().rates.base, 1e-3);
    }

    #[test]
    fn flags_stand_over_the_file() {
        let file = Recipe { lr: Some(0.1), epochs: Some(3), val_share: Some(0.2), ..Recipe::default() };
        let flags = Recipe { lr: Some(0.2), val: Some("held".into()), ..Recipe::default() };
        let both = flags.over(&file).unwrap();
        let expected = Recipe { lr: Some(0.2), epochs: Some(3), val: Some("held".into()), ..Recipe::default() };
        assert_eq!(both, expected);
        let elsewhere = Recipe { output: Some("o.onnx".into()), threads: Some(7), ..both.clone() };
        assert_eq!(elsewhere.identity(), both.identity());
        assert_ne!(file.identity(), both.identity());
    }

    #[test]
    fn keys_are_set_by_their_texts() {
        let with = |key: &str, value: &str| Recipe::default().with(key, value);
        assert_eq!(with("lr", "1e-3").unwrap().lr, Some(1e-3));
        assert_eq!(with("lr", "1").unwrap().lr, Some(1.0));
        assert_eq!(with("batch-size", "64").unwrap().batch_size, Some(64));
        assert_eq!(with("optim", "adamw:beta1=0.8").unwrap().optim.as_deref(), Some("adamw:beta1=0.8"));
        assert_eq!(with("freeze", "a.*").unwrap().freeze, Some(vec!["a.*".to_string()]));
        assert_eq!(with("optm", "sgd").unwrap_err(), "`optm`: `optm` is unknown; did you mean `optim`?");
        assert!(with("batch-size", "many").is_err());
        assert!(Recipe::has("lr") && Recipe::has("sampling") && !Recipe::has("optm"));
    }

    #[test]
    fn faults_name_the_line_and_the_nearest_key() {
        let fail = |text: &str| read(text).unwrap_err();
        assert_eq!(
            fail("epochs = 3\nbatchsize = 4\n"),
            "r.toml, line 2: `batchsize` is unknown; did you mean `batch-size`?"
        );
        let crop = "r.toml, line 1: `centre` is unknown; did you mean `center`?";
        assert_eq!(fail("image-crop = \"centre\"\n"), crop);
        let message = fail("lr = 1\nepochs = \"many\"\n");
        assert!(message.starts_with("r.toml, line 2: invalid type: string \"many\", expected u32"), "{message}");
        assert!(fail("lr = = 1\n").starts_with("r.toml, line 1: "), "{}", fail("lr = = 1\n"));
        let recipe = Recipe { schedule: Some("cosin".into()), augment: Some("flop=1".into()), ..Recipe::default() };
        let message = recipe.rates(0.1).unwrap_err().to_string();
        assert_eq!(message, "schedule = \"cosin\": `cosin` is unknown; did you mean `cosine`?");
        let none = Recipe { batch_size: Some(0), ..Recipe::default() };
        assert_eq!(none.loading().unwrap_err().to_string(), "batch-size = 0: at least 1 is needed");
        let message = recipe.loading().unwrap_err().to_string();
        assert_eq!(message, "augment = \"flop=1\": `flop` is unknown; did you mean `flip`?");
    }
}
