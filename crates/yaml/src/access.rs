//! What a visitor is given of lists, mappings and variants: one part after the other.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor, value::StrDeserializer,
};

use crate::{Key, Node, deserialize::Reader, fault::Fault, hole::Hole};

/// The items of a list.
pub(crate) struct Items<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) rest: std::slice::Iter<'a, Node>,
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
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    /// Entries to come.
    rest: std::vec::IntoIter<&'a (Key, Node)>,
    /// Fields to come after them.
    missing: std::vec::IntoIter<&'static str>,
    value: Option<&'a Node>,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(reader: Reader<'a>, entries: Vec<&'a (Key, Node)>, missing: Vec<&'static str>) -> Self {
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

/// A value of an enum.
pub(crate) struct Variant<'a> {
    pub(crate) name: &'a str,
    /// What it holds; nothing if only its name was given.
    pub(crate) content: Option<Reader<'a>>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Fault;
    type Variant = VariantContent<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, VariantContent<'a>), Fault> {
        let name = seed.deserialize(StrDeserializer::<Fault>::new(self.name))?;
        Ok((name, VariantContent { name: self.name, content: self.content }))
    }
}

/// What a variant holds.
pub(crate) struct VariantContent<'a> {
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
