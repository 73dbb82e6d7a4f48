//! Numbers as a person reads them: bytes, durations, counts, rates.

use std::time::Duration;

/// A size in binary units with three significant digits: `1.50 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would round to four digits: it already reads as one of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// A duration, never longer than it must be: `4 ms`, `1.25 s`, `3m 07s`, `2h 05m`, `3d 04h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.001 {
        return format!("{} µs", duration.as_micros());
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{} s", three_digits(seconds));
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A count with its thousands set apart: `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How much of `unit` that is: `1.50 GiB` for bytes, else `1,200 rows`.
pub fn amount(value: u64, unit: &str) -> String {
    if unit == "bytes" { bytes(value) } else { format!("{} {unit}", count(value)) }
}

/// A speed, beside an amount of the same unit: `12.3 MiB/s`, `1,200/s`, `2.50 s/step` where one takes longer than a
/// second.
pub(super) fn rate(per_second: f64, unit: &str) -> String {
    if unit == "bytes" {
        format!("{}/s", bytes(per_second as u64))
    } else if per_second < 1.0 {
        let one = unit.strip_suffix('s').unwrap_or(unit);
        format!("{}/{one}", duration(Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX)))
    } else if per_second < 999.5 {
        format!("{}/s", three_digits(per_second))
    } else {
        format!("{}/s", count(per_second.round() as u64))
    }
}

/// A moment in the time zone of this machine: `2026-01-31 17:45:02`.
pub fn moment(moment: jiff::Timestamp) -> String {
    in_zone(moment, jiff::tz::TimeZone::system())
}

/// The same without the year and the seconds: `01-31 17:45`.
pub fn short_moment(moment: jiff::Timestamp) -> String {
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%m-%d %H:%M").to_string()
}

fn in_zone(moment: jiff::Timestamp, zone: jiff::tz::TimeZone) -> String {
    moment.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A measurement with four significant digits; very large and very small ones in scientific notation.
pub fn measurement(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-3..1e6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    if value.fract() == 0.0 {
        return format!("{value}");
    }
    let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
    format!("{value:.decimals$}")
}

/// A measurement under its name: a size where the name speaks of bytes, a share where it speaks of percent.
pub fn named(name: &str, value: f64) -> String {
    let speaks_of = |unit| name.split('_').any(|word| word == unit);
    if speaks_of("bytes") && value.is_finite() {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", bytes(value.abs() as u64))
    } else if speaks_of("percent") {
        format!("{} %", measurement(value))
    } else {
        measurement(value)
    }
}

/// "1 stage", "2 stages".
pub fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// How many columns of a terminal a text takes: a Chinese character takes two.
pub fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// A text with blanks behind it, so that it takes `columns` of a terminal.
pub fn padded(text: &str, columns: usize) -> String {
    format!("{text}{:1$}", "", columns.saturating_sub(width(text)))
}

/// A line of foreign text without escape sequences and control characters, so that it cannot steer the terminal. Where
/// it is broken, a blank stands.
pub fn printable(line: &str) -> String {
    let stripped = anstream::adapter::strip_str(line).to_string();
    stripped.chars().map(|c| if matches!(c, '\t' | '\n') { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// The same for a text of several lines, of which all but the first are indented.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n    ")
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_steers_no_terminal_and_its_words_stay_apart() {
        assert_eq!(printable("\u{1b}[2Jone\ttwo\nthree\u{7}\r"), "one two three");
    }

    #[test]
    fn names_say_what_is_measured() {
        assert_eq!(named("resident_peak_bytes", 3.133e9), "2.92 GiB");
        assert_eq!(named("resident_peak_bytes", -8.315e7), "-79.3 MiB");
        assert_eq!(named("nvml_utilisation_percent", 97.0), "97 %");
        assert_eq!(named("bytes_per_token", f64::NAN), "NaN");
        assert_eq!(named("loss", 1.25), "1.250");
    }

    #[test]
    fn bytes_keep_three_digits_across_units() {
        let expected = [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (1_048_575, "1.00 MiB")];
        for (count, text) in expected {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(16 << 30), "16.0 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn durations_change_unit_where_the_text_would_grow() {
        let expected = [
            (0.000_004, "4 µs"),
            (0.004_2, "4 ms"),
            (0.999_6, "1.00 s"),
            (12.34, "12.3 s"),
            (59.96, "1m 00s"),
            (187.0, "3m 07s"),
            (3599.6, "1h 00m"),
            (7500.0, "2h 05m"),
            (273_600.0, "3d 04h"),
        ];
        for (seconds, text) in expected {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn moments_are_told_in_a_time_zone() {
        let shanghai = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
        assert_eq!(in_zone(jiff::Timestamp::UNIX_EPOCH, shanghai), "1970-01-01 08:00:00");
    }

    #[test]
    fn counts_and_rates_carry_their_unit() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(amount(1200, "rows"), "1,200 rows");
        assert_eq!(amount(1536, "bytes"), "1.50 KiB");
        assert_eq!(rate(1234.4, "rows"), "1,234/s");
        assert_eq!(rate(2.5, "steps"), "2.50/s");
        assert_eq!(rate(0.4, "steps"), "2.50 s/step");
        assert_eq!(rate(2048.0, "bytes"), "2.00 KiB/s");
    }

    #[test]
    fn columns_are_those_of_a_terminal() {
        assert_eq!([width("数据"), width("data"), width("e\u{301}")], [4, 4, 1]);
        assert_eq!([padded("数据", 6), padded("data", 6), padded("data", 2)], ["数据  ", "data  ", "data"]);
    }

    #[test]
    fn measurements_keep_four_digits() {
        let expected = [
            (1.234_567, "1.235"),
            (0.012_345, "0.01235"),
            (1e-4, "1.000e-4"),
            (123.456, "123.5"),
            (98_304.0, "98304"),
            (0.0, "0"),
        ];
        for (value, text) in expected {
            assert_eq!(measurement(value), text);
        }
        assert_eq!(measurement(f64::NAN), "NaN");
    }
}
