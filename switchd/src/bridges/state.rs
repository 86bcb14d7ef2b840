//! The state file: the configuration on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::config::{Config, Invalid};

/// The format that is written. A change that an older daemon would misread takes the next number.
const VERSION: u32 = 1;

/// Where the configuration is kept between runs.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// Why the configuration cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file could not be read.
    #[error("{}: cannot read the state file ({source})", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A new configuration needs random numbers, and the system gave none.
    #[error("cannot make up an identity for the switch ({0})")]
    Identity(io::Error),
    /// The file could not be written; what it held before is still there.
    #[error("{}: cannot write the state file ({source})", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{}: the state file is damaged ({source}); repair it, or move it away to start without bridges", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// It contradicts itself.
    #[error("{}: the state file is damaged ({source}); repair it, or move it away to start without bridges", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Invalid,
    },
    /// Another version of this program wrote it.
    #[error("{}: the state file has version {found}, which this program does not know", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u32,
    },
}

/// The file's outermost object, the same in every version.
#[derive(Serialize, Deserialize)]
struct Document<C> {
    version: u32,
    config: C,
}

impl StateFile {
    /// A state file at a path; it need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the configuration; `None`: there is no file.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn load(&self) -> Result<Option<Config>, StateError> {
        let path = || self.path.clone();
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path: path(), source }),
        };
        let syntax = |source| StateError::Syntax { path: path(), source };
        let document: Document<IgnoredAny> = serde_json::from_slice(&bytes).map_err(syntax)?;
        if document.version != VERSION {
            return Err(StateError::Version { path: path(), found: document.version });
        }
        let Document { config, .. } = serde_json::from_slice::<Document<Config>>(&bytes).map_err(syntax)?;
        config.validate().map_err(|source| StateError::Invalid { path: path(), source })?;
        Ok(Some(config))
    }

    /// Makes up an empty configuration and writes it.
    ///
    /// # Errors
    /// [`StateError::Identity`], [`StateError::Write`].
    pub fn create(&self) -> Result<Config, StateError> {
        let config = Config::new().map_err(StateError::Identity)?;
        self.save(&config)?;
        Ok(config)
    }

    /// Writes the configuration: after a crash at any moment the file holds either what it held before or all
    /// of this.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn save(&self, config: &Config) -> Result<(), StateError> {
        self.replace(config).map_err(|source| StateError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, config: &Config) -> io::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let mut bytes = serde_json::to_vec_pretty(&Document { version: VERSION, config })?;
        bytes.push(b'\n');
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // The rename itself is on disk only when the directory is.
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use appctl::vsctl::{FailMode, Timeout};

    use super::*;
    use crate::bridges::config::{BridgeConfig, PortConfig, ZonesConfig};
    use crate::bridges::tests::Scratch;

    fn file(scratch: &Scratch) -> StateFile {
        StateFile::new(scratch.path().join("state.json"))
    }

    fn config() -> Config {
        let mut bridge = BridgeConfig::new(3, "br0", [2, 0, 0, 0, 0, 1]);
        bridge.next_ofport = 2;
        bridge.fail_mode = Some(FailMode::Secure);
        bridge.ports.push(PortConfig { name: "p".into(), ofport: Some(1), ofport_request: Some(9) });
        let zones = ZonesConfig {
            default_limit: Some(9),
            limits: [(5, 0)].into(),
            timeouts: [(65535, [(Timeout::TcpSynSent2, 7)].into())].into(),
        };
        Config { bridges: vec![bridge], zones, ..Config::new().unwrap() }
    }

    fn load_text(scratch: &Scratch, text: &str) -> String {
        fs::write(&file(scratch).path, text).unwrap();
        let error = file(scratch).load().unwrap_err().to_string();
        assert_eq!(fs::read_to_string(&file(scratch).path).unwrap(), text, "the file is left alone");
        error.strip_prefix(&format!("{}: ", file(scratch).path.display())).unwrap().to_owned()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let scratch = Scratch::new("round-trip");
        assert_eq!(file(&scratch).load().unwrap(), None);
        file(&scratch).save(&config()).unwrap();
        let mut changed = file(&scratch).load().unwrap().unwrap();
        assert_eq!((&changed.bridges, &changed.zones), (&config().bridges, &config().zones));
        changed.bridges.clear();
        // Files from before there were zones in them have no word of them.
        changed.zones = ZonesConfig::default();
        file(&scratch).save(&changed).unwrap();
        assert!(!fs::read_to_string(&file(&scratch).path).unwrap().contains("zones"));
        assert_eq!(file(&scratch).load().unwrap(), Some(changed));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let scratch = Scratch::new("damaged");
        assert!(load_text(&scratch, "").starts_with("the state file is damaged (EOF while parsing"));
        let half = serde_json::to_string(&Document { version: 1, config: config() }).unwrap();
        let error = load_text(&scratch, &half[..half.len() / 2]);
        assert!(error.starts_with("the state file is damaged (EOF while parsing"), "{error}");
        assert!(error.ends_with("; repair it, or move it away to start without bridges"), "{error}");
        assert_eq!(
            load_text(&scratch, r#"{"version": 2, "config": []}"#),
            "the state file has version 2, which this program does not know"
        );
    }

    #[test]
    fn a_file_that_contradicts_itself_is_an_error() {
        let scratch = Scratch::new("contradiction");
        let mut twice = config();
        twice.bridges.push(BridgeConfig::new(0, "p", [2, 0, 0, 0, 0, 2]));
        let text = serde_json::to_string(&Document { version: 1, config: twice }).unwrap();
        let error = load_text(&scratch, &text);
        assert!(error.starts_with("the state file is damaged (p is there twice)"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let scratch = Scratch::new("unwritable");
        let file = StateFile::new(scratch.path().join("none/state.json"));
        let error = file.save(&config()).unwrap_err().to_string();
        assert!(
            error.ends_with("cannot write the state file (No such file or directory (os error 2))"),
            "{error}"
        );
    }
}
