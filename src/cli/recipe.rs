//! What a recipe's words mean to the compiler: loss, optimizer, penalties, what is frozen.

use nncc::Error;
use nncc::training::{Group, Loss, Optimizer, TrainingOptions};
use nncc_ir::NamePattern;
use nncc_train::data::balance::class_weights;
use nncc_train::recipe::Recipe;
use nncc_train::spec;
use serde::Deserialize;

/// A loss as one word, with PyTorch's defaults for what it does not say: `cross-entropy:label_smoothing=0.1`.
// Variants without fields are written as structs: serde accepts any field of a unit variant.
#[derive(Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
enum LossWord {
    CrossEntropy {
        #[serde(default)]
        label_smoothing: f64,
        ignore_index: Option<i64>,
    },
    Bce {},
    Mse {},
    L1 {},
    Huber {
        #[serde(default = "one")]
        delta: f64,
    },
    SmoothL1 {
        #[serde(default = "one")]
        beta: f64,
    },
    Hinge {
        #[serde(default = "one")]
        margin: f64,
    },
    Focal {
        #[serde(default = "two")]
        gamma: f64,
    },
}

fn one() -> f64 {
    1.0
}

fn two() -> f64 {
    2.0
}

/// The loss, cross-entropy if the recipe names none. Class weights are in it once [`weigh`] has seen the data.
pub fn loss(recipe: &Recipe) -> Result<Loss, Error> {
    let word = recipe.loss.as_deref().unwrap_or("cross-entropy");
    let word = spec::parse::<LossWord>(word, Some("name")).map_err(|e| Error::Usage(format!("--loss {e}")))?;
    Ok(match word {
        LossWord::CrossEntropy { label_smoothing, ignore_index } => {
            Loss::CrossEntropy { label_smoothing, weights: None, ignore_index }
        }
        LossWord::Bce {} => Loss::BinaryCrossEntropy { positive_weights: None },
        LossWord::Mse {} => Loss::Mse,
        LossWord::L1 {} => Loss::L1,
        LossWord::Huber { delta } => Loss::Huber { delta },
        LossWord::SmoothL1 { beta } => Loss::SmoothL1 { beta },
        LossWord::Hinge { margin } => Loss::Hinge { margin },
        LossWord::Focal { gamma } => Loss::Focal { gamma },
    })
}

/// Puts the recipe's class weights into the loss: `balanced` by the samples of each class, or numbers.
pub fn weigh(loss: &mut Loss, recipe: &Recipe, counts: Option<&[usize]>) -> Result<(), Error> {
    let Some(word) = &recipe.class_weights else { return Ok(()) };
    let usage = |why: &str| Error::Usage(format!("--class-weights {word}: {why}"));
    let Loss::CrossEntropy { weights, .. } = loss else { return Err(usage("only cross-entropy weighs classes")) };
    let numbers = if word == "balanced" {
        let counts = counts.ok_or_else(|| usage("the data have no classes"))?;
        class_weights(counts).into_iter().map(f64::from).collect()
    } else {
        let number = |n: &str| n.trim().parse().map_err(|_| usage("neither `balanced` nor numbers"));
        word.split(',').map(number).collect::<Result<Vec<f64>, Error>>()?
    };
    *weights = Some(numbers);
    Ok(())
}

/// All that the step is compiled from, and the optimizer's usual learning rate.
pub fn options(recipe: &Recipe, loss: Loss) -> Result<(TrainingOptions, f64), Error> {
    let name = recipe.optim.as_deref().unwrap_or("adamw");
    let known = || Error::Usage(format!("--optim {name}: there are {}", Optimizer::NAMES.join(", ")));
    let optimizer = Optimizer::named(name).ok_or_else(known)?;
    let (rate, _) = optimizer.defaults();
    let mut options = TrainingOptions::new(loss, optimizer);
    options.weight_decay = recipe.weight_decay.unwrap_or(options.weight_decay);
    options.clip.norm = recipe.clip_norm;
    options.clip.value = recipe.clip_value;
    options.l1 = recipe.l1.unwrap_or(0.0);
    options.l2 = recipe.l2.unwrap_or(0.0);
    options.average = recipe.average;
    let frozen = |text: &String| Group { pattern: NamePattern::new(text), rate: 1.0, weight_decay: None, frozen: true };
    options.groups = recipe.freeze.iter().flatten().map(frozen).collect();
    Ok((options, rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loss: &str) -> Result<Loss, String> {
        super::loss(&Recipe { loss: Some(loss.into()), ..Recipe::default() }).map_err(|e| e.to_string())
    }

    #[test]
    fn words_of_losses() {
        assert_eq!(super::loss(&Recipe::default()).ok(), Some(Loss::CROSS_ENTROPY));
        assert_eq!(of("huber:delta=0.5"), Ok(Loss::Huber { delta: 0.5 }));
        assert_eq!(of("smooth-l1"), Ok(Loss::SmoothL1 { beta: 1.0 }));
        assert!(of("hubert").is_err_and(|e| e.contains("huber")));
        assert!(of("mse:delta=1").is_err());
    }

    #[test]
    fn weights_of_classes() {
        let recipe = |w: &str| Recipe { class_weights: Some(w.into()), ..Recipe::default() };
        let weighed =
            |w: &str, mut loss: Loss, counts: Option<&[usize]>| weigh(&mut loss, &recipe(w), counts).map(|()| loss);
        let Ok(Loss::CrossEntropy { weights: Some(w), .. }) = weighed("balanced", Loss::CROSS_ENTROPY, Some(&[1, 3]))
        else {
            panic!("no weights")
        };
        assert!((w[0] / w[1] - 3.0).abs() < 1e-6, "{w:?}");
        assert!(weighed("1,2.5", Loss::CROSS_ENTROPY, None).is_ok());
        assert!(weighed("balanced", Loss::CROSS_ENTROPY, None).is_err());
        assert!(weighed("1,2", Loss::Mse, None).is_err());
        assert!(weighed("heavy", Loss::CROSS_ENTROPY, None).is_err());
    }

    #[test]
    fn options_of_a_recipe() {
        let recipe = Recipe {
            optim: Some("sgd".into()),
            clip_norm: Some(2.0),
            freeze: Some(vec!["a.*".into()]),
            ..Recipe::default()
        };
        let (options, rate) = options(&recipe, Loss::Mse).unwrap();
        assert_eq!((rate, options.clip.norm, options.groups.len()), (1e-3, Some(2.0), 1));
        assert!(super::options(&Recipe { optim: Some("sdg".into()), ..Recipe::default() }, Loss::Mse).is_err());
    }
}
