//! A data folder's identity: whose it is, in which life, and what it remembers of others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{FolderId, Incarnation, Remembered, ServerId};

/// Version of the file's form. Format 1, of release 0.1, is the same; with the number a folder whose segments have format 2 is
/// refused by that release, which would take them for damaged.
const FORMAT: u32 = 2;

/// Kept in `identity.json`, replaced as a whole, always synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name: a folder of another cluster is refused.
    pub cluster: String,
    /// The server: a folder of another server is refused.
    pub server: ServerId,
    /// Made with the folder.
    pub folder: FolderId,
    /// [`Incarnation::NONE`] until the peers have been asked what they remember.
    pub incarnation: Incarnation,
    /// Whether the server may count towards majorities.
    pub voting: bool,
    /// Cells were lost (damage, or an older copy of the folder): this is not a first start, whatever peers say.
    pub forgetful: bool,
    /// No version time above this has been issued.
    pub ceiling: i64,
    /// What is remembered of peers.
    pub peers: BTreeMap<ServerId, Remembered>,
    /// How far the scrub is. Nothing depends on it but work that would be done again.
    pub scrub: ScrubMark,
}

/// How far the scrub of the cells' segments is, by the wall clock in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubMark {
    /// When the pass began that is under way, or else the last one; 0: there was none.
    pub began: i64,
    /// When a pass was complete last; 0: never.
    pub ended: i64,
    /// The segments up to here are done.
    pub done: u32,
    /// The pass ends before this segment; 0: none is under way.
    pub end: u32,
}

/// Why bytes are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not the JSON that is written there.
    #[error("it is not the JSON that was written: {0}")]
    Form(#[from] serde_json::Error),
    /// Written by a later release.
    #[error("it has format {found}, and this program knows {FORMAT}")]
    Format {
        /// As it stands there.
        found: u32,
    },
    /// Something in it has changed.
    #[error("its checksum is wrong")]
    Checksum,
}

/// The file: readable by people, with a checksum over the identity as it is written.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    checksum: u32,
    identity: IdentityForm,
}

#[derive(Serialize, Deserialize)]
struct IdentityForm {
    cluster: String,
    server: u16,
    folder: u64,
    incarnation: u32,
    voting: bool,
    forgetful: bool,
    ceiling: i64,
    peers: Vec<PeerForm>,
    // Left out before the first pass, as it was before there was any.
    #[serde(default, skip_serializing_if = "is_unbegun")]
    scrub: ScrubMark,
}

#[derive(Serialize, Deserialize)]
struct PeerForm {
    server: u16,
    incarnation: u32,
    folder: u64,
    replaced: bool,
    position: u64,
    // Left out where they are 0, as they were before there were any.
    #[serde(default, skip_serializing_if = "is_zero")]
    session: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    before: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_unbegun(mark: &ScrubMark) -> bool {
    *mark == ScrubMark::default()
}

impl Identity {
    /// The bytes of its file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let identity = IdentityForm::from(self);
        let (format, checksum) = (FORMAT, checksum(&identity));
        // Numbers and strings: there is nothing in it that cannot be written.
        let mut bytes =
            serde_json::to_vec_pretty(&File { format, checksum, identity }).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// From the bytes of its file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let File { format, checksum: found, identity } = serde_json::from_slice(bytes)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(IdentityError::Format { found: format });
        }
        if checksum(&identity) != found {
            return Err(IdentityError::Checksum);
        }
        Ok(identity.into())
    }
}

fn checksum(identity: &IdentityForm) -> u32 {
    crc32c::crc32c(&serde_json::to_vec(identity).unwrap_or_default())
}

impl From<&Identity> for IdentityForm {
    fn from(identity: &Identity) -> IdentityForm {
        let peer = |(server, remembered): (&ServerId, &Remembered)| PeerForm {
            server: server.0,
            incarnation: remembered.incarnation.0,
            folder: remembered.folder.0,
            replaced: remembered.replaced,
            position: remembered.position,
            session: remembered.session,
            before: remembered.before,
        };
        IdentityForm {
            cluster: identity.cluster.clone(),
            server: identity.server.0,
            folder: identity.folder.0,
            incarnation: identity.incarnation.0,
            voting: identity.voting,
            forgetful: identity.forgetful,
            ceiling: identity.ceiling,
            peers: identity.peers.iter().map(peer).collect(),
            scrub: identity.scrub,
        }
    }
}

impl From<IdentityForm> for Identity {
    fn from(form: IdentityForm) -> Identity {
        let peer = |peer: PeerForm| {
            let remembered = Remembered {
                incarnation: Incarnation(peer.incarnation),
                folder: FolderId(peer.folder),
                replaced: peer.replaced,
                position: peer.position,
                session: peer.session,
                before: peer.before,
            };
            (ServerId(peer.server), remembered)
        };
        Identity {
            cluster: form.cluster,
            server: ServerId(form.server),
            folder: FolderId(form.folder),
            incarnation: Incarnation(form.incarnation),
            voting: form.voting,
            forgetful: form.forgetful,
            ceiling: form.ceiling,
            peers: form.peers.into_iter().map(peer).collect(),
            scrub: form.scrub,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_and_a_changed_one_is_refused() {
        let remembered = Remembered {
            incarnation: Incarnation(4),
            folder: FolderId(u64::MAX),
            replaced: true,
            position: 9,
            session: 5,
            before: 8,
        };
        let identity = Identity {
            cluster: "demo \"1\"".to_owned(),
            server: ServerId(3),
            folder: FolderId(7),
            incarnation: Incarnation(2),
            voting: true,
            forgetful: false,
            ceiling: i64::MAX,
            peers: BTreeMap::from([(ServerId(1), remembered)]),
            scrub: ScrubMark::default(),
        };
        assert!(!String::from_utf8(identity.encode()).unwrap().contains("scrub"), "as before");
        let scrub = ScrubMark { began: 7, ended: 5, done: 3, end: 9 };
        let identity = Identity { scrub, ..identity };
        let bytes = identity.encode();
        assert_eq!(Identity::parse(&bytes).unwrap(), identity);
        let changed =
            String::from_utf8(bytes).unwrap().replace("\"voting\": true", "\"voting\": false");
        assert!(matches!(Identity::parse(changed.as_bytes()), Err(IdentityError::Checksum)));
        assert!(matches!(Identity::parse(b"{"), Err(IdentityError::Form(_))));
        let text = String::from_utf8(identity.encode()).unwrap();
        let of = |format| text.replace("\"format\": 2", &format!("\"format\": {format}"));
        assert_eq!(Identity::parse(of(1).as_bytes()).unwrap(), identity);
        for format in [0, 3] {
            let refused = Identity::parse(of(format).as_bytes());
            assert!(matches!(refused, Err(IdentityError::Format { .. })), "{format}");
        }
    }
}
