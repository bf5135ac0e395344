//! Certificates and keys in files.

use crate::CertError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) const CA_PEM: &str = "ca.pem";
pub(crate) const CA_KEY: &str = "ca.key";

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Readers {
    Owner,
    Everybody,
}

/// All certificates of a file, at least one.
pub(crate) fn read_certificates(path: &Path, make: &str) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let bytes = read(path, make)?;
    let malformed = |why: String| CertError::malformed(path.display().to_string(), why);
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| malformed(format!("{e:?}")))?;
    match certificates.is_empty() {
        true => Err(malformed("there is no CERTIFICATE in it".into())),
        false => Ok(certificates),
    }
}

/// The private key in a file.
pub(crate) fn read_key(path: &Path, make: &str) -> Result<PrivatePkcs8KeyDer<'static>, CertError> {
    let bytes = read(path, make)?;
    PrivatePkcs8KeyDer::from_pem_slice(&bytes)
        .map_err(|e| CertError::malformed(path.display().to_string(), format!("there is no PRIVATE KEY in it ({e:?})")))
}

fn read(path: &Path, make: &str) -> Result<Vec<u8>, CertError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CertError::Missing { path: path.into(), make: make.into() },
        _ => CertError::Unreadable { path: path.into(), source },
    })
}

/// Writes a file whole or not at all: a running node may read it at any moment.
pub(crate) fn write(path: &Path, text: &str, readers: Readers) -> Result<(), CertError> {
    let failed = |source| CertError::Unreadable { path: path.into(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let written = (|| {
        let mut file = create(&draft, readers)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(directory)?.sync_all()
    })();
    written.map_err(failed)
}

fn create(path: &Path, readers: Readers) -> io::Result<File> {
    // A draft that a crash left behind may be readable by others: it is never written to.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(
        &mut options,
        match readers {
            Readers::Owner => 0o600,
            Readers::Everybody => 0o644,
        },
    );
    options.open(path)
}

/// A certificate as text.
pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", certificate)
}

/// A key as text.
pub(crate) fn key_pem(key: &PrivatePkcs8KeyDer<'_>) -> String {
    encode("PRIVATE KEY", key.secret_pkcs8_der())
}

/// RFC 7468.
fn encode(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}
