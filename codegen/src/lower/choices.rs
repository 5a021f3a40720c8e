//! Choices that were made elsewhere: how named layers are computed, instead of what the formulas would choose.
//!
//! A layer is named by its signature: everything that its code depends on, as text (`direct x86-64-v4 n1 g1 64->256 ..`,
//! `algorithm n1 64->64 56x56`). Equal layers of a model, and of different models, have one. What is named here changes how
//! fast a layer is, never what it computes but for the order of sums; a choice that does not fit its layer is left out.

use crate::kernels::conv::schedule::Schedule;
use crate::kernels::conv::winograd::transform::Minimal;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What is chosen for a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// How a direct convolution or a matrix product is walked.
    Schedule(Schedule),
    /// Winograd's variant of a 3x3 convolution, or none: the direct form.
    Algorithm(Option<Minimal>),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Schedule(schedule) => schedule.fmt(f),
            Choice::Algorithm(None) => f.write_str("direct form"),
            Choice::Algorithm(Some(minimal)) => write!(f, "winograd {}", minimal.outputs()),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        if text == "direct form" {
            return Ok(Choice::Algorithm(None));
        }
        match text.strip_prefix("winograd ") {
            Some(outputs) => {
                let minimal = Minimal::ALL.into_iter().find(|m| m.outputs().to_string() == outputs);
                let minimal = minimal.ok_or_else(|| format!("there is no Winograd variant of {outputs} outputs"))?;
                Ok(Choice::Algorithm(Some(minimal)))
            }
            None => text.parse().map(Choice::Schedule),
        }
    }
}

/// Choices by the signatures of their layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeMap<String, Choice>);

impl Choices {
    /// Chooses for a layer.
    pub fn insert(&mut self, signature: impl Into<String>, choice: Choice) {
        self.0.insert(signature.into(), choice);
    }

    /// What is chosen for a layer, if anything.
    pub fn get(&self, signature: &str) -> Option<Choice> {
        self.0.get(signature).copied()
    }

    /// Is nothing chosen?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All choices, sorted by signature.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Choice)> {
        self.0.iter().map(|(signature, &choice)| (signature.as_str(), choice))
    }
}

impl<S: Into<String>> FromIterator<(S, Choice)> for Choices {
    fn from_iter<I: IntoIterator<Item = (S, Choice)>>(iter: I) -> Choices {
        Choices(iter.into_iter().map(|(signature, choice)| (signature.into(), choice)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_and_read() {
        let schedule = "48x14 pass 8 rows 7 panels-first";
        for text in ["direct form", "winograd 2", "winograd 4", "winograd 6", schedule] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("winograd 5".parse::<Choice>(), Err("there is no Winograd variant of 5 outputs".into()));
        assert!("fast".parse::<Choice>().unwrap_err().starts_with("`fast` is no schedule"));
    }
}
