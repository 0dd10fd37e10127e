//! Recognizes Amazon SNS's own URLs. They come from an unverified body, so they are compared character by character
//! instead of being parsed: no user information, port, encoded or unusual character gets through.

/// A region's name in a host: one label.
pub(super) fn is_region(text: &str) -> bool {
    let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=32).contains(&text.len()) && text.bytes().all(is_label)
}

/// The path, including its slash, of a URL at `https://sns.REGION.amazonaws.com` or the same with `.cn`.
fn path_at_sns(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://sns.")?;
    let (host, path) = rest.split_at_checked(rest.find('/')?)?;
    let suffixes = [".amazonaws.com.cn", ".amazonaws.com"];
    let region = suffixes
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))?;
    is_region(region).then_some(path)
}

/// The maximum length of a URL in bytes.
const MAX_URL_BYTES: usize = 2048;

/// The name of a certificate's file, if the URL is one that SNS uses in `SigningCertURL`.
pub(super) fn certificate_name(url: &str) -> Option<&str> {
    let name = path_at_sns(url)?.strip_prefix('/')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let stem = name.strip_suffix(".pem")?;
    let fits = (1..=128).contains(&stem.len()) && stem.bytes().all(is_plain);
    fits.then_some(name)
}

/// Whether a GET of the URL confirms a subscription, and can do nothing else.
pub(super) fn is_confirmation(url: &str) -> bool {
    let query =
        path_at_sns(url).and_then(|path| path.strip_prefix("/?Action=ConfirmSubscription&"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/=&%+".contains(&byte);
    url.len() <= MAX_URL_BYTES
        && query.is_some_and(|query| {
            query.bytes().all(is_plain) && !query.split('&').any(|pair| pair.starts_with("Action="))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://sns.eu-central-1.amazonaws.com";

    #[test]
    fn only_certificates_at_amazons_own_hosts_are_accepted() {
        for host in [HOST, "https://sns.cn-north-1.amazonaws.com.cn"] {
            let url = format!("{host}/SimpleNotificationService-0a1b.pem");
            assert_eq!(
                certificate_name(&url),
                Some("SimpleNotificationService-0a1b.pem")
            );
        }
        for url in [
            "http://sns.eu-central-1.amazonaws.com/a.pem",
            "HTTPS://sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com:443/a.pem",
            "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
            "https://sns.eu-central-1.amazonaws.com@evil.example/a.pem",
            "https://user@sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem",
            "https://evil.sns.eu-central-1.amazonaws.com/a.pem",
            "https://sns.evil.example/.amazonaws.com/a.pem",
            "https://sns.evil.example#.amazonaws.com/a.pem",
            "https://sns.a.b.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.eu.amazonaws.com/a.pem",
            "https://sns.amazonaws.com/a.pem",
            "https://s3.amazonaws.com/evil/a.pem",
            "https://sns.eu-central-1.amazonaws.com/a.txt",
            "https://sns.eu-central-1.amazonaws.com/.pem",
            "https://sns.eu-central-1.amazonaws.com/a/b.pem",
            "https://sns.eu-central-1.amazonaws.com/../a.pem",
            "https://sns.eu-central-1.amazonaws.com/a.pem?x=.pem",
            "https://sns.eu-central-1.amazonaws.com/a%2e.pem",
            "https://sns.eu-central-1.amazonaws.com\\a.pem",
            "https://sns.eu-central-1.amazonaws.com\n/a.pem",
            "",
        ] {
            assert_eq!(certificate_name(url), None, "{url}");
        }
    }

    #[test]
    fn a_subscription_is_confirmed_by_one_action_at_amazons_own_hosts() {
        let arn = "arn:aws:sns:eu-central-1:111122223333:orders";
        let url = format!("{HOST}/?Action=ConfirmSubscription&TopicArn={arn}&Token=23aF");
        assert!(is_confirmation(&url), "{url}");
        for url in [
            format!("{HOST}/?Action=Unsubscribe&SubscriptionArn={arn}"),
            format!("{HOST}/?Action=ConfirmSubscription&Action=Unsubscribe"),
            format!("{HOST}/x?Action=ConfirmSubscription&Token=2"),
            format!("{HOST}/?Action=ConfirmSubscription&Token=2\r\nx"),
            format!(
                "{HOST}/?Action=ConfirmSubscription&Token={}",
                "2".repeat(3000)
            ),
            "https://evil.example/?Action=ConfirmSubscription&Token=2".to_owned(),
            "http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=2".to_owned(),
        ] {
            assert!(!is_confirmation(&url), "{url}");
        }
    }
}
