//! Who may reach a server on loopback.

use std::net::IpAddr;

/// Whether a `Host` header, with or without a port, names this machine from within: a web page that has its own name
/// stand for this machine's address cannot send one.
pub(super) fn is_of_this_machine(host: &str, own_name: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name == own_name.to_ascii_lowercase()
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_let_in() {
        for host in
            ["localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:80", "127.1.2.3", "[::1]:8000", "::1", "me"]
        {
            assert!(is_of_this_machine(host, "me"), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8000", "10.0.0.1", "[2001:db8::1]:80", ""] {
            assert!(!is_of_this_machine(host, "me"), "{host}");
        }
    }
}
