//! What a case is run by: machine code in memory, the reference evaluator, or a library on another machine.

use super::cases::Case;
use super::close::all_close;
use super::machine::MACHINES;
use nncc::{Compiler, DType, Tensor, arrays};
use nncc_frontend::ImportOptions;
use nncc_ir::Dim;
use nncc_ir::eval::{Precision, evaluate};

/// What computes a case's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The whole compiler, into this process's memory.
    Jit,
    /// The importer and the reference evaluator: nothing of passes or kernels.
    Evaluate,
    /// The whole compiler, into a library for a machine of `MACHINES`, by emulation.
    Machine(usize),
}

impl Engine {
    /// Its name in messages and files.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Jit => "jit",
            Engine::Evaluate => "evaluate",
            Engine::Machine(i) => MACHINES[i].name,
        }
    }

    /// The engine of that name; the JIT for any other.
    pub fn named(name: &str) -> Engine {
        let machine = MACHINES.iter().position(|m| m.name == name);
        machine.map_or(if name == "evaluate" { Engine::Evaluate } else { Engine::Jit }, Engine::Machine)
    }

    /// Runs each data set of the case and compares the outputs; `Err` is the reason, on one or more lines.
    pub fn check(self, case: &Case) -> Result<(), String> {
        for set in 0..case.sets {
            let mut inputs = Vec::new();
            for (i, value) in case.inputs.iter().enumerate() {
                inputs.push((value.name.as_str(), read(case, set, "in", i)?));
            }
            let mut wanted = Vec::new();
            for i in 0..case.outputs.len() {
                wanted.push(read(case, set, "out", i)?);
            }
            let outputs = self.run(case, &inputs, &wanted)?;
            if outputs.len() != wanted.len() {
                return Err(format!("wrong: {} outputs, expected {}", outputs.len(), wanted.len()));
            }
            for ((output, want), value) in outputs.iter().zip(&wanted).zip(&case.outputs) {
                all_close(output, want, case.rtol, case.atol)
                    .map_err(|e| format!("wrong: output {}: {e}", value.name))?;
            }
        }
        Ok(())
    }

    /// The outputs, compiled for the sizes of this data set; an input that decides a shape is made a constant.
    fn run(self, case: &Case, inputs: &[(&str, Tensor)], wanted: &[Tensor]) -> Result<Vec<Tensor>, String> {
        let data = |name: &str| inputs.iter().find(|(n, _)| *n == name).map(|(_, t)| t.clone());
        let without = |fixed: &[String]| -> Vec<Tensor> {
            inputs.iter().filter(|(n, _)| !fixed.iter().any(|f| f == n)).map(|(_, t)| t.clone()).collect()
        };
        if self == Engine::Evaluate {
            let shape = |t: &Tensor| t.dims().iter().map(|&d| Dim::from(d)).collect();
            let shapes = inputs.iter().map(|(name, t)| (name.to_string(), shape(t))).collect();
            let options = ImportOptions { shapes, ..ImportOptions::default() };
            let model = nncc_frontend::Model::open(&case.model()).map_err(|e| e.to_string())?;
            let (import, fixed) = model.import_for(&options, &data).map_err(|e| e.to_string())?;
            return evaluate(&import.graph, &without(&fixed), Precision::Native).map_err(|e| format!("evaluate: {e}"));
        }
        let compiler = match self {
            Engine::Machine(i) => MACHINES[i].compiler(),
            _ => Compiler::new().target_cpu("native"),
        };
        let compiler = inputs.iter().fold(compiler, |c, (name, tensor)| c.input_shape(name, tensor.dims()));
        let (compiled, fixed) = compiler.load_for(case.model(), &data).map_err(|e| e.to_string())?;
        match self {
            Engine::Machine(i) => {
                let outputs: Vec<(DType, Vec<usize>)> = wanted.iter().map(|t| (t.dtype(), t.dims().to_vec())).collect();
                MACHINES[i].run(&compiled, &without(&fixed), &outputs)
            }
            _ => {
                let model = compiled.jit().map_err(|e| format!("jit: {e}"))?;
                model.run(&without(&fixed)).map_err(|e| format!("run: {e}"))
            }
        }
    }
}

fn read(case: &Case, set: usize, stem: &str, index: usize) -> Result<Tensor, String> {
    arrays::read_npy(&case.array(set, stem, index)).map_err(|e| format!("not run: {e}"))
}
