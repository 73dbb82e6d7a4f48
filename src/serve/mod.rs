//! An endpoint that speaks OpenAI's protocol for chat completions, in front of one model that answers.
//!
//! One question is answered at a time, in the order in which they came; those who wait are bounded in number, bodies in
//! size, answers in tokens. It is meant for programs of this machine: a server on loopback answers nobody who calls it by
//! another name, as a web page that wants to reach it through its user's browser must.

mod completion;
mod error;
mod reach;
mod request;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use pipe_chat::Sampling;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};

use self::error::ApiError;
use crate::chat::Worker;

/// Bodies may have so many bytes.
const MOST_BODY_BYTES: usize = 4 << 20;

/// What a server says of its model, and how much it takes on.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model's name.
    pub model: String,
    /// What a request does not say.
    pub sampling: Sampling,
    /// The most tokens of an answer.
    pub max_new_tokens: usize,
    /// So many requests may wait while one is answered.
    pub queue: usize,
    /// Another name by which the server may be called.
    pub host: String,
}

/// What all requests share.
struct Server {
    worker: Arc<Worker>,
    options: Options,
    /// One for each request that waits or is answered.
    places: Arc<Semaphore>,
    created: u64,
    /// Whether the server listens on loopback only.
    is_local: bool,
    /// Why there will be no answers any more.
    broken: Mutex<Option<String>>,
    stop: Notify,
}

impl Server {
    fn find_model(&self, name: &str) -> Result<(), ApiError> {
        match name == self.options.model {
            true => Ok(()),
            false => Err(ApiError::no_model(name, &self.options.model)),
        }
    }

    fn model(&self) -> Value {
        json!({ "id": self.options.model, "object": "model", "created": self.created, "owned_by": "pipe" })
    }

    /// Ends the server: its model is gone.
    fn give_up(&self, why: String) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.stop.notify_one();
    }
}

/// Serves until `stop` comes; then those who were let in still get their answers.
///
/// # Errors
/// If the system refuses, or the process that holds the model has ended.
pub async fn serve(
    listener: TcpListener,
    worker: Worker,
    options: Options,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let is_local = is_local(&listener.local_addr()?);
    let server = Arc::new(Server {
        worker: Arc::new(worker),
        places: Arc::new(Semaphore::new(options.queue.saturating_add(1).min(Semaphore::MAX_PERMITS))),
        options,
        created: seconds(),
        is_local,
        broken: Mutex::new(None),
        stop: Notify::new(),
    });
    let stopped = {
        let server = Arc::clone(&server);
        async move {
            tokio::select! {
                () = stop => {}
                () = server.stop.notified() => {}
            }
        }
    };
    axum::serve(listener, router(Arc::clone(&server))).with_graceful_shutdown(stopped).await?;
    let broken = server.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    broken.map_or(Ok(()), |why| Err(io::Error::other(why)))
}

/// Whether only programs of this machine can reach an address.
pub fn is_local(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/health", get(|| async { json_response(StatusCode::OK, &json!({ "status": "ok" })) }))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/v1/chat/completions", post(chat_completions))
        .method_not_allowed_fallback(|method: Method, request: Request| async move {
            ApiError::no_method(&method, request.uri().path())
        })
        .fallback(|method: Method, request: Request| async move { ApiError::no_path(&method, request.uri().path()) })
        .layer(DefaultBodyLimit::max(MOST_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), only_from_here))
        .with_state(server)
}

async fn only_from_here(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if server.is_local && !host.is_none_or(|host| reach::is_of_this_machine(host, &server.options.host)) {
        return ApiError::other_host(host.unwrap_or_default()).into_response();
    }
    next.run(request).await
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [server.model()] }))
}

async fn model(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    server.find_model(&name)?;
    Ok(json_response(StatusCode::OK, &server.model()))
}

async fn chat_completions(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let kind = header(header::CONTENT_TYPE).unwrap_or_default();
    // Browsers send other types to anybody, this one only where the server agrees.
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::no_json(kind));
    }
    // What is too long need not come first.
    let length: Option<usize> = header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > MOST_BODY_BYTES) {
        return Err(ApiError::too_large(MOST_BODY_BYTES));
    }
    let body = Bytes::from_request(request, &()).await.map_err(|refused| match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(MOST_BODY_BYTES),
        _ => ApiError::unreadable(&refused.body_text()),
    })?;
    let asked = request::read(&body, &server.options)?;
    server.find_model(&asked.model)?;
    completion::complete(&server, asked).await
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(value.to_string())).into_response()
}

/// Since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
