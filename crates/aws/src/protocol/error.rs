//! What a handler, or a step before it, answers when it refuses.

use std::borrow::Cow;

/// A refusal as AWS spells it: a code, a message, and whatever else the exception's shape has.
///
/// The HTTP status, the spelling of the message's name, the `Type` member and header members come from the service's
/// model when it has the code, so that they are written down once.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The exception's name, as in `ResourceNotFoundException`.
    pub code: Cow<'static, str>,
    /// What the person who reads it should know.
    pub message: String,
    /// The HTTP status for codes that the model does not have; the model's own wins.
    pub status: u16,
    /// Further members of the exception, as in `("Reason", "CallerRateLimitExceeded")`, wherever they travel.
    pub extra: Vec<(&'static str, String)>,
}

impl ApiError {
    /// A refusal with a code of the service's model.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400, extra: Vec::new() }
    }

    /// The same, for a code that no model has.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a member of the exception's shape.
    #[must_use]
    pub fn with(mut self, member: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((member, value.into()));
        self
    }

    /// The request cannot be read: JSON that is none, a number where text belongs, base64 that is none.
    pub fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    /// Something of ours failed; the caller gets `message`, which should not tell secrets.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("ServiceException", message).with_status(500)
    }

    /// The operation is in the public model and not built here.
    #[must_use]
    pub fn not_implemented(service: &str, operation: &str) -> Self {
        Self::new(
            "NotImplementedException",
            format!("{operation} of {service} is not implemented in this version of Martlet"),
        )
        .with_status(501)
    }

    /// The request names no operation that the service's model has.
    pub fn unknown_operation(message: impl Into<String>) -> Self {
        Self::new("UnknownOperationException", message).with_status(404)
    }
}
