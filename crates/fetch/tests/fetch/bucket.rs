//! A bucket of a real S3 server: `make fixtures` fetches it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder};
use pipe_fetch::{Error, Source};

use crate::{
    harness::{Desk, chain},
    hub::noise,
};

const KEY: &str = "pipetest";
const SECRET: &str = "pipetest-SECRET";

struct Server {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = root.join(".cache/seaweedfs/weed");
    assert!(program.is_file(), "{} is missing: run `make fixtures`", program.display());
    program
}

/// The server takes ports by number, and any of them may be another test's by then: it ends, and is begun again.
fn server() -> Server {
    let mut log = String::new();
    for _ in 0..10 {
        match try_server() {
            Ok(server) => return server,
            Err(last) => log = last,
        }
    }
    panic!("the server ended ten times; the last time it said: {log}");
}

/// What the server said, if it ended.
fn try_server() -> Result<Server, String> {
    let folder = tempfile::tempdir().unwrap();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Its other ports are these and 10000 more.
    let ports: Vec<u16> = std::iter::repeat_with(free).filter(|port| *port < 50_000).take(4).collect();
    let log = folder.path().join("log");
    let child = Command::new(program())
        .args(["-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false"])
        .args(["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
        .arg(format!("-dir={}", folder.path().display()))
        .arg(format!("-s3.port={}", ports[0]))
        .arg(format!("-master.port={}", ports[1]))
        .arg(format!("-volume.port={}", ports[2]))
        .arg(format!("-filer.port={}", ports[3]))
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut server = Server { child, address: format!("http://127.0.0.1:{}", ports[0]), _folder: folder };
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", ports[0])).is_err() {
        if server.child.try_wait().unwrap().is_some() {
            return Err(fs::read_to_string(&log).unwrap());
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the server does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(server)
}

fn store(server: &Server) -> impl ObjectStore {
    AmazonS3Builder::new()
        .with_endpoint(&server.address)
        .with_allow_http(true)
        .with_bucket_name("models")
        .with_access_key_id(KEY)
        .with_secret_access_key(SECRET)
        .build()
        .unwrap()
}

fn desk(server: &Server) -> Desk {
    Desk::new("http://127.0.0.1:9")
        .set("AWS_ENDPOINT_URL", &server.address)
        .set("AWS_ACCESS_KEY_ID", KEY)
        .set("AWS_SECRET_ACCESS_KEY", SECRET)
}

#[test]
fn a_prefix_is_pinned_fetched_in_ranges_and_refused_once_it_changed() {
    let server = server();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    // Before anything else sets up TLS.
    let desk = desk(&server);
    let fetcher = desk.fetcher();
    let create = Command::new("curl")
        .args(["-fsS", "-X", "PUT", "--user", &format!("{KEY}:{SECRET}"), "--aws-sigv4", "aws:amz:us-east-1:s3"])
        .args(["--retry", "20", "--retry-all-errors", "--retry-delay", "1"])
        .arg(format!("{}/models", server.address))
        .status();
    assert!(create.unwrap().success());
    let store = store(&server);
    let (large, small) = (noise(1, 6_000_000), noise(2, 300));
    runtime.block_on(async {
        let upload = store.put_multipart(&"qwen/weights/model.safetensors".into()).await.unwrap();
        let mut writer = WriteMultipart::new(upload);
        writer.write(&large);
        writer.finish().await.unwrap();
        store.put(&object_store::path::Path::parse("qwen/配置.json").unwrap(), small.clone().into()).await.unwrap();
        store.put(&"qwen/empty".into(), Vec::new().into()).await.unwrap();
        store.put(&"qwen-other".into(), Vec::from("x").into()).await.unwrap();
    });

    let (listed, report) = desk.fetch("s3://models/qwen/").unwrap();
    let names: Vec<_> = listed.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["empty", "weights/model.safetensors", "配置.json"]);
    assert_eq!(report.bytes, 6_000_300);
    assert!(fs::read(desk.out("weights/model.safetensors")).unwrap() == large);
    assert!(fs::read(desk.out("配置.json")).unwrap() == small);
    let (listed, _) = desk.fetch("s3://models/qwen/配置.json").unwrap();
    assert_eq!(listed[0].path, "配置.json");

    let source: Source = "s3://models/qwen/".parse().unwrap();
    let pin = fetcher.resolve(&source, &desk.watch).unwrap();
    assert_eq!(fetcher.resolve(&source, &desk.watch).unwrap(), pin);
    runtime.block_on(store.put(&"qwen/empty".into(), Vec::from("x").into())).unwrap();
    let error = fetcher.list(&source, &pin, &desk.watch).unwrap_err();
    assert!(matches!(error, Error::Moved { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--refresh"));

    let error = desk.fetch("s3://models/nothing/").unwrap_err();
    assert_eq!(error.to_string(), "s3://models/nothing/ does not exist");
    let error = desk.fetch("s3://models/nothing").unwrap_err();
    assert_eq!(error.to_string(), "s3://models/nothing does not exist");
    let other = self::desk(&server).set("AWS_SECRET_ACCESS_KEY", "wrong-SECRET");
    let error = other.fetch("s3://models/qwen/").unwrap_err();
    assert!(chain(&error).starts_with("cannot read s3://models/qwen/: SignatureDoesNotMatch: "), "{}", chain(&error));
    assert!(!format!("{error:?}").contains("SECRET") && error.hint().unwrap().contains("AWS_SECRET_ACCESS_KEY"));
}
