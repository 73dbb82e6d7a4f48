//! Addresses and what servers say, as they may be shown: without what could be a secret.

use reqwest::Url;

use crate::{Error, Settings, credentials, settings::Token};

/// What stands for a secret.
const HIDDEN: &str = "[secret]";

/// The secrets that this process sends. A server may send them back, in a message or in the address of a redirection.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<Token>);

impl Secrets {
    pub(crate) fn of(settings: &Settings) -> Self {
        // What is shorter is no secret of any hub, and would be found in every other word.
        const SHORTEST_BYTES: usize = 8;
        const OF_STORES: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        let stores = credentials::of(settings).variables.into_iter();
        let stores = stores.filter(|(name, _)| OF_STORES.contains(&name.as_str())).map(|(_, value)| value);
        let hubs = [&settings.hf_token, &settings.ms_token].into_iter().flatten().cloned();
        Self(hubs.chain(stores).filter(|token| token.secret().len() >= SHORTEST_BYTES).collect())
    }

    /// The text without the secrets, as they are and as addresses encode them.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for token in &self.0 {
            let encoded = percent_encoding::utf8_percent_encode(token.secret(), percent_encoding::NON_ALPHANUMERIC);
            for secret in [token.secret(), &encoded.to_string()] {
                text = text.replace(secret, HIDDEN);
            }
        }
        text
    }

    /// The error without the secrets, wherever it quotes a server.
    pub(crate) fn hide_in(&self, mut error: Error) -> Error {
        for text in error.texts() {
            *text = self.hide(text);
        }
        error
    }
}

/// The address without user, password, query and fragment: signed addresses carry their signature there.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both only fail for addresses that have no host, which have no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Two addresses of the same server: scheme, host and port.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// What a server says of itself, as one short line without control characters.
pub(crate) fn first_line(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 200;
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    if line.starts_with('<') {
        // A page for a browser.
        return String::new();
    }
    line.chars().filter(|character| !character.is_control()).take(SHOWN_CHARACTERS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let url = Url::parse("https://me:secret@host:8443/a/b?X-Amz-Signature=secret#secret").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b");
    }

    #[test]
    fn a_secret_that_a_server_sends_back_is_hidden() {
        let variable = |name: &str| match name {
            "HF_TOKEN" => Some("hf_a+bcd".to_owned()),
            "MODELSCOPE_API_TOKEN" => Some("ms-token".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("aws-secret".to_owned()),
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            _ => None,
        };
        let secrets = Secrets::of(&Settings::from_variables(variable).unwrap());
        let said = secrets.hide("Bearer hf_a+bcd, hf%5Fa%2Bbcd, ms-token and aws-secret in eu-west-1");
        assert_eq!(said, "Bearer [secret], [secret], [secret] and [secret] in eu-west-1");
        let inner = Error::Answer { address: "http://h/ms-token".to_owned(), reason: "hf_a+bcd".to_owned() };
        let error = Error::Attempts { path: "x".to_owned(), attempts: 1, source: Box::new(inner) };
        let Error::Attempts { source, .. } = secrets.hide_in(error) else { panic!() };
        assert_eq!(source.to_string(), "http://h/[secret] answers what pipe cannot read: [secret]");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&Url::parse(one).unwrap(), &Url::parse(other).unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("https://a/x", "http://a/x"));
        assert!(!same("http://a:1/x", "http://a:2/x"));
        assert!(!same("https://a/x", "https://b/x"));
    }
}
