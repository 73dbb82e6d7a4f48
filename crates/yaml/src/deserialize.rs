//! Nodes to types. serde stops at the first failure, so a failed value is replaced by a stand-in (a hole) and the
//! whole is tried again, until an attempt comes through: then every problem is known.

use std::{cell::RefCell, collections::HashSet, ptr};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::StrDeserializer,
};

use crate::{
    Key, Node, Problem, Value,
    fault::{Cause, Fault, Place},
    hole::Hole,
    scalar::{self, Refused},
    suggest::one_of,
    unknown_name_help,
};

/// Nobody reads more than this at once, and every one costs an attempt.
const MAX_PROBLEMS: usize = 100;

pub(crate) fn with_recovery<T: DeserializeOwned>(root: &Node) -> Result<T, Vec<Problem>> {
    let session = Session::default();
    for _ in 0..MAX_PROBLEMS {
        match T::deserialize(Reader { node: root, session: &session }) {
            Ok(value) => {
                let problems = session.problems.into_inner();
                return if problems.is_empty() { Ok(value) } else { Err(problems) };
            }
            Err(fault) => {
                if !session.recover(fault) {
                    break;
                }
            }
        }
    }
    Err(session.problems.into_inner())
}

/// What is known of a document after some attempts.
#[derive(Default)]
struct Session {
    problems: RefCell<Vec<Problem>>,
    /// Nodes that a hole stands in for, by address: the tree does not move during a session.
    holes: RefCell<HashSet<*const Node>>,
    /// Fields of mappings that a hole is added for.
    missing: RefCell<HashSet<(*const Node, &'static str)>>,
}

impl Session {
    /// Notes what went wrong, so that the next attempt passes it. Says whether there is any use in one.
    fn recover(&self, fault: Fault) -> bool {
        let (node, span) = match fault.place {
            Place::Node(node, span) => (node, Some(span)),
            // A type that takes no stand-in. Something was reported before, or there was no hole.
            Place::Hole => return false,
            Place::Unknown => (ptr::null(), None),
        };
        self.report(Problem { span, message: fault.message, help: fault.help });
        match fault.cause {
            _ if span.is_none() => false,
            Cause::Missing(field) => self.missing.borrow_mut().insert((node, field)),
            Cause::Type | Cause::Custom => self.holes.borrow_mut().insert(node),
        }
    }

    /// Attempts repeat what they have in common.
    fn report(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn is_hole(&self, node: &Node) -> bool {
        self.holes.borrow().contains(&ptr::from_ref(node))
    }

    fn is_missing(&self, node: &Node, field: &'static str) -> bool {
        self.missing.borrow().contains(&(ptr::from_ref(node), field))
    }

    /// Whether anything at or below `node` is a stand-in.
    fn has_holes(&self, node: &Node) -> bool {
        let here = self.is_hole(node) || self.missing.borrow().iter().any(|(owner, _)| ptr::eq(*owner, node));
        here || match &node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.iter().any(|item| self.has_holes(item)),
            Value::Mapping(entries) => entries.iter().any(|(_, value)| self.has_holes(value)),
        }
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    session: &'a Session,
}

impl<'a> Reader<'a> {
    fn child(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    /// Runs `read`, and says of its failure that it happened here, unless it happened further down.
    fn here<T>(self, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
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

/// Forwards a request for an integer type.
macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            if self.session.is_hole(self.node) {
                return Hole.$method(visitor);
            }
            self.here(|| visitor.$visit(self.integer::<$type>($what)?))
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    integers! {
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "a whole number from 0";
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "a whole number from -2147483648 to 2147483647";
        deserialize_i64 visit_i64 i64, "a whole number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_any(visitor);
        }
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

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_bool(visitor);
        }
        self.here(|| visitor.visit_bool(self.plain("true or false", scalar::boolean)?))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_f32(visitor);
        }
        self.here(|| {
            let value = self.plain("a number", scalar::float)?;
            match value.abs() <= f64::from(f32::MAX) {
                true => visitor.visit_f64(value),
                false => Err(self.expected("a number of single precision", None)),
            }
        })
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_f64(visitor);
        }
        self.here(|| visitor.visit_f64(self.plain("a number", scalar::float)?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_str(visitor);
        }
        self.here(|| visitor.visit_str(self.text("text")?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) || self.node.is_null() {
            return visitor.visit_none();
        }
        self.here(|| visitor.visit_some(self))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.here(|| match self.node.is_null() || self.session.is_hole(self.node) {
            true => visitor.visit_unit(),
            false => Err(self.expected("nothing", None)),
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.here(|| visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_seq(visitor);
        }
        self.here(|| visitor.visit_seq(Items { reader: self, rest: self.items()?.iter() }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_tuple(length, visitor);
        }
        self.here(|| {
            let items = self.items()?;
            if items.len() != length {
                let message = format!("expected a list of {length}, found {}", items.len());
                return Err(Fault::wrong_type(message, None));
            }
            visitor.visit_seq(Items { reader: self, rest: items.iter() })
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_map(visitor);
        }
        self.here(|| visitor.visit_map(Entries::new(self, self.entries()?.iter().collect(), Vec::new())))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if self.session.is_hole(self.node) {
            return Hole.deserialize_struct(name, fields, visitor);
        }
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
        if self.session.is_hole(self.node) {
            return Hole.deserialize_enum(name, variants, visitor);
        }
        self.here(|| match &self.node.value {
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => visitor.visit_enum(Variant { name: &key.name, content: Some(self.child(value)) }),
                _ => Err(self.expected(&one_of(variants), None)),
            },
            _ => visitor.visit_enum(Variant { name: self.text(&one_of(variants))?, content: None }),
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    rest: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.rest.next() else { return Ok(None) };
        let item = self.reader.child(node);
        item.here(|| seed.deserialize(item)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The entries of a mapping, and holes for what it lacks.
struct Entries<'a> {
    reader: Reader<'a>,
    /// Entries to come.
    rest: std::vec::IntoIter<&'a (Key, Node)>,
    /// Fields to come after them.
    missing: std::vec::IntoIter<&'static str>,
    value: Option<&'a Node>,
}

impl<'a> Entries<'a> {
    fn new(reader: Reader<'a>, entries: Vec<&'a (Key, Node)>, missing: Vec<&'static str>) -> Self {
        Self { reader, rest: entries.into_iter(), missing: missing.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let name = match self.rest.next() {
            Some((key, value)) => {
                self.value = Some(value);
                key.name.as_str()
            }
            None => {
                self.value = None;
                match self.missing.next() {
                    Some(field) => field,
                    None => return Ok(None),
                }
            }
        };
        let key = StrDeserializer::<Fault>::new(name);
        match self.value {
            Some(value) => self.reader.child(value).here(|| seed.deserialize(key)).map(Some),
            None => seed.deserialize(key).map(Some),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        match self.value.take() {
            Some(node) => {
                let value = self.reader.child(node);
                value.here(|| seed.deserialize(value))
            }
            None => seed.deserialize(Hole),
        }
    }
}

struct Variant<'a> {
    name: &'a str,
    content: Option<Reader<'a>>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = VariantContent<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, VariantContent<'a>), Fault> {
        let name = seed.deserialize(StrDeserializer::<Fault>::new(self.name))?;
        Ok((name, VariantContent { name: self.name, content: self.content }))
    }
}

struct VariantContent<'a> {
    name: &'a str,
    content: Option<Reader<'a>>,
}

impl<'a> VariantContent<'a> {
    fn content(self) -> Result<Reader<'a>, Fault> {
        self.content.ok_or_else(|| Fault::wrong_type(format!("`{}` needs values: write `{0}: ...`", self.name), None))
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            Some(content) => content.deserialize_unit(serde::de::IgnoredAny).map(drop),
            None => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let content = self.content()?;
        content.here(|| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}
