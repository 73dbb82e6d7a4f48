//! Plain scalars: what their text means when a type asks for it.
//!
//! # Source
//! YAML 1.2.2, section 10.3.2 (core schema), less the spellings that other versions of YAML read differently:
//! `010`, `1_000` and `.inf` are refused where a number is wanted, `yes` where a boolean is.

/// What YAML 1.2 makes of a plain scalar that nobody asked a type of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

/// Why a text is not the wanted scalar: what would be right, if that can be said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Option<String>);

pub(crate) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

pub(crate) fn resolve(text: &str) -> Plain {
    if is_null(text) {
        return Plain::Null;
    }
    if let Ok(value) = boolean(text) {
        return Plain::Bool(value);
    }
    if let Ok(value) = integer(text) {
        if let Ok(value) = u64::try_from(value) {
            return Plain::Unsigned(value);
        }
        if let Ok(value) = i64::try_from(value) {
            return Plain::Signed(value);
        }
    }
    float(text).map_or(Plain::Text, Plain::Float)
}

pub(crate) fn boolean(text: &str) -> Result<bool, Refused> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Refused(match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => Some("write true".to_owned()),
            "no" | "off" | "n" | "false" | "0" => Some("write false".to_owned()),
            _ => None,
        })),
    }
}

/// `10`, `-3`, `+3`, `0x1F`, `0o17`.
pub(crate) fn integer(text: &str) -> Result<i128, Refused> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return i128::from_str_radix(digits, radix).map_err(|_| Refused(None));
        }
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refused(integer_help(text)));
    }
    if has_leading_zero(digits) {
        return Err(Refused(Some(leading_zero_help(digits))));
    }
    text.parse().map_err(|_| Refused(None))
}

/// `1`, `0.5`, `.5`, `1.`, `1e-4`, each with a sign before it or not. Always finite.
pub(crate) fn float(text: &str) -> Result<f64, Refused> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !is_decimal(unsigned) {
        let plain = without_underscores(text).filter(|plain| float(plain).is_ok());
        return Err(Refused(plain.map(|plain| format!("write {plain}"))));
    }
    if has_leading_zero(unsigned) {
        return Err(Refused(Some(leading_zero_help(unsigned))));
    }
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(Refused(None))
}

fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !(whole.is_empty() && fraction.is_empty())
        && digits(whole)
        && digits(fraction)
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// Octal in YAML 1.1, decimal in YAML 1.2.
fn has_leading_zero(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    bytes.first() == Some(&b'0') && bytes.get(1).is_some_and(u8::is_ascii_digit)
}

fn leading_zero_help(digits: &str) -> String {
    let decimal = match digits.trim_start_matches('0') {
        rest if rest.starts_with(|first: char| first.is_ascii_digit()) => rest.to_owned(),
        rest => format!("0{rest}"),
    };
    if digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) && decimal != "0" {
        format!("a leading zero is ambiguous: write {decimal}, or 0o{decimal} if it is octal")
    } else {
        format!("a leading zero is ambiguous: write {decimal}")
    }
}

fn integer_help(text: &str) -> Option<String> {
    if let Some(plain) = without_underscores(text)
        && integer(&plain).is_ok()
    {
        return Some(format!("write {plain}"));
    }
    let value = float(text).ok()?;
    // Beyond 2^53 the digits would not be the ones that were written.
    (value.fract() == 0.0 && value.abs() < 9e15).then(|| format!("write {value}"))
}

fn without_underscores(text: &str) -> Option<String> {
    text.contains(['_', ',']).then(|| text.replace(['_', ','], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help<T: std::fmt::Debug>(result: Result<T, Refused>) -> Option<String> {
        result.err().and_then(|refused| refused.0)
    }

    #[test]
    fn booleans_are_true_and_false_only() {
        assert_eq!((boolean("true"), boolean("false")), (Ok(true), Ok(false)));
        for (text, expected) in
            [("yes", "write true"), ("On", "write true"), ("no", "write false"), ("0", "write false")]
        {
            assert_eq!(help(boolean(text)).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(boolean("maybe"), Err(Refused(None)));
    }

    #[test]
    fn integers() {
        for (text, value) in [("0", 0), ("10", 10), ("-3", -3), ("+3", 3), ("0x1F", 31), ("0o17", 15)] {
            assert_eq!(integer(text), Ok(value), "{text}");
        }
        for (text, expected) in [
            ("010", "a leading zero is ambiguous: write 10, or 0o10 if it is octal"),
            ("089", "a leading zero is ambiguous: write 89"),
            ("00", "a leading zero is ambiguous: write 0"),
            ("1_000", "write 1000"),
            ("1,000", "write 1000"),
            ("1e3", "write 1000"),
            ("8.0", "write 8"),
        ] {
            assert_eq!(help(integer(text)).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "-", "1.5", "0x", "0xG", "0x-1", "0b1", "ten", "٣", "1e300", &"9".repeat(60)] {
            assert_eq!(integer(text), Err(Refused(None)), "{text}");
        }
    }

    #[test]
    fn floats() {
        for (text, value) in
            [("1e-4", 1e-4), ("1", 1.0), (".5", 0.5), ("1.", 1.0), ("-2.5E+3", -2500.0), ("0.1", 0.1), ("0", 0.0)]
        {
            assert_eq!(float(text), Ok(value), "{text}");
        }
        for text in ["", ".", "e5", "1e", "1e+", "inf", ".inf", ".nan", "NaN", "1e999", "0x10", "1.2.3", "--1"] {
            assert_eq!(float(text), Err(Refused(None)), "{text}");
        }
        assert_eq!(help(float("00.5")).as_deref(), Some("a leading zero is ambiguous: write 0.5"));
        assert_eq!(help(float("1_000.5")).as_deref(), Some("write 1000.5"));
    }

    #[test]
    fn what_plain_scalars_are_by_themselves() {
        assert_eq!(resolve("~"), Plain::Null);
        assert_eq!(resolve("true"), Plain::Bool(true));
        assert_eq!(resolve("18446744073709551615"), Plain::Unsigned(u64::MAX));
        assert_eq!(resolve("-7"), Plain::Signed(-7));
        assert_eq!(resolve("1e-4"), Plain::Float(1e-4));
        for text in ["no", "010", "1_000", "12:30", ".inf"] {
            assert_eq!(resolve(text), Plain::Text, "{text}");
        }
    }
}
