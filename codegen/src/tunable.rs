//! What can be computed in more than one way: what a tuner finds in a program, and what it says in return.
//!
//! ```text
//! Tunable    a step that a template computes: its signature, the choice in force, others to try
//! Part       a part of a graph, whatever steps it comes to: a 3x3 convolution by one algorithm or another, a run of layers cut
//!            into bands
//! Choice     one way, as text in plans and tuning files
//! Choices    ways by signature: what lowering follows instead of its formulas
//! ```
//!
//! A template offers candidates in its own home ([`Candidates`]) and its kind of choice in the list below, and nobody else knows
//! of either. A signature is everything that the code depends on, as text (`direct x86-64-v4 n1 g1 64->256 ..`, `algorithm n1
//! 64->64 56x56`): equal layers of a model, and of different models, have one. A choice changes how fast something is, never
//! what it computes but for the order of sums; one that does not fit is left out.

use crate::kernels::bands::BandRows;
use crate::kernels::conv::depthwise::Strip;
use crate::kernels::conv::schedule::Schedule;
use crate::kernels::conv::winograd::Walk;
use crate::lower::algorithm::Form;
use crate::lower::bands::Cut;
use crate::target::Target;
use rustc_hash::FxHasher;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Declares the kinds of choices: a name, the type, and the words of which its text begins with one; none for any other text.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident($kind:ty): [$($word:literal),*];)*) => {
        /// One way of computing something.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Choice {
            $($(#[$doc])* $name($kind),)*
        }

        impl fmt::Display for Choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Choice::$name(choice) => choice.fmt(f),)*
                }
            }
        }

        impl FromStr for Choice {
            type Err = String;

            fn from_str(text: &str) -> Result<Choice, String> {
                let first = text.split_whitespace().next().unwrap_or_default();
                let begins = |words: &[&str]| words.is_empty() || words.contains(&first);
                $(if begins(&[$($word),*]) {
                    return text.parse().map(Choice::$name);
                })*
                Err(format!("`{text}` is no choice"))
            }
        }

        $(impl From<$kind> for Choice {
            fn from(choice: $kind) -> Choice {
                Choice::$name(choice)
            }
        }

        impl TryFrom<Choice> for $kind {
            /// The choice, which is of another kind.
            type Error = Choice;

            fn try_from(choice: Choice) -> Result<$kind, Choice> {
                match choice {
                    Choice::$name(choice) => Ok(choice),
                    other => Err(other),
                }
            }
        })*
    };
}

kinds! {
    /// Winograd's variant of a 3x3 convolution, or the direct form.
    Algorithm(Form): ["direct", "winograd"];
    /// How a run of layers is cut into chains.
    Cut(Cut): ["cut"];
    /// The rows of a band of a chain.
    Bands(BandRows): ["band"];
    /// How Winograd's algorithm walks its tiles.
    Winograd(Walk): ["blocked", "grouped", "staged"];
    /// The pixels that a convolution of narrow groups has in registers.
    Depthwise(Strip): ["strip"];
    /// How a direct convolution or a matrix product is walked.
    Direct(Schedule): [];
}

/// What a template computes in a step, as a tuner sees it.
pub trait Candidates: fmt::Debug + Send + Sync {
    /// The choice that the template makes by itself, and the `most - 1` others that its cost model likes best.
    fn candidates(&self, target: &Target, most: usize) -> Vec<Choice>;
}

/// A step that has more than one way.
#[derive(Clone, Debug)]
pub struct Tunable {
    /// Everything that its code depends on, as text: steps of one signature are equal.
    pub signature: String,
    /// The way in force.
    pub now: Choice,
    problem: Arc<dyn Candidates>,
}

impl Tunable {
    /// A step with what offers its candidates.
    pub fn new(signature: String, now: impl Into<Choice>, problem: impl Candidates + 'static) -> Tunable {
        Tunable { signature, now: now.into(), problem: Arc::new(problem) }
    }

    /// As [`Candidates::candidates`].
    pub fn candidates(&self, target: &Target, most: usize) -> Vec<Choice> {
        self.problem.candidates(target, most)
    }
}

/// A part of a graph that has more than one way, each with steps of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Equal parts have one.
    pub signature: String,
    /// The steps that compute it: the shape set, and the model's name of the node.
    pub steps: Vec<(usize, String)>,
    /// What can be chosen; the first is in force.
    pub candidates: Vec<Choice>,
}

/// A short name of a long text, for the parts of a signature that nobody reads.
pub fn digest(text: &str) -> String {
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    format!("{:08x}", hasher.finish() as u32)
}

/// A number of something in a choice's text: at least one.
pub fn count(word: &str) -> Option<usize> {
    word.parse::<u32>().ok().filter(|&n| n > 0).map(|n| n as usize)
}

/// Declares a choice that is a number, as text behind a word: `band 7`. `$what` is what another text is not.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $(#[$field_doc:meta])* $field:ident } = $word:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            $(#[$field_doc])*
            pub $field: usize,
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} {}", $word, self.$field)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let number = text.strip_prefix(concat!($word, " ")).and_then($crate::tunable::count);
                number.map(|$field| $name { $field }).ok_or_else(|| format!("`{text}` is no {}", $what))
            }
        }
    };
}
pub(crate) use counted;

/// A template's own choice and the `most - 1` others that cost least, each once.
pub fn ranked<T>(own: T, others: impl IntoIterator<Item = (f64, T)>, most: usize) -> Vec<Choice>
where
    T: Clone + Ord + Into<Choice>,
{
    let mut others: Vec<(f64, T)> = others.into_iter().collect();
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let mut all = vec![own];
    for (_, other) in others {
        if all.len() < most && !all.contains(&other) {
            all.push(other);
        }
    }
    all.into_iter().map(Into::into).collect()
}

/// Choices by the signatures of what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeMap<String, Choice>);

impl Choices {
    /// Chooses for a signature.
    pub fn insert(&mut self, signature: impl Into<String>, choice: Choice) {
        self.0.insert(signature.into(), choice);
    }

    /// What is chosen for a signature, if anything.
    pub fn get(&self, signature: &str) -> Option<&Choice> {
        self.0.get(signature)
    }

    /// The same, if it is of the kind that is asked for.
    pub fn of<T: TryFrom<Choice>>(&self, signature: &str) -> Option<T> {
        self.get(signature)?.clone().try_into().ok()
    }

    /// Is nothing chosen?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All choices, sorted by signature.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Choice)> {
        self.0.iter().map(|(signature, choice)| (signature.as_str(), choice))
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
        for text in [
            "direct form",
            "winograd 2",
            "winograd 4",
            "winograd 6",
            "48x14 pass 8 rows 7 panels-first",
            "blocked 28",
            "grouped 7",
            "staged",
            "strip 14",
            "band 7",
            "cut 1 3 2",
        ] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_choice_is_said() {
        for (text, error) in [
            ("winograd 5", "there is no Winograd variant of 5 outputs"),
            ("direct", "`direct` is no algorithm such as `direct form` or `winograd 4`"),
            ("blocked 0", "`blocked 0` is no walk such as `blocked 28`, `grouped 7` or `staged`"),
            ("staged 3", "`staged 3` is no walk such as `blocked 28`, `grouped 7` or `staged`"),
            ("strip x", "`strip x` is no strip of pixels such as `strip 14`"),
            ("band", "`band` is no number of rows such as `band 7`"),
            ("cut 1 0", "`cut 1 0` is no cut such as `cut 1 3 2`"),
            ("cut", "`cut` is no cut such as `cut 1 3 2`"),
            ("fast", "`fast` is no schedule such as `48x14 pass 8 rows 7 panels-first`"),
        ] {
            assert_eq!(text.parse::<Choice>(), Err(error.into()));
        }
    }

    #[test]
    fn the_cheapest_are_tried_each_once() {
        let strip = |pixels| Strip { pixels };
        let others = [(3.0, strip(3)), (1.0, strip(7)), (2.0, strip(5)), (1.5, strip(5)), (1.0, strip(1))];
        let texts = |most| ranked(strip(7), others, most).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(9), ["strip 7", "strip 1", "strip 5", "strip 3"]);
        assert_eq!(texts(2), ["strip 7", "strip 1"]);
    }
}
