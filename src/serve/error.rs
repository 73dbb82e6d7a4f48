//! Errors as OpenAI's clients expect them.

use axum::{
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use pipe_chat::Fault;
use serde_json::{Value, json};

use super::json_response;

/// After so many seconds a client may come again that found no place.
const RETRY_AFTER_SECONDS: u64 = 2;

/// A request that is not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: impl Into<Option<&'static str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), param: None, message: message.into() }
    }

    /// A field that is not as it must be.
    pub(super) fn field(param: &str, problem: impl std::fmt::Display) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_value", format!("`{param}` {problem}"));
        Self { param: Some(param.to_owned()), ..error }
    }

    /// A field that asks for what this server cannot do.
    pub(super) fn unsupported(param: &str, what: &str) -> Self {
        let message = format!("`{param}`: this server does not do {what}; leave it out");
        let error = Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message);
        Self { param: Some(param.to_owned()), ..error }
    }

    pub(super) fn no_json(kind: &str) -> Self {
        let message = format!("the body must be of the type application/json, it is `{kind}`");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    pub(super) fn unreadable(problem: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body cannot be read: {problem}"))
    }

    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("the body has more than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(super) fn no_model(name: &str, known: &str) -> Self {
        let error =
            Self::new(StatusCode::NOT_FOUND, "model_not_found", format!("there is no model `{name}`, only `{known}`"));
        Self { param: Some("model".to_owned()), ..error }
    }

    pub(super) fn no_path(method: &Method, path: &str) -> Self {
        let message = format!(
            "there is nothing at {method} {path}; there are POST /v1/chat/completions, GET /v1/models and GET /health"
        );
        Self::new(StatusCode::NOT_FOUND, "unknown_url", message)
    }

    pub(super) fn no_method(method: &Method, path: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{path} does not take {method}"))
    }

    pub(super) fn other_host(host: &str) -> Self {
        let message = format!("this server is for programs of its own machine, which do not call it `{host}`");
        Self::new(StatusCode::FORBIDDEN, "forbidden_host", message)
    }

    /// Too many wait already.
    pub(super) fn busy(waiting: usize) -> Self {
        let message = format!("{waiting} requests wait already; try again in {RETRY_AFTER_SECONDS} seconds");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_overloaded", message)
    }

    /// What the process that holds the model says.
    pub(super) fn failed(fault: Fault, message: String) -> Self {
        match fault {
            Fault::Question => Self::new(StatusCode::BAD_REQUEST, "invalid_request", message),
            Fault::Length => {
                let error = Self::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
                Self { param: Some("messages".to_owned()), ..error }
            }
            Fault::Machine => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message),
        }
    }

    pub(super) fn body(&self) -> Value {
        let kind = if self.status.is_server_error() { "server_error" } else { "invalid_request_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}
