//! The flags of `nncc MODEL.onnx --train`: those keys of a recipe that are compiled into a step.
//!
//! They are declared once, with `nncc train`'s: [`Recipe`]. Here those of [`COMPILED`] are taken over, and what was given for
//! them goes through the recipe's own parser.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use nncc_train::recipe::Recipe;
use std::ffi::OsString;
use std::path::PathBuf;

/// The recipe's keys that a step is compiled from.
const COMPILED: [&str; 14] = [
    "loss",
    "class_weights",
    "optim",
    "batch_size",
    "accumulate",
    "weight_decay",
    "clip_norm",
    "clip_value",
    "l1",
    "l2",
    "average",
    "freeze",
    "lr_scale",
    "recompute",
];

/// What a library that learns is compiled from.
#[derive(Clone, Debug, Default)]
pub struct Learning {
    /// Whether it is one.
    pub train: bool,
    /// The flags.
    pub flags: Recipe,
    /// The recipe that they stand over.
    pub file: Option<PathBuf>,
    /// Batches of inferences.
    pub infer_batch: Vec<usize>,
}

fn recipe() -> Command {
    Recipe::augment_args(Command::new("recipe").no_binary_name(true))
}

impl Args for Learning {
    fn augment_args(command: Command) -> Command {
        let train = Arg::new("train").long("train").action(ArgAction::SetTrue);
        let train = train.help("Write a library that learns, by flags of `nncc train`");
        let only = |arg: Arg| arg.requires("train").hide_short_help(true);
        let file = Arg::new("recipe_file").long("recipe").value_name("FILE.toml").value_parser(value_parser!(PathBuf));
        let infer = Arg::new("infer_batch").long("infer-batch").value_name("N,..").value_delimiter(',');
        let infer = infer.value_parser(value_parser!(u32).range(1..)).help("Batches of inferences [default: 1]");
        let command = command.arg(train).arg(only(file.help("A recipe of `nncc train`; flags stand over it")));
        let keys = recipe()
            .get_arguments()
            .filter(|arg| COMPILED.contains(&arg.get_id().as_str()))
            .cloned()
            .collect::<Vec<_>>();
        command.arg(only(infer)).args(keys.into_iter().map(only))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Learning::augment_args(command)
    }
}

impl FromArgMatches for Learning {
    fn from_arg_matches(given: &ArgMatches) -> Result<Learning, clap::Error> {
        let mut words: Vec<OsString> = Vec::new();
        let command = recipe();
        for arg in command.get_arguments().filter(|arg| COMPILED.contains(&arg.get_id().as_str())) {
            for value in given.get_raw(arg.get_id().as_str()).into_iter().flatten() {
                words.push(format!("--{}", arg.get_long().unwrap_or_default()).into());
                words.push(value.to_owned());
            }
        }
        let sizes = given.get_many::<u32>("infer_batch").into_iter().flatten();
        Ok(Learning {
            train: given.get_flag("train"),
            flags: Recipe::from_arg_matches(&command.try_get_matches_from(words)?)?,
            file: given.get_one::<PathBuf>("recipe_file").cloned(),
            infer_batch: sizes.map(|&n| n as usize).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, given: &ArgMatches) -> Result<(), clap::Error> {
        *self = Learning::from_arg_matches(given)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Learning, String> {
        let command = Learning::augment_args(Command::new("nncc").no_binary_name(true));
        let given = command.try_get_matches_from(words).map_err(|e| e.to_string())?;
        Learning::from_arg_matches(&given).map_err(|e| e.to_string())
    }

    #[test]
    fn every_key_is_one_of_the_recipe() {
        let command = recipe();
        let known: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        assert!(COMPILED.iter().all(|key| known.contains(key)), "{known:?}");
    }

    #[test]
    fn flags_are_read_as_a_recipe_reads_them() {
        let words =
            ["--train", "--loss", "mse", "--freeze", "a.*", "--freeze", "b.*", "--l2=1e-4", "--infer-batch", "1,8"];
        let learning = parsed(&words).unwrap();
        let freeze = Some(vec!["a.*".to_string(), "b.*".to_string()]);
        let flags = Recipe { loss: Some("mse".into()), l2: Some(1e-4), freeze, ..Recipe::default() };
        assert_eq!((learning.train, learning.flags, learning.infer_batch), (true, flags, vec![1, 8]));
        assert!(parsed(&["--loss", "mse"]).is_err_and(|e| e.contains("--train")));
        assert!(parsed(&["--train", "--l1", "much"]).is_err_and(|e| e.contains("--l1")));
        assert!(!parsed(&[]).unwrap().train);
    }
}
