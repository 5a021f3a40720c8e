//! The cases on disk, as `tools/onnx_cases.py` and `tools/import_cases.py` wrote them; the scripts describe the form.

use super::root;
use serde::Deserialize;
use std::path::PathBuf;

/// One test case.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// `kind/test_name`.
    pub name: String,
    /// Whether the case spells an operator out as its function body.
    pub expanded: bool,
    /// The operators of its graph and subgraphs.
    pub ops: Vec<String>,
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
    /// The values that are fed.
    pub inputs: Vec<Value>,
    /// The values that are expected.
    pub outputs: Vec<Value>,
    /// How many data sets there are.
    pub sets: usize,
    /// Why the case cannot be run from arrays.
    pub why: Option<String>,
    /// The folder that holds `kind/`.
    #[serde(skip)]
    pub home: PathBuf,
}

/// An input or output of a case.
#[derive(Debug, Deserialize)]
pub struct Value {
    /// Its name in the graph.
    pub name: String,
}

#[derive(Deserialize)]
struct Listing {
    cases: Vec<Case>,
}

impl Case {
    /// The model file.
    pub fn model(&self) -> PathBuf {
        self.home.join(&self.name).join("model.onnx")
    }

    /// The file of an array: `stem` is `in` or `out`.
    pub fn array(&self, set: usize, stem: &str, index: usize) -> PathBuf {
        self.home.join(&self.name).join(format!("set{set}")).join(format!("{stem}{index}.npy"))
    }
}

/// All cases, sorted by name, or how to make them.
pub fn all() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (folder, script) in [("onnx-cases", "onnx_cases.py"), ("import-cases", "import_cases.py")] {
        let home = root().join("target").join(folder);
        let path = home.join("cases.json");
        let missing = || {
            format!(
                "{}: missing or unreadable; write the cases with: python tools/{script} target/{folder}",
                path.display()
            )
        };
        let text = std::fs::read_to_string(&path).map_err(|_| missing())?;
        let listing: Listing = serde_json::from_str(&text).map_err(|e| format!("{} ({e})", missing()))?;
        cases.extend(listing.cases.into_iter().map(|c| Case { home: home.clone(), ..c }));
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}
