//! What can be wrong with a model, as values: who is to blame, what is wrong, where, by which rule, and the way out.
//!
//! An import collects [`Problem`]s and reports all of them at once ([`ImportErrors`]). Problems that say the same of several
//! nodes are one problem with several places, so that a model with fifty unsupported nodes of one kind is one paragraph:
//!
//! ```text
//! error: Concat: dimension 2 differs between inputs                error: unsupported: operator LSTM
//!   --> yolo.onnx, node "Concat_57"                                  --> vad.onnx, node "rnn/0", "rnn/1" and 3 more
//!       input 0  a  f32[1,128,40,40]                                 help: docs/operators.md lists what is supported
//!       input 1  b  f32[1,256,41,40]
//!   rule: ONNX Concat-13
//! ```

use std::fmt;

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The file breaks a rule of ONNX, or is no ONNX file.
    InvalidModel,
    /// The file is right, and nncc cannot compile it yet.
    Unsupported,
    /// The caller gave a dimension, a shape or a fixed input that does not fit the model.
    Options,
    /// The operating system refused to read a file.
    Io,
}

/// One thing that is wrong, with every place where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Who has to change something.
    pub blame: Blame,
    /// What is wrong: lower-case after the operator's name, both sides of a contradiction, no final period.
    pub message: String,
    /// Where: a node (`node "conv1"`), an input, an initializer. Empty if it is the file as a whole.
    pub places: Vec<String>,
    /// The operands of the first place with their types, one a line.
    pub operands: Vec<String>,
    /// The part of the specification that says so.
    pub rule: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// The graph inputs that would have to be constants for this not to be a problem, where that is so.
    pub inputs: Vec<String>,
}

impl Problem {
    fn new(blame: Blame, message: impl Into<String>) -> Problem {
        Problem {
            blame,
            message: message.into(),
            places: Vec::new(),
            operands: Vec::new(),
            rule: None,
            help: None,
            inputs: Vec::new(),
        }
    }

    /// The file breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Problem {
        Problem::new(Blame::InvalidModel, message)
    }

    /// nncc cannot do it yet.
    pub fn unsupported(message: impl Into<String>) -> Problem {
        Problem::new(Blame::Unsupported, message)
    }

    /// The caller's options do not fit the model.
    pub fn options(message: impl Into<String>) -> Problem {
        Problem::new(Blame::Options, message)
    }

    /// A file could not be read.
    pub fn io(message: impl Into<String>) -> Problem {
        Problem::new(Blame::Io, message)
    }

    /// The same problem with a place.
    pub fn at(mut self, place: impl Into<String>) -> Problem {
        self.places.push(place.into());
        self
    }

    /// The same problem with the rule that is broken.
    pub fn rule(mut self, rule: impl Into<String>) -> Problem {
        self.rule = Some(rule.into());
        self
    }

    /// The same problem with a way out.
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Whether two problems differ in their places only.
    fn same_as(&self, other: &Problem) -> bool {
        (self.blame, &self.message, &self.rule, &self.help) == (other.blame, &other.message, &other.rule, &other.help)
    }
}

/// Places shown of one problem; more are counted.
const PLACES_SHOWN: usize = 6;

impl Problem {
    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        let kind = if self.blame == Blame::Unsupported { "error: unsupported: " } else { "error: " };
        write!(f, "{kind}{}", self.message)?;
        write!(f, "\n  --> {file}")?;
        for (i, place) in self.places.iter().take(PLACES_SHOWN).enumerate() {
            // "node "a", "b"": the word stands once in a row of places of one kind.
            let word = place.split(' ').next().unwrap_or_default();
            let repeated = i > 0 && self.places.get(i - 1).is_some_and(|p| p.split(' ').next() == Some(word));
            write!(f, ", {}", if repeated { place[word.len()..].trim_start() } else { place })?;
        }
        if self.places.len() > PLACES_SHOWN {
            write!(f, " and {} more", self.places.len() - PLACES_SHOWN)?;
        }
        for line in &self.operands {
            write!(f, "\n      {line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "\n  rule: {rule}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ImportErrors {
    /// The file's name, as the user gave it.
    pub file: String,
    /// At least one problem, in the order in which they were met.
    pub problems: Vec<Problem>,
}

impl ImportErrors {
    /// One problem of one file.
    pub(crate) fn one(file: &str, problem: Problem) -> ImportErrors {
        ImportErrors { file: file.to_string(), problems: vec![problem] }
    }
}

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            p.write(f, &self.file)?;
        }
        Ok(())
    }
}

/// Problems as they are met; equal ones become one with several places.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    by_message: rustc_hash::FxHashMap<String, Vec<usize>>,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        let known = self.by_message.entry(problem.message.clone()).or_default();
        // Contradictions show their own operands: only problems that say the same of each place are merged.
        let same = known.iter().copied().find(|&i| {
            self.list[i].same_as(&problem) && (problem.blame != Blame::InvalidModel || problem.operands.is_empty())
        });
        match same {
            Some(i) => self.list[i].places.extend(problem.places),
            None => {
                known.push(self.list.len());
                self.list.push(problem);
            }
        }
    }

    pub(crate) fn into_list(self) -> Vec<Problem> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_problems_are_one_paragraph() {
        let mut problems = Problems::default();
        for i in 0..8 {
            problems.push(Problem::unsupported("operator LSTM").at(format!("node \"rnn/{i}\"")).help("wait"));
        }
        problems.push(Problem::invalid("Concat: axis 7 of a value of rank 4").at("node \"c\"").rule("ONNX Concat-13"));
        let errors = ImportErrors { file: "vad.onnx".into(), problems: problems.into_list() };
        assert_eq!(
            errors.to_string(),
            "error: unsupported: operator LSTM\n  --> vad.onnx, node \"rnn/0\", \"rnn/1\", \"rnn/2\", \"rnn/3\", \
             \"rnn/4\", \"rnn/5\" and 2 more\n  help: wait\n\nerror: Concat: axis 7 of a value of rank 4\n  --> vad.onnx, \
             node \"c\"\n  rule: ONNX Concat-13"
        );
    }
}
