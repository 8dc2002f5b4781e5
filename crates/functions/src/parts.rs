//! What a version needs on disk: the folder of its package, and one for `/opt` if it has layers.

use martlet_model::FunctionVersion;
use martlet_store::{Digest, DigestError};

/// The digests of the zip files that a version is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Parts {
    pub(crate) code: String,
    /// The lowest first.
    pub(crate) layers: Vec<String>,
}

/// What is shown at `/opt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opt {
    /// Nothing.
    Empty,
    /// The package of the only layer, as it is.
    One(Digest),
    /// The packages of several, laid over each other in a folder of their own.
    Merged {
        /// Names that folder.
        digest: Digest,
        /// The lowest first.
        layers: Vec<Digest>,
    },
}

impl Parts {
    pub(crate) fn of(version: &FunctionVersion) -> Self {
        let layers = version.configuration.layers.iter().map(|layer| layer.code.digest.clone()).collect();
        Self { code: version.code.digest.clone(), layers }
    }

    pub(crate) fn opt(&self) -> Result<Opt, DigestError> {
        let layers: Vec<Digest> = self.layers.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?;
        Ok(match *layers {
            [] => Opt::Empty,
            [only] => Opt::One(only),
            _ => Opt::Merged { digest: merged(&layers), layers },
        })
    }

    /// Everything that must not be removed while a record has these parts.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let zips = std::iter::once(&self.code).chain(&self.layers);
        let mut all: Vec<Digest> = zips.filter_map(|digest| digest.parse().ok()).collect();
        if let Ok(Opt::Merged { digest, .. }) = self.opt() {
            all.push(digest);
        }
        all
    }
}

impl Opt {
    /// The folder, if there is one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Empty => None,
            Self::One(digest) | Self::Merged { digest, .. } => Some(*digest),
        }
    }
}

/// Another one for another order, and none that a zip file has.
fn merged(layers: &[Digest]) -> Digest {
    let mut text = "layers, the lowest first".to_owned();
    for layer in layers {
        text.push('\n');
        text.push_str(&layer.to_string());
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(layers: &[u8]) -> Parts {
        let digest = |n: u8| Digest::of(&[n]).to_string();
        Parts { code: digest(0), layers: layers.iter().map(|n| digest(*n)).collect() }
    }

    #[test]
    fn several_layers_have_a_folder_of_their_own_by_their_order() {
        assert_eq!(parts(&[]).opt(), Ok(Opt::Empty));
        assert_eq!(parts(&[1]).opt().unwrap().digest(), Some(Digest::of(&[1])));
        let folder = |layers: &[u8]| parts(layers).opt().unwrap().digest();
        assert_eq!(folder(&[1, 2]), folder(&[1, 2]));
        assert_ne!(folder(&[1, 2]), folder(&[2, 1]));
        assert_ne!(folder(&[1, 2]), folder(&[1, 2, 3]));
        assert_eq!(parts(&[1, 2]).digests().len(), 4);
    }
}
