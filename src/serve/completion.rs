//! A chat completion: asked of the model, and answered whole or piece by piece.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use pipe_chat::{Done, Fault, Finish, Question, Reply, Voice};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Server, error::ApiError, json_response, request::Asked, seconds};

/// Answers.
pub(super) async fn complete(server: &Arc<Server>, asked: Asked) -> Result<Response, ApiError> {
    let (stream, include_usage) = (asked.stream, asked.include_usage);
    let mut answering = Answering::begin(server, asked)?;
    // What is wrong with the question is said before the answer begins.
    let mut pieces = match answering.next().await {
        Reply::Begun { .. } => Vec::new(),
        Reply::Failed { fault, message, .. } => return Err(server.failed(fault, message)),
        reply => vec![reply],
    };
    if !stream {
        return whole(server, answering, pieces).await;
    }
    let head = Head::new(server);
    let mut first = vec![event(&head.chunk(json!({ "role": "assistant", "content": "" }), None, include_usage))];
    first.extend(pieces.drain(..).flat_map(|reply| head.events(server, &reply, include_usage)));
    let server = Arc::clone(server);
    let events = stream::unfold(Some((answering, first)), move |state| {
        let (server, head) = (Arc::clone(&server), head.clone());
        async move {
            let (mut answering, now) = state?;
            if !now.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(now.concat())), Some((answering, Vec::new()))));
            }
            let reply = answering.next().await;
            let last = reply.is_last();
            let events = head.events(&server, &reply, include_usage);
            Some((Ok(Bytes::from(events.concat())), (!last).then_some((answering, Vec::new()))))
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((StatusCode::OK, headers, Body::from_stream(events)).into_response())
}

/// The whole answer at once.
async fn whole(server: &Arc<Server>, mut answering: Answering, first: Vec<Reply>) -> Result<Response, ApiError> {
    let mut text = String::new();
    let mut replies = first.into_iter();
    loop {
        let reply = match replies.next() {
            Some(reply) => reply,
            None => answering.next().await,
        };
        match reply {
            Reply::Piece { text: piece, .. } => text.push_str(&piece),
            Reply::Done(done) => return Ok(json_response(StatusCode::OK, &Head::new(server).completion(&text, &done))),
            Reply::Failed { fault, message, .. } => return Err(server.failed(fault, message)),
            Reply::Begun { .. } | Reply::Loaded(_) | Reply::Refused { .. } => {}
        }
    }
}

/// A question that was asked. If it is dropped before its end, nobody waits for the answer any more.
struct Answering {
    server: Arc<Server>,
    id: u64,
    replies: UnboundedReceiver<Reply>,
    ended: bool,
}

impl Answering {
    fn begin(server: &Arc<Server>, asked: Asked) -> Result<Self, ApiError> {
        let place = Arc::clone(&server.places).try_acquire_owned();
        let place = place.map_err(|_| ApiError::busy(server.options.queue))?;
        let Asked { messages, sampling, max_new_tokens, stop, fresh, .. } = asked;
        let question = Question { id: 0, voice: Voice::Tuned, messages, sampling, max_new_tokens, stop, fresh };
        let (send, replies) = unbounded_channel();
        let hear = move |reply: Reply| {
            // The place is free once the model is, not once the client is gone.
            let _place = &place;
            let _ = send.send(reply);
        };
        let id = server.worker.ask(question, Box::new(hear));
        Ok(Self { server: Arc::clone(server), id, replies, ended: false })
    }

    async fn next(&mut self) -> Reply {
        let reply = self.replies.recv().await;
        let reply = reply.unwrap_or_else(|| Reply::Failed {
            id: self.id,
            fault: Fault::Machine,
            message: "the answer has no end".to_owned(),
        });
        self.ended |= reply.is_last();
        reply
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.ended {
            self.server.worker.cancel(self.id);
        }
    }
}

impl Server {
    fn failed(&self, fault: Fault, message: String) -> ApiError {
        if let Some(why) = self.worker.ended() {
            self.give_up(why);
        }
        ApiError::failed(fault, message)
    }
}

/// What all parts of an answer have in common.
#[derive(Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(server: &Server) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("chatcmpl-{:x}-{number:x}", server.created);
        Self { id, created: seconds(), model: server.options.model.clone() }
    }

    fn object(&self, kind: &str) -> Value {
        json!({ "id": self.id, "object": kind, "created": self.created, "model": self.model })
    }

    fn completion(&self, text: &str, done: &Done) -> Value {
        let mut completion = self.object("chat.completion");
        completion["choices"] = json!([{
            "index": 0,
            "message": { "role": "assistant", "content": text, "refusal": null },
            "logprobs": null,
            "finish_reason": finish_reason(done.finish),
        }]);
        completion["usage"] = usage(done);
        completion
    }

    fn chunk(&self, delta: Value, finish: Option<Finish>, include_usage: bool) -> Value {
        let mut chunk = self.object("chat.completion.chunk");
        let finish_reason = finish.map(finish_reason);
        chunk["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]);
        if include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// What a client is told of a reply.
    fn events(&self, server: &Server, reply: &Reply, include_usage: bool) -> Vec<String> {
        match reply {
            Reply::Piece { text, .. } => vec![event(&self.chunk(json!({ "content": text }), None, include_usage))],
            Reply::Done(done) => {
                let mut events = vec![event(&self.chunk(json!({}), Some(done.finish), include_usage))];
                if include_usage {
                    let mut chunk = self.object("chat.completion.chunk");
                    chunk["choices"] = json!([]);
                    chunk["usage"] = usage(done);
                    events.push(event(&chunk));
                }
                events.push("data: [DONE]\n\n".to_owned());
                events
            }
            Reply::Failed { fault, message, .. } => vec![event(&server.failed(*fault, message.clone()).body())],
            Reply::Begun { .. } | Reply::Loaded(_) | Reply::Refused { .. } => Vec::new(),
        }
    }
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        // Who cancels does not read it.
        Finish::Stop | Finish::Cancelled => "stop",
        Finish::Length => "length",
    }
}

fn usage(done: &Done) -> Value {
    json!({
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    })
}
