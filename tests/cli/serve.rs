//! `pipe serve`, spoken to over plain TCP. The model's process is the fake of `chat`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    Project,
    chat::{command, faked, told},
};

struct Server {
    project: Project,
    child: Child,
    address: SocketAddr,
    stderr: BufReader<std::process::ChildStderr>,
}

/// A whole response.
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let project = faked();
        let all = [&["serve", "model", "--port", "0"], arguments].concat();
        let mut child =
            command(&project, &all).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("answers at http://") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the server has ended");
        }
        let (_, rest) = line.split_once("http://").unwrap();
        let address = rest.split_once('/').unwrap().0.parse().unwrap();
        Self { project, child, address, stderr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let length = body.len();
        let host = if headers.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.address) };
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        read(self.send(method, path, headers, body))
    }

    fn ask(&self, body: &Value) -> Response {
        self.request("POST", COMPLETIONS, JSON, &body.to_string())
    }

    /// Waits until the model's process was told so many orders of a kind.
    fn await_orders(&self, kind: &str, count: usize) {
        let begin = Instant::now();
        while told(&self.project).iter().filter(|order| order["order"] == kind).count() < count {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", told(&self.project));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const COMPLETIONS: &str = "/v1/chat/completions";
const JSON: &str = "Content-Type: application/json\r\n";

fn read(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Response { status, head: head.to_owned(), body }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, more)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        body.push_str(&more[..length]);
        rest = more[length..].trim_start_matches("\r\n");
        if length == 0 {
            break;
        }
    }
    body
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    /// Status, code and parameter of an error.
    fn error(&self) -> (u16, String, Value) {
        let error = self.json()["error"].clone();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        (self.status, error["code"].as_str().unwrap().to_owned(), error["param"].clone())
    }

    /// The events of a stream.
    fn events(&self) -> Vec<Value> {
        assert!(self.head.contains("content-type: text/event-stream"), "{}", self.head);
        let data: Vec<&str> =
            self.body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        let (last, data) = data.split_last().unwrap();
        assert_eq!(*last, "[DONE]");
        data.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

fn question(content: &str) -> Value {
    json!({ "model": "model", "messages": [{ "role": "user", "content": content }] })
}

fn streamed(content: &str) -> Value {
    let mut body = question(content);
    body["stream"] = true.into();
    body
}

#[test]
fn answers_come_whole_and_as_a_stream() {
    let server = Server::start(&["--temperature", "0.5", "--max-new-tokens", "99"]);
    let whole = server.ask(&question("三 二 one"));
    assert_eq!(whole.status, 200, "{}", whole.body);
    let answer = whole.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(
        answer["choices"][0]["message"],
        json!({ "role": "assistant", "content": "one 二 三", "refusal": null })
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 }));
    let asked = told(&server.project).pop().unwrap();
    assert_eq!((&asked["sampling"]["temperature"], &asked["max_new_tokens"]), (&0.5.into(), &99.into()));
    assert_eq!(asked["fresh"], false);

    let mut body = streamed("三 二 one");
    body["stream_options"] = json!({ "include_usage": true });
    body["seed"] = 4.into();
    let events = server.ask(&body).events();
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk"));
    assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "one 二 三");
    let (usage, events) = events.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &6.into()));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(told(&server.project).pop().unwrap()["fresh"], true);
    assert!(!server.ask(&streamed("a")).body.contains("usage"));

    let models = server.request("GET", "/v1/models", "", "").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&"list".into(), &"model".into()));
    assert_eq!(server.request("GET", "/v1/models/model", "", "").json()["owned_by"], "pipe");
    assert_eq!(server.request("GET", "/health", "", "").json()["status"], "ok");
}

#[test]
fn errors_are_openais() {
    let server = Server::start(&[]);
    let error = |body: Value| server.ask(&body).error();
    let mut two = question("a");
    two["n"] = 2.into();
    assert_eq!(error(two), (400, "unsupported_parameter".to_owned(), "n".into()));
    assert_eq!(error(question("long")), (400, "context_length_exceeded".to_owned(), "messages".into()));
    assert_eq!(error(streamed("long")).0, 400, "a stream begins only with an answer");
    let mut other = question("a");
    other["model"] = "gpt-4".into();
    assert_eq!(error(other), (404, "model_not_found".to_owned(), "model".into()));
    assert_eq!(error(json!({ "model": "model" })).2, "messages");

    let plain =
        |method: &str, path: &str, headers: &str, body: &str| server.request(method, path, headers, body).error();
    assert_eq!(plain("GET", "/v1/nothing", "", "").1, "unknown_url");
    assert_eq!(plain("GET", COMPLETIONS, "", "").0, 405);
    assert_eq!(plain("GET", "/v1/models/other", "", "").0, 404);
    assert_eq!(plain("POST", COMPLETIONS, JSON, "{").1, "invalid_json");
    assert_eq!(plain("POST", COMPLETIONS, "Content-Type: text/plain\r\n", "{}").0, 415);
    assert_eq!(plain("GET", "/v1/models", "Host: evil.example\r\n", "").0, 403);
    // Only the length is said: the server need not read so much.
    let mut stream = server.connect();
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\n{JSON}Connection: close\r\nContent-Length: 99999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read(stream).error(), (413, "request_too_large".to_owned(), Value::Null));
}

#[test]
fn who_finds_no_place_is_told_to_come_again_and_who_goes_leaves_the_place() {
    let server = Server::start(&["--queue", "1"]);
    let first = server.send("POST", COMPLETIONS, JSON, &streamed("wait a").to_string());
    let second = server.send("POST", COMPLETIONS, JSON, &question("wait b").to_string());
    server.await_orders("ask", 2);
    let third = server.ask(&question("c"));
    assert_eq!(third.error(), (503, "server_overloaded".to_owned(), Value::Null));
    assert!(third.head.contains("retry-after: 2"), "{}", third.head);
    // A client that reads a stream goes, then one that waits for the whole.
    drop(first);
    server.await_orders("cancel", 1);
    assert_eq!(server.ask(&question("c d")).json()["choices"][0]["message"]["content"], "d c");
    drop(second);
    server.await_orders("cancel", 2);
    let orders = told(&server.project);
    let ids = |kind: &str| -> Vec<Value> {
        orders.iter().filter(|order| order["order"] == kind).map(|order| order["id"].clone()).collect()
    };
    assert_eq!(ids("cancel"), ids("ask")[..2]);
}

#[test]
fn a_signal_ends_the_server_once_its_answers_are_given() {
    let mut server = Server::start(&[]);
    let waiting = server.send("POST", COMPLETIONS, JSON, &streamed("wait").to_string());
    server.await_orders("ask", 1);
    server.signal(Signal::TERM);
    let mut line = String::new();
    server.stderr.read_line(&mut line).unwrap();
    assert!(line.contains("taking no more requests"), "{line}");
    assert!(server.child.try_wait().unwrap().is_none(), "an answer is still being given");
    drop(waiting);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(server.address).is_err());

    let mut server = Server::start(&[]);
    let _waiting = server.send("POST", COMPLETIONS, JSON, &streamed("wait").to_string());
    server.await_orders("ask", 1);
    server.signal(Signal::INT);
    server.stderr.read_line(&mut line).unwrap();
    server.signal(Signal::INT);
    assert_eq!(server.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_server_without_its_model_ends() {
    let mut server = Server::start(&[]);
    let died = server.ask(&question("die"));
    assert_eq!(died.error().0, 500);
    assert!(died.body.contains("no memory"), "{}", died.body);
    assert_eq!(server.child.wait().unwrap().code(), Some(3));
    let mut text = String::new();
    server.stderr.read_to_string(&mut text).unwrap();
    assert!(text.contains("cannot serve: `pipe-torch` has ended: RuntimeError: no memory"), "{text}");
}

#[test]
fn what_others_can_reach_is_warned_of() {
    let project = faked();
    let mut child = command(&project, &["serve", "model", "--port", "0", "--host", "0.0.0.0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("warning: 0.0.0.0:") && line.contains("there is no key"), "{line}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ran: super::Ran = command(&project, &["serve", "model", "--port", &port]).output().unwrap().into();
    assert!(ran.code == 2 && ran.stderr.contains("cannot listen at 127.0.0.1"), "{}", ran.stderr);
}
