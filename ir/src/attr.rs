//! Attributes of operators: one declaration of a struct, and the text form follows.
//!
//! [`operator_attrs!`](crate::operator_attrs) declares an operator's struct and derives how its fields print (`group=8, pads=[1,1,1,1]`) and
//! parse. A field type takes part by implementing [`AttrValue`].

use crate::{DType, Dim, Pointwise};

/// A field of an operator that has a text form without spaces, or with balanced brackets around them.
pub trait AttrValue: Sized {
    /// The text of the value.
    fn write(&self) -> String;
    /// The value of a text.
    fn read(text: &str) -> Result<Self, String>;
}

/// An operator's attributes as text, derived by [`operator_attrs!`](crate::operator_attrs).
pub trait Attributes: Sized {
    /// `(field, text)` in declaration order.
    fn attributes(&self) -> Vec<(&'static str, String)>;
    /// The struct from `(field, text)` pairs; every field must be given, no other may be.
    fn from_attributes(fields: &[(&str, &str)]) -> Result<Self, String>;
}

/// Declares an operator's struct with documented public fields and derives [`Attributes`].
#[macro_export]
macro_rules! operator_attrs {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl $crate::attr::Attributes for $name {
            fn attributes(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($field), $crate::attr::AttrValue::write(&self.$field)),)*]
            }
            fn from_attributes(fields: &[(&str, &str)]) -> Result<Self, String> {
                const KNOWN: &[&str] = &[$(stringify!($field)),*];
                if let Some((f, _)) = fields.iter().find(|(f, _)| !KNOWN.contains(f)) {
                    return Err(format!("{} has no attribute `{f}`", stringify!($name)));
                }
                Ok($name { $($field: $crate::attr::read_field(fields, stringify!($field))?,)* })
            }
        }
    };
}

/// Declares an enum without fields that has a text form.
#[macro_export]
macro_rules! attr_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $crate::attr::AttrValue for $name {
            fn write(&self) -> String {
                match self { $($name::$variant => $text.to_string(),)* }
            }
            fn read(text: &str) -> Result<Self, String> {
                match text { $($text => Ok($name::$variant),)* _ => Err(format!("unknown {} `{text}`", stringify!($name))) }
            }
        }
    };
}

/// The value of one field, for [`operator_attrs!`](crate::operator_attrs).
pub fn read_field<T: AttrValue>(fields: &[(&str, &str)], name: &str) -> Result<T, String> {
    let (_, text) = fields.iter().find(|(f, _)| *f == name).ok_or_else(|| format!("attribute `{name}` is missing"))?;
    T::read(text).map_err(|e| format!("attribute `{name}`: {e}"))
}

macro_rules! by_display {
    ($($t:ty),*) => {$(
        impl AttrValue for $t {
            fn write(&self) -> String { self.to_string() }
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|e| format!("`{text}`: {e}"))
            }
        }
    )*};
}
by_display!(
    usize,
    i64,
    bool,
    DType,
    crate::pointwise::UnaryFn,
    crate::pointwise::BinaryFn,
    crate::pointwise::CompareFn
);

impl AttrValue for f64 {
    fn write(&self) -> String {
        format!("{self:?}") // shortest text that reads back to the same number; inf and NaN too
    }
    fn read(text: &str) -> Result<f64, String> {
        text.parse().map_err(|e| format!("`{text}`: {e}"))
    }
}

impl AttrValue for String {
    fn write(&self) -> String {
        crate::print::quoted(self)
    }
    fn read(text: &str) -> Result<String, String> {
        crate::parse::unquoted(text)
    }
}

impl AttrValue for Dim {
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Result<Dim, String> {
        crate::parse::dim(text)
    }
}

impl<T: AttrValue> AttrValue for Vec<T> {
    fn write(&self) -> String {
        format!("[{}]", self.iter().map(T::write).collect::<Vec<_>>().join(","))
    }
    fn read(text: &str) -> Result<Vec<T>, String> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("`{text}` is not a list"))?;
        split_top(inner, ',').into_iter().map(|t| T::read(t.trim())).collect()
    }
}

impl<T: AttrValue> AttrValue for Option<T> {
    fn write(&self) -> String {
        self.as_ref().map_or("none".to_string(), T::write)
    }
    fn read(text: &str) -> Result<Option<T>, String> {
        if text == "none" { Ok(None) } else { T::read(text).map(Some) }
    }
}

impl AttrValue for Pointwise {
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Result<Pointwise, String> {
        crate::parse::pointwise(text)
    }
}

/// Splits at `sep` outside of brackets and of quotes; an empty text has no parts.
pub fn split_top(text: &str, sep: char) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut parts) = (0i32, false, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth -= 1,
            _ if c == sep && depth == 0 => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() || !parts.is_empty() {
        parts.push(&text[start..]);
    }
    parts
}
