//! Amounts of memory as users write them.

/// How memory is written, as a regular expression: for the schemas of fields that take it.
pub const MEMORY_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)$|^[1-9][0-9]*$";

/// Text that is no quantity: what is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub String, pub &'static str);

/// A number of bytes, or a number with a unit: `8GB`, `512MiB`.
///
/// # Errors
/// If it is neither, or nothing, or more than any machine has.
pub fn parse_bytes(text: &str) -> Result<u64, Refused> {
    const HELP: &str = "such as 8GB, 512MiB, or a number of bytes";
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let wrong = || Refused(format!("expected an amount of memory, found `{text}`"), HELP);
    if whole.is_empty() || number.ends_with('.') || fraction.contains('.') || fraction.len() > 9 {
        return Err(wrong());
    }
    let scale: u128 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u128.pow(2),
        "GB" => 1000_u128.pow(3),
        "TB" => 1000_u128.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "k" | "K" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti" => {
            let message = format!("`{text}` does not say which unit is meant");
            return Err(Refused(message, "write B behind it: 8GB is 8 * 1000^3 bytes, 8GiB is 8 * 1024^3"));
        }
        _ => return Err(wrong()),
    };
    let number = whole.parse::<u64>().ok().zip(format!("0{fraction}").parse::<u64>().ok());
    let (whole, parts) = number.ok_or_else(wrong)?;
    let bytes = u128::from(whole) * scale + u128::from(parts) * scale / 10_u128.pow(fraction.len() as u32);
    match u64::try_from(bytes) {
        Ok(0) => Err(Refused("must be more than nothing".to_owned(), HELP)),
        Ok(bytes) if bytes <= 1 << 60 => Ok(bytes),
        _ => Err(Refused(format!("`{text}` is more than any machine has"), HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_bytes_and_in_units() {
        for (text, bytes) in [
            ("1", 1),
            ("4096 B", 4096),
            ("8GB", 8_000_000_000),
            ("8 GB", 8_000_000_000),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("0.5kB", 500),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "1..5GB", "1.GB", ".5GB", "-1GB", "1e9", "8gb", "8 G B", "lots", "8GBs"] {
            let Err(Refused(message, _)) = parse_bytes(text) else { panic!("`{text}` passed") };
            assert_eq!(message, format!("expected an amount of memory, found `{text}`"));
        }
        assert!(parse_bytes("8G").is_err_and(|Refused(_, help)| help.contains("8GiB")));
        assert!(parse_bytes("0MB").is_err_and(|Refused(message, _)| message == "must be more than nothing"));
        assert!(parse_bytes("99999999TiB").is_err_and(|Refused(message, _)| message.contains("any machine")));
    }
}
