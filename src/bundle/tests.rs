//! Bundles that come back as they were, and bundles that are refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};

use pipe_stage::Digest;
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

/// Path, bytes, executable.
type File<'a> = (&'a str, &'a [u8], bool);

fn contents(files: &[File<'_>]) -> Contents {
    let entry = |(path, bytes, executable): &File<'_>| Entry {
        path: (*path).to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        executable: *executable,
    };
    Contents::new(files.iter().map(entry).collect(), &Limits::default()).unwrap()
}

fn bundle(files: &[File<'_>]) -> Vec<u8> {
    let contents = contents(files);
    let mut writer = Writer::new(Vec::new(), &contents).unwrap();
    for entry in contents.entries() {
        writer.entry(files.iter().find(|(path, ..)| *path == entry.path).unwrap().1).unwrap();
    }
    writer.finish().unwrap()
}

/// What a reader gives out before it says whether that may be trusted.
fn read_within(bundle: &[u8], limits: &Limits) -> Result<Vec<(String, Vec<u8>, bool)>, BundleError> {
    let mut files = Vec::new();
    Reader::new(bundle, limits)?.read(|entry, bytes| {
        let mut read = Vec::new();
        bytes.read_to_end(&mut read)?;
        files.push((entry.path.clone(), read, entry.executable));
        Ok(())
    })?;
    Ok(files)
}

fn read(bundle: &[u8]) -> Result<Vec<(String, Vec<u8>, bool)>, BundleError> {
    read_within(bundle, &Limits::default())
}

/// The whole story of why a bundle is refused.
fn refusal(bundle: &[u8]) -> String {
    refusal_within(bundle, &Limits::default())
}

fn refusal_within(bundle: &[u8], limits: &Limits) -> String {
    let error = read_within(bundle, limits).unwrap_err();
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

fn compressed(archive: &[u8]) -> Vec<u8> {
    zstd::encode_all(archive, 3).unwrap()
}

fn decompressed(bundle: &[u8]) -> Vec<u8> {
    zstd::decode_all(bundle).unwrap()
}

/// An archive as a forger would make it: any manifest, then parts of any kind.
struct Forged(Vec<u8>);

impl Forged {
    fn new(manifest: &str) -> Self {
        Self(Vec::new()).file(MANIFEST, manifest.as_bytes())
    }

    fn raw(mut self, head: &[u8], body: &[u8]) -> Self {
        self.0.extend_from_slice(head);
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len() + tar_head::padding(body.len() as u64), 0);
        self
    }

    fn file(self, path: &str, body: &[u8]) -> Self {
        self.raw(&tar_head::of(path, body.len() as u64, false), body)
    }

    /// A header whose path and link are not looked at by whoever writes it.
    fn special(self, entry_type: EntryType, path: &[u8], link: &[u8], body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(entry_type);
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.raw(header.as_bytes(), body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&tar_head::END);
        compressed(&self.0)
    }
}

fn line(path: &str, bytes: &[u8]) -> String {
    format!("{} - {} {path}\n", Digest::of(bytes), bytes.len())
}

fn manifest(files: &[(&str, &[u8])]) -> String {
    let lines: String = files.iter().map(|(path, bytes)| line(path, bytes)).collect();
    format!("pipe bundle 1\n{lines}")
}

/// A bundle with one file at `path`, as a forger would write it.
fn forged_path(path: &str) -> Vec<u8> {
    // The header is never reached: the manifest is refused.
    Forged::new(&manifest(&[(path, b"x")])).special(EntryType::Regular, b"x", b"", b"x").end()
}

#[test]
fn what_is_written_is_read_and_always_gives_the_same_bytes() {
    let long = format!("project/{}/{}", "目录".repeat(40), "文件".repeat(40));
    let longer = format!("project/{}", vec!["d".repeat(200); 9].join("/"));
    let object = format!("objects/{}", Digest::of(b"bytes of an artifact"));
    let large = vec![7; 3 << 20];
    let files: &[File<'_>] = &[
        ("experiment.json", b"{}", false),
        ("logs/a.log", b"", false),
        (&object, b"bytes of an artifact", false),
        ("project/pipeline.yaml", b"stages: {}\n", false),
        ("project/tools/run 脚本 🚀.sh", b"#!/bin/sh\n", true),
        ("project/a", &[0; 512], false),
        ("project/a-b", &large, false),
        ("project/aa/b", b"b", false),
        (&long, b"long", false),
        (&longer, b"longer", false),
    ];
    let written = bundle(files);
    let mut backwards = files.to_vec();
    backwards.reverse();
    assert!(written == bundle(&backwards), "the order in which entries are given shows");

    let mut expected: Vec<_> = files.iter().map(|(path, bytes, x)| (path.to_string(), bytes.to_vec(), *x)).collect();
    expected.sort();
    assert!(read(&written).unwrap() == expected);
    assert_eq!(
        Reader::new(&written[..], &Limits::default()).unwrap().name(),
        Digest::of(contents(files).to_text().as_bytes())
    );

    // Any other reader of tar archives sees the same.
    let archive = decompressed(&written);
    let mut others = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let executable = entry.header().mode().unwrap() == 0o755;
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        others.push((String::from_utf8(entry.path_bytes().into_owned()).unwrap(), bytes, executable));
    }
    assert_eq!(others.remove(0).0, MANIFEST);
    assert!(others == expected);
}

#[test]
fn sizes_beyond_what_old_headers_hold_have_a_header() {
    for size in [0o77777777777, 1 << 33, 5 << 40] {
        let head = tar_head::of("project/large", size, false);
        assert_eq!(Header::from_byte_slice(&head).size().unwrap(), size);
    }
}

#[test]
fn a_writer_that_is_given_something_else_than_it_announced_fails() {
    let contents = contents(&[("project/a", b"one", false), ("project/b", b"two", false)]);
    for wrong in [&b"onE"[..], b"one more", b"on", b""] {
        let mut writer = Writer::new(Vec::new(), &contents).unwrap();
        let error = writer.entry(wrong).unwrap_err();
        assert!(matches!(&error, BundleError::Changed { path } if path == "project/a"), "{error}");
    }
    let mut writer = Writer::new(Vec::new(), &contents).unwrap();
    writer.entry(&b"one"[..]).unwrap();
    assert!(matches!(writer.finish(), Err(BundleError::Changed { path }) if path == "project/b"));
}

#[test]
fn paths_that_do_not_stay_in_their_folder_are_refused() {
    let long_part = format!("project/{}", "x".repeat(256));
    let long = format!("project{}", "/abc".repeat(600));
    for (path, problem) in [
        ("/etc/passwd", "an absolute path"),
        ("//etc/passwd", "an absolute path"),
        ("project/../../x", "with an empty part, `.` or `..`"),
        ("..", "with an empty part, `.` or `..`"),
        ("project/./x", "with an empty part, `.` or `..`"),
        ("project//x", "with an empty part, `.` or `..`"),
        ("project/x/", "with an empty part, `.` or `..`"),
        ("project/a\rb", "control characters"),
        ("project/a\x1b[2Jb", "control characters"),
        ("project/a\0b", "control characters"),
        ("project/a\u{202e}lmay.b", "control characters"),
        ("project/a\u{85}b", "control characters"),
        ("x", "is nothing that belongs into a bundle"),
        ("manifest", "is nothing that belongs into a bundle"),
        ("project", "is nothing that belongs into a bundle"),
        ("home/objects/x", "is nothing that belongs into a bundle"),
        ("logs/a/b.log", "is nothing that belongs into a bundle"),
        (".pipe/version", "is nothing that belongs into a bundle"),
        ("objects/x", "named by another digest than its own"),
        (&long_part, "is too long"),
        (&long, "is too long"),
    ] {
        let refused = refusal(&forged_path(path));
        assert!(refused.contains(problem) && refused.contains(&format!("{path:?}")), "{path:?}: {refused}");
    }
    let wrong = format!("objects/{}", Digest::of(b"something else"));
    assert!(refusal(&forged_path(&wrong)).contains("named by another digest"));
}

#[test]
fn a_manifest_that_is_not_canonical_is_refused() {
    let sound = line("project/a", b"x");
    let header = "pipe bundle 1\n";
    for (text, problem) in [
        (String::new(), "it has the format ``, this pipe reads `pipe bundle 1`"),
        ("pipe bundle 2\nwhatever".to_owned(), "it has the format `pipe bundle 2`"),
        (header[..header.len() - 1].to_owned(), "line 1 of its manifest"),
        (format!("{header}{sound}{sound}"), "line 3 of its manifest"),
        (format!("{header}{}{sound}", line("project/b", b"x")), "line 3 of its manifest"),
        (format!("{header}\n{sound}"), "line 2 of its manifest"),
        (format!("{header}{}", &sound[..sound.len() - 1]), "line 2 of its manifest"),
        (format!("{header}{}", sound.to_uppercase()), "line 2 of its manifest"),
        (format!("{header}{}", sound.replace(" 1 ", " 01 ")), "line 2 of its manifest"),
        (format!("{header}{}", sound.replace(" 1 ", " -1 ")), "line 2 of its manifest"),
        (format!("{header}{}", sound.replace(" 1 ", " 99999999999999999999 ")), "line 2 of its manifest"),
        (format!("{header}{}", sound.replace(" - ", " l ")), "line 2 of its manifest"),
    ] {
        let refused = refusal(&Forged::new(&text).file("project/a", b"x").end());
        assert!(refused.contains(problem), "{text:?}: {refused}");
    }
    let mut not_utf8 = Forged::new(&format!("{header}{}", line("project/@@", b"x"))).end();
    let mut archive = decompressed(&not_utf8);
    let place = archive.windows(2).position(|bytes| bytes == b"@@").unwrap();
    archive[place..place + 2].copy_from_slice(b"\xc3\x28");
    not_utf8 = compressed(&archive);
    assert!(refusal(&not_utf8).contains("line 2 of its manifest"));
}

#[test]
fn names_that_are_one_file_elsewhere_are_refused() {
    for (one, other) in [
        ("project/README", "project/readme"),
        ("project/Ä/x", "project/ä/x"),
        ("project/A/x", "project/a/y"),
        ("project/data", "project/data/x"),
        ("project/DATA", "project/data/x"),
        ("project/data", "project/data/deep/x"),
    ] {
        let text = manifest(&[(one, b"x"), (other, b"x")]);
        let refused = refusal(&Forged::new(&text).file(one, b"x").file(other, b"x").end());
        assert!(refused.contains("would be the same file as"), "{one} {other}: {refused}");
    }
    // Between a folder and what lies in it, other names may sort.
    let files: &[(&str, &[u8])] =
        &[("project/a", b"x"), ("project/a-b", b"x"), ("project/a.b/c", b"x"), ("project/a/b", b"x")];
    let refused = refusal(&Forged::new(&manifest(files)).end());
    assert!(refused.contains("\"project/a/b\" would be the same file as \"project/a\""), "{refused}");
}

#[test]
fn what_is_no_plain_file_is_refused_wherever_it_stands() {
    let text = manifest(&[("project/a", b"x")]);
    for (entry_type, found) in [
        (EntryType::Symlink, "a symbolic link \"project/a\""),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::Directory, "a folder"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::GNULongName, "a long name in the way of GNU"),
        (EntryType::GNULongLink, "a long name in the way of GNU"),
        (EntryType::XHeader, "an extended header"),
        (EntryType::XGlobalHeader, "an extended header"),
        (EntryType::Continuous, "another file"),
        (EntryType::new(b'V'), "an entry of a kind that pipe does not write"),
    ] {
        let forged = |before: Forged| before.special(entry_type, b"project/a", b"/etc/passwd", b"");
        for bundle in [
            forged(Forged::new(&text)).end(),
            forged(Forged::new(&text)).file("project/a", b"x").end(),
            forged(Forged::new(&text).file("project/a", b"x")).end(),
        ] {
            let refused = refusal(&bundle);
            assert!(refused.contains(found), "{entry_type:?}: {refused}");
        }
    }
}

#[test]
fn archive_and_manifest_must_agree() {
    let two = manifest(&[("project/a", b"one"), ("project/b", b"two")]);
    let forged = || Forged::new(&two);
    for (bundle, problem) in [
        (forged().file("project/a", b"one").end(), "\"project/b\" of 3 bytes there is the end"),
        (
            forged().file("project/a", b"one").file("project/b", b"two").file("project/c", b"").end(),
            "instead of the end there is another file \"project/c\"",
        ),
        (forged().file("project/b", b"two").file("project/a", b"one").end(), "there is another file \"project/b\""),
        (
            forged().file("project/a", b"one").file("project/a", b"one").file("project/b", b"two").end(),
            "there is another file \"project/a\"",
        ),
        (forged().file("project/a", b"one").file("../b", b"two").end(), "\"project/b\" of 3 bytes there is"),
        (forged().file("project/a", b"onE").file("project/b", b"two").end(), "`project/a` is not what its manifest"),
        (forged().file("project/a", b"one more").end(), "there is another file \"project/a\" of 8 bytes"),
        (forged().file("project/a", b"o").end(), "there is another file \"project/a\" of 1 bytes"),
        (forged().raw(&tar_head::of("project/a", 3, true), b"one").end(), "with another mode, owner or time"),
        (compressed(&Forged(Vec::new()).file("project/a", b"one").0), "its first entry is not a `manifest`"),
        (compressed(b""), "it ends in the middle of `manifest`"),
        (compressed(&[0; 4096]), "its first entry is not a `manifest`"),
        (Vec::new(), "it ends in the middle of `manifest`"),
        (b"PK\x03\x04, a zip archive".to_vec(), "it is not a bundle, or it is damaged"),
    ] {
        let refused = refusal(&bundle);
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
}

#[test]
fn nothing_may_stand_behind_the_end_or_in_between() {
    let sound = bundle(&[("project/a", b"one", false)]);
    assert!(read(&sound).is_ok());
    let archive = decompressed(&sound);
    let longer = |more: &[u8]| compressed(&[&archive[..], more].concat());
    // Eight bytes of a skippable frame.
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    for bundle in [
        [&sound[..], b"x"].concat(),
        [&sound[..], &sound].concat(),
        [&sound[..], &skippable].concat(),
        longer(b"\0"),
        longer(&[0; 512]),
        longer(&archive),
    ] {
        assert!(refusal(&bundle).contains("something stands behind its end"), "{}", refusal(&bundle));
    }
    let mut padded = archive.clone();
    let place = padded.windows(3).rposition(|bytes| bytes == b"one").unwrap();
    padded[place + 3] = 1;
    assert!(refusal(&compressed(&padded)).contains("instead of the end of `project/a` there is more bytes"));
}

#[test]
fn a_bundle_that_was_cut_anywhere_is_refused() {
    let sound = bundle(&[("experiment.json", b"{}", false), ("project/a", &[1; 2000], false)]);
    for length in 0..sound.len() {
        assert!(read(&sound[..length]).is_err(), "{length} of {} bytes", sound.len());
    }
    let archive = decompressed(&sound);
    for length in 0..archive.len() {
        let refused = refusal(&compressed(&archive[..length]));
        assert!(refused.contains("it is cut off"), "{length}: {refused}");
    }
}

#[test]
fn nothing_asks_for_more_than_the_limits() {
    let limits = Limits { total_bytes: 1000, manifest_bytes: 400, entries: 3, path_bytes: 40, ..Limits::default() };
    let refused = |files: &[(&str, &[u8])]| {
        let mut forged = Forged::new(&manifest(files));
        for (path, bytes) in files {
            forged = forged.file(path, bytes);
        }
        refusal_within(&forged.end(), &limits)
    };
    assert!(refused(&[("project/a", &[0; 1001])]).contains("1001 bytes when unpacked"));
    assert!(refused(&[("project/a", &[0; 600]), ("project/b", &[0; 600])]).contains("1200 bytes when unpacked"));
    assert!(refused(&[("project/a-long-name-that-goes-on-and-on-and-on", b"")]).contains("too long"));
    let names = ["project/a", "project/b", "project/c", "project/d"];
    assert!(refused(&names.map(|name| (name, &b""[..]))).contains("4 entries"));
    let many = manifest(&names.map(|name| (name, &b""[..]))).repeat(2);
    assert!(refusal_within(&Forged::new(&many).end(), &limits).contains("bytes of manifest"));

    // Sizes that overflow when they are added.
    let lie = format!("{} - {} project/", Digest::of(b""), u64::MAX);
    let text = format!("pipe bundle 1\n{lie}a\n{lie}b\n");
    assert!(refusal(&Forged::new(&text).end()).contains("18446744073709551615 bytes when unpacked"));

    // A manifest that claims a terabyte and holds nothing costs nothing.
    let bundle = compressed(&tar_head::of(MANIFEST, 1 << 40, false));
    assert!(refusal(&bundle).contains("bytes of manifest"));
    let bundle = compressed(&tar_head::of(MANIFEST, 1 << 26, false));
    assert!(refusal(&bundle).contains("cut off"));
}

#[test]
fn a_bomb_gives_out_no_more_than_it_announced() {
    // 256 MiB of zeros in a few kilobytes, announced as one byte.
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let text = manifest(&[("project/a", b"\0")]);
    encoder.write_all(&Forged::new(&text).0).unwrap();
    encoder.write_all(&tar_head::of("project/a", 1, false)).unwrap();
    for _ in 0..256 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100_000);
    let mut given = 0;
    let outcome = Reader::new(&bomb[..], &Limits::default()).unwrap().read(|_, bytes| {
        given += std::io::copy(bytes, &mut std::io::sink())?;
        Ok(())
    });
    assert!(matches!(outcome, Err(BundleError::Trailing)));
    assert_eq!(given, 1);
}

#[test]
fn a_window_that_needs_too_much_memory_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    let text = manifest(&[("project/a", b"x")]);
    encoder.write_all(&Forged::new(&text).file("project/a", b"x").0).unwrap();
    encoder.write_all(&tar_head::END).unwrap();
    let refused = refusal(&encoder.finish().unwrap());
    assert!(refused.contains("it cannot be decompressed") && refused.contains("memory"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&compressed(&bytes)).is_err());
        let text = [&b"pipe bundle 1\n"[..], &bytes].concat();
        if let Ok(contents) = Contents::parse(&text, &Limits::default()) {
            prop_assert_eq!(contents.to_text().into_bytes(), text);
        }
    }

    /// Whoever changes a single byte, adds one or takes one away is found out.
    #[test]
    fn any_change_of_the_archive_is_found(place in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3) {
        let sound = bundle(&[
            ("experiment.json", b"{}", false),
            ("project/a", b"some bytes", true),
            ("project/b/c", &[5; 700], false),
        ]);
        let original = decompressed(&sound);
        let mut archive = original.clone();
        let place = place.index(archive.len());
        match kind {
            0 => archive[place] = byte,
            1 => archive.insert(place, byte),
            _ => drop(archive.remove(place)),
        }
        let read = read(&compressed(&archive));
        prop_assert_eq!(read.is_ok(), archive == original);
    }
}
