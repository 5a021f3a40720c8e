//! What a recipe's words mean to the compiler: loss, optimizer, penalties, what is frozen.

use nncc::Error;
use nncc::training::{Group, Loss, Optimizer, Parameter, TrainingOptions};
use nncc_ir::NamePattern;
use nncc_train::data::balance::class_weights;
use nncc_train::recipe::Recipe;
use nncc_train::spec;
use serde::Deserialize;
use std::collections::BTreeMap;

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
        let counts = counts.ok_or_else(|| usage("there are no data whose classes could be counted"))?;
        class_weights(counts).into_iter().map(f64::from).collect()
    } else {
        let number = |n: &str| n.trim().parse().map_err(|_| usage("neither `balanced` nor numbers"));
        word.split(',').map(number).collect::<Result<Vec<f64>, Error>>()?
    };
    *weights = Some(numbers);
    Ok(())
}

/// A parameter's value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(f64),
    Other(serde::de::IgnoredAny),
}

/// An optimizer as one word, with PyTorch's defaults for what it does not say: `adamw:beta1=0.8,eps=1e-6`.
fn optimizer(word: &str) -> Result<Optimizer, Error> {
    let usage = |reason: String| Error::Usage(format!("--optim {reason}"));
    let (name, parameters) = word.split_once(':').unwrap_or((word, ""));
    let known = || usage(format!("{word}: there are {}", Optimizer::NAMES.join(", ")));
    let mut optimizer = Optimizer::named(name.trim()).ok_or_else(known)?;
    let given = spec::parse::<BTreeMap<String, Value>>(parameters, None).map_err(|e| usage(format!("{word}: {e}")))?;
    for (key, value) in given {
        let wrong = |what: &str| usage(format!("{word}: `{key}` is {what}"));
        let mut parameters = optimizer.parameters();
        let names: Vec<String> = parameters.iter().map(|(name, _)| format!("`{name}`")).collect();
        match (parameters.iter_mut().find(|(name, _)| *name == key).map(|(_, p)| p), value) {
            (Some(Parameter::Number(x)), Value::Number(given)) => **x = given,
            (Some(Parameter::Flag(x)), Value::Flag(given)) => **x = given,
            (Some(Parameter::Count(n)), Value::Number(given)) if given.fract() == 0.0 && given >= 0.0 => {
                **n = given as u32
            }
            (Some(Parameter::Count(_)), _) => return Err(wrong("a whole number")),
            (Some(Parameter::Number(_)), _) => return Err(wrong("a number")),
            (Some(Parameter::Flag(_)), _) => return Err(wrong("true or false")),
            (None, _) => {
                let unknown = format!("unknown field `{key}`, expected one of {}", names.join(", "));
                return Err(usage(format!("{word}: {}", spec::explain(&unknown))));
            }
        }
    }
    optimizer.check().map_err(|e| usage(format!("{word}: {e}")))?;
    Ok(optimizer)
}

/// Makes the step learn from mixed classes: a target is then a share of each, while an evaluation's is a class as before.
pub fn learn_from_mixed(options: &mut TrainingOptions) -> Result<(), Error> {
    let usage = |why: &str| Err(Error::Usage(format!("--augment mix-up: {why}")));
    let Loss::CrossEntropy { label_smoothing, weights, ignore_index } = options.loss.clone() else {
        return usage("only cross-entropy has targets that are shares of classes");
    };
    if ignore_index.is_some() {
        return usage("a mixed target has no class that could be ignored");
    }
    let mixed = Loss::CrossEntropyOfProbabilities { label_smoothing, weights };
    options.evaluation_loss = Some(std::mem::replace(&mut options.loss, mixed));
    Ok(())
}

/// All that the step is compiled from, and the optimizer's usual learning rate.
pub fn options(recipe: &Recipe, loss: Loss) -> Result<(TrainingOptions, f64), Error> {
    let optimizer = optimizer(recipe.optim.as_deref().unwrap_or("adamw"))?;
    let (rate, _) = optimizer.defaults();
    let mut options = TrainingOptions::new(loss, optimizer);
    options.weight_decay = recipe.weight_decay.unwrap_or(options.weight_decay);
    options.clip.norm = recipe.clip_norm;
    options.clip.value = recipe.clip_value;
    options.l1 = recipe.l1.unwrap_or(0.0);
    options.l2 = recipe.l2.unwrap_or(0.0);
    options.average = recipe.average;
    if let Some(how) = &recipe.recompute {
        options.recompute = how.parse().map_err(|e| Error::Usage(format!("--recompute {how}: {e}")))?;
    }
    let group = |text: &str| Group { pattern: NamePattern::new(text), rate: 1.0, weight_decay: None, frozen: false };
    options.groups = recipe.freeze.iter().flatten().map(|text| Group { frozen: true, ..group(text) }).collect();
    for text in recipe.lr_scale.iter().flatten() {
        let scaled = text.rsplit_once('=').and_then(|(pattern, factor)| Some((pattern, factor.trim().parse().ok()?)));
        match scaled.filter(|(_, factor): &(_, f64)| *factor >= 0.0 && factor.is_finite()) {
            Some((pattern, factor)) => options.groups.push(Group { rate: factor, ..group(pattern) }),
            None => {
                return Err(Error::Usage(format!("--lr-scale {text}: PATTERN=FACTOR is expected, such as body.*=0.1")));
            }
        }
    }
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
    fn words_of_optimizers() {
        let fail = |word: &str| optimizer(word).unwrap_err().to_string();
        let adam = optimizer("adamw:beta1=0.8,eps=1e-6,amsgrad=true").unwrap();
        assert_eq!(adam, Optimizer::AdamW { betas: (0.8, 0.999), eps: 1e-6, amsgrad: true });
        assert_eq!(
            optimizer("sgd:momentum=0.5,nesterov=true").unwrap(),
            Optimizer::Sgd { momentum: 0.5, dampening: 0.0, nesterov: true }
        );
        assert_eq!(optimizer("adadelta:rho=0").unwrap(), Optimizer::Adadelta { rho: 0.0, eps: 1e-6 });
        assert_eq!(fail("adam:beta3=1"), "--optim adam:beta3=1: `beta3` is unknown; did you mean `beta2`?");
        assert_eq!(optimizer("lbfgs:history_size=4").unwrap(), Optimizer::Lbfgs { history_size: 4 });
        assert_eq!(fail("lbfgs:history_size=1.5"), "--optim lbfgs:history_size=1.5: `history_size` is a whole number");
        assert!(fail("lbfgs:history_size=0").contains("not within 1 to 100"));
        assert_eq!(fail("adam:eps=small"), "--optim adam:eps=small: `eps` is a number");
        assert_eq!(fail("adam:amsgrad=1"), "--optim adam:amsgrad=1: `amsgrad` is true or false");
        assert_eq!(fail("adam:eps=-1"), "--optim adam:eps=-1: eps is -1, not a number of at least 0");
        assert!(fail("adam:beta1=1").contains("the first beta is 1"));
        assert!(fail("nesterov:momentum=0").contains("needs a momentum"));
    }

    #[test]
    fn mixed_classes_are_learnt_as_shares() {
        let mut options = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("sgd").unwrap());
        learn_from_mixed(&mut options).unwrap();
        assert!(!options.loss.takes_classes());
        assert_eq!(options.evaluation_loss, Some(Loss::CROSS_ENTROPY));
        assert!(learn_from_mixed(&mut TrainingOptions { loss: Loss::Focal { gamma: 2.0 }, ..options }).is_err());
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
            lr_scale: Some(vec!["b=*=0.1".into()]),
            ..Recipe::default()
        };
        let (options, rate) = options(&recipe, Loss::Mse).unwrap();
        assert_eq!((rate, options.clip.norm, options.groups.len()), (1e-3, Some(2.0), 2));
        assert!(options.groups[0].frozen && options.groups[1].rate == 0.1 && options.groups[1].pattern.fits("b=c"));
        let wrong = Recipe { lr_scale: Some(vec!["b".into()]), ..Recipe::default() };
        assert!(super::options(&wrong, Loss::Mse).unwrap_err().to_string().starts_with("--lr-scale b: "));
        assert!(super::options(&Recipe { optim: Some("sdg".into()), ..Recipe::default() }, Loss::Mse).is_err());
    }
}
