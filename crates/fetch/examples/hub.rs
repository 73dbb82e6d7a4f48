//! A hub on loopback, to try downloads by hand: `hub FOLDER [--port P] [--rate MB_A_SECOND] [--cut MB]`.
//!
//! The files of the folder are the repository `org/name` (and any other name) of the Hugging Face hub and of ModelScope.
//! `--rate` holds each connection to that speed, `--cut` ends each at first after so many megabytes. What is asked for is
//! written to standard error: the range, and whether a token came.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a program for a developer's terminal")]

#[path = "../tests/hub/mod.rs"]
mod hub;

use std::{fs, path::Path, sync::atomic::Ordering};

use axum::body::Bytes;
use hub::{Asked, Fault, Hub};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: hub FOLDER [--port P] [--rate MB_A_SECOND] [--cut MB]");
        std::process::exit(2);
    };
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let mut files = Vec::new();
    list(Path::new(folder), "", &mut files);
    let cut = number("--cut");
    let behaviour = move |asked: &Asked| {
        if let Some(file) = &asked.file {
            let token = if asked.headers.contains_key("authorization") { "with" } else { "without" };
            let place = if asked.from_store { "store" } else { "hub" };
            eprintln!("{place}: {file} {} {token} token", asked.range.as_deref().unwrap_or("whole"));
        }
        let cut = cut.filter(|_| asked.from_store && asked.number.is_multiple_of(3))?;
        Some(Fault::CutAfter(usize::try_from(cut << 20).unwrap()))
    };
    let hub = Hub::at(number("--port").unwrap_or(8900) as u16, files, Box::new(behaviour));
    hub.content.rate_bytes.store(number("--rate").unwrap_or(0) << 20, Ordering::Relaxed);
    eprintln!("HF_ENDPOINT={0} MODELSCOPE_ENDPOINT={0}", hub.address);
    loop {
        std::thread::park();
    }
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, Bytes)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            list(&path, &format!("{name}/"), files);
        } else {
            files.push((name, fs::read(&path).unwrap().into()));
        }
    }
}
