//! Values while a model is imported: in the graph, constant, or known as expressions of symbolic dimensions.
//!
//! Only [`Val::Node`] is in the graph. A constant enters it when a node uses it as an operand, so that weights nothing
//! uses and the numbers of folded shape arithmetic leave no trace. [`Val::Symbolic`] is the value of shape arithmetic over
//! symbolic dimensions, such as `Shape(x)` of an `x: f32[N,3,H,W]`; it never enters the graph.

use nncc_ir::{Constant, DType, SymTensor, TensorType, ValueId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A value that an ONNX name stands for.
#[derive(Clone)]
pub(crate) enum Val {
    /// Computed at run time.
    Node(ValueId),
    /// Known.
    Const(Rc<ConstVal>),
    /// Integers (or floats that hold integers) known up to symbols.
    Symbolic(Rc<SymVal>),
    /// Drawn anew at each run: it never enters the graph, an operator that takes it draws.
    Drawn(Rc<DrawnVal>),
}

/// Numbers that are uniform in `low..high`.
pub(crate) struct DrawnVal {
    pub(crate) ty: TensorType,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A constant with the name it has in the model.
pub(crate) struct ConstVal {
    pub(crate) constant: Constant,
    /// Empty as long as no name of the model stands for it.
    pub(crate) name: RefCell<String>,
    /// Where it is in the graph, once it is used there.
    pub(crate) placed: Cell<Option<ValueId>>,
    /// Whether it is an initializer of several floats, which training may change.
    pub(crate) weight: bool,
}

/// Elements known up to symbols, with the element type that the model gives them.
pub(crate) struct SymVal {
    pub(crate) tensor: SymTensor,
    pub(crate) dtype: DType,
}

impl Val {
    /// A constant without a name.
    pub(crate) fn constant(c: Constant) -> Val {
        Val::Const(Rc::new(ConstVal { constant: c, name: RefCell::default(), placed: Cell::default(), weight: false }))
    }

    /// Whether it is a weight of the model's file.
    pub(crate) fn is_weight(&self) -> bool {
        matches!(self, Val::Const(c) if c.weight)
    }

    /// The constant, if it is one.
    pub(crate) fn as_const(&self) -> Option<&Constant> {
        match self {
            Val::Const(c) => Some(&c.constant),
            _ => None,
        }
    }
}
