//! The ethtool ioctls that are needed: a device's features, and its speed and modes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

// linux/ethtool.h
const ETHTOOL_GSET: u32 = 0x01;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// The length of `struct ethtool_cmd`, in words.
const ETHTOOL_CMD_WORDS: usize = 11;

/// Link modes and properties, as OpenFlow 1.0 numbers them (`enum ofp_port_features`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkModes(pub u32);

impl LinkModes {
    /// 10 Mb/s half duplex. Each rate has two bits, the one for full duplex following.
    const HALF_10MB: u32 = 1 << 0;
    const HALF_100MB: u32 = 1 << 2;
    const HALF_1GB: u32 = 1 << 4;
    const FULL_10GB: u32 = 1 << 6;
    const COPPER: u32 = 1 << 7;
    const FIBER: u32 = 1 << 8;
    const AUTONEG: u32 = 1 << 9;
    const PAUSE: u32 = 1 << 10;
    const PAUSE_ASYM: u32 = 1 << 11;

    /// Translates ethtool's bits (`ADVERTISED_*`, `SUPPORTED_*`).
    fn from_ethtool(bits: u32) -> Self {
        let table = [
            (1 << 0, Self::HALF_10MB),
            (1 << 1, Self::HALF_10MB << 1),
            (1 << 2, Self::HALF_100MB),
            (1 << 3, Self::HALF_100MB << 1),
            (1 << 4 | 1 << 21, Self::HALF_1GB),
            (1 << 5 | 1 << 17 | 1 << 22, Self::HALF_1GB << 1),
            (1 << 12 | 1 << 18 | 1 << 19 | 1 << 20, Self::FULL_10GB),
            (1 << 7, Self::COPPER),
            (1 << 10, Self::FIBER),
            (1 << 6, Self::AUTONEG),
            (1 << 13, Self::PAUSE),
            (1 << 14, Self::PAUSE_ASYM),
        ];
        Self(table.iter().filter(|(theirs, _)| bits & theirs != 0).map(|(_, ours)| ours).sum())
    }
}

/// What a device tells of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// The speed in Mb/s; 0: unknown.
    pub speed: u32,
    /// What is in use.
    pub current: LinkModes,
    /// What is offered to the other side.
    pub advertised: LinkModes,
    /// What the device could do.
    pub supported: LinkModes,
}

impl Media {
    /// Reads a `struct ethtool_cmd`.
    fn from_ethtool(words: &[u32; ETHTOOL_CMD_WORDS]) -> Self {
        // Of several bytes in one word, so by their place in memory: speed (two bytes), duplex, port;
        // phy_address, transceiver, autoneg, mdio_support; speed_hi (two bytes), and two more.
        let [speed_0, speed_1, duplex, port] = words[3].to_ne_bytes();
        let [_, _, autoneg, _] = words[4].to_ne_bytes();
        let [speed_2, speed_3, _, _] = words[7].to_ne_bytes();
        let low = u16::from_ne_bytes([speed_0, speed_1]);
        let high = u16::from_ne_bytes([speed_2, speed_3]);
        let speed = match u32::from(high) << 16 | u32::from(low) {
            // SPEED_UNKNOWN, also as older drivers wrote it, in 16 bits
            u32::MAX | 0xffff => 0,
            speed => speed,
        };

        // OpenFlow 1.0 knows no faster mode than 10 Gb/s; then only the speed tells.
        let rate = match speed {
            10 => LinkModes::HALF_10MB,
            100 => LinkModes::HALF_100MB,
            1000 => LinkModes::HALF_1GB,
            10_000 => LinkModes::FULL_10GB,
            _ => 0,
        };
        let full = duplex == 1 && speed < 10_000;
        let medium = match port {
            0 => LinkModes::COPPER,
            3 => LinkModes::FIBER,
            _ => 0,
        };
        let negotiated = if autoneg == 1 { LinkModes::AUTONEG } else { 0 };
        Self {
            speed,
            current: LinkModes(rate << u32::from(full) | medium | negotiated),
            advertised: LinkModes::from_ethtool(words[2]),
            supported: LinkModes::from_ethtool(words[1]),
        }
    }
}

/// A feature's kernel name ("rx-gro", "tx-checksum-ip-generic", ...) and whether it is on.
pub(super) type Feature = (String, bool);

pub(super) struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Speed and modes. This is the old form of the request, which the kernel answers for every driver; what
    /// it cannot express (modes from bit 32 up) OpenFlow 1.0 cannot either.
    pub(super) fn media(&self, device: &str) -> io::Result<Media> {
        let mut words = [0; ETHTOOL_CMD_WORDS];
        words[0] = ETHTOOL_GSET;
        self.ioctl(device, &mut words)?;
        Ok(Media::from_ethtool(&words))
    }

    /// All features that the kernel knows, and which of them are on.
    pub(super) fn features(&self, device: &str) -> io::Result<Vec<Feature>> {
        let known = self.feature_names(device)?;
        let blocks = known.len().div_ceil(32);
        // A header of command and number of blocks; in each block: available, requested, active, never_changed.
        let mut words = vec![0; 2 + blocks * 4];
        words[0] = ETHTOOL_GFEATURES;
        words[1] = count(blocks)?;
        self.ioctl(device, &mut words)?;
        let is_active = |bit: usize| words[2 + bit / 32 * 4 + 2] & (1 << (bit % 32)) != 0;
        Ok(known.into_iter().enumerate().map(|(bit, name)| (name, is_active(bit))).collect())
    }

    /// Turns features on or off, as far as the driver lets: what came of it is to be read back.
    pub(super) fn set_features(&self, device: &str, features: &[Feature]) -> io::Result<()> {
        let known = self.feature_names(device)?;
        let blocks = known.len().div_ceil(32);
        // The same header; in each block: valid (which bits to change), requested.
        let mut words = vec![0; 2 + blocks * 2];
        words[0] = ETHTOOL_SFEATURES;
        words[1] = count(blocks)?;
        for (name, on) in features {
            if let Some(bit) = known.iter().position(|known| known == name) {
                let block = 2 + bit / 32 * 2;
                words[block] |= 1 << (bit % 32);
                words[block + 1] |= u32::from(*on) << (bit % 32);
            }
        }
        self.ioctl(device, &mut words)
    }

    /// The features' names, each at the place of its bit. Unused bits have an empty one.
    fn feature_names(&self, device: &str) -> io::Result<Vec<String>> {
        // command, reserved, the mask of wanted sets (64 bits); then the length of each.
        let mut info = [0; 5];
        info[0] = ETHTOOL_GSSET_INFO;
        let [low, high] = halves(1 << ETH_SS_FEATURES);
        (info[2], info[3]) = (low, high);
        self.ioctl(device, &mut info)?;
        let total = info[4];

        // command, set, length; then the strings.
        let string_words = ETH_GSTRING_LEN / size_of::<u32>();
        let mut words = vec![0; 3 + total as usize * string_words];
        (words[0], words[1], words[2]) = (ETHTOOL_GSTRINGS, ETH_SS_FEATURES, total);
        self.ioctl(device, &mut words)?;
        Ok(words[3..].chunks_exact(string_words).map(string).collect())
    }

    /// Has the kernel read a request and write its answer over it.
    ///
    /// `words` must have room for the answer. The kernel writes as many strings as a set has and as many
    /// feature blocks as asked for, both of which the callers size by what the kernel said, and a
    /// `struct ethtool_cmd` for ETHTOOL_GSET.
    fn ioctl(&self, device: &str, words: &mut [u32]) -> io::Result<()> {
        // SAFETY: ifreq is plain old data, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        if device.len() > room {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the socket is open, the request is an ifreq with a zero-terminated name, and its data points
        // to memory borrowed mutably for the call and, as said above, large enough.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn count(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

/// The two words of a 64-bit one, in the order they have in memory.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// A zero-padded string.
fn string(words: &[u32]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethtool_cmd(speed: u32, duplex: u8, port: u8, autoneg: u8) -> [u32; ETHTOOL_CMD_WORDS] {
        let mut words = [0; ETHTOOL_CMD_WORDS];
        let [low, high] = [speed as u16, (speed >> 16) as u16].map(u16::to_ne_bytes);
        words[3] = u32::from_ne_bytes([low[0], low[1], duplex, port]);
        words[4] = u32::from_ne_bytes([0, 0, autoneg, 0]);
        words[7] = u32::from_ne_bytes([high[0], high[1], 0, 0]);
        words
    }

    #[test]
    fn a_veth_is_10gb_full_duplex_copper() {
        let media = Media::from_ethtool(&ethtool_cmd(10_000, 1, 0, 0));
        assert_eq!((media.speed, media.current), (10_000, LinkModes(0xc0)));
    }

    #[test]
    fn duplex_autonegotiation_and_medium_are_told() {
        let full = Media::from_ethtool(&ethtool_cmd(1000, 1, 3, 1));
        assert_eq!(full.current, LinkModes(1 << 5 | 1 << 8 | 1 << 9));
        let half = Media::from_ethtool(&ethtool_cmd(100, 0, 0, 0));
        assert_eq!(half.current, LinkModes(1 << 2 | 1 << 7));
    }

    #[test]
    fn speeds_beyond_openflow_have_no_mode_and_unknown_ones_are_zero() {
        let fast = Media::from_ethtool(&ethtool_cmd(100_000, 1, 3, 0));
        assert_eq!((fast.speed, fast.current), (100_000, LinkModes(1 << 8)));
        assert_eq!(Media::from_ethtool(&ethtool_cmd(u32::MAX, 0xff, 0xff, 0)), Media::default());
        assert_eq!(Media::from_ethtool(&ethtool_cmd(0xffff, 0xff, 0xff, 0)).speed, 0);
    }

    #[test]
    fn modes_are_renumbered() {
        // 100baseT full, 1000baseT full, autoneg, TP, pause
        assert_eq!(
            LinkModes::from_ethtool(1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13),
            LinkModes(1 << 3 | 1 << 5 | 1 << 9 | 1 << 7 | 1 << 10)
        );
    }
}
