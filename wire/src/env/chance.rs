//! Chance: from the operating system, or from a seed.
//!
//! ring draws ephemeral keys straight from the operating system, out of reach of a seed. So a
//! seeded world has its own X25519 key exchange, on the same curve by another library.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup};
use std::sync::{Arc, Mutex};
use x25519_dalek::{PublicKey, StaticSecret};

/// A stream of chance, shared by its clones.
#[derive(Clone)]
pub(super) struct Chance {
    stream: Arc<Mutex<ChaCha20Rng>>,
    /// None when the operating system gave the seed.
    seed: Option<[u8; 32]>,
}

impl std::fmt::Debug for Chance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chance")
    }
}

impl Chance {
    pub(super) fn from_os() -> Self {
        Chance { stream: Arc::new(Mutex::new(ChaCha20Rng::from_os_rng())), seed: None }
    }

    pub(super) fn seeded(seed: [u8; 32]) -> Self {
        Chance { stream: Arc::new(Mutex::new(ChaCha20Rng::from_seed(seed))), seed: Some(seed) }
    }

    pub(super) fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// Another stream: it depends on this one's seed and position, and on `name`.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut drawn = [0; 32];
        self.fill(&mut drawn);
        hasher.update(&drawn).update(name.as_bytes());
        Chance::seeded(*hasher.finalize().as_bytes())
    }

    pub(super) fn fill(&self, bytes: &mut [u8]) {
        self.stream.lock().expect("drawing does not panic").fill_bytes(bytes)
    }
}

/// ring, with its chance taken from a seed.
pub(super) fn seeded_crypto(chance: &Chance) -> Arc<CryptoProvider> {
    // rustls wants 'static. A simulated host leaks these few bytes at each of its starts.
    let random: &'static Chance = Box::leak(Box::new(chance.clone()));
    let group: &'static SeededX25519 = Box::leak(Box::new(SeededX25519(chance.clone())));
    Arc::new(CryptoProvider {
        secure_random: random,
        kx_groups: vec![group],
        ..rustls::crypto::ring::default_provider()
    })
}

impl SecureRandom for Chance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        Chance::fill(self, bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct SeededX25519(Chance);

struct Exchange {
    secret: StaticSecret,
    public: [u8; 32],
}

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        self.0.fill(&mut bytes);
        let secret = StaticSecret::from(bytes);
        let public = PublicKey::from(&secret).to_bytes();
        Ok(Box::new(Exchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] =
            peer.try_into().map_err(|_| Error::PeerMisbehaved(rustls::PeerMisbehaved::InvalidKeyShare))?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(Error::PeerMisbehaved(rustls::PeerMisbehaved::InvalidKeyShare));
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(chance: &Chance) -> [u8; 8] {
        let mut bytes = [0; 8];
        chance.fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_seed_decides_and_names_part() {
        let (a, b) = (Chance::seeded([1; 32]), Chance::seeded([1; 32]));
        assert_eq!(draw(&a), draw(&b));
        assert_eq!(draw(&a.child("x")), draw(&b.child("x")));
        assert_ne!(draw(&a.child("x")), draw(&b.child("y")));
        assert_ne!(draw(&Chance::seeded([1; 32])), draw(&Chance::seeded([2; 32])));
        assert_ne!(draw(&Chance::from_os()), draw(&Chance::from_os()));
    }

    #[test]
    fn seeded_key_exchange_agrees_with_rings() {
        let ours = SeededX25519(Chance::seeded([7; 32])).start().unwrap();
        let rings = rustls::crypto::ring::kx_group::X25519.start().unwrap();
        let (our_key, ring_key) = (ours.pub_key().to_vec(), rings.pub_key().to_vec());
        let a = ours.complete(&ring_key).unwrap();
        let b = rings.complete(&our_key).unwrap();
        assert_eq!(a.secret_bytes(), b.secret_bytes());
    }
}
