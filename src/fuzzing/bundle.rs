//! Bundles, which may come from anyone.

use pipe_stage::Digest;

use super::stays_inside;
use crate::bundle::{BundleError, Contents, Entry, Limits, MANIFEST, Reader, Writer, tar_head};

/// A bundle four times over: the bytes as they are, as the archive in one, as a manifest and what follows it, and as
/// paths and contents, in turn, each ended by a NUL. What is read is what the manifest says, and is the only way to
/// write it.
pub fn bundle(bytes: &[u8]) {
    let limits = Limits { total_bytes: 1 << 20, manifest_bytes: 1 << 16, entries: 1000, ..Limits::default() };
    read_bundle(bytes, &limits);
    if let Ok(compressed) = zstd::encode_all(bytes, 1) {
        read_bundle(&compressed, &limits);
    }
    if let Ok(compressed) = zstd::encode_all(forged(bytes).as_slice(), 1) {
        read_bundle(&compressed, &limits);
    }
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut files = Vec::new();
    while let (Some(path), Some(body)) = (parts.next(), parts.next()) {
        files.push((String::from_utf8_lossy(path).into_owned(), body.to_vec()));
    }
    let entry = |(path, body): &(String, Vec<u8>)| Entry {
        path: path.clone(),
        digest: Digest::of(body),
        size: body.len() as u64,
        executable: body.first() == Some(&b'#'),
    };
    let Ok(contents) = Contents::new(files.iter().map(entry).collect(), &limits) else { return };
    files.sort();
    let written = write_bundle(&contents, &files);
    assert_eq!(read_bundle(&written, &limits), Some(files));
}

/// The archive that a liar would make of a manifest and contents, each ended by a NUL: every header is as the manifest
/// says, and so is every digest that it gives as `@`. A reader must judge it by what it says.
fn forged(bytes: &[u8]) -> Vec<u8> {
    let mut parts = bytes.split(|byte| *byte == 0);
    let (mut manifest, mut entries) = (Vec::new(), Vec::new());
    for (number, line) in parts.next().unwrap_or_default().split_inclusive(|byte| *byte == b'\n').enumerate() {
        let body = if number == 0 { b"" } else { parts.next().unwrap_or_default() };
        match line.strip_prefix(b"@") {
            Some(rest) => manifest.extend([Digest::of(body).to_string().as_bytes(), rest].concat()),
            None => manifest.extend(line),
        }
        let line = String::from_utf8_lossy(line);
        let mut fields = line.trim_end_matches('\n').splitn(4, ' ').skip(1);
        if let (Some(mode), Some(size), Some(path)) = (fields.next(), fields.next(), fields.next()) {
            entries.extend(tar_head::of(path, size.parse().unwrap_or_default(), mode == "x"));
            entries.extend(padded(body));
        }
    }
    let head = tar_head::of(MANIFEST, manifest.len() as u64, false);
    [head, padded(&manifest), entries, tar_head::END.to_vec()].concat()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len() + tar_head::padding(bytes.len() as u64), 0);
    padded
}

/// The files of a bundle, if it is sound.
fn read_bundle(bytes: &[u8], limits: &Limits) -> Option<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let reader = Reader::new(bytes, limits).map_err(|error| check_refusal(&error)).ok()?;
    let name = reader.name();
    let read = reader.read(|entry, body| {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, entry.size);
        files.push((entry.path.clone(), bytes));
        Ok(())
    });
    let contents = read.map_err(|error| check_refusal(&error)).ok()?;
    assert_eq!(Digest::of(contents.to_text().as_bytes()), name);
    for (entry, (path, bytes)) in contents.entries().iter().zip(&files) {
        assert_eq!((&entry.path, entry.digest), (path, Digest::of(bytes)));
        assert!(stays_inside(path), "{path:?}");
    }
    let archive = |bundle: &[u8]| zstd::decode_all(bundle).unwrap_or_else(|error| panic!("{error}"));
    assert!(archive(&write_bundle(&contents, &files)) == archive(bytes), "written again, the archive is another");
    Some(files)
}

fn write_bundle(contents: &Contents, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let write = || {
        let mut writer = Writer::new(Vec::new(), contents)?;
        for (_, body) in files {
            writer.entry(body.as_slice())?;
        }
        writer.finish()
    };
    write().unwrap_or_else(|error: BundleError| panic!("{error}"))
}

fn check_refusal(error: &BundleError) {
    let shown = error.to_string();
    assert!(!shown.is_empty() && !shown.contains(char::is_control), "{shown:?}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn read(input: &str) -> Option<Vec<String>> {
        let compressed = zstd::encode_all(forged(input.as_bytes()).as_slice(), 1).unwrap();
        let files = read_bundle(&compressed, &Limits::default())?;
        Some(files.into_iter().map(|(path, _)| path).collect())
    }

    #[test]
    fn what_is_forged_is_refused_for_what_it_says() {
        let honest = "pipe bundle 1\n@ - 2 experiment.json\n@ x 3 project/a\n\0{}\0abc\0";
        assert_eq!(read(honest).unwrap(), ["experiment.json", "project/a"]);
        for (told, lie) in [("project/a", "project/../a"), (" 3 ", " 2 "), ("@ x", "@ y"), ("1\n@", "2\n@")] {
            assert_eq!(read(&honest.replace(told, lie)), None, "{lie}");
        }
    }
}
