//! Patterns of names: which weights a rule is for.
//!
//! ```text
//! *   any characters, none too      ?   one character      everything else stands for itself
//!
//! layer4.*       all of the last stage        *.bias,fc.*    several patterns with commas: what any of them fits
//! ```
//!
//! Names hold dots and slashes; neither is special.

use std::fmt;
use std::str::FromStr;

/// One or more patterns.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NamePattern(Vec<String>);

impl NamePattern {
    /// The pattern that this text spells: no pattern at all, which fits nothing, if it is empty.
    pub fn new(text: &str) -> NamePattern {
        NamePattern(text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_string).collect())
    }

    /// Whether the whole name fits one of the patterns.
    pub fn fits(&self, name: &str) -> bool {
        self.0.iter().any(|p| fits(p, name))
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for NamePattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<NamePattern, Self::Err> {
        Ok(NamePattern::new(text))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// One pattern against a name. On a mismatch behind a `*` that `*` takes one character more: of several, only the last
/// needs to be reconsidered, since it can take whatever an earlier one could. O(pattern * name).
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None; // behind the last `*`, and what it has taken up to
    loop {
        match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((p + 1, n));
                p += 1;
            }
            (Some(a), Some(b)) if *a == '?' || a == b => (p, n) = (p + 1, n + 1),
            _ => match &mut retry {
                Some((behind, taken)) if *taken < name.len() => {
                    *taken += 1;
                    (p, n) = (*behind, *taken);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let cases = [
            ("*", "", true),
            ("", "", false),
            ("fc.*", "fc.weight", true),
            ("fc.*", "xfc.weight", false),
            ("*.bias", "a.bias.bias", true),
            ("*.bias", "bias", false),
            ("layer?.*.conv1.*", "layer2.0.conv1.weight", true),
            ("layer?.*.conv1.*", "layer.0.conv1.weight", false),
            ("a*b*c", "axxbxbyc", true),
            ("a*b*c", "axxbxby", false),
            ("a, b*", "bias", true),
            ("a,,", "", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(NamePattern::new(pattern).fits(name), expected, "{pattern} {name}");
        }
        assert_eq!(NamePattern::new(" a , b ").to_string(), "a,b");
        assert!(NamePattern::new("").is_empty());
    }

    /// Backtracking through every star would take 2^30 steps here.
    #[test]
    fn many_stars_are_no_trap() {
        assert!(!NamePattern::new(&"*a".repeat(30)).fits(&"a".repeat(29)));
        assert!(NamePattern::new(&"*a".repeat(30)).fits(&"a".repeat(31)));
    }
}
