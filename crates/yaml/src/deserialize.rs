//! Nodes to types: every request of a type meets the node that stands there.

use std::ptr;

use serde::de::{Deserializer, Visitor};

use crate::{
    Key, Node, Problem, Value,
    access::{Entries, Items, Variant},
    fault::{Cause, Fault, Place},
    hole::Hole,
    recovery::Session,
    scalar::{self, Refused},
    suggest::one_of,
    unknown_name_help,
};

/// Reads one node.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    node: &'a Node,
    session: &'a Session,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a Node, session: &'a Session) -> Self {
        Self { node, session }
    }

    pub(crate) fn child(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    /// Runs `read`, and says of its failure that it happened here, unless it happened further down.
    pub(crate) fn here<T>(self, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        read().map_err(|mut fault| {
            if matches!(fault.place, Place::Unknown) {
                // Checks that look at a value as a whole say nothing true about one that has stand-ins.
                let misled = fault.cause == Cause::Custom && self.session.has_holes(self.node);
                fault.place = if misled { Place::Hole } else { Place::Node(ptr::from_ref(self.node), self.node.span) };
            }
            fault
        })
    }

    fn expected(self, what: &str, help: Option<String>) -> Fault {
        Fault::wrong_type(format!("expected {what}, found {}", self.node.describe()), help)
    }

    /// Reads a plain scalar with one of the functions of [`scalar`].
    fn plain<T>(self, what: &str, read: fn(&str) -> Result<T, Refused>) -> Result<T, Fault> {
        let Value::Scalar { text, quoted } = &self.node.value else { return Err(self.expected(what, None)) };
        match read(text) {
            Ok(_) if *quoted => Err(self.expected(what, Some("remove the quotes".to_owned()))),
            Ok(value) => Ok(value),
            Err(Refused(help)) => Err(self.expected(what, help)),
        }
    }

    fn integer<T: TryFrom<i128>>(self, what: &str) -> Result<T, Fault> {
        let value = self.plain(what, scalar::integer)?;
        T::try_from(value).map_err(|_| self.expected(what, None))
    }

    fn single(self) -> Result<f64, Fault> {
        let value = self.plain("a number", scalar::float)?;
        match value.abs() <= f64::from(f32::MAX) {
            true => Ok(value),
            false => Err(self.expected("a number of single precision", None)),
        }
    }

    fn text(self, what: &str) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Ok(text),
            Value::Scalar { text, .. } if !text.is_empty() => {
                Err(self.expected(what, Some(format!("quote it if the text \"{text}\" is meant"))))
            }
            Value::Scalar { .. } => Err(self.expected(what, Some("write \"\" if no text is meant".to_owned()))),
            Value::Sequence(_) | Value::Mapping(_) => Err(self.expected(what, None)),
        }
    }

    fn items(self) -> Result<&'a [Node], Fault> {
        match &self.node.value {
            Value::Sequence(items) => Ok(items),
            Value::Scalar { text, .. } if !self.node.is_null() => {
                let written = if text.len() < 60 && !text.contains('\n') { text.as_str() } else { "…" };
                Err(self.expected("a list", Some(format!("write [{written}] for a list of one"))))
            }
            _ => Err(self.expected("a list", None)),
        }
    }

    fn entries(self) -> Result<&'a [(Key, Node)], Fault> {
        self.node.entries().ok_or_else(|| self.expected("a mapping", None))
    }
}

/// Answers with the stand-in if the node was reported already.
macro_rules! unless_hole {
    ($reader:ident.$method:ident($($argument:expr),*)) => {
        if $reader.session.is_hole($reader.node) {
            return Hole.$method($($argument),*);
        }
    };
}

/// Requests for scalars: what is visited with what is read.
macro_rules! scalars {
    ($($method:ident $visit:ident |$reader:ident| $read:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            unless_hole!(self.$method(visitor));
            let $reader = self;
            $reader.here(|| visitor.$visit($read?))
        })*
    };
}

/// Requests that are the same as another one.
macro_rules! same_as {
    ($($method:ident($($argument:ident: $type:ty),*) = $other:ident($($passed:ident),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Fault> {
            self.$other($($passed,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    scalars! {
        deserialize_bool visit_bool |node| node.plain("true or false", scalar::boolean);
        deserialize_u8 visit_u8 |node| node.integer("a whole number from 0 to 255");
        deserialize_u16 visit_u16 |node| node.integer("a whole number from 0 to 65535");
        deserialize_u32 visit_u32 |node| node.integer("a whole number from 0 to 4294967295");
        deserialize_u64 visit_u64 |node| node.integer("a whole number from 0");
        deserialize_i8 visit_i8 |node| node.integer("a whole number from -128 to 127");
        deserialize_i16 visit_i16 |node| node.integer("a whole number from -32768 to 32767");
        deserialize_i32 visit_i32 |node| node.integer("a whole number from -2147483648 to 2147483647");
        deserialize_i64 visit_i64 |node| node.integer("a whole number");
        deserialize_f32 visit_f64 |node| node.single();
        deserialize_f64 visit_f64 |node| node.plain("a number", scalar::float);
        deserialize_str visit_str |node| node.text("text");
    }

    same_as! {
        deserialize_char() = deserialize_str();
        deserialize_string() = deserialize_str();
        deserialize_bytes() = deserialize_str();
        deserialize_byte_buf() = deserialize_str();
        deserialize_identifier() = deserialize_str();
        deserialize_unit_struct(_name: &'static str) = deserialize_unit();
        deserialize_tuple_struct(_name: &'static str, length: usize) = deserialize_tuple(length);
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_any(visitor));
        match &self.node.value {
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Scalar { text, quoted: true } => self.here(|| visitor.visit_str(text)),
            Value::Scalar { text, quoted: false } => self.here(|| match scalar::resolve(text) {
                scalar::Plain::Null => visitor.visit_unit(),
                scalar::Plain::Bool(value) => visitor.visit_bool(value),
                scalar::Plain::Unsigned(value) => visitor.visit_u64(value),
                scalar::Plain::Signed(value) => visitor.visit_i64(value),
                scalar::Plain::Float(value) => visitor.visit_f64(value),
                scalar::Plain::Text => visitor.visit_str(text),
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) || self.node.is_null() {
            return visitor.visit_none();
        }
        self.here(|| visitor.visit_some(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_unit(visitor));
        self.here(|| match self.node.is_null() {
            true => visitor.visit_unit(),
            false => Err(self.expected("nothing", None)),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.here(|| visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_seq(visitor));
        self.here(|| visitor.visit_seq(Items { reader: self, rest: self.items()?.iter() }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_tuple(length, visitor));
        self.here(|| {
            let items = self.items()?;
            if items.len() != length {
                let message = format!("expected a list of {length}, found {}", items.len());
                return Err(Fault::wrong_type(message, None));
            }
            visitor.visit_seq(Items { reader: self, rest: items.iter() })
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_map(visitor));
        self.here(|| visitor.visit_map(Entries::new(self, self.entries()?.iter().collect(), Vec::new())))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_struct(name, fields, visitor));
        self.here(|| {
            let entries = self.node.entries().ok_or_else(|| {
                let help = (!fields.is_empty()).then(|| format!("its fields: {}", fields.join(", ")));
                self.expected("a mapping", help)
            })?;
            let (known, unknown): (Vec<_>, Vec<_>) =
                entries.iter().partition(|(key, _)| fields.contains(&key.name.as_str()));
            for (key, _) in unknown {
                self.session.report(Problem {
                    span: Some(key.span),
                    message: format!("unknown field `{}`", key.name),
                    help: unknown_name_help(&key.name, fields.iter().copied()),
                });
            }
            let missing = fields.iter().copied().filter(|field| self.session.is_missing(self.node, field)).collect();
            visitor.visit_map(Entries::new(self, known, missing))
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        unless_hole!(self.deserialize_enum(name, variants, visitor));
        self.here(|| match &self.node.value {
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => visitor.visit_enum(Variant { name: &key.name, content: Some(self.child(value)) }),
                _ => Err(self.expected(&one_of(variants), None)),
            },
            _ => visitor.visit_enum(Variant { name: self.text(&one_of(variants))?, content: None }),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}
