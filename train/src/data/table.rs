//! Tables in CSV (RFC 4180): a row a sample, a column a feature, one column the target.
//!
//! The first row is a header if any of its fields is not a number. The target is the last column, or the one that
//! [`Options::target`] names (or numbers, from 0). Labels that are all whole numbers are classes 0, 1, ..; other labels are
//! names, sorted. Under [`Options::regression`] the target is a number.
//!
//! An empty field or one that is not a number is an error that names line and column: what to put in its place is the
//! owner's decision.

use super::memory::classes;
use super::{DataError, InMemory, Options, Targets, Values};
use std::collections::BTreeSet;
use std::path::Path;

/// Reads a table.
pub fn read(path: &Path, options: &Options) -> Result<InMemory, DataError> {
    let fail = |reason: String| DataError::file(path, reason);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|e| fail(e.to_string()))?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| fail(e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.push((line, record));
    }
    let Some((_, first)) = rows.first() else { return Err(fail("there is no row".into())) };
    let columns = first.len();
    let named = first.iter().any(|field| field.parse::<f64>().is_err());
    let header: Vec<String> = if named {
        let names = first.iter().map(str::to_string).collect();
        rows.remove(0);
        names
    } else {
        (0..columns).map(|i| i.to_string()).collect()
    };
    if columns < 2 {
        return Err(fail("one column: a table has features and a target".into()));
    }
    let target = match &options.target {
        None => columns - 1,
        Some(name) => header
            .iter()
            .position(|h| h == name)
            .ok_or_else(|| fail(format!("no column \"{name}\"; its columns are: {}", header.join(", "))))?,
    };
    let mut inputs = Vec::with_capacity(rows.len() * (columns - 1));
    let mut labels = Vec::with_capacity(rows.len());
    for (line, record) in &rows {
        for (i, field) in record.iter().enumerate() {
            if i == target {
                labels.push(field);
            } else {
                inputs.push(number(field, path, *line, &header[i])?);
            }
        }
    }
    let lines: Vec<u64> = rows.iter().map(|(line, _)| *line).collect();
    let targets = if options.regression {
        let of = |(field, &line): (&&str, &u64)| number(field, path, line, &header[target]);
        Targets::Values { dims: vec![], values: labels.iter().zip(&lines).map(of).collect::<Result<_, _>>()? }
    } else {
        label_targets(&labels, options, path, &lines)?
    };
    Ok(InMemory::new(path.display().to_string(), vec![columns - 1], Values::F32(inputs), targets)?.with_rows(lines))
}

fn number(field: &str, path: &Path, line: u64, column: &str) -> Result<f32, DataError> {
    let place = || format!("{}, line {line}, column \"{column}\"", path.display());
    match field.parse::<f32>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ if field.is_empty() => Err(DataError::new(place(), "the field is empty")),
        _ => Err(DataError::new(place(), format!("\"{field}\" is not a finite number"))),
    }
}

fn label_targets(labels: &[&str], options: &Options, path: &Path, lines: &[u64]) -> Result<Targets, DataError> {
    if let Some(i) = labels.iter().position(|label| label.is_empty()) {
        return Err(DataError::new(format!("{}, line {}", path.display(), lines[i]), "the label is empty"));
    }
    // "3.0" is what a data frame makes of a column of whole numbers with a gap.
    let whole = |label: &&str| label.parse::<f64>().ok().filter(|x| x.fract() == 0.0).map(|x| x as i64);
    if let Some(numbers) = labels.iter().map(whole).collect::<Option<Vec<i64>>>() {
        return classes(&numbers, options.classes, &path.display().to_string());
    }
    let names: BTreeSet<&str> = labels.iter().copied().collect();
    if let Some(n) = options.classes.filter(|&n| n < names.len()) {
        return Err(DataError::file(path, format!("{} different labels for {n} classes", names.len())));
    }
    let names: Vec<&str> = names.into_iter().collect();
    let of = |label: &&str| names.binary_search(label).unwrap_or(0) as u32;
    let of = labels.iter().map(of).collect();
    Ok(Targets::Classes { of, names: names.iter().map(ToString::to_string).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::data::testing::Folder;

    fn table(text: &str, options: &Options) -> Result<InMemory, String> {
        let folder = Folder::new("csv");
        let path = folder.write("t.csv", text);
        read(&path, options).map_err(|e| folder.strip(e))
    }

    #[test]
    fn labels_are_names_or_numbers() {
        let d = table("a,b,kind\n1,2.5,\"iris, wild\"\n-3,4e1,aster\n", &Options::default()).unwrap();
        let mut out = [0.0; 2];
        d.read(1, &mut out).unwrap();
        assert_eq!(out, [-3.0, 40.0]);
        let names = vec!["aster".to_string(), "iris, wild".into()];
        assert_eq!(*d.targets(), Targets::Classes { of: vec![1, 0], names });
        assert!(d.place(1).ends_with("t.csv, line 3"), "{}", d.place(1));
        let d = table("1,2,0\n3,4,2.0\n", &Options { target: None, ..Options::default() }).unwrap();
        assert!(matches!(d.targets(), Targets::Classes { of, names } if *of == [0, 2] && names.len() == 3));
        let by_name = Options { target: Some("0".into()), regression: true, ..Options::default() };
        let d = table("1.5,2,0\n3,4,2\n", &by_name).unwrap();
        assert_eq!(*d.targets(), Targets::Values { dims: vec![], values: vec![1.5, 3.0] });
    }

    #[test]
    fn errors_name_line_and_column() {
        let fail = |text: &str, options: &Options| table(text, options).unwrap_err();
        let plain = Options::default();
        assert_eq!(fail("a,b\n1,0\n,1\n", &plain), "t.csv, line 3, column \"a\": the field is empty");
        assert_eq!(fail("a,b\n1,0\nx,1\n", &plain), "t.csv, line 3, column \"a\": \"x\" is not a finite number");
        assert_eq!(fail("a,b\nnan,0\n", &plain), "t.csv, line 2, column \"a\": \"nan\" is not a finite number");
        assert_eq!(fail("a,b\n1,\n", &plain), "t.csv, line 2: the label is empty");
        assert_eq!(fail("", &plain), "t.csv: there is no row");
        assert_eq!(fail("1\n2\n", &plain), "t.csv: one column: a table has features and a target");
        assert!(fail("1,2\n1,2,3\n", &plain).contains("line"), "{}", fail("1,2\n1,2,3\n", &plain));
        let named = Options { target: Some("z".into()), ..Options::default() };
        assert_eq!(fail("a,b\n1,0\n", &named), "t.csv: no column \"z\"; its columns are: a, b");
        let two = Options { classes: Some(2), ..Options::default() };
        assert_eq!(fail("a,b\n1,x\n1,y\n1,z\n", &two), "t.csv: 3 different labels for 2 classes");
    }
}
