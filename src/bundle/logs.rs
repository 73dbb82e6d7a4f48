//! The logs of stages, as far as they are for others.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::secrets::Secrets;

/// Of a longer log, only so much of its beginning and of its end is kept, in bytes.
const HALF_BYTES: u64 = 512 << 10;

/// The text of a log, without the values of variables, and without its middle if it is long.
pub(super) fn read(path: &Path, secrets: &Secrets) -> io::Result<String> {
    read_halves(path, secrets, HALF_BYTES)
}

fn read_halves(path: &Path, secrets: &Secrets, half: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    // What is read beyond the part that is kept shows values that only reach into it.
    let beyond = secrets.longest() as u64;
    let bytes = |from: u64, to: u64| {
        let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, from).map(|()| bytes)
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if length <= 2 * half {
        let bytes = bytes(0, length)?;
        return Ok(text(secrets.without(&bytes, 0, bytes.len())));
    }
    let head = bytes(0, half + beyond.min(half))?;
    let lead = beyond.min(length - half);
    let tail = bytes(length - half - lead, length)?;
    let (half_length, lead) = (head.len().min(half as usize), lead as usize);
    let head = text(secrets.without(&head, 0, half_length));
    let tail = text(secrets.without(&tail, lead, tail.len()));
    // Whole lines, where there are lines.
    let head = head.rfind('\n').map_or(head.as_str(), |end| &head[..=end]);
    let tail = tail.find('\n').map_or(tail.as_str(), |end| &tail[end + 1..]);
    Ok(format!("{head}... {} of {length} bytes left out ...\n{tail}", length - 2 * half))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::ffi::OsString;

    use pipe_stage::Digest;

    use super::*;

    #[test]
    fn a_long_log_keeps_its_beginning_and_its_end_and_no_part_of_a_value() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let given = [("a", "TOKEN", Some(Digest::of(b"SECRET")))].into_iter();
        let secrets = Secrets::look_up(given, |_| Some(OsString::from("SECRET")));
        // The value stands at every place once: whole, over both cuts, and in the middle.
        for before in 0..60 {
            let text = format!("first\n{}SECRET{}\nlast", "x".repeat(before), "y".repeat(60 - before));
            std::fs::write(&path, &text).unwrap();
            let whole = read_halves(&path, &secrets, 1000).unwrap();
            assert_eq!(whole, text.replace("SECRET", "[TOKEN]"));
            let cut = read_halves(&path, &secrets, 20).unwrap();
            assert!(cut.starts_with("first\n") && cut.ends_with("last") && cut.contains("... 37 of 77 bytes"), "{cut}");
            assert!(!["SECRET", "SECRE", "ECRET", "SE", "ET"].iter().any(|part| cut.contains(part)), "{before}: {cut}");
        }
    }
}
