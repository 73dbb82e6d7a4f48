//! A repository on a hub: the addresses below its endpoint, and what is sent along.

use reqwest::{Url, header::HeaderMap};

use crate::{Repository, redact::shown};

/// A repository, where it is, and who asks.
pub(super) struct Site {
    pub(super) repository: Repository,
    pub(super) endpoint: Url,
    pub(super) secrets: HeaderMap,
}

impl Site {
    /// An address below the endpoint: `before`, the repository, `after`. Each part is encoded as a whole, also a branch
    /// that has a `/`.
    pub(super) fn address<'a>(&'a self, before: &[&'a str], after: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(before).extend(self.repository.id.split('/')).extend(after);
        }
        url
    }

    /// The endpoint, fit to be shown.
    pub(super) fn host(&self) -> String {
        shown(&self.endpoint).trim_end_matches('/').to_owned()
    }

    /// Whether a token is sent along.
    pub(super) fn with_token(&self) -> bool {
        !self.secrets.is_empty()
    }
}
