//! A stand-in for a value that was reported already: whatever type asks, it gets the simplest value there is.
//! Nothing made of it is ever given out.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, SeqAccess, VariantAccess, Visitor,
    value::{MapDeserializer, StrDeserializer},
};

use crate::fault::{Fault, Place};

/// The stand-in.
#[derive(Clone, Copy)]
pub(crate) struct Hole;

/// A type that takes no stand-in ends the recovery, so its failure must be known as such.
fn inside<T>(result: Result<T, Fault>) -> Result<T, Fault> {
    result.map_err(|fault| Fault { place: Place::Hole, ..fault })
}

/// Requests that are answered with one value, whatever the type. A number is one: unlike zero, it is in nearly every
/// range.
macro_rules! answers {
    ($($method:ident($($argument:ident: $type:ty),*) $visit:ident($($value:expr)?);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Fault> {
            inside(visitor.$visit($($value)?))
        })*
    };
}

impl<'de> Deserializer<'de> for Hole {
    type Error = Fault;

    answers! {
        deserialize_any() visit_unit();
        deserialize_ignored_any() visit_unit();
        deserialize_unit() visit_unit();
        deserialize_unit_struct(_name: &'static str) visit_unit();
        deserialize_option() visit_none();
        deserialize_bool() visit_bool(false);
        deserialize_u8() visit_u8(1);
        deserialize_u16() visit_u16(1);
        deserialize_u32() visit_u32(1);
        deserialize_u64() visit_u64(1);
        deserialize_i8() visit_i8(1);
        deserialize_i16() visit_i16(1);
        deserialize_i32() visit_i32(1);
        deserialize_i64() visit_i64(1);
        deserialize_f32() visit_f32(1.0);
        deserialize_f64() visit_f64(1.0);
        deserialize_char() visit_char(' ');
        deserialize_str() visit_str("");
        deserialize_string() visit_str("");
        deserialize_identifier() visit_str("");
        deserialize_bytes() visit_bytes(b"");
        deserialize_byte_buf() visit_bytes(b"");
        deserialize_newtype_struct(_name: &'static str) visit_newtype_struct(Self);
        deserialize_seq() visit_seq(Holes(0));
        deserialize_tuple(length: usize) visit_seq(Holes(length));
        deserialize_tuple_struct(_name: &'static str, length: usize) visit_seq(Holes(length));
        deserialize_map() visit_map(MapDeserializer::new(std::iter::empty::<(&str, &str)>()));
        // In a row: by name, a field would come once more for each of its aliases.
        deserialize_struct(_name: &'static str, fields: &'static [&'static str]) visit_seq(Holes(fields.len()));
        deserialize_enum(_name: &'static str, variants: &'static [&'static str]) visit_enum(HoleVariant(variants));
    }
}

/// As many holes in a row.
struct Holes(usize);

impl<'de> SeqAccess<'de> for Holes {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        match self.0.checked_sub(1) {
            Some(rest) => {
                self.0 = rest;
                seed.deserialize(Hole).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// The first variant of an enum.
struct HoleVariant(&'static [&'static str]);

impl<'de> EnumAccess<'de> for HoleVariant {
    type Error = Fault;
    type Variant = Hole;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Hole), Fault> {
        let first = self.0.first().ok_or_else(|| Fault::custom("an enum without variants has no value"))?;
        Ok((seed.deserialize(StrDeserializer::<Fault>::new(first))?, Hole))
    }
}

impl<'de> VariantAccess<'de> for Hole {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", fields, visitor)
    }
}
