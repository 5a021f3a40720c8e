//! Structured control flow over Cranelift's function builder: what the emitted run-time code is written in.
//!
//! CLIF is a graph of blocks; the code around the kernels (entry points, step loop, thread pool) is ordinary structured
//! code, and reads as such only with `if` and `while`. [`Code`] adds these, loads and stores by field offset, and calls by
//! [`Fun`]. Variables are Cranelift's, so that no block parameter is written by hand.

use super::functions::{Fun, Functions};
use super::library::Info;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    FuncRef, InstBuilder, MemFlagsData, Signature, StackSlot, StackSlotData, StackSlotKind, Type, Value, types,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use cranelift_module::{DataId, Module};
use rustc_hash::FxHashMap;

pub use cranelift_codegen::ir::types::{I32, I64};

/// One function under construction.
pub struct Code<'a> {
    /// For the instructions that need no wrapper: `c.b.ins().iadd(x, y)`.
    pub b: FunctionBuilder<'a>,
    module: &'a mut dyn Module,
    functions: &'a Functions,
    /// What the emitted code knows of the model.
    pub info: &'a Info,
    refs: FxHashMap<Fun, FuncRef>,
    /// The function's parameters.
    all_params: Vec<Value>,
    /// Whether the current block already ends in a jump or return.
    ended: bool,
}

impl<'a> Code<'a> {
    /// Starts a function whose signature is set.
    pub fn new(
        mut b: FunctionBuilder<'a>,
        module: &'a mut dyn Module,
        functions: &'a Functions,
        info: &'a Info,
    ) -> Self {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let all_params = b.block_params(entry).to_vec();
        Code { b, all_params, module, functions, info, refs: FxHashMap::default(), ended: false }
    }

    /// Ends the function; it must have returned on every path.
    pub fn finish(mut self) {
        assert!(self.ended, "function falls off its end");
        self.b.seal_all_blocks();
        let config = self.module.target_config();
        self.b.finalize(config);
    }

    /// The function's parameters, when their number is known.
    pub fn params<const N: usize>(&self) -> [Value; N] {
        self.all_params.as_slice().try_into().expect("as many as the signature says")
    }

    /// The function's parameters.
    pub fn all_params(&self) -> Vec<Value> {
        self.all_params.clone()
    }

    /// An `I64` constant.
    pub fn int(&mut self, value: i64) -> Value {
        self.b.ins().iconst(I64, value)
    }

    /// An `I32` constant.
    pub fn int32(&mut self, value: u32) -> Value {
        self.b.ins().iconst(I32, i64::from(value))
    }

    /// Loads a field.
    pub fn load(&mut self, ty: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(ty, MemFlagsData::trusted(), base, offset)
    }

    /// Loads a `u32` field as `I64`.
    pub fn load_u32(&mut self, base: Value, offset: i32) -> Value {
        self.b.ins().uload32(MemFlagsData::trusted(), base, offset)
    }

    /// Stores a field of the value's width.
    pub fn store(&mut self, value: Value, base: Value, offset: i32) {
        self.b.ins().store(MemFlagsData::trusted(), value, base, offset);
    }

    /// `base + index * stride`.
    pub fn element(&mut self, base: Value, index: Value, stride: i64) -> Value {
        let offset = self.b.ins().imul_imm_s(index, stride);
        self.b.ins().iadd(base, offset)
    }

    /// A comparison with a constant.
    pub fn is(&mut self, cc: IntCC, a: Value, b: i64) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let b = self.b.ins().iconst(ty, b);
        self.b.ins().icmp(cc, a, b)
    }

    /// Zero-extends an `I32` to `I64`.
    pub fn wide(&mut self, value: Value) -> Value {
        self.b.ins().uextend(I64, value)
    }

    /// A variable with its first value.
    pub fn var(&mut self, init: Value) -> Variable {
        let ty = self.b.func.dfg.value_type(init);
        let var = self.b.declare_var(ty);
        self.b.def_var(var, init);
        var
    }

    /// A variable's present value.
    pub fn get(&mut self, var: Variable) -> Value {
        self.b.use_var(var)
    }

    /// Gives a variable a new value.
    pub fn set(&mut self, var: Variable, value: Value) {
        self.b.def_var(var, value);
    }

    /// Stack memory.
    pub fn stack(&mut self, bytes: usize) -> StackSlot {
        let bytes = u32::try_from(bytes).expect("stack slots are small");
        self.b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4))
    }

    /// The address of stack memory.
    pub fn stack_address(&mut self, slot: StackSlot) -> Value {
        self.b.ins().stack_addr(I64, slot, 0)
    }

    /// `if condition { then }`.
    pub fn if_(&mut self, condition: Value, then: impl FnOnce(&mut Self)) {
        self.if_else(condition, then, |_| {});
    }

    /// `if condition { then } else { otherwise }`.
    pub fn if_else(&mut self, condition: Value, then: impl FnOnce(&mut Self), otherwise: impl FnOnce(&mut Self)) {
        let (yes, no, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().brif(condition, yes, &[], no, &[]);
        self.begin(yes);
        then(self);
        let yes_ended = self.jump(join);
        self.begin(no);
        otherwise(self);
        let no_ended = self.jump(join);
        if yes_ended && no_ended {
            // Nothing reaches the code after; it has no block to be in.
            self.ended = true;
        } else {
            self.begin(join);
        }
    }

    /// `while condition() { body }`.
    pub fn while_(&mut self, condition: impl FnOnce(&mut Self) -> Value, body: impl FnOnce(&mut Self)) {
        let (head, inside, after) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.jump(head);
        self.begin(head);
        let go_on = condition(self);
        self.b.ins().brif(go_on, inside, &[], after, &[]);
        self.begin(inside);
        body(self);
        self.jump(head);
        self.begin(after);
    }

    /// `for i in 0..count { body(i) }`, `count` an `I64`.
    pub fn for_(&mut self, count: Value, body: impl FnOnce(&mut Self, Value)) {
        let zero = self.int(0);
        let i = self.var(zero);
        self.while_(
            |c| {
                let i = c.get(i);
                c.b.ins().icmp(IntCC::UnsignedLessThan, i, count)
            },
            |c| {
                let value = c.get(i);
                body(c, value);
                let next = c.b.ins().iadd_imm_s(value, 1);
                c.set(i, next);
            },
        );
    }

    /// Returns.
    pub fn ret(&mut self, values: &[Value]) {
        self.b.ins().return_(values);
        self.ended = true;
    }

    /// Returns a constant `I32`.
    pub fn ret32(&mut self, value: i32) {
        let value = self.b.ins().iconst(I32, i64::from(value));
        self.ret(&[value]);
    }

    /// Calls a function that returns a value.
    pub fn call(&mut self, fun: Fun, args: &[Value]) -> Value {
        let call = self.call_void(fun, args);
        self.b.inst_results(call)[0]
    }

    /// Calls a function for its effect.
    pub fn call_void(&mut self, fun: Fun, args: &[Value]) -> cranelift_codegen::ir::Inst {
        let callee = self.reference(fun);
        self.b.ins().call(callee, args)
    }

    /// Calls through a pointer.
    pub fn call_pointer(&mut self, signature: Signature, pointer: Value, args: &[Value]) -> Option<Value> {
        let signature = self.b.import_signature(signature);
        let call = self.b.ins().call_indirect(signature, pointer, args);
        self.b.inst_results(call).first().copied()
    }

    /// The address of a function.
    pub fn address(&mut self, fun: Fun) -> Value {
        let callee = self.reference(fun);
        self.b.ins().func_addr(I64, callee)
    }

    /// The address of a data object.
    pub fn data(&mut self, data: DataId) -> Value {
        let global = self.module.declare_data_in_func(data, self.b.func);
        self.b.ins().symbol_value(I64, global)
    }

    /// A signature in the target's C calling convention.
    pub fn signature(&self, params: &[Type], ret: Option<Type>) -> Signature {
        super::functions::signature(&*self.module, params, ret)
    }

    fn reference(&mut self, fun: Fun) -> FuncRef {
        let id = self.functions.id(fun);
        let (module, b) = (&mut *self.module, &mut self.b);
        *self.refs.entry(fun).or_insert_with(|| module.declare_func_in_func(id, b.func))
    }

    fn begin(&mut self, block: cranelift_codegen::ir::Block) {
        self.b.switch_to_block(block);
        self.ended = false;
    }

    /// Jumps unless the block has ended; says whether it had.
    fn jump(&mut self, to: cranelift_codegen::ir::Block) -> bool {
        let ended = self.ended;
        if !ended {
            self.b.ins().jump(to, &[]);
        }
        ended
    }

    /// Sequentially consistent `*address` of 32 bits.
    pub fn atomic_load(&mut self, address: Value) -> Value {
        self.b.ins().atomic_load(types::I32, MemFlagsData::trusted(), address)
    }

    /// Sequentially consistent `*address = value`.
    pub fn atomic_store(&mut self, value: Value, address: Value) {
        self.b.ins().atomic_store(MemFlagsData::trusted(), value, address);
    }
}
