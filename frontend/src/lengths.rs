//! The first look at a model file: does every field fit into the message that it stands in?
//!
//! Protobuf's wire format says a field's length before its bytes. The parser believes it: for a packed array (a tensor's
//! elements) it reserves memory for as many elements as the length could hold, up to ten million, before it finds that the
//! file ends. A file of 200 bytes would take 80 MB. So the lengths are compared with what is there first, without reading
//! the contents: bytes, strings and arrays are skipped, and only those messages are entered which may hold arrays.
//!
//! Source: the wire format (protobuf.dev/programming-guides/encoding), field numbers of onnx.proto. Everything else that may
//! be wrong with a file is left to the parser.

use std::io::{BufRead, Seek};

/// The messages of onnx.proto through which arrays are reached.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
}

impl Message {
    /// What the field of this number is, where it is one of these messages.
    fn field(self, number: u64) -> Option<Message> {
        use Message::*;
        Some(match (self, number) {
            (Model, 7) | (Training, 1 | 2) | (Attribute, 6 | 11) => Graph,
            (Model, 20) => Training,
            (Model, 25) => Function,
            (Function, 7) | (Graph, 1) => Node,
            (Function, 11) | (Node, 5) => Attribute,
            (Graph, 5) | (Attribute, 5 | 10) | (SparseTensor, 1 | 2) => Tensor,
            (Graph, 15) | (Attribute, 22 | 23) => SparseTensor,
            _ => return None,
        })
    }
}

/// Compares the lengths of a model file of `len` bytes with where its messages end.
///
/// # Errors
/// Says what does not fit. A file that cannot be read is no error here: the parser meets it again.
pub(crate) fn check(reader: &mut (impl BufRead + Seek), len: u64) -> Result<(), String> {
    let mut walk = Walk { reader, at: 0 };
    let mut open = vec![(Message::Model, len)]; // messages that have begun, and where they end
    while let Some(&(message, end)) = open.last() {
        if walk.at >= end {
            open.pop();
            continue;
        }
        // What is no field at all the parser reports better.
        let Some(tag) = walk.varint() else { return Ok(()) };
        let length = match tag & 7 {
            0 => {
                let Some(_) = walk.varint() else { return Ok(()) };
                continue;
            }
            1 => 8,
            2 => {
                let Some(length) = walk.varint() else { return Ok(()) };
                length
            }
            5 => 4,
            // The parser would read over a group, fields without a length before them, and go on behind it.
            3 => return Err(format!("field {} is a group, which ONNX has none of", tag >> 3)),
            _ => return Ok(()),
        };
        let left = end.saturating_sub(walk.at);
        if length > left {
            return Err(format!("a field of {length} bytes where {left} are left"));
        }
        match message.field(tag >> 3).filter(|_| tag & 7 == 2) {
            Some(inner) => open.push((inner, walk.at + length)),
            None if walk.skip(length) => {}
            None => return Ok(()),
        }
    }
    Ok(())
}

struct Walk<'a, R> {
    reader: &'a mut R,
    at: u64,
}

impl<R: BufRead + Seek> Walk<'_, R> {
    /// The next number; nothing where the bytes end or are no number of 64 bits.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte).ok()?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, length: u64) -> bool {
        self.at += length;
        i64::try_from(length).is_ok_and(|n| self.reader.seek_relative(n).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use std::io::Cursor;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        check(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn lengths_are_compared_with_what_encloses_them() {
        // graph { initializer { float_data: 3 floats, dims: 3 } }
        let whole = [&[0x3a, 18, 0x2a, 16, 0x22, 12][..], &[0; 12], &[0x08, 3]].concat();
        assert_eq!(checked(&whole), Ok(()));
        assert_eq!(checked(&[]), Ok(()));
        let mut long = whole.clone();
        long[5] = 15;
        assert_eq!(checked(&long), Err("a field of 15 bytes where 14 are left".into()));
        // the array fits into the file, but not into its tensor
        let mut tensor = whole.clone();
        tensor[3] = 10;
        assert_eq!(checked(&tensor), Err("a field of 12 bytes where 8 are left".into()));
        assert_eq!(checked(&whole[..12]), Err("a field of 18 bytes where 10 are left".into()));
        let huge = [&[0x3a][..], &[0xff; 8], &[0x7f]].concat();
        assert_eq!(checked(&huge), Err(format!("a field of {} bytes where 0 are left", i64::MAX)));
    }

    /// An empty group of the graph, and behind it a tensor with a long array in a short file.
    #[test]
    fn nothing_is_behind_a_group() {
        let file = [0x3a, 10, 0x73, 0x74, 0x2a, 6, 0x22, 0xff, 0xff, 0xff, 0x7f, 0];
        assert_eq!(checked(&file), Err("field 14 is a group, which ONNX has none of".into()));
    }

    #[test]
    fn what_is_no_field_is_left_to_the_parser() {
        assert_eq!(checked(&[0x0c]), Ok(())); // the end of a group
        assert_eq!(checked(&[0x3a]), Ok(())); // no length
        assert_eq!(checked(&[0xff; 11]), Ok(())); // no number
        assert_eq!(checked(b"\x7fELF"), Ok(())); // wire type 7
        assert_eq!(checked(&[0x3d, 1, 2, 3, 4]), Ok(())); // `graph` as a number of 32 bits: an unknown field
    }
}
