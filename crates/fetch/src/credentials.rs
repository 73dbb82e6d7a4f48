//! What an object store wants to know: from `AWS_*`, else from the files that the AWS tools keep.

use std::path::PathBuf;

use crate::{Settings, settings::Token};

/// Where an object store is and who asks.
pub(crate) struct Credentials {
    pub(crate) variables: Vec<(String, Token)>,
    pub(crate) endpoint: Option<String>,
    /// Nobody said who asks.
    pub(crate) is_anonymous: bool,
}

/// Any of these says who asks.
const IDENTITIES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

pub(crate) fn of(settings: &Settings) -> Credentials {
    let mut variables = settings.aws.clone();
    let get = |variables: &[(String, Token)], name: &str| {
        variables.iter().find(|(set, _)| set == name).map(|(_, value)| value.secret().to_owned())
    };
    let profile = get(&variables, "AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let is_known = |variables: &[(String, Token)]| IDENTITIES.iter().any(|name| get(variables, name).is_some());
    let home = |file: &str| settings.home.as_ref().map(|home| home.join(".aws").join(file));
    let mut add = |path: Option<PathBuf>, section: &str, fields: &[(&str, &str)]| {
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        for (field, name) in fields {
            if let Some(value) = field_of(&text, section, field)
                && get(&variables, name).is_none()
            {
                variables.push(((*name).to_owned(), Token::new(value)));
            }
        }
    };
    if !is_known(&settings.aws) {
        let path = get(&settings.aws, "AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(|| home("credentials"));
        let fields = [
            ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
            ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
            ("aws_session_token", "AWS_SESSION_TOKEN"),
        ];
        add(path, &profile, &fields);
    }
    let section = if profile == "default" { profile } else { format!("profile {profile}") };
    add(home("config"), &section, &[("region", "AWS_DEFAULT_REGION"), ("endpoint_url", "AWS_ENDPOINT_URL")]);
    let endpoint = get(&variables, "AWS_ENDPOINT_URL_S3").or_else(|| get(&variables, "AWS_ENDPOINT_URL"));
    Credentials { is_anonymous: !is_known(&variables), endpoint, variables }
}

/// The value of `field` in `[section]`.
fn field_of(text: &str, section: &str, field: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == section;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim() == field
        {
            return Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_aws_tools_are_read_where_the_environment_says_nothing() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(
            home.path().join(".aws/credentials"),
            "[default]\naws_access_key_id = one\naws_secret_access_key=two\n[work]\naws_access_key_id = three\n",
        )
        .unwrap();
        std::fs::write(home.path().join(".aws/config"), "[profile work]\nregion = cn-north-1\n").unwrap();
        let found = |variables: &[(&str, &str)]| {
            let home = home.path().to_str().unwrap();
            let variable = |name: &str| match name {
                "HOME" => Some(home.to_owned()),
                _ => variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()),
            };
            let found = of(&Settings::from_variables(variable).unwrap());
            let text: Vec<_> =
                found.variables.iter().map(|(name, value)| format!("{name}={}", value.secret())).collect();
            (text.join(" "), found.is_anonymous)
        };
        assert_eq!(found(&[]), ("AWS_ACCESS_KEY_ID=one AWS_SECRET_ACCESS_KEY=two".to_owned(), false));
        let work = "AWS_PROFILE=work AWS_ACCESS_KEY_ID=three AWS_DEFAULT_REGION=cn-north-1";
        assert_eq!(found(&[("AWS_PROFILE", "work")]), (work.to_owned(), false));
        assert_eq!(found(&[("AWS_ACCESS_KEY_ID", "x")]), ("AWS_ACCESS_KEY_ID=x".to_owned(), false));
        assert!(found(&[("AWS_PROFILE", "nobody")]).1);
    }
}
