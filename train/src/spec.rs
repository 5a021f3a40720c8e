//! Things with parameters as one word of a command line or recipe: `cosine`, `step:size=10,gamma=0.5`, `flip=0.5,crop=4`.
//!
//! ```text
//! spec     NAME | NAME:PARAMETERS        for what has variants (a schedule)
//!          PARAMETERS                    for what has none (augmentation)
//! PARAMETERS   KEY=VALUE,KEY=VALUE,..    VALUE: a number, true, false, a word, or several with / between: 30/60/90
//! ```
//!
//! Names and keys are those of the type's serde form, so that a type is declared once. What is unknown is an error that
//! tells the nearest that is known.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A value from its spec. `tag` is the field that holds the variant's name, for types with variants.
pub fn parse<T: DeserializeOwned>(text: &str, tag: Option<&str>) -> Result<T, String> {
    let fail = |reason: String| format!("\"{text}\": {reason}");
    let mut table = Table::new();
    let parameters = match tag {
        Some(tag) => {
            let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
            table.insert(tag.into(), Value::String(name.trim().into()));
            parameters
        }
        None => text,
    };
    for parameter in parameters.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(fail(format!("`{parameter}` is not KEY=VALUE")));
        };
        if table.insert(key.trim().into(), self::value(value.trim())).is_some() {
            return Err(fail(format!("`{}` is given twice", key.trim())));
        }
    }
    T::deserialize(Value::Table(table)).map_err(|e| fail(explain(e.message())))
}

fn value(text: &str) -> Value {
    if text.contains('/') {
        return Value::Array(text.split('/').filter(|part| !part.is_empty()).map(|part| value(part.trim())).collect());
    }
    if let Ok(n) = text.parse() {
        return Value::Integer(n);
    }
    match (text, text.parse()) {
        ("true", _) => Value::Boolean(true),
        ("false", _) => Value::Boolean(false),
        (_, Ok(x)) => Value::Float(x),
        _ => Value::String(text.into()),
    }
}

/// serde's message, where it lists all that is known for one thing that is not: shorter, and with the nearest.
pub fn explain(message: &str) -> String {
    let parts = ["unknown field `", "unknown variant `"].iter().find_map(|start| {
        let (unknown, rest) = message.strip_prefix(start)?.split_once('`')?;
        let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        Some((unknown, known))
    });
    let Some((unknown, known)) = parts.filter(|(_, known)| !known.is_empty()) else {
        return message.trim().to_string();
    };
    let nearest = known.iter().max_by(|a, b| {
        let near = |k: &str| strsim::jaro_winkler(unknown, k);
        near(a).total_cmp(&near(b))
    });
    match nearest.filter(|k| strsim::jaro_winkler(unknown, k) >= 0.75) {
        Some(nearest) => format!("`{unknown}` is unknown; did you mean `{nearest}`?"),
        None => {
            let known: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
            format!("`{unknown}` is unknown; known are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Augment;
    use crate::schedule::{Cycle, Schedule};

    fn schedule(text: &str) -> Result<Schedule, String> {
        parse(text, Some("name"))
    }

    #[test]
    fn names_and_parameters_are_those_of_the_type() {
        assert_eq!(schedule("constant"), Ok(Schedule::Constant));
        assert_eq!(schedule("cosine"), Ok(Schedule::Cosine { total: None, least: 0.0 }));
        assert_eq!(schedule("step:size=10,gamma=0.5"), Ok(Schedule::Step { size: 10, gamma: 0.5 }));
        assert_eq!(schedule("step: size=10, gamma=1"), Ok(Schedule::Step { size: 10, gamma: 1.0 }));
        let milestones = |v: &[u64]| Ok(Schedule::MultiStep { milestones: v.to_vec(), gamma: 0.1 });
        assert_eq!(schedule("multi-step:milestones=30/60/90"), milestones(&[30, 60, 90]));
        assert_eq!(schedule("multi-step:milestones=30/"), milestones(&[30]));
        let cyclic = Schedule::Cyclic { peak: 0.1, up: 5, down: None, mode: Cycle::ExpRange, gamma: 1.0 };
        assert_eq!(schedule("cyclic:peak=1e-1,up=5,mode=exp_range"), Ok(cyclic));
        let augment: Augment = parse("flip=0.5,crop=4,mix-up=0.2", None).unwrap();
        assert_eq!(augment, Augment { flip: 0.5, crop: 4, mix_up: Some(0.2), ..Augment::default() });
    }

    #[test]
    fn what_is_unknown_is_told_the_nearest() {
        let fail = |text: &str| schedule(text).unwrap_err();
        assert_eq!(fail("cosin"), "\"cosin\": `cosin` is unknown; did you mean `cosine`?");
        assert_eq!(fail("step:sise=1"), "\"step:sise=1\": `sise` is unknown; did you mean `size`?");
        let all = "`constant`, `step`, `multi-step`, `exponential`, `polynomial`, `fraction`, `cosine`, `cosine-restarts`, \
                   `cyclic`, `one-cycle`";
        assert_eq!(fail("xyzzy"), format!("\"xyzzy\": `xyzzy` is unknown; known are {all}"));
        assert_eq!(fail("step:size"), "\"step:size\": `size` is not KEY=VALUE");
        assert_eq!(fail("step:size=1,size=2"), "\"step:size=1,size=2\": `size` is given twice");
        assert!(fail("step:size=x").contains("invalid type: string \"x\", expected u64"), "{}", fail("step:size=x"));
        assert!(fail("step").contains("missing field `size`"), "{}", fail("step"));
        let augment = parse::<Augment>("flip=0.5,rotation=3", None).unwrap_err();
        assert_eq!(augment, "\"flip=0.5,rotation=3\": `rotation` is unknown; did you mean `rotate`?");
    }
}
