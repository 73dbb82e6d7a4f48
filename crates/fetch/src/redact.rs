//! Addresses as they may be shown: without what could be a secret.

use reqwest::Url;

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
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&Url::parse(one).unwrap(), &Url::parse(other).unwrap());
        assert!(same("https://a/x", "https://a:443/y"));
        assert!(!same("https://a/x", "http://a/x"));
        assert!(!same("http://a:1/x", "http://a:2/x"));
        assert!(!same("https://a/x", "https://b/x"));
    }
}
