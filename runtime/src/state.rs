//! States: what a model that learns keeps from run to run, in one block of memory that is its own file format.
//!
//! ```no_run
//! # use nncc_runtime::{Context, Library, StateBlock, TensorView, TensorViewMut};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // SAFETY: the file is one that nncc wrote.
//! let library = unsafe { Library::open("lenet5_train.so")? };
//! let mut context = Context::new(&library)?;
//! let mut states = StateBlock::new(&library, 1)?;
//! let (image, class, rate) = (vec![0.0_f32; 784], [7_i64], [0.01_f32]);
//! let (mut logits, mut loss) = (vec![0.0_f32; 10], [0.0_f32]);
//! let inputs = [TensorView::new(&image, &[1, 1, 28, 28]), TensorView::new(&class, &[1]), TensorView::new(&rate, &[])];
//! let mut outputs = [TensorViewMut::new(&mut logits, &[1, 10]), TensorViewMut::new(&mut loss, &[])];
//! context.run_learning(&mut states, &inputs, &mut outputs)?;
//! std::fs::write("learnt.state", states.bytes())?;
//! # Ok(())
//! # }
//! ```

use crate::context::Workspace;
use crate::error::{ErrorKind, LoadError, RunError};
use crate::ffi::{AbiTable, RawState, RawStateHeader};
use crate::library::{Library, Port, described, raw_tensor};
use crate::tensor::{DType, TensorView, TensorViewMut};
use std::mem::offset_of;

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A weight of the model.
    Parameter,
    /// A running mean or variance of the model.
    Statistic,
    /// What the optimizer remembers.
    Moment,
    /// The moving average of a weight.
    Average,
    /// The sum of a weight's gradients since the last update: zero behind one.
    Gradient,
}

/// What a model that learns keeps from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Name, type and shape.
    pub port: Port,
    /// What it is.
    pub role: Role,
    /// Where in the block it lies.
    offset: usize,
    bytes: usize,
}

/// The states that a library describes; none if it does not learn.
///
/// # Safety
/// The functions are those of one library compiled by nncc.
pub(crate) unsafe fn describe(abi: &AbiTable) -> Result<Vec<State>, LoadError> {
    let (Some(count), Some(state), Some(size)) = (abi.state_count, abi.state, abi.state_size) else {
        return Ok(vec![]);
    };
    // SAFETY: by this function's contract; they take nothing.
    let (count, size) = unsafe { (count(), size()) };
    let one = |index| {
        let unknown = || LoadError::Description("a state".into());
        let tensor = raw_tensor(DType::F32, &[], std::ptr::null_mut(), 0);
        let mut raw = RawState { tensor, offset: 0, role: 0, reserved: 0 };
        // SAFETY: by this function's contract; the structure is the function's to fill.
        if unsafe { state(index, &mut raw) } != 0 {
            return Err(unknown());
        }
        const ROLES: [Role; 5] = [Role::Parameter, Role::Statistic, Role::Moment, Role::Average, Role::Gradient];
        // SAFETY: the library gave static memory: a string, and `rank` extents.
        let port = unsafe { described(&raw.tensor) }?;
        let role = *ROLES.get(raw.role as usize).ok_or_else(unknown)?;
        let bytes = port.shape.iter().try_fold(port.dtype.size(), |bytes, &extent| bytes.checked_mul(extent));
        let end = bytes.and_then(|bytes| raw.offset.checked_add(bytes as u64)).filter(|end| *end <= size);
        let (Some(bytes), Some(_), 0) = (bytes, end, raw.offset % 64) else { return Err(unknown()) };
        Ok(State { port, role, offset: raw.offset as usize, bytes })
    };
    (0..count).map(one).collect()
}

/// The states of a library in memory of their own.
pub struct StateBlock {
    library: Library,
    memory: Workspace,
    bytes: usize,
}

// SAFETY: plain memory that the block owns; it is written through `&mut` only.
unsafe impl Send for StateBlock {}
// SAFETY: as above.
unsafe impl Sync for StateBlock {}

/// The part of a header that tells whose block it is.
const IDENTITY: std::ops::Range<usize> = 0..offset_of!(RawStateHeader, seed);

impl StateBlock {
    /// The states as before the first step. The seed is that of dropout.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when the library does not learn, [`ErrorKind::Memory`].
    pub fn new(library: &Library, seed: u64) -> Result<StateBlock, RunError> {
        let failed = |kind, message: &str| RunError { kind, message: message.to_string() };
        let (Some(size), Some(init)) = (library.abi().state_size, library.abi().init_state) else {
            return Err(failed(ErrorKind::State, "the library does not learn"));
        };
        // SAFETY: takes nothing.
        let bytes = unsafe { size() };
        let memory = usize::try_from(bytes).ok().and_then(Workspace::new);
        let memory = memory.ok_or_else(|| failed(ErrorKind::Memory, "no memory for the states"))?;
        // SAFETY: the memory is aligned to 64 bytes and as long as asked for; all of it is written.
        library.check(unsafe { init(memory.memory.as_ptr().cast(), bytes, seed) })?;
        Ok(StateBlock { library: library.clone(), memory, bytes: bytes as usize })
    }

    /// The same states once more.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`].
    pub fn copy(&self) -> Result<StateBlock, RunError> {
        let memory = Workspace::new(self.bytes)
            .ok_or_else(|| RunError { kind: ErrorKind::Memory, message: "no memory for the states".to_string() })?;
        let copy = StateBlock { library: self.library.clone(), memory, bytes: self.bytes };
        // SAFETY: as many bytes were allocated; none of them is read here.
        unsafe { copy.memory.memory.as_ptr().copy_from_nonoverlapping(self.memory.memory.as_ptr(), self.bytes) };
        Ok(copy)
    }

    /// The library whose states they are.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The whole block: what goes into a file.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as many bytes were allocated, and written when the block was made.
        unsafe { std::slice::from_raw_parts(self.memory.memory.as_ptr(), self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.memory.as_ptr(), self.bytes) }
    }

    /// Takes over a saved block.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it is that of another model or none, [`ErrorKind::Size`] when its end is missing; the states
    /// are as before then.
    pub fn load(&mut self, saved: &[u8]) -> Result<(), RunError> {
        let failed = |kind, message: String| RunError { kind, message };
        match saved.get(IDENTITY) {
            Some(identity) if *identity == self.bytes()[IDENTITY] => {}
            Some(_) => {
                let message = "this is no block of states, or one of another model or another way to train this one";
                return Err(failed(ErrorKind::State, message.into()));
            }
            None => return Err(failed(ErrorKind::Size, format!("{} bytes are no block of states", saved.len()))),
        }
        let Some(whole) = saved.get(..self.bytes) else {
            let message =
                format!("the block of states has {} bytes, {} are missing", self.bytes, self.bytes - saved.len());
            return Err(failed(ErrorKind::Size, message));
        };
        self.bytes_mut().copy_from_slice(whole);
        Ok(())
    }

    /// The value of a state by its number. Panics when there is no such state.
    pub fn get(&self, index: usize) -> TensorView<'_> {
        let state = &self.library.states()[index];
        TensorView::from_bytes(state.port.dtype, &self.bytes()[state.offset..][..state.bytes], &state.port.shape)
    }

    /// The same to be written. Panics when there is no such state.
    pub fn get_mut(&mut self, index: usize) -> TensorViewMut<'_> {
        let (offset, bytes) = (self.library.states()[index].offset, self.library.states()[index].bytes);
        // SAFETY: as in `bytes_mut`; written out, for the shape is borrowed from the library beside it.
        let block = unsafe { std::slice::from_raw_parts_mut(self.memory.memory.as_ptr(), self.bytes) };
        let port = &self.library.states()[index].port;
        TensorViewMut::from_bytes(port.dtype, &mut block[offset..][..bytes], &port.shape)
    }

    /// The number of steps done.
    pub fn steps(&self) -> i64 {
        self.word(offset_of!(RawStateHeader, steps))
    }

    /// Has later steps count on from this number.
    pub fn set_steps(&mut self, steps: i64) {
        self.set_word(offset_of!(RawStateHeader, steps), steps);
    }

    /// The seed of dropout.
    pub fn seed(&self) -> u64 {
        self.word(offset_of!(RawStateHeader, seed)) as u64
    }

    /// Has later steps draw from this seed.
    pub fn set_seed(&mut self, seed: u64) {
        self.set_word(offset_of!(RawStateHeader, seed), seed as i64);
    }

    fn word(&self, at: usize) -> i64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes()[at..][..8]);
        i64::from_le_bytes(word)
    }

    fn set_word(&mut self, at: usize, value: i64) {
        self.bytes_mut()[at..][..8].copy_from_slice(&value.to_le_bytes());
    }

    /// Address and length, for the library.
    pub(crate) fn memory(&self) -> (*mut u8, u64) {
        (self.memory.memory.as_ptr(), self.bytes as u64)
    }
}

impl std::fmt::Debug for StateBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateBlock({}, {} steps)", self.library.name(), self.steps())
    }
}
