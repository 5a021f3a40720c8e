//! Tensors of a model file: every way in which ONNX stores elements, turned into a [`Constant`].
//!
//! | where | for which element types |
//! |---|---|
//! | `raw_data` | all, little-endian: the bytes are moved into the constant, not copied |
//! | `float_data`, `double_data`, `int64_data` | the type of that name |
//! | `int32_data` | i32, and one number an element for i16, i8, u16, u8, bool |
//! | `uint64_data` | u64 and u32 |
//! | external | all: mapped from a file beside the model, see [`crate::external`] |
//!
//! Dimensions are checked against the bytes that are there before anything is allocated.

use crate::external::Folder;
use crate::model::{Half, TensorDef};
use crate::problem::Problem;
use nncc_ir::dtype::half_to_f32;
use nncc_ir::{Constant, DType, TensorType};
use onnx_protobuf as pb;
use std::sync::Arc;

/// ONNX's code of an element type.
pub(crate) fn code_of(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
    }
}

/// Names of the codes 0 to 26, as TensorProto.DataType spells them (in lower case).
const NAMES: [&str; 27] = [
    "undefined",
    "float",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "string",
    "bool",
    "float16",
    "double",
    "uint32",
    "uint64",
    "complex64",
    "complex128",
    "bfloat16",
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
    "float8e8m0",
    "uint2",
    "int2",
];

/// The element type of a code, or why there is none.
pub(crate) fn dtype(code: i64) -> Result<DType, Problem> {
    if let Some(d) = DType::ALL.into_iter().find(|&d| code_of(d) == code) {
        return Ok(d);
    }
    match usize::try_from(code).ok().and_then(|c| NAMES.get(c)) {
        Some(name) if code != 0 => Err(Problem::unsupported(format!("element type {name}"))),
        _ => Err(Problem::invalid(format!("element type number {code}")).rule("ONNX TensorProto.DataType: 1 to 26")),
    }
}

/// The element type of a name, as Cast of opset 1 to 5 spells it: `FLOAT`, `INT64`, ...
pub(crate) fn dtype_named(name: &str) -> Result<DType, Problem> {
    let code = NAMES.iter().position(|n| n.eq_ignore_ascii_case(name));
    match code.and_then(|c| i64::try_from(c).ok()) {
        Some(code) if code != 0 => dtype(code),
        _ => Err(Problem::invalid(format!("element type `{name}`")).rule("ONNX TensorProto.DataType")),
    }
}

/// A bool constant from one byte an element, where every byte but 0 is true.
pub(crate) fn bools(dims: &[usize], mut bytes: Vec<u8>) -> Result<Constant, Problem> {
    bytes.iter_mut().for_each(|b| *b = u8::from(*b != 0));
    owned(DType::Bool, dims, bytes)
}

fn owned(dtype: DType, dims: &[usize], bytes: Vec<u8>) -> Result<Constant, Problem> {
    let range = 0..bytes.len();
    Constant::from_storage(dtype, dims, Arc::new(bytes), range)
        .ok_or_else(|| Problem::invalid("dimensions do not match the elements"))
}

/// Takes a tensor message apart.
pub(crate) fn decode(mut t: pb::TensorProto, folder: &Folder) -> TensorDef {
    let name = std::mem::take(&mut t.name);
    let code = t.data_type;
    if matches!(code, FLOAT16 | BFLOAT16) {
        // Both store their bits where u16 does.
        t.data_type = code_of(DType::U16) as i32;
        let brain = code == BFLOAT16;
        let named = || Problem::unsupported(if brain { "element type bfloat16" } else { "element type float16" });
        return match content(t, folder) {
            Ok(bits) => TensorDef { name, content: Err(named()), half: Some(Half { bits, brain }) },
            Err(problem) => TensorDef { name, content: Err(problem), half: None },
        };
    }
    TensorDef { name, content: content(t, folder), half: None }
}

/// The message that holds a tensor, its elements in `raw_data`.
pub(crate) fn encode(name: &str, t: &nncc_ir::Tensor) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        data_type: code_of(t.dtype()) as i32,
        dims: t.dims().iter().map(|&d| d as i64).collect(),
        raw_data: t.to_bytes(),
        ..Default::default()
    }
}

/// The type that a tensor message declares.
pub(crate) fn declared_type(t: &pb::TensorProto) -> Result<TensorType, Problem> {
    Ok(TensorType::fixed(dtype(i64::from(t.data_type))?, &dims(&t.dims)?))
}

/// Moves the elements of a tensor that lie beside the model into it.
pub(crate) fn embed(t: &mut pb::TensorProto, folder: &Folder) -> Result<(), Problem> {
    use pb::tensor_proto::DataLocation;
    if t.data_location.enum_value() != Ok(DataLocation::EXTERNAL) {
        return Ok(());
    }
    let half = matches!(t.data_type, FLOAT16 | BFLOAT16);
    let dtype = if half { DType::U16 } else { dtype(i64::from(t.data_type))? };
    let bytes = folder.constant(dtype, &dims(&t.dims)?, &t.external_data)?;
    t.raw_data = bytes.bytes().unwrap_or_default().to_vec();
    t.external_data.clear();
    t.data_location = DataLocation::DEFAULT.into();
    Ok(())
}

/// TensorProto.DataType's codes of half floats.
const FLOAT16: i32 = 10;
const BFLOAT16: i32 = 16;

/// Half floats as the f32 numbers that they are. This copies: files that store weights so convert them once, by a Cast.
pub(crate) fn widened(half: &Half) -> Constant {
    let numbers = half.bits.to_tensor().to_i64();
    let wide = |&bits: &i64| if half.brain { f32::from_bits((bits as u32) << 16) } else { half_to_f32(bits as u16) };
    let dims = half.bits.dims().to_vec();
    Constant::from_tensor(&nncc_ir::Tensor::f32(&dims, numbers.iter().map(wide).collect()))
}

fn content(t: pb::TensorProto, folder: &Folder) -> Result<Constant, Problem> {
    let dtype = dtype(i64::from(t.data_type))?;
    let dims = dims(&t.dims)?;
    let ty = TensorType::fixed(dtype, &dims);
    let elems = ty.elems().filter(|n| n.checked_mul(dtype.bytes()).is_some());
    let elems = elems.ok_or_else(|| Problem::invalid(format!("a tensor {ty}, larger than memory")))?;
    if t.segment.is_some() {
        return Err(Problem::unsupported("tensors in segments"));
    }
    if t.data_location.enum_value() == Ok(pb::tensor_proto::DataLocation::EXTERNAL) {
        return folder.constant(dtype, &dims, &t.external_data);
    }
    let fits = |given: usize, need: usize, what: &str| {
        let text = || format!("a tensor {ty} with {given} {what}, not {need}");
        if given == need {
            Ok(())
        } else {
            Err(Problem::invalid(text()).rule("ONNX TensorProto: as many elements as the dimensions say"))
        }
    };
    if !t.raw_data.is_empty() {
        fits(t.raw_data.len(), elems * dtype.bytes(), "bytes of raw_data")?;
        return if dtype == DType::Bool { bools(&dims, t.raw_data) } else { owned(dtype, &dims, t.raw_data) };
    }
    let small = |to_bytes: &dyn Fn(i32) -> Option<Vec<u8>>| {
        fits(t.int32_data.len(), elems, "numbers in int32_data")?;
        let mut bytes = Vec::with_capacity(elems * dtype.bytes());
        for &n in &t.int32_data {
            let b = to_bytes(n).ok_or_else(|| Problem::invalid(format!("the number {n} in a tensor of {dtype}")))?;
            bytes.extend(b);
        }
        Ok(bytes)
    };
    let bytes: Vec<u8> = match dtype {
        DType::F32 => {
            fits(t.float_data.len(), elems, "numbers in float_data")?;
            t.float_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::F64 => {
            fits(t.double_data.len(), elems, "numbers in double_data")?;
            t.double_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::I64 => {
            fits(t.int64_data.len(), elems, "numbers in int64_data")?;
            t.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::U64 => {
            fits(t.uint64_data.len(), elems, "numbers in uint64_data")?;
            t.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect()
        }
        DType::U32 => {
            fits(t.uint64_data.len(), elems, "numbers in uint64_data")?;
            let mut bytes = Vec::with_capacity(elems * 4);
            for &n in &t.uint64_data {
                let n = u32::try_from(n).map_err(|_| Problem::invalid(format!("the number {n} in a tensor of u32")))?;
                bytes.extend(n.to_le_bytes());
            }
            bytes
        }
        DType::I32 => small(&|n| Some(n.to_le_bytes().to_vec()))?,
        DType::I16 => small(&|n| Some(i16::try_from(n).ok()?.to_le_bytes().to_vec()))?,
        DType::U16 => small(&|n| Some(u16::try_from(n).ok()?.to_le_bytes().to_vec()))?,
        DType::I8 => small(&|n| Some(i8::try_from(n).ok()?.to_le_bytes().to_vec()))?,
        DType::U8 => small(&|n| Some(vec![u8::try_from(n).ok()?]))?,
        DType::Bool => small(&|n| Some(vec![u8::from(n != 0)]))?,
    };
    owned(dtype, &dims, bytes)
}

fn dims(dims: &[i64]) -> Result<Vec<usize>, Problem> {
    let size = |&d: &i64| {
        usize::try_from(d).map_err(|_| {
            Problem::invalid(format!("a tensor with the dimension {d}"))
                .rule("ONNX TensorProto: dimensions are not negative")
        })
    };
    dims.iter().map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(code: i32, dims: &[i64]) -> pb::TensorProto {
        pb::TensorProto { data_type: code, dims: dims.to_vec(), ..Default::default() }
    }

    fn read(t: pb::TensorProto) -> Result<Constant, String> {
        decode(t, &Folder::new(None)).content.map_err(|p| p.message)
    }

    #[test]
    fn every_field_of_every_type() {
        for dtype in DType::ALL {
            let code = code_of(dtype) as i32;
            let wanted = nncc_ir::Tensor::from_i64(dtype, &[2], &[1, 0]);
            let raw = pb::TensorProto { raw_data: wanted.to_bytes(), ..tensor(code, &[2]) };
            assert_eq!(read(raw).unwrap().to_tensor(), wanted, "{dtype} raw");
            let mut typed = tensor(code, &[2]);
            match dtype {
                DType::F32 => typed.float_data = vec![1.0, 0.0],
                DType::F64 => typed.double_data = vec![1.0, 0.0],
                DType::I64 => typed.int64_data = vec![1, 0],
                DType::U32 | DType::U64 => typed.uint64_data = vec![1, 0],
                _ => typed.int32_data = vec![1, 0],
            }
            assert_eq!(read(typed).unwrap().to_tensor(), wanted, "{dtype} typed");
            assert_eq!(read(tensor(code, &[0, 7])).unwrap().elems(), 0, "{dtype} empty");
        }
    }

    #[test]
    fn bytes_of_bools_become_0_or_1() {
        let raw = pb::TensorProto { raw_data: vec![2, 0, 255], ..tensor(9, &[3]) };
        assert_eq!(read(raw).unwrap().bytes(), Some(&[1, 0, 1][..]));
    }

    #[test]
    fn brain_floats_are_the_numbers_of_their_bits() {
        let brain = pb::TensorProto { raw_data: vec![0x80, 0x3f, 0x40, 0xc0], ..tensor(16, &[2]) };
        let half = decode(brain, &Folder::new(None)).half.unwrap();
        assert_eq!(widened(&half).to_tensor(), nncc_ir::Tensor::f32(&[2], vec![1.0, -3.0]));
    }

    #[test]
    fn contradictions_are_errors() {
        let cases = [
            (tensor(1, &[2]), "a tensor f32[2] with 0 numbers in float_data, not 2"),
            (
                pb::TensorProto { raw_data: vec![0; 7], ..tensor(1, &[2]) },
                "a tensor f32[2] with 7 bytes of raw_data, not 8",
            ),
            (tensor(1, &[-1]), "a tensor with the dimension -1"),
            (tensor(1, &[i64::MAX, 4]), "a tensor f32[9223372036854775807,4], larger than memory"),
            (pb::TensorProto { int32_data: vec![0, 0], ..tensor(10, &[2]) }, "element type float16"),
            (tensor(17, &[2]), "element type float8e4m3fn"),
            (tensor(0, &[2]), "element type number 0"),
            (tensor(77, &[2]), "element type number 77"),
            (pb::TensorProto { int32_data: vec![256], ..tensor(2, &[1]) }, "the number 256 in a tensor of u8"),
        ];
        for (t, message) in cases {
            assert_eq!(read(t).unwrap_err(), message);
        }
    }
}
