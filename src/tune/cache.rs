//! The tuning cache: what was measured, as a text file that can be committed and given to another build.
//!
//! ```text
//! # nncc tuning cache: CPU | compiler | layer | choice | remark
//! A CPU, family 6 model 207 stepping 2 | nncc 0.1.0 | direct x86-64-v4 n1 .. | 48x14 pass 8 rows 7 panels-first | 0.93 of 41.2 us
//! ```
//!
//! One line a layer, sorted, so that two runs that measured the same give the same file and a merge is a merge of lines. An
//! entry counts for the CPU and the compiler that it names and for no other; those of others are kept as they are. The remark
//! (the time against that of the default) decides nothing.

use crate::Error;
use nncc_codegen::tunable::{Choice, Choices};
use std::collections::BTreeMap;
use std::path::Path;

/// The first line of every file.
const HEADER: &str = "# nncc tuning cache: CPU | compiler | layer | choice | remark";

/// A file larger than this is none: a line a layer of thousands of networks fits.
const MAX_BYTES: u64 = 64 << 20;

/// The entries of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cache {
    entries: BTreeMap<Key, (Choice, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    cpu: String,
    compiler: String,
    layer: String,
}

/// What entries of this build on this machine are filed under.
fn key(layer: &str) -> Key {
    Key { cpu: cpu(), compiler: concat!("nncc ", env!("CARGO_PKG_VERSION")).into(), layer: layer.into() }
}

impl Cache {
    /// Reads a file; one that does not exist is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn read(path: &Path) -> Result<Cache, Error> {
        match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Cache::default()),
            Err(e) => return Err(Error::io(path, e)),
            Ok(data) if data.len() > MAX_BYTES => {
                return Err(Error::Input(format!("{}: too large for a tuning cache", path.display())));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Cache::parse(&text).map_err(|what| {
            let help = "  help: name a file that --tune wrote, or one that does not exist yet";
            Error::Input(format!("{}: {what}\n{help}", path.display()))
        })
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        std::fs::write(path, self.to_text()).map_err(|e| Error::io(path, e))
    }

    fn parse(text: &str) -> Result<Cache, String> {
        let mut cache = Cache::default();
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err("not a tuning cache: it does not begin with its first line".into());
        }
        for (i, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            let at = |what: String| format!("line {}: {what}", i + 2);
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[cpu, compiler, layer, choice, remark] = &fields[..] else {
                return Err(at(format!("{} fields, expected 5 between `|`", fields.len())));
            };
            // What another compiler chose from may be written otherwise.
            let key = Key { cpu: cpu.into(), compiler: compiler.into(), layer: layer.into() };
            let choice = choice.parse().map_err(at)?;
            if cache.entries.insert(key, (choice, remark.into())).is_some() {
                return Err(at("the layer stands there twice".into()));
            }
        }
        Ok(cache)
    }

    fn to_text(&self) -> String {
        let mut out = format!("{HEADER}\n");
        for (Key { cpu, compiler, layer }, (choice, remark)) in &self.entries {
            out += &format!("{cpu} | {compiler} | {layer} | {choice} | {remark}\n");
        }
        out
    }

    /// What is known of this machine's layers, by this compiler.
    pub fn choices(&self) -> Choices {
        let own = key("");
        let mine = self.entries.iter().filter(|(k, _)| (&k.cpu, &k.compiler) == (&own.cpu, &own.compiler));
        mine.map(|(k, (choice, _))| (k.layer.as_str(), choice.clone())).collect()
    }

    /// Adds what was measured here.
    pub fn insert(&mut self, layer: &str, choice: Choice, remark: String) {
        self.entries.insert(key(layer), (choice, remark));
    }
}

/// The processor, as exactly as its code generation can matter: what Linux tells of it, the architecture elsewhere.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|l| l.split(':').next().is_some_and(|head| head.trim() == name))?;
        Some(line.split(':').nth(1)?.trim().replace('|', " "))
    };
    let numbers = ["cpu family", "model", "stepping", "CPU implementer", "CPU part"];
    let numbers = numbers.into_iter().filter_map(|name| Some(format!("{name} {}", field(name)?)));
    let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    std::iter::once(name).chain(numbers).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nncc_codegen::lower::algorithm::Form;

    fn sample() -> Cache {
        let mut cache = Cache::default();
        cache.insert("direct b", "48x14 pass 8 rows 7 panels-first".parse().unwrap(), "0.93 of 41.2 us".into());
        cache.insert("algorithm a", "direct form".parse().unwrap(), String::new());
        cache.insert("run c", "cut 1 3".parse().unwrap(), String::new());
        cache
    }

    #[test]
    fn a_cache_is_written_and_read() {
        let text = sample().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], HEADER);
        assert!(
            lines[1].contains(" | algorithm a | direct form | ") && lines[2].contains(" | direct b | 48x14 pass 8 ")
        );
        let read = Cache::parse(&text).unwrap();
        assert_eq!(read.to_text(), text);
        assert_eq!(read.choices().iter().count(), 3);
        assert_eq!(read.choices().get("algorithm a"), Some(&Choice::Algorithm(Form(None))));
    }

    #[test]
    fn entries_of_another_cpu_or_compiler_are_kept_and_not_used() {
        let text = sample().to_text();
        let other_cpu = text.replace(&cpu(), "Another CPU");
        let other_compiler = text.replace("nncc 0", "nncc 99");
        for other in [other_cpu, other_compiler] {
            assert_ne!(other, text);
            let mut cache = Cache::parse(&other).unwrap();
            assert!(cache.choices().is_empty());
            cache.insert("direct c", "direct form".parse().unwrap(), String::new());
            assert_eq!((cache.entries.len(), cache.choices().iter().count()), (4, 1));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let error = |lines: &str| Cache::parse(&format!("{HEADER}\n{lines}")).unwrap_err();
        assert_eq!(Cache::parse("{}").unwrap_err(), "not a tuning cache: it does not begin with its first line");
        assert_eq!(error("a | b | c"), "line 2: 3 fields, expected 5 between `|`");
        assert_eq!(error("\n# note\na|b|c|winograd 3|"), "line 4: there is no Winograd variant of 3 outputs");
        assert_eq!(error("a|b|c|direct form|\na|b|c|direct form|"), "line 3: the layer stands there twice");
    }
}
