//! Damaged files are errors, whatever the damage: no panic, and no more memory than the file has bytes.

use std::fs;

use pipe_gguf::GgufReader;

use crate::golden::fixture;

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bytes = fs::read(fixture("small.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    // The last bytes are padding behind the last tensor.
    for length in (0..bytes.len() - 32).step_by(7) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(GgufReader::open(&path).is_err(), "{length} bytes of {}", bytes.len());
    }
}

#[test]
fn no_flipped_byte_of_the_header_is_a_panic() {
    let bytes = fs::read(fixture("small.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.gguf");
    let mut refused = 0;
    for place in 0..bytes.len().min(1200) {
        for mask in [0xFF, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= mask;
            fs::write(&path, &damaged).unwrap();
            refused += usize::from(GgufReader::open(&path).is_err());
        }
    }
    assert!(refused > 400, "{refused}");
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        GgufReader::open(&path).unwrap_err().to_string()
    };
    assert!(error(b"PK\x03\x04and so on").contains("does not begin with `GGUF`"));
    let mut bytes = fs::read(fixture("small.gguf")).unwrap();
    bytes[4] = 1;
    assert!(error(&bytes).contains("its version is 1"), "{}", error(&bytes));
    bytes[4] = 3;
    bytes.truncate(bytes.len() - 200);
    assert!(error(&bytes).contains("fetch it again"), "{}", error(&bytes));
}
