//! What the environment says of hubs, tokens, caches and networks, under the names that the hubs' own tools use.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;

use crate::Error;

/// The environment variables that are looked at. None may change a byte of what is fetched: all of that is pinned.
pub const VARIABLES: &[&str] = &[
    "PIPE_OFFLINE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "MODELSCOPE_API_TOKEN",
    "MODELSCOPE_DOMAIN",
    "MODELSCOPE_ENDPOINT",
    "MODELSCOPE_CACHE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// A secret: shown as nothing.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where and how to reach other machines.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The variable that forbids to use a network, if one does.
    pub offline: Option<&'static str>,
    /// The Hugging Face hub, or a mirror.
    pub hf_endpoint: Url,
    /// For the Hugging Face hub.
    pub hf_token: Option<Token>,
    /// The cache of huggingface_hub.
    pub hf_cache: Option<PathBuf>,
    /// The ModelScope hub.
    pub ms_endpoint: Url,
    /// For the ModelScope hub.
    pub ms_token: Option<Token>,
    /// The caches of modelscope: folders that hold `org/name`.
    pub ms_caches: Vec<PathBuf>,
    /// The `AWS_*` variables that are set. Some hold secrets.
    pub(crate) aws: Vec<(String, Token)>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// How much at once, how patient.
    pub tuning: Tuning,
}

/// How much at once, and how patient.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Connections at a time.
    pub connections: usize,
    /// A file is fetched in pieces of this length, bytes.
    pub piece_bytes: u64,
    /// Attempts in a row that may bring no new byte.
    pub attempts: u32,
    /// The wait after the first failed attempt; doubled with each further one.
    pub first_wait: Duration,
    /// The longest wait that is not asked for by the server.
    pub longest_wait: Duration,
    /// The longest wait that a server may ask for.
    pub longest_asked_wait: Duration,
    /// For connecting.
    pub connect_timeout: Duration,
    /// How long a connection may send nothing.
    pub stall_timeout: Duration,
    /// Whether the proxies of the environment are used.
    pub proxies: bool,
    /// How often it is looked whether to stop.
    pub look_interval: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connections: 8,
            piece_bytes: 32 << 20,
            attempts: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            longest_asked_wait: Duration::from_mins(10),
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            proxies: true,
            look_interval: Duration::from_millis(50),
        }
    }
}

impl Settings {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// If a variable holds what it cannot.
    pub fn from_environment() -> Result<Self, Error> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables by `variable`.
    ///
    /// # Errors
    /// If a variable holds what it cannot.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let home = path("HOME");
        let cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| cache.as_ref().map(|cache| cache.join("huggingface")));
        let token_file = path("HF_TOKEN_PATH").or_else(|| hf_home.as_ref().map(|folder| folder.join("token")));
        let token = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty()).map(Token);
        let modelscope = path("MODELSCOPE_CACHE").or_else(|| cache.as_ref().map(|cache| cache.join("modelscope/hub")));
        Ok(Self {
            offline: ["PIPE_OFFLINE", "HF_HUB_OFFLINE"]
                .into_iter()
                .find(|name| set(name).is_some_and(|set| is_on(&set))),
            hf_endpoint: endpoint(&set, &["HF_ENDPOINT"], "https://huggingface.co")?,
            hf_token: set("HF_TOKEN")
                .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| std::fs::read_to_string(token_file?).ok())
                .and_then(token),
            hf_cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| hf_home.map(|folder| folder.join("hub"))),
            ms_endpoint: endpoint(&set, &["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"], "https://modelscope.cn")?,
            ms_token: set("MODELSCOPE_API_TOKEN").and_then(token),
            // Newer and older versions keep models in different places.
            ms_caches: modelscope
                .map(|folder| vec![folder.join("models"), folder.join("hub/models"), folder.join("hub"), folder])
                .unwrap_or_default(),
            aws: VARIABLES
                .iter()
                .filter(|name| name.starts_with("AWS_"))
                .filter_map(|name| Some(((*name).to_owned(), Token(set(name)?))))
                .collect(),
            home,
            tuning: Tuning::default(),
        })
    }
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

fn endpoint(set: &impl Fn(&str) -> Option<String>, names: &[&'static str], default: &str) -> Result<Url, Error> {
    let found = names.iter().find_map(|name| set(name).map(|value| (*name, value)));
    let (name, value) = found.unwrap_or((names[0], default.to_owned()));
    // MODELSCOPE_DOMAIN is a host; some set an address.
    let value = if value.contains("://") { value } else { format!("https://{value}") };
    let url = Url::parse(value.trim_end_matches('/')).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or(Error::Address { name, value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        Settings::from_variables(variable).unwrap()
    }

    #[test]
    fn the_names_are_those_of_the_hubs_own_tools() {
        let found = settings(&[("HOME", "/home/me"), ("HUGGING_FACE_HUB_TOKEN", " old\n")]);
        assert_eq!(found.hf_cache.as_deref(), Some("/home/me/.cache/huggingface/hub".as_ref()));
        assert_eq!(
            (found.hf_endpoint.as_str(), found.ms_endpoint.as_str()),
            ("https://huggingface.co/", "https://modelscope.cn/")
        );
        assert_eq!(found.hf_token.unwrap().secret(), "old");
        let found = settings(&[
            ("HF_ENDPOINT", "https://hf-mirror.com/"),
            ("HF_HOME", "/data/hf"),
            ("MODELSCOPE_DOMAIN", "www.modelscope.ai"),
            ("HF_HUB_OFFLINE", "true"),
        ]);
        assert_eq!(found.hf_cache.as_deref(), Some("/data/hf/hub".as_ref()));
        assert_eq!(
            (found.hf_endpoint.as_str(), found.ms_endpoint.as_str()),
            ("https://hf-mirror.com/", "https://www.modelscope.ai/")
        );
        assert_eq!(found.offline, Some("HF_HUB_OFFLINE"));
        assert_eq!(settings(&[("HF_HUB_OFFLINE", "0")]).offline, None);
    }

    #[test]
    fn a_token_file_is_read_and_no_token_is_ever_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_secret\n").unwrap();
        let found = settings(&[("HF_HOME", folder.path().to_str().unwrap())]);
        assert_eq!(found.hf_token.as_ref().unwrap().secret(), "hf_secret");
        assert!(!format!("{found:?}").contains("secret"));
    }

    #[test]
    fn an_address_that_is_none_is_an_error() {
        for value in ["ftp://x", "https://", "not an address"] {
            let error = Settings::from_variables(|name| (name == "HF_ENDPOINT").then(|| value.to_owned())).unwrap_err();
            assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
        }
    }
}
