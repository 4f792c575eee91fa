//! Accounts of a Baileys bot: files of the kinds, names and sizes that the library writes.
//!
//! Their shapes were read from the folders of the real bot in `tests/gateways/baileys`: a pre-key
//! takes 164 bytes, a session between 1.5 and 5.5 KB according to how many chains it keeps.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::random::{Random, base64};

/// Files of one account.
pub(crate) const FILES: usize = 1021;

const PRE_KEYS: usize = 600;
const SESSIONS: usize = 260;
const IDENTITIES: usize = 60;
const SENDER_KEYS: usize = 40;
const SYNC_KEYS: usize = 5;
const SYNC_VERSIONS: [&str; 5] = [
    "critical_block",
    "critical_unblock_low",
    "regular",
    "regular_high",
    "regular_low",
];
const DEVICE_LISTS: usize = 20;
const LID_MAPPINGS: usize = 30;

const _: () = assert!(
    1 + PRE_KEYS
        + SESSIONS
        + IDENTITIES
        + SENDER_KEYS
        + SYNC_KEYS
        + SYNC_VERSIONS.len()
        + DEVICE_LISTS
        + LID_MAPPINGS
        == FILES
);

/// Chains that a session keeps at most: the library drops older ones.
const CHAINS: u64 = 40;

/// What a file is, which decides its name and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Creds,
    PreKey,
    Session,
    Identity,
    SenderKey,
    SyncKey,
    SyncVersion,
    DeviceList,
    LidMapping,
}

impl Kind {
    /// All kinds, with how many files of each an account has.
    const COUNTS: [(Self, usize); 9] = [
        (Self::Creds, 1),
        (Self::PreKey, PRE_KEYS),
        (Self::Session, SESSIONS),
        (Self::Identity, IDENTITIES),
        (Self::SenderKey, SENDER_KEYS),
        (Self::SyncKey, SYNC_KEYS),
        (Self::SyncVersion, SYNC_VERSIONS.len()),
        (Self::DeviceList, DEVICE_LISTS),
        (Self::LidMapping, LID_MAPPINGS),
    ];

    /// How many files of this kind an account has.
    pub(crate) fn count(self) -> usize {
        Self::COUNTS
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or(0, |(_, count)| *count)
    }
}

/// The name of the `n`-th file of its kind.
pub(crate) fn name(kind: Kind, n: usize) -> String {
    let phone = 4_915_100_000_000_u64 + n as u64;
    match kind {
        Kind::Creds => "creds.json".to_owned(),
        Kind::PreKey => format!("pre-key-{}.json", n + 1),
        Kind::Session => format!("session-{phone}.0.json"),
        Kind::Identity => format!("identity-key-{phone}.0.json"),
        Kind::SenderKey => format!("sender-key-12036304{n:010}@g.us--{phone}--0.json"),
        Kind::SyncKey => format!("app-state-sync-key-AAAAAA{n:02}.json"),
        Kind::SyncVersion => format!("app-state-sync-version-{}.json", SYNC_VERSIONS[n]),
        Kind::DeviceList => format!("device-list-{phone}.json"),
        Kind::LidMapping => format!("lid-mapping-{phone}.json"),
    }
}

/// The content of a file, in its `version`-th writing.
pub(crate) fn content(kind: Kind, account: usize, n: usize, version: u64) -> Vec<u8> {
    let place = (account as u64) << 32 | (n as u64) << 8 | kind as u64;
    let random = &mut Random::new("baileys", place.wrapping_mul(0x9e37_79b9) ^ version << 48);
    let text = match kind {
        Kind::Creds => creds(random, account, version),
        Kind::PreKey => format!(
            "{{\"private\":{},\"public\":{}}}",
            buffer(random, 32),
            buffer(random, 32)
        ),
        Kind::Session => session(random),
        Kind::Identity => buffer(random, 33),
        Kind::SenderKey => sender_key(random),
        Kind::SyncKey => format!(
            "{{\"keyData\":\"{}\",\"fingerprint\":{{\"rawId\":{},\"currentIndex\":1,\"deviceIndexes\":[0,1]}},\"timestamp\":\"17957{}\"}}",
            random.base64(32),
            random.below(1 << 31),
            random.below(100_000_000)
        ),
        Kind::SyncVersion => sync_version(random),
        Kind::DeviceList => "[\"0\",\"12\",\"47\"]".to_owned(),
        Kind::LidMapping => format!("\"{:015}\"", random.below(1_000_000_000_000_000)),
    };
    text.into_bytes()
}

/// Writes so many accounts below `root`, each a folder with [`FILES`] files. Returns their bytes.
pub(crate) fn accounts(root: &Path, count: usize) -> u64 {
    (0..count)
        .map(|account| self::account(&root.join(folder(account)), account))
        .sum()
}

/// The folder of an account.
pub(crate) fn folder(account: usize) -> PathBuf {
    PathBuf::from(format!("account-{account:03}"))
}

/// Writes one account into `dir`. Returns its bytes.
pub(crate) fn account(dir: &Path, account: usize) -> u64 {
    fs::create_dir_all(dir).expect("create the account's folder");
    let mut bytes = 0;
    for (kind, count) in Kind::COUNTS {
        for n in 0..count {
            let content = content(kind, account, n, 0);
            bytes += content.len() as u64;
            fs::write(dir.join(name(kind, n)), content).expect("write a key");
        }
    }
    bytes
}

fn buffer(random: &mut Random, bytes: usize) -> String {
    format!(
        "{{\"type\":\"Buffer\",\"data\":\"{}\"}}",
        random.base64(bytes)
    )
}

fn pair(random: &mut Random) -> String {
    format!(
        "{{\"private\":{},\"public\":{}}}",
        buffer(random, 32),
        buffer(random, 32)
    )
}

fn creds(random: &mut Random, account: usize, version: u64) -> String {
    format!(
        "{{\"noiseKey\":{},\"pairingEphemeralKeyPair\":{},\"signedIdentityKey\":{},\
         \"signedPreKey\":{{\"keyPair\":{},\"signature\":{},\"keyId\":1}},\
         \"registrationId\":{},\"advSecretKey\":\"{}\",\"processedHistoryMessages\":[],\
         \"nextPreKeyId\":{},\"firstUnuploadedPreKeyId\":{},\"accountSyncCounter\":{version},\
         \"accountSettings\":{{\"unarchiveChats\":false}},\"registered\":true,\
         \"me\":{{\"id\":\"{}:12@s.whatsapp.net\",\"name\":\"account-{account}\"}},\
         \"account\":{{\"details\":\"{}\",\"accountSignatureKey\":\"{}\",\
         \"accountSignature\":\"{}\",\"deviceSignature\":\"{}\"}},\"platform\":\"android\",\
         \"lastPropHash\":\"2P1Yhf\",\"myAppStateKeyId\":\"AAAAAA00\"}}",
        pair(random),
        pair(random),
        pair(random),
        pair(random),
        buffer(random, 64),
        random.below(16_384),
        random.base64(32),
        PRE_KEYS + 1,
        PRE_KEYS + 1,
        4_915_100_000_000 + account as u64,
        random.base64(19),
        random.base64(32),
        random.base64(64),
        random.base64(64),
    )
}

fn session(random: &mut Random) -> String {
    let base = random.base64(33);
    let mut text = format!(
        "{{\"_sessions\":{{\"{base}\":{{\"registrationId\":{},\"currentRatchet\":{{\
         \"ephemeralKeyPair\":{{\"pubKey\":\"{}\",\"privKey\":\"{}\"}},\
         \"lastRemoteEphemeralKey\":\"{}\",\"previousCounter\":{},\"rootKey\":\"{}\"}},\
         \"indexInfo\":{{\"baseKey\":\"{base}\",\"baseKeyType\":2,\"closed\":-1,\
         \"used\":17957{},\"created\":1795775361856,\"remoteIdentityKey\":\"{}\"}},\"_chains\":{{",
        random.below(16_384),
        random.base64(33),
        random.base64(32),
        random.base64(33),
        random.below(40),
        random.base64(32),
        random.below(100_000_000),
        random.base64(33),
    );
    // Most contacts have written back and forth often enough for the full number of chains.
    let chains = 12 + random.below(2 * CHAINS - 24).min(CHAINS - 12);
    for chain in 0..chains {
        let comma = if chain == 0 { "" } else { "," };
        let counter = random.below(4);
        let _ = write!(
            text,
            "{comma}\"{}\":{{\"chainKey\":{{\"counter\":{counter}}},\"chainType\":2,\"messageKeys\":{{}}}}",
            random.base64(33)
        );
    }
    text.push_str("}}},\"version\":\"v1\"}");
    text
}

/// The library keeps a group's key as the bytes of a JSON text.
fn sender_key(random: &mut Random) -> String {
    let inner = format!(
        "[{{\"senderKeyId\":{},\"senderChainKey\":{{\"iteration\":{},\"seed\":{}}},\
         \"senderSigningKey\":{{\"public\":{},\"private\":{}}},\"senderMessageKeys\":[]}}]",
        random.below(1 << 31),
        random.below(500),
        buffer(random, 32),
        buffer(random, 33),
        buffer(random, 32),
    );
    format!(
        "{{\"type\":\"Buffer\",\"data\":\"{}\"}}",
        base64(inner.as_bytes())
    )
}

fn sync_version(random: &mut Random) -> String {
    let mut text = format!(
        "{{\"version\":{},\"hash\":{},\"indexValueMap\":{{",
        random.below(400),
        buffer(random, 128)
    );
    for entry in 0..60 {
        let comma = if entry == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}\"{}\":{{\"valueMac\":{}}}",
            random.base64(32),
            buffer(random, 32)
        );
    }
    text.push_str("}}");
    text
}
