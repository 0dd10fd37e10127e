//! An SNS signing certificate: its key, its validity, and whether it belongs to SNS.

use std::time::SystemTime;

use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::TbsCertificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::super::super::scheme::Unverified;
use super::url::is_region;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// `SignatureVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// PKCS #1 v1.5 with SHA-1, the default of a topic.
    One,
    /// PKCS #1 v1.5 with SHA-256.
    Two,
}

/// A certificate issued to SNS.
#[derive(Debug)]
pub(super) struct Certificate {
    /// `RSAPublicKey` (RFC 8017 appendix A.1.1).
    key: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Certificate {
    /// Reads the first certificate of a PEM file. Its issuer is not checked, since it changes over the years: the
    /// origin of the file is trusted, which is the operator or Amazon's own server over TLS.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| "it is not a PEM certificate")?;
        let certificate = x509_cert::Certificate::from_der(&der)
            .map_err(|_| "it is not an X.509 certificate")?
            .tbs_certificate;
        if !is_of_sns(&certificate) {
            return Err(
                "it was not issued to sns.amazonaws.com or a region's sns.REGION.amazonaws.com",
            );
        }
        let info = certificate.subject_public_key_info;
        let key = info.subject_public_key.as_bytes();
        let key = key.filter(|_| info.algorithm.oid == RSA_ENCRYPTION);
        Ok(Self {
            key: key.ok_or("its key is not an RSA key")?.to_vec(),
            not_before: SystemTime::UNIX_EPOCH + certificate.validity.not_before.to_unix_duration(),
            not_after: SystemTime::UNIX_EPOCH + certificate.validity.not_after.to_unix_duration(),
        })
    }

    pub(super) fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Verifies the signature of the text and the validity of the certificate.
    ///
    /// # Errors
    /// [`Unverified::KeyUnavailable`] before it becomes valid, since time will change that.
    pub(super) fn verify(
        &self,
        version: Version,
        text: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) -> Result<(), Unverified> {
        let algorithm = match version {
            Version::One => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Version::Two => &RSA_PKCS1_2048_8192_SHA256,
        };
        let is_signed = UnparsedPublicKey::new(algorithm, &self.key)
            .verify(text, signature)
            .is_ok();
        if !is_signed || self.is_expired(now) {
            return Err(Unverified::InvalidSignature);
        }
        if now < self.not_before {
            return Err(Unverified::KeyUnavailable);
        }
        Ok(())
    }
}

fn is_of_sns(certificate: &TbsCertificate) -> bool {
    let alternatives = match certificate.get::<SubjectAltName>() {
        Ok(alternatives) => alternatives.map(|(_, SubjectAltName(names))| names),
        Err(_) => return false,
    };
    let mut alternatives = alternatives.iter().flatten();
    let mut subject = certificate.subject.0.iter().flat_map(|part| part.0.iter());
    alternatives
        .any(|name| matches!(name, GeneralName::DnsName(name) if is_name_of_sns(name.as_str())))
        || subject.any(|part| {
            let name = std::str::from_utf8(part.value.value());
            part.oid == COMMON_NAME && name.is_ok_and(is_name_of_sns)
        })
}

/// `sns.amazonaws.com`; newer regions have `sns-signing.REGION.amazonaws.com` or `sns.REGION.amazonaws.com`, GovCloud and China
/// `sns-REGION.amazonaws.com` and the same with `.cn`.
fn is_name_of_sns(name: &str) -> bool {
    let suffixes = [".amazonaws.com.cn", ".amazonaws.com"];
    let service = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    service.is_some_and(|service| {
        let prefixes = ["sns-signing.", "sns.", "sns-"];
        let region = prefixes
            .iter()
            .find_map(|prefix| service.strip_prefix(prefix));
        service == "sns" || region.is_some_and(is_region)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_sns_are_accepted() {
        for name in [
            "sns.amazonaws.com",
            "sns.af-south-1.amazonaws.com",
            "sns-signing.af-south-1.amazonaws.com",
            "sns-us-gov-west-1.amazonaws.com",
            "sns-cn-north-1.amazonaws.com.cn",
        ] {
            assert!(is_name_of_sns(name), "{name}");
        }
        for name in [
            "amazonaws.com",
            "sqs.amazonaws.com",
            "sns.amazonaws.com.evil.example",
            "evil-sns.amazonaws.com",
            "sns.s3.eu-west-1.amazonaws.com",
            "snsx.amazonaws.com",
            "*.amazonaws.com",
            "sns.eu-west-1.amazonaws.com.",
        ] {
            assert!(!is_name_of_sns(name), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_a_certificate_is_refused() {
        for (text, reason) in [
            ("", "it is not a PEM certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "it is not an X.509 certificate",
            ),
        ] {
            assert_eq!(Certificate::parse(text.as_bytes()).unwrap_err(), reason);
        }
    }
}
